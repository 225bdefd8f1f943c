"""The parts of a server, put together, for as long as it runs."""

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import Branch
from primacy.engines.sqlite.scram import Verifier
from primacy.engines.sqlite.server.controlling import ControlDoor
from primacy.engines.sqlite.server.door import Door
from primacy.engines.sqlite.server.obeying import Obeying
from primacy.engines.sqlite.server.readers import Readers
from primacy.engines.sqlite.server.recovery import check_same_history
from primacy.engines.sqlite.server.roles import Roles
from primacy.engines.sqlite.server.session import Around
from primacy.engines.sqlite.server.showing import Showing
from primacy.engines.sqlite.server.spec import PullSpec, Spec
from primacy.engines.sqlite.server.state import ServerState
from primacy.engines.sqlite.storage.failures import opening
from primacy.engines.sqlite.storage.writer import Writer
from primacy.engines.sqlite.users import users_in
from primacy.errors import Rejected, Unavailable
from primacy.model import Address, Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import VERSION as LOG_VERSION
from primacy.replication.log.record import Point
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.door import PullDoor
from primacy.replication.pull.source import Identity
from primacy.runtime.page import PageReader
from primacy.telemetry import Event, Sink

WATCH_EVERY_S = 0.5
"""How often what runs is compared with its time limit."""

PURGE_EVERY_S = 30.0

SECRET_BYTES_MIN, SECRET_BYTES_MAX = 16, 4096


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
        self._roles: Roles | None = None
        self._door: Door | None = None

    async def __aenter__(self) -> "SqliteServer":
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        try:
            if self._roles is not None:
                await self._roles.stop("the server stops")
        finally:
            await self._resources.aclose()

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
            gtid_of=log.gtid_of,
            permits=self._permits(),
            clock=self._clock,
        )
        state.leader = spec.leader
        self._state = state
        await keep.enter_async_context(self._tasks)
        roles = Roles(
            spec,
            log,
            state,
            permits=self._permits(),
            on_broken=self._on_broken,
            end_clients=self._end_clients,
            tasks=self._tasks,
            clock=self._clock,
            events=self._events,
        )
        self._roles = roles
        secret = None
        if spec.pull is not None:
            secret = read_secret(Path(spec.pull.secret_path))
            door = self._pull_door(spec.pull, secret, log, roles)
            roles.pull_door = await keep.enter_async_context(door)
        if spec.epoch:
            await roles.reign(Epoch(spec.epoch))
            roles.lead().require(Requirement(acks=0))
            roles.lead().open_doors()
        await self._open_clients_door(spec, log, state)
        if spec.control_path:
            await keep.enter_async_context(self._control_door(spec, roles, state, secret))

    async def _open_clients_door(self, spec: Spec, log: Log, state: ServerState) -> None:
        keep = self._resources
        readers = Readers(spec.database_path, spec.storage, count=spec.limits.readers)
        keep.callback(readers.close)
        for work in (self._watch_statements(readers), self._purge(state, log)):
            keep.callback(self._tasks.create_task(work).cancel)
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

    def _control_door(
        self, spec: Spec, roles: Roles, state: ServerState, secret: bytes | None
    ) -> ControlDoor:
        """Opened last: who is answered by it finds everything else there."""
        showing = Showing(spec, roles, state, clock=self._clock)
        obeying = Obeying(spec, roles, showing, secret=secret)
        path = Path(spec.control_path)
        return ControlDoor(path, obeying, on_broken=self._on_broken, events=self._events)

    def _pull_door(self, pull: PullSpec, secret: bytes, log: Log, roles: Roles) -> PullDoor:
        identity = Identity(
            cluster=self.spec.cluster, node=self._node, secret=secret, log_version=LOG_VERSION
        )
        return PullDoor(
            identity,
            log,
            listen=Address(pull.host, pull.port),
            clock=self._clock,
            on_report=roles.report,
            events=self._events,
        )

    def _on_broken(self, why: str) -> None:
        self.why = why
        self.ended.set()

    def _end_clients(self, branch: Branch, what: str, hint: str) -> None:
        if self._door is not None:
            self._door.end_all(branch, what, hint)

    @property
    def roles(self) -> Roles:
        """While it serves."""
        if self._roles is None:
            raise Unavailable("the server has not started", hint="Enter it first.")
        return self._roles

    def _position(self) -> Point:
        """Makes the file where there is none."""
        path, seeds = self.spec.database_path, random.Random(secrets.randbits(64))
        with opening(path):
            writer = Writer(path, self.spec.storage, clock=self._clock, seeds=seeds)
        try:
            return writer.position
        finally:
            writer.close()

    def _permits(self) -> Callable[[int], bool]:
        """One for each thread: a reader remembers the page in several steps."""
        if not self.spec.page_path:
            return lambda _epoch: True
        page = PageReader(Path(self.spec.page_path))
        self._resources.callback(page.close)
        return page.permits

    def _users(self) -> dict[str, Verifier] | None:
        if not self.spec.users_path:
            return None
        return users_in(Path(self.spec.users_path))

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

    async def _watch_statements(self, readers: Readers) -> None:
        """What takes too long, or is not wanted any more. An interrupt that comes between two
        statements is lost: then the next one meets the job again."""
        while True:
            await self._clock.sleep(WATCH_EVERY_S)
            readers.interrupt_older(self.spec.limits.read_total_s)
            pipeline = self.roles.pipeline
            job = pipeline.committer.running if pipeline is not None else None
            if pipeline is None or job is None:
                continue
            took_s = self._clock.now_s() - pipeline.committer.running_since_s
            is_unwanted = job.is_withdrawn or pipeline.inbox.is_refusing
            if is_unwanted or took_s > self.spec.limits.statement_s:
                pipeline.committer.interrupt(job)
                self._events(Event("sql-statement-interrupted", {"after_s": took_s}))


def _open_log(spec: Spec, events: Sink) -> Log:
    Path(spec.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    return Log.open(spec.log_path, limits=LogLimits(), events=events)


def read_secret(path: Path) -> bytes:
    """The cluster's secret: what the file holds, without the line's end."""
    with path.open("rb") as file:
        raw = file.read(SECRET_BYTES_MAX + 1)
    secret = raw.strip()
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise Rejected(
            f"{path} holds a secret of {len(secret)} bytes, "
            f"{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} are asked for",
            hint="Make one with `openssl rand -hex 32`.",
        )
    return secret
