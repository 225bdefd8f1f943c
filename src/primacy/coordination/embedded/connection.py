"""The client's end of one connection to one member. Requests are futures, watches are queues."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import cast

from primacy.coordination.embedded.commands import Answer, Failure
from primacy.coordination.embedded.protocol import (
    SILENCE_MAX_S,
    Request,
    Response,
    Watched,
    WatchKeys,
    payload_of,
    response_in,
)
from primacy.coordination.embedded.requests import RequestBody
from primacy.errors import Corrupt, OutcomeUnknown, Unavailable
from primacy.model import Address
from primacy.runtime.tcp import set_options
from primacy.wire import FrameDecoder, encode_frame

WATCH_QUEUE_MAX = 256
"""Batches that wait for a slow reader of a watch; then the socket is not read any more."""


class Connection(asyncio.Protocol):
    """Use `connected`. It is over for good when `is_lost`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = FrameDecoder()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._watched: deque[Watched | Failure] = deque()
        self._is_watched = asyncio.Event()
        self._last_number = 0
        self._watch_number: int | None = None
        self._heard_count = 0
        self.is_lost = False

    # ---- asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._transport = transport
        set_options(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._transport = None
        self._is_watched.set()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                error = OutcomeUnknown(
                    f"the connection was lost before the answer came ({exc or 'closed'})",
                    hint="Read what the request would have changed, then decide anew.",
                )
                future.set_exception(error)

    def data_received(self, data: bytes) -> None:
        self._heard_count += 1
        try:
            for payload in self._reader.feed(data):
                self._on_response(response_in(payload))
        except Corrupt:
            self.close()  # Whatever waits learns that its answer is lost.

    def _on_response(self, response: Response) -> None:
        match response.body:
            case Watched():
                self._watched.append(response.body)
                self._is_watched.set()
                if len(self._watched) >= WATCH_QUEUE_MAX and self._transport is not None:
                    self._transport.pause_reading()
            case answer:
                if response.number == self._watch_number and isinstance(answer, Failure):
                    self._watched.append(answer)
                    self._is_watched.set()
                    return
                future = self._waiting.pop(response.number, None)
                if future is not None and not future.done():
                    future.set_result(answer)

    # ---- the client ------------------------------------------------------------------------

    async def ask(self, body: RequestBody, *, within_s: float) -> Answer:
        """`Unavailable`: not sent. `OutcomeUnknown`: sent, and no answer in time. A connection on
        which nothing at all arrived meanwhile is closed."""
        number = self._send(body)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        heard_count = self._heard_count
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError as error:
            if heard_count == self._heard_count:
                self.close()
            raise OutcomeUnknown(
                f"no answer came within {within_s:.2f} s",
                hint="Read what the request would have changed, then decide anew.",
            ) from error
        finally:
            self._waiting.pop(number, None)

    async def watch(self, asked: WatchKeys) -> AsyncGenerator[Watched | Failure, None]:
        """Ends after a `Failure`, when the connection is lost, or after too long a silence. One for
        each connection: it is not read while the watch's reader is behind."""
        self._watch_number = self._send(asked)
        while True:
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    await self._is_watched.wait()
            except TimeoutError:
                return
            while self._watched:
                yield self._watched.popleft()
            self._is_watched.clear()
            if self.is_lost:
                return
            if self._transport is not None and not self._transport.is_reading():
                self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.is_lost = True

    def _send(self, body: RequestBody | WatchKeys) -> int:
        if self._transport is None or self.is_lost:
            raise Unavailable("the connection to the member is lost", hint="Retry.")
        self._last_number += 1
        self._transport.write(encode_frame(payload_of(Request(self._last_number, body))))
        return self._last_number


async def connected(address: Address, *, within_s: float) -> Connection:
    """`Unavailable` where nobody listens, or not in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            _, connection = await loop.create_connection(Connection, address.host, address.port)
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"no member of the store answers at {address} ({type(error).__name__}: {error})",
            hint="Is it running, and is the address right?",
        ) from error
    return connection
