"""The SQLite engine: the contract of engines/api.py, kept by a server process of primacy's own.

    agent: SqliteEngine --control socket--> server process: roles, log, pipeline, doors
           notes, data directory, clone door; the log's files while the server is down

Promises  As the contract says. `observe` answers within the health deadline, hung server or not.
          Nothing is cut at a start, and nothing behind the database is applied before this node
          holds the primary record (`drain`, `begin_epoch`) or its upstream has compared the logs.
Assumes   One agent calls it, one command at a time; `observe`, `beat`, `write_marker` and `kill`
          may come at any moment.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

from primacy.clock import Clock
from primacy.engines.api import (
    Branch,
    Diverged,
    Guardian,
    Observation,
    ProgressSink,
    ServerState,
)
from primacy.engines.capabilities import SQLITE
from primacy.engines.directory import FULL_BYTES
from primacy.engines.looking import look
from primacy.engines.notes import NoteFile
from primacy.engines.process import ServerProcess
from primacy.engines.promises import Promises, of_a_silent_server
from primacy.engines.sqlite import control
from primacy.engines.sqlite.client import ControlClient
from primacy.engines.sqlite.clone import CloneDoor
from primacy.engines.sqlite.control import Receiving, RoleNow, Shown
from primacy.engines.sqlite.directory import Directory
from primacy.engines.sqlite.diverged import save_diverged
from primacy.engines.sqlite.fetching import fetch
from primacy.engines.sqlite.files import applied, cut_unapplied, log_end
from primacy.engines.sqlite.lifecycle import Lifecycle
from primacy.engines.sqlite.local import LocalServer
from primacy.engines.sqlite.observing import (
    Known,
    applied_as_far_as_known,
    observation,
    stuck,
    unfit,
)
from primacy.engines.sqlite.rewinder import Rewinder
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.watching import Watching
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import ORIGIN, Epoch, Incarnation, NodeId
from primacy.runtime.threads import to_its_end
from primacy.telemetry import Event, Sink, Value

ATTACHES_WITHIN_S = 0.5
"""An upstream that can be reached has answered by then; for another one the receiver goes on
trying, and nobody waits."""
POLL_S = 0.01


class SqliteEngine:
    """One SQLite server on this host."""

    capabilities = SQLITE

    def __init__(self, settings: SqliteSettings, clock: Clock, events: Sink) -> None:
        self._settings = settings
        self._timing = settings.timing
        self._clock = clock
        self._events = events
        self._directory = Directory(
            settings.layout,
            cluster=settings.cluster,
            node=settings.node,
            database=settings.database,
        )
        self._promises = Promises(NoteFile(settings.layout.notes))
        self._client = ControlClient(settings.layout.control)
        self._process = ServerProcess(
            settings.layout.guard,
            page=settings.page,
            port=settings.doors[settings.node].port,
            launcher=settings.launcher,
        )
        self._life = Lifecycle(
            settings,
            directory=self._directory,
            promises=self._promises,
            process=self._process,
            client=self._client,
            clock=clock,
        )
        self._server = LocalServer(settings, self._client, self._incarnation)
        self._rewinder = Rewinder(settings, self._server, clock)
        self._door = CloneDoor(settings, self._server, clock=clock, events=events)
        self._watching = Watching(clock, health_s=settings.timing.health_s)
        self._found: Diverged | None = None
        """What `save_diverged` found in the data of the server that is down."""
        self._closed_at: int | None = None
        """The log's end at the last `close_doors`; None while the doors may be open."""

    @property
    def guardian(self) -> Guardian | None:
        return self._process.guarded

    async def attach(self) -> bool:
        await to_its_end(self._directory.restore_old)
        is_found = await self._process.attach()
        await self._bind_notes()
        return is_found

    # -- what there is

    async def observe(self) -> Observation:
        seen = await look(
            self._directory.state(),
            self._process,
            ask=self._look,
            silent=self._silent,
            watching=self._watching,
            is_starting=lambda: self._life.is_starting,
        )
        # Below its reserve the server refuses writes: another node is to lead then.
        full_bytes = max(FULL_BYTES, self._settings.limits.reserve_bytes)
        return replace(seen, is_disk_full=self._directory.is_full(full_bytes=full_bytes))

    async def _look(self) -> Observation:
        shown = await self._server.shown()
        with suppress(OSError):  # A full disk: the next look notes it, and shows it until then.
            self._promises.note(unfit=unfit(shown, self._promises.notes))
        why = stuck(shown, health_s=self._timing.health_s)
        return self._silent(ServerState.HUNG, why) if why else self._observation(shown)

    # -- life of the server

    async def initialise(self) -> None:
        state, _ = self._directory.state()
        if state is ServerState.STOPPED:
            return
        await to_its_end(self._directory.make_empty)
        await self._bind_notes()
        self._tell("database-initialised")

    async def start(self, *, as_primary: bool) -> None:
        self._life.check_startable()
        was_alive = self._process.is_alive()
        if not was_alive:
            await self._bind_notes()
            found = self._found
            if found is not None and found.parts_at and not as_primary:
                await self._cut(found)
        await self._life.start()
        self._found = None  # Only now: a start that fails is tried again, and cuts again.
        self._watching.heard()
        if not was_alive:
            self._tell("database-started")

    async def _cut(self, found: Diverged) -> None:
        """What is applied stays: a rewind takes it back, or a copy replaces it. What is cut is not
        in the primary's history, so nobody misses it here."""
        self._promises.cut()
        is_cut = await cut_unapplied(self._settings, found)
        if is_cut:
            end = (await log_end(self._settings)).position
            published = min(end, self._promises.notes.published)
            self._promises.note(published=published, unfit="")  # If it was about what is cut.
        self._tell("parted-tail-cut" if is_cut else "parted-tail-applied", parts_at=found.parts_at)

    async def stop(self) -> None:
        await self._life.stop()
        self._tell("database-stopped")

    async def kill(self) -> None:
        await self._life.kill()
        self._tell("database-killed")

    async def forget_old_data(self) -> None:
        await to_its_end(self._directory.forget_old)

    # -- as a replica

    async def salvage(self) -> None:
        """Nothing is received that the log has not: there is nothing to salvage."""

    async def seal(self, epoch: Epoch) -> Observation:
        self._promises.seal(epoch)
        seen = await self._as_far_as_it_goes()
        self._promises.publish(seen.received)
        self._tell("sealed", epoch=epoch, received=str(seen.received), applied=str(seen.applied))
        return seen

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        self._settings.check_peer(primary)
        self._promises.follow(epoch)
        await self._end_drain()
        self._closed_at = None
        await self._server.follow(primary, epoch, acknowledge=acknowledge)
        self._promises.forget_lead(published=self._promises.notes.published)
        await self._attaches(primary)
        self._tell("following", primary=primary, epoch=epoch, acknowledges=acknowledge)

    async def _attaches(self, primary: NodeId) -> None:
        """Wait a moment for the first word of the upstream. `Conflict` where the logs part."""
        deadline_s = self._clock.now_s() + ATTACHES_WITHIN_S
        while True:
            upstream = (await self._server.shown()).upstream
            if upstream is not None and upstream.state is Receiving.DIVERGED:
                raise Conflict(
                    f"this log is no prefix of {primary}'s: {upstream.reason}",
                    hint="Save what is diverged, then take it back or clone this node.",
                )
            is_waiting = upstream is not None and upstream.state is Receiving.CONNECTING
            if not is_waiting or self._clock.now_s() >= deadline_s:
                return
            await self._clock.sleep(POLL_S)

    async def drain(self) -> None:
        """The caller holds the primary record: what this log has is the history."""
        role = (await self._server.shown()).role
        if role is RoleNow.REIGNING:
            return  # It began with that.
        if role is RoleNow.FOLLOWING:
            await self._server.rest()
        within_s = self._timing.drain_s
        with self._noting_what_does_not_fit():
            await self._server.do(control.Drain(within_s=within_s), within_s=within_s)

    async def save_diverged(self, branches: Sequence[Branch]) -> Diverged:
        if self._process.is_alive():
            raise Conflict("the server runs", hint="Its log is read while it is down.")
        found = await save_diverged(self._settings, branches)
        self._found = found
        self._tell("diverged-saved", epoch=found.epoch, count=found.count, path=found.path)
        return found

    async def rewind(self, found: Diverged, primary: NodeId, epoch: Epoch) -> None:
        self._settings.check_peer(primary)
        self._promises.check_not_refused(epoch)
        rewind = await self._rewinder.prepare(found)
        self._promises.tear(epoch)
        await self._rewinder.reverse(rewind)
        self._promises.stand_at(rewind.stands_at)
        await self._rewinder.compare(rewind, primary, epoch)
        self._promises.mended()
        self._tell("rewound", count=found.count, tables=len(rewind.tables))

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        point = await fetch(
            self._settings,
            self._directory,
            donor,
            progress,
            clock=self._clock,
            events=self._events,
        )
        await self._life.stop()
        await to_its_end(self._directory.adopt_incoming)
        self._found = None
        await self._bind_notes()
        self._tell("database-cloned", donor=donor, position=str(point.position))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """The clone door of this node is open inside."""
        async with self._door.open():
            yield

    # -- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        self._promises.check_may_lead(epoch, primary, self._settings.node)
        shown = await self._server.shown()
        if shown.role is RoleNow.REIGNING and shown.epoch == epoch:
            sequence = await self._reign(epoch)
            self._promises.leads_already_from(epoch, sequence)
            return sequence
        if shown.durable.epoch >= epoch:
            raise Conflict(
                f"the log has records of epoch {shown.durable.epoch}", hint="Win a later epoch."
            )
        if shown.role is RoleNow.FOLLOWING:
            await self._server.rest()
        self._promises.lead(epoch)
        self._closed_at = None
        sequence = await self._reign(epoch)
        self._promises.leads_from(sequence)
        self._tell("epoch-begun", epoch=epoch, first_sequence=sequence)
        return sequence

    async def _reign(self, epoch: Epoch) -> int:
        """It first applies what the log still holds: after a `drain` that is nothing."""
        with self._noting_what_does_not_fit():
            return await self._server.do(control.Reign(epoch=epoch), within_s=self._timing.drain_s)

    @contextmanager
    def _noting_what_does_not_fit(self) -> Iterator[None]:
        """Around what applies the log: `Rejected` says that it does not fit these data. Others
        must lead then, and the server itself remembers it for as long as it follows only."""
        try:
            yield
        except Rejected as error:
            self._promises.note(unfit=error.what)
            raise

    async def set_acks(self, acks: int, *, may_release: bool = False) -> None:
        acks_max = len(self._settings.doors) - 1
        if not 0 <= acks <= acks_max:
            raise Rejected(
                f"acks = {acks}: there are {acks_max} other data nodes", hint="Ask for fewer."
            )
        request = control.SetAcks(acks=acks, ack_on=self._settings.ack_on, may_release=may_release)
        await self._server.do(request)

    async def open_doors(self) -> None:
        shown = await self._server.shown()
        if shown.acks == 0:  # Set to 0, or not set yet by an agent that died: the same to a commit.
            await self.set_acks(0)
        self._closed_at = None
        await self._server.do(control.OpenDoors())

    async def close_doors(self) -> int:
        within_s = self._timing.close_doors_s
        self._closed_at = await self._server.do(
            control.CloseDoors(within_s=within_s), within_s=within_s
        )
        return self._closed_at

    async def write_marker(self) -> int:
        return await self._server.do(control.Marker())

    async def exclude(self, node: NodeId) -> None:
        self._settings.check_peer(node)
        await self._server.do(control.Exclude(node=node))

    async def admit(self, node: NodeId) -> None:
        self._settings.check_peer(node)
        await self._server.do(control.Admit(node=node))

    async def cut_strangers(self, accounts: Collection[str]) -> frozenset[str]:
        """Whoever attaches has proven the cluster's secret and is a node: there are no others."""
        self._tell("no-strangers", asked_for=" ".join(sorted(accounts)))
        return frozenset()

    async def demote(self) -> None:
        if self._closed_at is None:
            raise Conflict("the doors are not closed", hint="Call close_doors first.")
        await self._server.do(control.Demote(index=self._closed_at))

    async def beat(self) -> None:
        await self._client.do(control.Beat(), within_s=self._timing.health_s)

    # -- inside

    async def _end_drain(self) -> None:
        """One that nobody waits for any more is in the way of a follow."""
        shown = await self._server.shown()
        if shown.under_way and shown.role is RoleNow.RESTING:
            await self._server.rest()

    async def _as_far_as_it_goes(self) -> Observation:
        """Receives nothing from now on. A server that leads is ended: what it has in flight must
        not move on, and what it holds is on its disk."""
        if self._life.is_starting:
            raise Unavailable("the server is starting", hint="Try again.")
        if self._process.is_alive() and not await self._watching.answers(self._server.shown):
            await self._life.kill()
        if self._process.is_alive():
            shown = await self._server.shown()
            is_of_no_use = stuck(shown, health_s=self._timing.health_s)
            if shown.role is RoleNow.REIGNING or is_of_no_use:
                await self._life.kill()
        if not self._process.is_alive():
            return await self._read_from_files()
        await self._server.rest()
        return self._observation(await self._server.shown())

    async def _read_from_files(self) -> Observation:
        """A server that is down stays down: its log says how far it goes."""
        self._life.check_startable()
        end = await log_end(self._settings)
        notes = self._promises.notes
        if end.index < notes.led_from and not notes.is_cut:
            raise Unavailable(
                f"the log ends at {end.index}, before its epoch {notes.led_epoch} began at"
                f" {notes.led_from}",
                hint="A part of it is missing. Clone this node.",
            )
        try:
            has_applied = (await applied(self._settings)).position
        except Rejected as error:  # Its log counts all the same, and it leads nothing.
            self._promises.note(unfit=error.what)
            has_applied = ORIGIN
        return replace(
            self._silent(ServerState.STOPPED, "no server process; read from its files"),
            received=end.position,
            applied=applied_as_far_as_known(self._promises.notes, end.position, has_applied),
            position_text=str(end.position),
        )

    def _incarnation(self) -> Incarnation | None:
        mark = self._directory.mark()
        return None if mark is None else mark.incarnation

    async def _bind_notes(self) -> None:
        """Data that nobody has bound yet stand where their log ends: empty ones, or a copy whose
        agent died before it said so, which is not to be taken for blank."""
        incarnation = self._incarnation()
        if incarnation is None or incarnation == self._promises.notes.incarnation:
            return
        stands_at = ORIGIN
        if not self._process.is_alive():
            try:
                stands_at = (await log_end(self._settings)).position
            except Rejected as error:  # Of no use, and nobody counts on it yet: as good as blank.
                self._tell("log-unreadable", why=error.what)
        self._promises.bind(incarnation, stands_at=stands_at)

    def _observation(self, shown: Shown) -> Observation:
        known = Known(
            notes=self._promises.notes,
            incarnation=self._incarnation(),
            heartbeat_age_s=self._watching.heartbeat_age_s(shown.heartbeat),
            has_old_data=self._directory.has_old_data,
        )
        return observation(shown, known)

    def _silent(self, state: ServerState, why: str) -> Observation:
        return of_a_silent_server(
            self._promises.notes,
            state,
            why,
            incarnation=self._incarnation(),
            has_old_data=self._directory.has_old_data,
        )

    def _tell(self, name: str, **fields: Value) -> None:
        self._events(Event(name, {"node": self._settings.node, **fields}))
