"""The agent's end of the control protocol: requests to the server of this node, with an end each.

Promises  Every question is answered within its time, by the server or by an error: `Unavailable`
          where it cannot have arrived or only looked, `OutcomeUnknown` where the answer was lost.
          `observe` and `beat` are asked once at a time: who asks meanwhile shares the answer, so
          that a frozen server is not sent more and more of them.
Does not  Try again: the engine's caller observes and decides anew.
"""

import asyncio
import itertools
import socket
from pathlib import Path
from typing import cast

from primacy.engines.sqlite.control import (
    REPLY_BYTES_MAX,
    Beat,
    Copied,
    Done,
    Failed,
    Observe,
    Reply,
    Request,
    Shown,
    Snapshot,
    Sums,
    TableSums,
    raised,
    reply_in,
    request_frame,
)
from primacy.errors import Corrupt, OutcomeUnknown, Rejected, Unavailable
from primacy.runtime.unixsockets import connect
from primacy.wire import FrameDecoder

_LOOK_AGAIN = "Observe, then decide."


class _Line(asyncio.Protocol):
    """One connection: numbered requests out, replies in."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._frames = FrameDecoder(size_max=REPLY_BYTES_MAX)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: Request) -> "asyncio.Future[Reply]":
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(_lost())
            return future
        number = next(self._numbers)
        self._waiting[number] = future
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        future.add_done_callback(_heard)
        self._transport.write(request_frame(number, request))
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: a stream protocol is given a Transport, and uvloop's has not that base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            replies = [reply_in(payload) for payload in self._frames.feed(data)]
        except Corrupt as error:
            self._fail(error)
            self.close()
            return
        for number, reply in replies:
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result(reply)

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail(None)

    def _fail(self, error: Corrupt | None) -> None:
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(error or _lost())


class ControlClient:
    """Used from one event loop. It connects when it is asked something, and again after a loss."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()
        self._shared: dict[type[Request], asyncio.Future[Reply]] = {}

    async def observe(self, *, within_s: float) -> Shown:
        """`Unavailable` where it does not answer in time."""
        try:
            reply = await self._answer(Observe(), within_s)
        except OutcomeUnknown as error:
            raise Unavailable(error.what, hint="Look again.") from error
        if not isinstance(reply, Shown):
            raise _unexpected(reply)
        return reply

    async def do(self, request: Request, *, within_s: float) -> int:
        """The index with which it was done. What the server refuses is raised as its error."""
        reply = await self._answer(request, within_s)
        if not isinstance(reply, Done):
            raise _unexpected(reply)
        return reply.index

    async def copied(self, request: Snapshot, *, within_s: float) -> Copied:
        reply = await self._answer(request, within_s)
        if not isinstance(reply, Copied):
            raise _unexpected(reply)
        return reply

    async def sums(self, request: TableSums, *, within_s: float) -> Sums:
        reply = await self._answer(request, within_s)
        if not isinstance(reply, Sums):
            raise _unexpected(reply)
        return reply

    def forget(self) -> None:
        """The server has gone, or is about to: what waits hears so."""
        line, self._line = self._line, None
        self._shared.clear()
        if line is not None:
            line.close()

    async def _answer(self, request: Request, within_s: float) -> Reply:
        future: asyncio.Future[Reply] | None = None
        is_shared = isinstance(request, Observe | Beat)
        try:
            async with asyncio.timeout(within_s):
                future = await self._asked(request, is_shared=is_shared)
                await asyncio.wait([future])
        except TimeoutError as error:
            name = type(request).__name__
            raise OutcomeUnknown(
                f"the server has not answered {name} within {within_s:.1f} s", hint=_LOOK_AGAIN
            ) from error
        finally:
            if future is not None and not is_shared:
                future.cancel()  # Nobody waits any more; one that is done stays as it is.
        reply = future.result()
        if isinstance(reply, Failed):
            raise raised(reply)
        return reply

    async def _asked(self, request: Request, *, is_shared: bool) -> "asyncio.Future[Reply]":
        async with self._connecting:
            known = self._shared.get(type(request))
            if is_shared and known is not None and not known.done():
                return known
            line = self._line
            if line is None or not line.is_open:
                line = self._line = await self._connected()
            future = line.send(request)
            if is_shared:
                self._shared[type(request)] = future
            return future

    async def _connected(self) -> _Line:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connect(sock, self._path)
        except OSError as error:
            sock.close()
            raise Unavailable(
                f"the server's socket {self._path} does not answer: {error}",
                hint="The server is down, or has just been started.",
            ) from error
        _, line = await asyncio.get_running_loop().create_unix_connection(_Line, sock=sock)
        return line


def _lost() -> OutcomeUnknown:
    return OutcomeUnknown("the server ended the control connection", hint=_LOOK_AGAIN)


def _unexpected(reply: Reply) -> Rejected:
    return Rejected(
        f"the server answered with {type(reply).__name__}",
        hint="Run the same release on both ends: restart the older one.",
    )


def _heard(future: "asyncio.Future[Reply]") -> None:
    """An answer that nobody waits for any more is no error."""
    if not future.cancelled():
        future.exception()
