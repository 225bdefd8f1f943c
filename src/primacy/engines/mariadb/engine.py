"""The MariaDB engine: the contract of engines/api.py, put together from its parts.

Promises  As the contract says. `observe` answers within the health deadline, hung server or not.
Assumes   One agent calls it, one command at a time; `observe`, `beat`, `write_marker` and `kill`
          may come at any moment.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from primacy.clock import Clock
from primacy.engines.api import (
    Branch,
    Capabilities,
    Diverged,
    Observation,
    ProgressSink,
    ServerState,
)
from primacy.engines.mariadb.directory import Directory
from primacy.engines.mariadb.following import Follower
from primacy.engines.mariadb.lifecycle import Lifecycle
from primacy.engines.mariadb.notes import NoteFile, Notes
from primacy.engines.mariadb.observe import Known, Status, observation
from primacy.engines.mariadb.process import PlainProcess
from primacy.engines.mariadb.replica import Receiver
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.mariadb.source import Source
from primacy.errors import Conflict, OutcomeUnknown, PrimacyError, Unavailable
from primacy.model import Epoch, NodeId
from primacy.telemetry import Event, Sink, Value

CAPABILITIES = Capabilities(
    name="mariadb",
    acks=frozenset({"0", "1"}),
    ack_on=frozenset({"received"}),
    alternative="sqlite",
)


class MariaDbEngine:
    """One MariaDB server on this host."""

    capabilities = CAPABILITIES

    def __init__(self, settings: MariaDbSettings, clock: Clock, events: Sink) -> None:
        self._settings = settings
        self._clock = clock
        self._events = events
        self._directory = Directory(settings)
        self._notes = NoteFile(settings.layout.notes)
        self._server = LocalServer(settings, clock)
        self._receiver = Receiver(settings, self._server)
        self._follower = Follower(settings, self._server, self._receiver)
        self._source = Source(settings, self._server)
        self._process = PlainProcess(
            settings.layout.pid_file, clock, unix_user=self._directory.unix_user
        )
        self._life = Lifecycle(
            settings,
            directory=self._directory,
            notes=self._notes,
            process=self._process,
            server=self._server,
            clock=clock,
        )
        self._needs_salvage = False
        self._heartbeat = 0
        self._heartbeat_at_s = clock.now_s()

    # -- what there is

    async def observe(self) -> Observation:
        state, why = self._directory.state()
        if state is not ServerState.STOPPED:
            return Observation(state=state, detail=why)
        if not self._process.is_alive():
            return self._silent(ServerState.STOPPED, "no server process")
        try:
            status = await self._server.health()
        except PrimacyError as error:
            if not self._process.is_alive():
                return self._silent(ServerState.STOPPED, "the server has just ended")
            if self._life.is_starting:
                return self._silent(ServerState.STOPPED, "the server is starting")
            return self._silent(ServerState.HUNG, error.what)
        return self._observation(status)

    # -- life of the server

    async def initialise(self) -> None:
        state, _ = self._directory.state()
        if state is ServerState.STOPPED:
            return
        await asyncio.to_thread(self._directory.make_empty)
        self._notes.save(Notes(sealed_epoch=self._notes.notes.sealed_epoch))
        self._tell("database-initialised")

    async def start(self, *, as_primary: bool) -> None:
        was_alive = self._process.is_alive()
        await self._life.start(as_primary=as_primary)
        if not was_alive:
            self._note(following_epoch=Epoch(0))
            self._needs_salvage = await self._receiver.has_unapplied_relay_log()
            self._tell("database-started", needs_salvage=self._needs_salvage)

    async def stop(self) -> None:
        await self._life.stop()
        self._tell("database-stopped")

    async def kill(self) -> None:
        await self._life.kill()
        self._tell("database-killed")

    async def forget_old_data(self) -> None:
        await asyncio.to_thread(self._directory.forget_old)

    # -- as a replica

    async def salvage(self) -> None:
        await self._receiver.salvage()
        self._needs_salvage = False
        self._tell("relay-log-salvaged")

    async def seal(self, epoch: Epoch) -> Observation:
        notes = self._notes.notes
        if epoch < notes.sealed_epoch or epoch <= max(notes.following_epoch, notes.led_epoch):
            newest = max(notes.sealed_epoch, notes.following_epoch, notes.led_epoch)
            raise Conflict(
                f"a seal for epoch {epoch} comes too late: this node is at {newest}",
                hint="Read the cluster's epoch again.",
            )
        self._note(sealed_epoch=epoch)
        status = await self._stopped_status()
        seen = self._observation(status)
        published = self._notes.notes.published
        if seen.received < published:
            raise Unavailable(
                f"this log goes to {seen.received}; it was published up to {published}",
                hint="A part of it is missing. It comes back from a primary that has it.",
            )
        self._note(published=seen.received)
        self._tell("sealed", epoch=epoch, received=str(seen.received), applied=str(seen.applied))
        return seen

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        notes = self._notes.notes
        if epoch < notes.sealed_epoch:
            raise Conflict(
                f"epoch {epoch} is refused: this node is sealed for {notes.sealed_epoch}",
                hint="Follow the primary of the newest epoch.",
            )
        self._note(sealed_epoch=epoch, following_epoch=epoch)
        own = await self._follower.attach(primary, acknowledge=acknowledge)
        if self._needs_salvage or notes.led_epoch or own < notes.published:
            self._needs_salvage = False
            # Its log was found to be a prefix of the primary's: what was beyond it is void.
            lowered = min(own, self._notes.notes.published)
            self._note(led_epoch=Epoch(0), published=lowered)
        self._tell("following", primary=primary, epoch=epoch, acknowledges=acknowledge)

    async def drain(self) -> None:
        await self._receiver.drain(within_s=self._settings.timing.drain_s)

    async def save_diverged(self, branch: Branch) -> Diverged:
        raise Unavailable(f"{branch.epoch} cannot be read yet", hint="Clone the node.")

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        del progress
        raise Unavailable(f"{donor} has no clone door yet", hint="Initialise the node.")

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """The clone door of this node is open inside."""
        yield

    # -- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        if primary != self._settings.node:
            raise Conflict(f"{primary} begins epoch {epoch}, not this node", hint="Observe again.")
        notes = self._notes.notes
        if epoch < notes.sealed_epoch:
            raise Conflict(
                f"epoch {epoch} is below the seal for {notes.sealed_epoch}", hint="Win a later one."
            )
        status = await self._server.status()
        for row in status.epochs:
            if row.epoch == epoch and row.node == primary:
                return row.sequence
        if any(row.epoch >= epoch for row in status.epochs):
            raise Conflict(
                f"the log has an epoch row at or above {epoch}", hint="Win a later epoch."
            )
        await self._source.be_silent(status)
        await self._receiver.detach()
        self._needs_salvage = False
        self._note(sealed_epoch=epoch, following_epoch=Epoch(0), led_epoch=epoch)
        sequence = await self._source.write_epoch_row(epoch, await self._server.status())
        self._note(is_cut=False)
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

    async def demote(self) -> None:
        await self._source.demote()

    async def beat(self) -> None:
        await self._source.beat()

    # -- inside

    async def _stopped_status(self) -> Status:
        """A running server that receives nothing, with all that it has received in sight."""
        try:
            if not self._process.is_alive():
                await self.start(as_primary=True)
            elif not self._life.is_starting:
                await self._server.health()
        except (Unavailable, OutcomeUnknown):
            await self._life.kill()  # Hung: what it holds is on the disk.
            await self.start(as_primary=True)
        if self._needs_salvage:
            await self.salvage()
        await self._receiver.stop_receiving()
        return await self._receiver.sealed_status()

    def _observation(self, status: Status) -> Observation:
        if status.heartbeat != self._heartbeat:
            self._heartbeat, self._heartbeat_at_s = status.heartbeat, self._clock.now_s()
        mark = self._directory.mark()
        known = Known(
            notes=self._notes.notes,
            incarnation=None if mark is None else mark.incarnation,
            needs_salvage=self._needs_salvage,
            upstream=self._follower.upstream_node(status.upstream),
            refusal=self._follower.refusal,
            heartbeat_age_s=self._clock.now_s() - self._heartbeat_at_s,
            has_old_data=self._directory.has_old_data,
        )
        return observation(status, known)

    def _silent(self, state: ServerState, why: str) -> Observation:
        """What the files say of a server that does not answer."""
        notes, mark = self._notes.notes, self._directory.mark()
        return Observation(
            state=state,
            incarnation=None if mark is None else mark.incarnation,
            sealed_epoch=notes.sealed_epoch,
            following_epoch=notes.following_epoch,
            is_cut=notes.is_cut,
            has_old_data=self._directory.has_old_data,
            detail=why,
        )

    def _note(self, **changes: object) -> None:
        """Durable when this returns: two fsyncs where something changed."""
        self._notes.save(msgspec.structs.replace(self._notes.notes, **changes))

    def _tell(self, name: str, **fields: Value) -> None:
        self._events(Event(name, {"node": self._settings.node, **fields}))
