"""Where the API runs: in a thread of the agent's process, with an event loop of its own.

Promises  Nothing here runs in the agent's loop, or waits for it: what the agent knows is taken from
          its newest view, and the store is reached over its door like any client's. How much of
          the interpreter the thread can take is bounded: connections, requests a second, sizes,
          times. A door that cannot be opened, or a loop that ends, is told and tried again; the
          agent goes on.
Does not  Survive the agent's process.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

import msgspec
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from primacy.clock import Clock
from primacy.cluster.control.answers import Problem
from primacy.model import Address
from primacy.runtime.loops import new_event_loop
from primacy.telemetry import Event, Sink
from primacy.web.pace import Pace
from primacy.web.punctual import PunctualProtocol

KEEP_ALIVE_S = 15
"""An idle connection is closed after this long: longer than a load balancer's check interval."""

HEAD_BYTES_MAX = 16 * 1024
STOP_WITHIN_S = 1.0
"""For the thread to end when the agent does. Requests that wait for a switchover's end are cut at
once: an agent that restarts has its lease to keep."""

AGAIN_AFTER_S = 2.0
"""A door that could not be opened is tried again after this long."""

BACKLOG_MAX = 128
"""Connections that the kernel keeps for us to accept."""

Build = Callable[[], AbstractAsyncContextManager[ASGIApp]]
"""Makes the application within the thread's own loop, and takes it apart again."""


class ApiServer:
    """`run` it in a task of the agent."""

    def __init__(self, listen: Address, build: Build, *, clock: Clock, events: Sink) -> None:
        self._listen = listen
        self._build = build
        self._clock = clock
        self._events = events

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            reason = await self._one_life()
            self._events(Event("api-stopped", {"listen": str(self._listen), "reason": reason}))
            await self._clock.sleep(AGAIN_AFTER_S)

    async def _one_life(self) -> str:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()

        def tell(reason: str) -> None:
            if not ended.done():
                ended.set_result(reason)

        life = _Life(self._listen, self._build, clock=self._clock, events=self._events)
        thread = threading.Thread(
            target=lambda: life.live(lambda reason: loop.call_soon_threadsafe(tell, reason)),
            name="http",
            daemon=True,  # It holds nothing that must be saved.
        )
        thread.start()
        try:
            return await ended
        finally:
            life.stop()
            await asyncio.to_thread(thread.join, STOP_WITHIN_S)


class _Life:
    """One server, from opening the door to its end. `live` blocks its thread."""

    def __init__(self, listen: Address, build: Build, *, clock: Clock, events: Sink) -> None:
        self._listen = listen
        self._build = build
        self._clock = clock
        self._events = events
        self._server: uvicorn.Server | None = None
        self._is_stopped = False

    def live(self, tell: Callable[[str], object]) -> None:
        reason = "it was stopped"
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._serve())
        except Exception as error:  # noqa: BLE001 - the thread's outermost edge: the agent is told.
            reason = f"{type(error).__name__}: {error}"
        finally:
            tell(reason)

    def stop(self) -> None:
        """From any thread. The server looks at it ten times a second."""
        self._is_stopped = True
        if self._server is not None:
            self._server.should_exit = True

    async def _serve(self) -> None:
        with _listening(self._listen) as door:
            async with self._build() as app:
                self._server = uvicorn.Server(_settings(Paced(app, Pace(self._clock))))
                self._server.should_exit = self._is_stopped
                self._events(Event("api-open", {"listen": str(self._listen)}))
                await self._server.serve(sockets=[door])


class Paced:
    """An application whose requests wait for their turn, and are answered when the agent stops."""

    def __init__(self, app: ASGIApp, pace: Pace) -> None:
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._pace.turn()
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if not has_begun:
                await _stopping(scope)(scope, receive, send)
            raise


def _stopping(scope: Scope) -> Response:
    """What becomes of a request that was handed in is not known; of a question, it is."""
    is_question = scope["method"] in ("GET", "HEAD", "OPTIONS")
    problem = Problem(error="this agent stops", hint="Ask another, or see `primacy history`.")
    return Response(
        msgspec.json.encode(problem),
        status_code=HTTPStatus.SERVICE_UNAVAILABLE if is_question else HTTPStatus.ACCEPTED,
        media_type="application/json",
    )


def _settings(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PunctualProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # What matters is an event.
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=0,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )


def _listening(address: Address) -> socket.socket:
    """`OSError` for a port that is taken."""
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = found[0]
    door = socket.socket(family, kind, protocol)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(place)
        door.listen(BACKLOG_MAX)  # Whoever comes before the server has begun waits for it.
    except BaseException:
        door.close()
        raise
    return door
