"""The MariaDB engine: the contract of engines/api.py, put together from its parts.

Promises  As the contract says. `observe` answers within the health deadline, hung server or not.
Assumes   One agent calls it, one command at a time; `observe`, `beat`, `write_marker` and `kill`
          may come at any moment.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
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
from primacy.engines.capabilities import MARIADB
from primacy.engines.looking import look
from primacy.engines.mariadb.clone import CloneDoor, fetch
from primacy.engines.mariadb.directory import Directory
from primacy.engines.mariadb.diverged import Remembered, branch_of, log_end, save_diverged
from primacy.engines.mariadb.following import Follower
from primacy.engines.mariadb.gtid import sequence_of
from primacy.engines.mariadb.lifecycle import Lifecycle
from primacy.engines.mariadb.observe import Known, Status, observation
from primacy.engines.mariadb.replica import Receiver
from primacy.engines.mariadb.rewinder import Rewinder
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.mariadb.source import Source
from primacy.engines.notes import NoteFile
from primacy.engines.process import ServerProcess
from primacy.engines.promises import Promises, of_a_silent_server
from primacy.engines.watching import Watching
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId, Position
from primacy.runtime.threads import to_its_end
from primacy.telemetry import Event, Sink, Value


class MariaDbEngine:
    """One MariaDB server on this host."""

    capabilities = MARIADB

    def __init__(self, settings: MariaDbSettings, clock: Clock, events: Sink) -> None:
        self._settings = settings
        self._events = events
        self._directory = Directory(settings)
        notes = NoteFile(settings.layout.notes)
        self._promises = Promises(notes)
        self._server = LocalServer(settings, clock)
        self._process = ServerProcess(
            settings.layout.guard,
            page=settings.page,
            port=settings.port,
            launcher=settings.launcher,
            unix_user=self._directory.unix_user,
        )
        self._receiver = Receiver(settings, self._server, self._process, events)
        self._follower = Follower(settings, self._server, self._receiver)
        self._source = Source(settings, self._server)
        self._life = Lifecycle(
            settings,
            directory=self._directory,
            notes=notes,
            process=self._process,
            server=self._server,
            clock=clock,
        )
        self._door = CloneDoor(settings, self._server, self._receiver, events)
        self._rewinder = Rewinder(settings, self._server, self._receiver, self._follower)
        self._needs_salvage = False
        self._salvage_failure: str | None = None
        """What the last salvage of this server's life broke on."""
        self._watching = Watching(clock, health_s=settings.timing.health_s)

    @property
    def guardian(self) -> Guardian | None:
        return self._process.guarded

    async def attach(self) -> bool:
        await to_its_end(self._directory.restore_old)
        self._bind_notes()
        is_found = await self._process.attach()
        if is_found and await self._answers():
            self._needs_salvage = await self._receiver.has_unapplied_relay_log()
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
        return replace(seen, is_disk_full=self._directory.is_full())

    async def _look(self) -> Observation:
        status = await self._server.health()
        if self._directory.is_clone_pending:
            return self._silent(ServerState.STOPPED, "the start of a clone has not ended")
        seen = self._observation(status)
        self._remember(status, seen)
        return seen

    def _remember(self, status: Status, seen: Observation) -> None:
        """What spares reading the whole log once the server is down. Once in an epoch."""
        newest = status.newest_row
        row = None if newest is None else branch_of(newest)
        with suppress(OSError):  # A full disk: the next look remembers it.
            self._promises.note(row=row, is_written_on=seen.is_errant)

    # -- life of the server

    async def initialise(self) -> None:
        state, _ = self._directory.state()
        if state is ServerState.STOPPED:
            return
        await to_its_end(self._directory.make_empty)
        self._bind_notes()
        self._tell("database-initialised")

    async def start(self, *, as_primary: bool) -> None:
        was_alive = self._process.is_alive()
        self._bind_notes()
        if not was_alive:
            self._salvage_failure = None
            self._receiver.forget_stuck()
        await self._life.start(as_primary=as_primary)
        self._watching.heard()
        self._needs_salvage = await self._receiver.has_unapplied_relay_log()
        if not was_alive:
            self._tell("database-started", needs_salvage=self._needs_salvage)

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
        try:
            await self._receiver.salvage()
        except Unavailable as error:
            self._salvage_failure = f"the relay log cannot be replayed: {error.what}"
            raise
        self._salvage_failure = None
        self._needs_salvage = False
        self._tell("relay-log-salvaged")

    async def seal(self, epoch: Epoch) -> Observation:
        self._promises.seal(epoch)
        seen = await self._as_far_as_it_goes()
        self._promises.publish(seen.received)
        self._tell("sealed", epoch=epoch, received=str(seen.received), applied=str(seen.applied))
        return seen

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        self._settings.peer(primary)
        self._promises.follow(epoch)
        attached = await self._follower.attach(primary, acknowledge=acknowledge)
        self._needs_salvage = False
        published = self._promises.still_published(attached.own)
        if attached.is_void(published):  # Else it seals only once it is there again.
            published = min(attached.own, published)
        self._promises.forget_lead(published=published)
        self._tell("following", primary=primary, epoch=epoch, acknowledges=acknowledge)

    async def drain(self) -> None:
        await self._receiver.drain(within_s=self._settings.timing.drain_s)

    async def save_diverged(self, branches: Sequence[Branch]) -> Diverged:
        if self._process.is_alive():
            raise Conflict("the server runs", hint="Its logs are read while it is down.")
        notes = self._promises.notes
        known = Remembered(
            base=self._directory.base, row=notes.row, is_written_on=notes.is_written_on
        )
        found = await save_diverged(self._settings, branches, known)
        self._tell("diverged-saved", epoch=found.epoch, count=found.count, path=found.path)
        return found

    async def rewind(self, found: Diverged, primary: NodeId, epoch: Epoch) -> None:
        self._promises.check_not_refused(epoch)
        rewind = await self._rewinder.prepare(found)
        self._promises.tear(epoch)
        await self._rewinder.reverse(rewind)
        await to_its_end(self._directory.note_base, rewind.stands_at)
        self._needs_salvage = False
        self._promises.stand_at(rewind.stands_at)
        await self._rewinder.compare(rewind, primary)
        self._promises.mended()
        self._tell("rewound", count=found.count, tables=len(rewind.tables))

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        gtid = await fetch(self._settings, self._directory, donor, progress)
        await self._life.stop()
        await to_its_end(self._directory.adopt_incoming, pending_gtid=gtid)
        self._bind_notes()
        self._needs_salvage = False
        self._tell("database-cloned", donor=donor, position=gtid)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """The clone door of this node is open inside."""
        async with self._door.open():
            yield

    # -- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        self._promises.check_may_lead(epoch, primary, self._settings.node)
        status = await self._server.status()
        for row in status.epochs:
            if row.epoch == epoch and row.node == primary:
                self._promises.leads_already_from(epoch, row.sequence)
                return row.sequence
        if any(row.epoch >= epoch for row in status.epochs):
            raise Conflict(
                f"the log has an epoch row at or above {epoch}", hint="Win a later epoch."
            )
        await self._source.be_silent(status)
        for node in sorted(status.excluded):
            await self._source.admit(node)
        await self._receiver.detach()
        self._needs_salvage = False
        self._promises.lead(epoch)
        status = await self._server.status()
        if status.errant:
            self._tell("errant-adopted", last=str(status.errant[-1]))
        sequence = await self._source.write_epoch_row(epoch, status)
        self._promises.leads_from(sequence)
        self._tell("epoch-begun", epoch=epoch, first_sequence=sequence)
        return sequence

    async def set_acks(self, acks: int, *, may_release: bool = False) -> None:
        await self._source.set_acks(acks, may_release=may_release)

    async def open_doors(self) -> None:
        await self._source.open_doors()

    async def close_doors(self) -> int:
        return await self._source.close_doors()

    async def write_marker(self) -> int:
        return await self._source.write_marker()

    async def exclude(self, node: NodeId) -> None:
        await self._source.exclude(node)

    async def admit(self, node: NodeId) -> None:
        await self._source.admit(node)

    async def cut_strangers(self, accounts: Collection[str]) -> frozenset[str]:
        return await self._source.cut_strangers(accounts)

    async def demote(self) -> None:
        await self._source.demote()

    async def beat(self) -> None:
        await self._source.beat()

    # -- inside

    async def _as_far_as_it_goes(self) -> Observation:
        """Receives nothing from now on; with everything that it holds in sight."""
        if self._process.is_alive() and not await self._answers():
            await self._life.kill()  # What a hung server holds is on its disk.
        if not self._process.is_alive():
            if await self._is_old_primary():
                return await self._read_from_files()
            await self.start(as_primary=True)
        if self._directory.is_clone_pending:
            await self.start(as_primary=True)
        # What an agent that died, or a start that was cancelled, did not come to find out.
        self._needs_salvage = await self._receiver.has_unapplied_relay_log()
        if self._needs_salvage and not (await self._server.status()).errant:
            await self._salvage_if_it_can()  # What comes after one of its own cannot be applied.
        await self._receiver.stop_receiving()
        return self._observation(await self._receiver.sealed_status())

    async def _salvage_if_it_can(self) -> None:
        """Where the relay log cannot be applied it still says how far it goes. Its node does not
        lead so, and others need to know whether they hold as much."""
        try:
            await self.salvage()
        except Unavailable:
            if not self._receiver.is_stuck:
                raise

    async def _is_old_primary(self) -> bool:
        """Something of the epoch that it led is in its log, or should be: a cut may take all."""
        notes = self._promises.notes
        if not (notes.led_epoch and notes.led_from):
            return False
        return not notes.is_cut or (await log_end(self._settings)).last_sequence >= notes.led_from

    async def _read_from_files(self) -> Observation:
        """An old primary that is down stays down: a start would either cut its log or commit what
        nobody acknowledged. All of its last epoch is its own."""
        notes = self._promises.notes
        end = await log_end(self._settings)
        if end.last_sequence < notes.led_from:
            raise Unavailable(
                f"the log ends at {end.last_sequence}, before its epoch {notes.led_epoch} began at"
                f" {notes.led_from}",
                hint="Binary logs are missing. Clone this node.",
            )
        position = Position(notes.led_epoch, end.last_sequence)
        seen = self._silent(ServerState.STOPPED, "an old primary; read from its files")
        return replace(
            seen, received=position, applied=position, position_text=str(end.transactions[-1])
        )

    async def _answers(self) -> bool:
        if self._life.is_starting:
            raise Unavailable("the server is starting", hint="Try again.")
        return await self._watching.answers(self._server.health)

    def _bind_notes(self) -> None:
        """A clone stands at a sequence whose epoch only its tables know: 0 claims too little."""
        mark = self._directory.mark()
        if mark is not None:
            stands_at = Position(Epoch(0), sequence_of(mark.pending_gtid))
            self._promises.bind(mark.incarnation, stands_at=stands_at)

    def _observation(self, status: Status) -> Observation:
        mark = self._directory.mark()
        refusal = self._follower.refusal
        known = Known(
            notes=self._promises.notes,
            incarnation=None if mark is None else mark.incarnation,
            needs_salvage=self._needs_salvage,
            salvage_failure=self._salvage_failure,
            upstream=self._follower.upstream_node(status.upstream),
            refusal=None if refusal is None else refusal.why,
            heartbeat_age_s=self._watching.heartbeat_age_s(status.heartbeat),
            has_old_data=self._directory.has_old_data,
        )
        return observation(self._receiver.with_stuck(status), known)

    def _silent(self, state: ServerState, why: str) -> Observation:
        mark = self._directory.mark()
        return of_a_silent_server(
            self._promises.notes,
            state,
            why,
            incarnation=None if mark is None else mark.incarnation,
            has_old_data=self._directory.has_old_data,
        )

    def _tell(self, name: str, **fields: Value) -> None:
        self._events(Event(name, {"node": self._settings.node, **fields}))
