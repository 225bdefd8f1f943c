"""The parts of a server, put together, for as long as it runs."""

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import Branch, Failure
from primacy.engines.sqlite.scram import Verifier, verifiers_in
from primacy.engines.sqlite.server.committing import Committer, Outside, State
from primacy.engines.sqlite.server.door import Door
from primacy.engines.sqlite.server.jobs import Job
from primacy.engines.sqlite.server.pipeline import Pipeline
from primacy.engines.sqlite.server.readers import Readers
from primacy.engines.sqlite.server.recovery import check_same_history, replayed
from primacy.engines.sqlite.server.session import Around
from primacy.engines.sqlite.server.spec import Spec
from primacy.engines.sqlite.server.state import ServerState
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import Rejected, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Point
from primacy.runtime.page import PageReader
from primacy.telemetry import Event, Sink

WATCH_EVERY_S = 0.5
"""How often what runs is compared with its time limit."""

PURGE_EVERY_S = 30.0

USERS_BYTES_MAX = 1 << 20

Acknowledged = Callable[[Point], Coroutine[Any, Any, None]]
"""Waits until the policy holds for the point. Any: what asyncio itself says of a coroutine."""


class SqliteServer:
    """`async with` serves; `ended` is set when the process must go, with the reason in `why`."""

    def __init__(self, spec: Spec, *, clock: Clock, events: Sink) -> None:
        self.spec = spec
        self.ended = asyncio.Event()
        self.why = ""
        self._clock = clock
        self._events = events
        self._node = NodeId(spec.node)
        self._resources = AsyncExitStack()
        self._tasks = asyncio.TaskGroup()
        self._log: Log | None = None
        self._state: ServerState | None = None
        self._writer: Writer | None = None
        self._door: Door | None = None

    async def __aenter__(self) -> "SqliteServer":
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close_doors("the server stops")
        await self._resources.aclose()

    # ---- opening and closing the doors ------------------------------------------------------

    async def open_doors(self, epoch: Epoch, acknowledged: Acknowledged | None = None) -> None:
        """Take writes, as the primary of this epoch: its first record is written at once. The tail
        of the log was applied before."""
        state, log = self._state, self._log
        if state is None or log is None or state.pipeline is not None:
            raise Rejected("the doors are open already", hint="Close them first.")
        if epoch < log.end.epoch:
            raise Rejected(
                f"epoch {epoch} is over: the log has records of epoch {log.end.epoch}",
                hint="This node is no primary any more.",
            )
        loop = asyncio.get_running_loop()
        settings, path = self.spec.storage, self.spec.database_path
        reached = await asyncio.to_thread(replayed, path, log, settings, events=self._events)
        state.on_applied(reached)
        writer = Writer(
            path, settings, clock=self._clock, seeds=random.Random(secrets.randbits(64))
        )
        outside = Outside(
            acknowledged=None if acknowledged is None else _blocking(acknowledged, loop),
            permits=self._permits(),
            applied=lambda point: _in_loop(loop, lambda: state.on_applied(point)),
            post=lambda work: _in_loop(loop, work),
            ended=self._on_pipeline_ended,
        )
        committer = Committer(
            writer,
            log,
            node=self._node,
            epoch=epoch,
            limits=self.spec.limits,
            outside=outside,
            clock=self._clock,
            events=self._events,
        )
        pipeline = Pipeline(committer)
        self._writer, state.epoch, state.pipeline = writer, epoch, pipeline
        pipeline.start()
        self._events(Event("sql-doors-opened", {"epoch": epoch, "position": str(reached.position)}))

    async def close_doors(self, why: str) -> None:
        """Take no more writes. What is being committed comes to its end first."""
        state = self._state
        if state is None or state.pipeline is None:
            return
        pipeline, state.pipeline = state.pipeline, None
        self._refuse(pipeline.close(), why)
        await asyncio.to_thread(pipeline.join)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._events(Event("sql-doors-closed", {"epoch": state.epoch, "why": why}))

    # ---- inside ----------------------------------------------------------------------------

    async def _start(self) -> None:
        spec, keep = self.spec, self._resources
        log = await asyncio.to_thread(_open_log, spec, self._events)
        keep.callback(log.close)
        self._log = log
        reached = self._position()
        check_same_history(reached, log)
        state = ServerState(
            self._node,
            applied=reached,
            point_at=log.point,
            permits=self._permits(),
            clock=self._clock,
        )
        state.leader = spec.leader
        self._state = state
        if spec.epoch:
            await self.open_doors(Epoch(spec.epoch))
        readers = Readers(spec.database_path, spec.storage, count=spec.limits.readers)
        keep.callback(readers.close)
        await keep.enter_async_context(self._tasks)
        watching = self._tasks.create_task(
            self._watch_statements(state, readers), name="statements"
        )
        purging = self._tasks.create_task(self._purge(state, log), name="purging")
        keep.callback(watching.cancel)
        keep.callback(purging.cancel)
        around = Around(
            state=state,
            readers=readers,
            limits=spec.limits,
            clock=self._clock,
            spawn=self._tasks.create_task,
        )
        self._door = Door(
            spec, self._users(), around, nonce=secrets.token_bytes, events=self._events
        )
        await keep.enter_async_context(self._door)

    def _position(self) -> Point:
        """Makes the file where there is none."""
        writer = Writer(
            self.spec.database_path,
            self.spec.storage,
            clock=self._clock,
            seeds=random.Random(secrets.randbits(64)),
        )
        try:
            return writer.position
        finally:
            writer.close()

    def _permits(self) -> Callable[[int], bool]:
        if not self.spec.page_path:
            return lambda _epoch: True
        page = PageReader(Path(self.spec.page_path))
        self._resources.callback(page.close)
        return page.permits

    def _users(self) -> dict[str, Verifier] | None:
        if not self.spec.users_path:
            return None
        path = Path(self.spec.users_path)
        with path.open("rb") as file:
            raw = file.read(USERS_BYTES_MAX + 1)
        if len(raw) > USERS_BYTES_MAX:
            raise Rejected(f"{path} is larger than {USERS_BYTES_MAX} bytes", hint="Name another.")
        return verifiers_in(raw.decode(errors="replace"), source=str(path))

    def _on_pipeline_ended(self, state: State, why: str) -> None:
        """In the event loop: it takes no more, and not because it was asked to."""
        server = self._state
        if server is None or server.pipeline is None or server.pipeline.state is State.CLOSED:
            return
        pipeline, server.pipeline = server.pipeline, None
        self._refuse(pipeline.close(), why)
        self._events(Event("sql-writes-ended", {"state": state.value, "why": why[:300]}))
        if state is State.BROKEN:
            self.why = why
            self.ended.set()

    def _refuse(self, jobs: list[Job], why: str) -> None:
        """What was not begun: nothing of it was applied."""
        for job in jobs:
            job.answer(_not_begun(job, why, leader=self._state.leader if self._state else ""))

    async def _purge(self, state: ServerState, log: Log) -> None:
        """Never what is not applied here yet; a replica holds what it needs (`Log.hold`)."""
        keep_bytes = self.spec.limits.log_keep_bytes
        while True:
            await self._clock.sleep(PURGE_EVERY_S)
            before = state.applied.index + 1
            try:
                await asyncio.to_thread(log.purge, keep_bytes=keep_bytes, before_index=before)
            except Unavailable as error:  # Next time: a log that cannot be written ends the writer.
                self._events(Event("sql-purge-failed", {"why": error.what}))

    async def _watch_statements(self, state: ServerState, readers: Readers) -> None:
        while True:
            await self._clock.sleep(WATCH_EVERY_S)
            readers.interrupt_older(self.spec.limits.read_total_s)
            committer = state.pipeline.committer if state.pipeline is not None else None
            job = committer.running if committer is not None else None
            if committer is None or job is None:
                continue
            took_s = self._clock.now_s() - committer.running_since_s
            if took_s > self.spec.limits.statement_s and not job.is_withdrawn:
                committer.interrupt(job)
                self._events(Event("sql-statement-interrupted", {"after_s": took_s}))


def _not_begun(job: Job, why: str, *, leader: str) -> Failure:
    return Failure(
        job.request.number,
        Branch.NOT_PRIMARY,
        f"the request was not begun: {why}",
        "Ask the primary.",
        leader=leader,
    )


def _open_log(spec: Spec, events: Sink) -> Log:
    Path(spec.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    return Log.open(spec.log_path, limits=LogLimits(), events=events)


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(work)


def _blocking(
    acknowledged: Acknowledged, loop: asyncio.AbstractEventLoop
) -> Callable[[Point], None]:
    """For the writer's thread: wait for what the event loop knows."""

    def wait(point: Point) -> None:
        try:
            asyncio.run_coroutine_threadsafe(acknowledged(point), loop).result()
        except asyncio.CancelledError as error:
            raise Unavailable(
                f"nobody waits for acknowledgements of {point.position} any more",
                hint="This server stops.",
            ) from error

    return wait
