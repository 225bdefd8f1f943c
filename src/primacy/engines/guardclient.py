"""Lines of JSON between agent and guard (docs/protocols/guard.md), the agent's end.

Promises: every request is answered once, by the guard or by `OutcomeUnknown`.
Does not: retry or reconnect; a lost connection means that the guard died or that a newer agent
said hello.
"""

import asyncio
import itertools
import socket
from pathlib import Path
from typing import cast

import msgspec

from primacy.errors import Conflict, OutcomeUnknown, Unavailable
from primacy.model import Epoch
from primacy.runtime.processes import ProcessName
from primacy.runtime.unixsockets import connect

ANSWER_WITHIN_S = 2.0
"""A guard answers within a millisecond; one that does not is frozen or starved."""
ANSWER_BYTES_MAX = 65536


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The guard's answer: how things stand after the request, obeyed or refused."""

    id: int = 0
    ok: bool
    reason: str = ""
    kind: str = ""
    """Of a refused start: rejected, conflict, unavailable."""
    state: str = "closed"
    epoch: Epoch = Epoch(0)
    deadline_ns: int = 0
    guard: ProcessName = ProcessName(0, 0)
    database: ProcessName = ProcessName(0, 0)
    agent_pid: int = 0
    notes: list[str] = []


class Client(asyncio.Protocol):
    """Lines out, answers in. Each answer belongs to one request, by its id."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Standing]] = {}
        self._decode = msgspec.json.Decoder(Standing).decode

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connect(sock, path)
        except OSError as error:
            sock.close()
            raise Unavailable(
                f"the guard's socket {path} does not answer: {error}",
                hint="If the guard has exited, start another one.",
            ) from error
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(cls, sock=sock)
        return client

    def send(self, operation: str, fields: dict[str, int]) -> "asyncio.Future[Standing]":
        number = next(self._ids)
        future: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(unanswered())
            return future
        self._waiting[number] = future
        message = {"id": number, "op": operation, **fields}
        self._transport.write(msgspec.json.encode(message) + b"\n")
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: a stream protocol is given a Transport, and uvloop's has not that base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > ANSWER_BYTES_MAX:
            self.close()
        for line in lines:
            try:
                standing = self._decode(line)
            except msgspec.DecodeError:
                self.close()  # Not our guard: what waits hears OutcomeUnknown.
                return
            future = self._waiting.pop(standing.id, None)
            if future is not None and not future.done():
                future.set_result(standing)

    def connection_lost(self, _error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(unanswered())


async def obeyed(future: "asyncio.Future[Standing]") -> Standing:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            standing = await future
    except TimeoutError as error:
        raise unanswered() from error
    if not standing.ok:
        raise Conflict(f"the guard refused: {standing.reason}", hint="Look at its status.")
    return standing


def unanswered() -> OutcomeUnknown:
    return OutcomeUnknown(
        "the guard did not answer",
        hint="The deadline that stands, stands. Stop renewing unless an extension is confirmed.",
    )
