"""The control door: the unix socket by which the agent tells its server what to be.

Promises  Requests run beside each other, and each is answered once. An agent that goes takes
          nothing back: what it asked for comes to its end. What is no message of the protocol ends
          its connection alone.
Assumes   The directory of the socket is the cluster's user's own.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import cast

from primacy.engines.sqlite.control import (
    REQUEST_BYTES_MAX,
    ErrorBranch,
    Failed,
    Reply,
    Request,
    reply_frame,
    request_in,
)
from primacy.engines.sqlite.server.obeying import Obeying
from primacy.errors import Corrupt, Rejected
from primacy.runtime.unixsockets import listener
from primacy.telemetry import Event, Sink
from primacy.wire import FrameDecoder

REQUESTS_MAX = 64
"""Under way at a time, over all connections. An agent has a handful."""


class _Line(asyncio.Protocol):
    """One connection of an agent."""

    def __init__(self, door: "ControlDoor") -> None:
        self._door = door
        self._decoder = FrameDecoder(size_max=REQUEST_BYTES_MAX)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._door.lines.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._door.lines.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._decoder.feed(data):
                number, request = request_in(payload)
                if isinstance(request, Failed):
                    self.reply(number, request)
                else:
                    self._door.take(self, number, request)
        except Corrupt as error:
            self._door.note("sql-control-refused", error.what)
            self.close()

    def reply(self, number: int, reply: Reply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply_frame(number, reply))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class ControlDoor:
    """`async with` listens. Left, it waits for what is under way, and ends every connection."""

    def __init__(
        self, path: Path, obeying: Obeying, *, on_broken: Callable[[str], None], events: Sink
    ) -> None:
        self.lines: set[_Line] = set()
        self._path = path
        self._obeying = obeying
        self._on_broken = on_broken
        self._events = events
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, line: _Line, number: int, request: Request) -> None:
        if len(self._tasks) >= REQUESTS_MAX:
            what = f"{len(self._tasks)} requests are under way, which is the limit"
            line.reply(number, Failed(ErrorBranch.UNAVAILABLE, what, "Wait for their answers."))
            return
        task = asyncio.get_running_loop().create_task(self._answer(line, number, request))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def note(self, name: str, why: str) -> None:
        self._events(Event(name, {"why": why[:300]}))

    async def _answer(self, line: _Line, number: int, request: Request) -> None:
        line.reply(number, await self._obeying.answer(request))

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # A bug: the process ends, and says so.
            self._on_broken(f"a request of the agent: {type(error).__name__}: {error}")

    async def __aenter__(self) -> "ControlDoor":
        try:
            sock = listener(self._path)
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Line(self), sock=sock
            )
        except OSError as error:
            raise Rejected(
                f"the control door cannot listen on {self._path}: {error.strerror or error}",
                hint="Look at its directory: does it exist, and is it this user's?",
            ) from error
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._obeying.give_up_copies()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for line in list(self.lines):
            line.close()
        self._path.unlink(missing_ok=True)
