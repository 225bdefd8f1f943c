"""A model of a database server that ships its log: the engine contract under virtual time.

    client write -> append -> fsync -> ship -> receiver appends -> fsync -> acknowledge -> OK
                                                              \\-> applies, some time later

Promises  What MariaDB's semi-synchronous replication promises with AFTER_SYNC, for any number of
          acknowledgements: any k acknowledging receivers end a commit's wait, whoever they are.
Assumes   One agent calls one method at a time; a call ends with the life of the server.
Does not  Check who may lead or acknowledge: that is what is being tested.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from primacy.engines.api import (
    Branch,
    Capabilities,
    Diverged,
    Observation,
    ProgressSink,
    Replication,
    Sending,
    ServerState,
)
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, Incarnation, NodeId, Position
from primacy.sim.disk import Disk
from primacy.sim.engine_log import Commit, Files, Kind, Record
from primacy.sim.loop import SimClock, fail, resolve
from primacy.sim.network import Network
from primacy.sim.shipping import Receiver, Sender
from primacy.sim.witness import Witnesses
from primacy.sim.world import Process, World

if TYPE_CHECKING:
    from primacy.sim.guard_model import SimGuard

CALL_WITHIN_S = 2.0
"""A server that does not answer within this is `Unavailable`."""

NOTE_S = 0.002
"""A small file, written and synced."""

START_S, CLONE_S = 0.3, 1.0
SALVAGE_S = 0.05
POLL_S = 0.01


class ModelEngine:
    """One server on one host. `process` lives and dies apart from the agent that calls."""

    capabilities = Capabilities(
        name="model",
        acks=frozenset({"0", "1", "2"}),
        ack_on=frozenset({"received"}),
        alternative="",
    )

    def __init__(  # noqa: PLR0913  # The parts of a server: each is handed in.
        self,
        node: NodeId,
        world: World,
        network: Network,
        *,
        process: Process,
        agent: Process,
        disk: Disk,
        witnesses: Witnesses,
    ) -> None:
        self.node = node
        self.world = world
        self.network = network
        self.process = process
        self.agent = agent
        self.guard: SimGuard | None = None
        self.disk = disk
        self.witnesses = witnesses
        self.files = Files()
        self.fleet: dict[NodeId, ModelEngine] = {}
        self.is_read_only = True
        self.acks = 0
        self.epoch = Epoch(0)
        """Of which this server is primary in this life; 0 while it is not."""
        self.refused_below = Epoch(0)
        """The epoch of the last seal that was finished: no older sender is acknowledged."""
        self.commits: deque[Commit] = deque()
        self.slowness = 1.0
        self.receiver = Receiver(self)
        self.sender = Sender(self)
        self.needs_salvage = False
        self.following_epoch = Epoch(0)
        self.heartbeat = 0
        self._heartbeat_at_s = 0.0
        self._closed_at: int | None = None
        self._calls: list[asyncio.Future[None]] = []
        self._clock = SimClock(world, agent)
        self._incarnations = 0
        self._is_apply_due = False

    # ---- what the outside does to it

    def crash(self) -> None:
        """SIGKILL, or the host's power: memory is gone, and what was not synced with it."""
        if not self.process.is_up:
            return
        self.world.note(self.node, "engine-exit", f"at {self.files.position(self.files.synced)}")
        self.receiver.forget()
        self.world.kill(self.process)
        self.disk.crash()
        self.files.lose_unsynced()
        self.is_read_only = True
        self.epoch = Epoch(0)
        self.following_epoch = Epoch(0)
        self._closed_at = None
        self._is_apply_due = False
        self.sender.forget()
        for commit in self.commits:
            if commit.reply is not None:
                commit.reply(None)
        self.commits.clear()
        calls, self._calls = self._calls, []
        for call in calls:
            fail(call, Unavailable("the server exited", hint="Observe it again."))
        if self.guard is not None:
            self.guard.server_exited()

    def write(self, uid: int, reply: Callable[[Record | None], None]) -> bool:
        """A client's statement arrived. False: refused. `reply` comes with the record when it is
        committed, with None when the connection broke and nobody knows."""
        if self.is_read_only or not self.process.is_up:
            return False
        self._append(Kind.WRITE, uid, reply)
        return True

    # ---- what the agent sees

    @property
    def guardian(self) -> "SimGuard | None":
        """Also of a server that has just exited, while its page is not closed."""
        guard = self.guard
        if guard is None or (not self.process.is_up and guard.page.state == "closed"):
            return None
        return guard

    async def attach(self) -> bool:
        if self.guard is not None and self.process.is_up:
            self.guard.greet()
        else:
            self._see_off_guard()
        return self.process.is_up

    def _see_off_guard(self) -> None:
        """The page of a guard that is dead is closed by the agent: nobody else can."""
        guard = self.guard
        if guard is not None and not guard.process.is_up and guard.page.state != "closed":
            guard.page.close()

    def observation(self) -> Observation:
        files, process = self.files, self.process
        if files.is_absent:
            return Observation(state=ServerState.ABSENT)
        state = ServerState.STOPPED
        if process.is_up:
            state = ServerState.HUNG if process.is_paused else ServerState.RUNNING
        is_up = process.is_up
        now_s = process.clock.local_s(self.world.now_s)
        return Observation(
            state=state,
            incarnation=files.incarnation,
            is_read_only=self.is_read_only,
            received=files.position(files.synced),
            applied=files.position(files.applied),
            sealed_epoch=files.sealed_epoch,
            following_epoch=self.following_epoch,
            replication=self.receiver.observed() if is_up else Replication(),
            sending=self._sending(),
            is_cut=files.is_cut,
            has_old_data=files.has_old_data,
            needs_salvage=self.needs_salvage,
            heartbeat=self.heartbeat,
            heartbeat_age_s=max(0.0, now_s - self._heartbeat_at_s),
        )

    async def observe(self) -> Observation:
        return self.observation()

    # ---- life of the server

    async def initialise(self) -> None:
        await self._pass(START_S)
        if self.files.is_absent:
            self.files.incarnation = self._new_incarnation()

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        del progress
        source = self.fleet[donor]
        if self.process.is_up:
            await self.kill()
        await self._pass(CLONE_S)
        is_reachable = not self.network.is_cut(self.node, source.node) and not self.network.is_cut(
            source.node, self.node
        )
        if not source.process.is_running or not is_reachable:
            raise Unavailable(f"{donor} does not answer", hint="Try another donor.")
        self.world.trace.sometimes("clone")
        self.files.copy_from(source.files, self._new_incarnation())

    async def start(self, *, as_primary: bool) -> None:
        if self.process.is_up:
            return
        if self.files.is_absent:
            raise Conflict(f"{self.node} has no data", hint="Initialise or clone it.")
        await self._pass(START_S)
        if self.process.is_up:
            return
        if not as_primary and self.files.cut_uncommitted():
            self.world.trace.sometimes("unacknowledged tail cut")
        self.world.start(self.process)
        if self.guard is not None:
            self.guard.start()
        self.is_read_only = True
        self.acks = 0
        self.needs_salvage = self.files.applied < len(self.files.log)
        self.world.note(self.node, "engine-start", f"as_primary={as_primary}")

    async def stop(self) -> None:
        await self.kill()

    async def kill(self) -> None:
        await self._pass(POLL_S)
        self.crash()
        self._see_off_guard()

    async def forget_old_data(self) -> None:
        await self._pass(NOTE_S)
        self.files.has_old_data = False

    # ---- as a replica

    async def salvage(self) -> None:
        self._require_running()
        await self._pass(SALVAGE_S)
        self._require_running()
        self.files.applied = self.files.synced
        self.needs_salvage = False

    async def seal(self, epoch: Epoch) -> Observation:
        if self.process.is_paused:
            await self.kill()
        await self._note(epoch)
        self.receiver.stop()
        if self.files.synced < len(self.files.log):
            await self._synced()
        self.refused_below = max(self.refused_below, epoch)
        return self.observation()

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        self._require_running()
        if not self.is_read_only:
            raise Conflict(f"{self.node} has open doors", hint="Demote or kill it.")
        if self.needs_salvage:
            raise Conflict("a tail stands only in the relay log", hint="Salvage it first.")
        if epoch < self.files.sealed_epoch:
            raise Conflict(
                f"sealed for {self.files.sealed_epoch}, epoch {epoch} is refused",
                hint="Read the primary record again.",
            )
        await self._note(epoch)
        self._require_running()
        is_attached = self.receiver.upstream == primary and self.following_epoch == epoch
        if not is_attached:
            self.receiver.stop()
            await self.drain()
        if epoch < self.files.sealed_epoch:
            raise Conflict("sealed meanwhile", hint="Read the primary record again.")
        self.epoch = Epoch(0)
        self.following_epoch = epoch
        self.receiver.start(primary, epoch, acknowledge=acknowledge)

    async def drain(self) -> None:
        self._require_running()
        while self.files.applied < len(self.files.log):
            self.schedule_apply()
            await self._pass(POLL_S)
            self._require_running()

    async def save_diverged(self, branches: Sequence[Branch]) -> Diverged:
        await self._pass(SALVAGE_S)
        return self.files.diverged(branches)

    async def rewind(self, found: Diverged, primary: NodeId, epoch: Epoch) -> None:
        del primary
        await self._note(epoch)
        self.files.cut_from(found.parts_at)

    # ---- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        del primary
        self._require_running()
        self.receiver.stop()
        self.following_epoch = Epoch(0)
        await self._note(epoch)
        self._require_running()
        files = self.files
        for record in reversed(files.log):
            if record.epoch < epoch:
                break
            if record.kind is Kind.EPOCH_ROW and record.epoch == epoch:
                self.epoch = epoch
                return record.sequence
        if files.applied < len(files.log):
            raise Conflict("the own tail is not applied", hint="Drain first.")
        self.sender.forget()
        files.excluded.clear()
        self.epoch = epoch
        record = self._append(Kind.EPOCH_ROW, -epoch, None)
        await self._synced()
        self.witnesses.on_epoch(self, epoch)
        return record.sequence

    async def set_acks(self, acks: int, *, may_release: bool = False) -> None:
        self._require_running()
        if acks < self.acks and self.commits and not may_release:
            raise Conflict("commits wait", hint="They would be released.")
        await self._pass(POLL_S)
        self._require_running()
        self.acks = acks
        self.release()

    async def open_doors(self) -> None:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        self._closed_at = None
        self.is_read_only = False
        self.witnesses.on_open(self)

    async def close_doors(self) -> int:
        self._require_running()
        was_read_only, self.is_read_only = self.is_read_only, True
        waited_s = 0.0
        while self.commits:
            await self._pass(POLL_S)
            self._require_running()
            waited_s += POLL_S
            if waited_s > 1.0:
                self.is_read_only = was_read_only
                raise Unavailable("commits wait for acknowledgements", hint="Try again.")
        self._closed_at = len(self.files.log)
        return self._closed_at

    async def write_marker(self) -> int:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        if self.commits:
            return len(self.files.log)
        record = self._append(Kind.MARKER, 0, None)
        await self._synced()
        return record.sequence

    async def exclude(self, node: NodeId) -> None:
        await self._pass(POLL_S)
        self._require_running()
        self.files.excluded.add(node)
        self.sender.detach(node)

    async def admit(self, node: NodeId) -> None:
        await self._pass(POLL_S)
        self._require_running()
        self.files.excluded.discard(node)

    async def cut_strangers(self) -> None:
        self._require_running()  # Only nodes attach here: there is nobody to cut.

    async def demote(self) -> None:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        if not self.is_read_only or self.commits or self._closed_at != len(self.files.log):
            raise Conflict("the log moved after the doors were closed", hint="Kill it instead.")
        self.acks = 0
        self.epoch = Epoch(0)
        self.sender.forget()

    async def beat(self) -> None:
        self._require_running()
        if not self.is_read_only:
            self._append(Kind.BEAT, 0, None)

    # ---- the log

    def _append(
        self, kind: Kind, uid: int, reply: Callable[[Record | None], None] | None
    ) -> Record:
        files = self.files
        record = Record(self.epoch, len(files.log) + 1, kind, uid)
        files.log.append(record)
        files.applied = record.sequence
        if kind is Kind.BEAT:
            self._beaten(record)
        self.commits.append(Commit(record, reply, self.world.now_s))
        self.witnesses.on_append(self, record)
        self.disk.write(lambda: files.mark_synced(record.sequence), self._on_synced)
        return record

    def _on_synced(self) -> None:
        self.sender.ship_all()
        self.release()

    def release(self) -> None:
        """Answer every commit at the head that is synced and has its acknowledgements."""
        commits, files = self.commits, self.files
        if not commits:
            return
        reached = self.sender.acknowledged_by(self.acks) if self.acks else files.synced
        while commits and commits[0].record.sequence <= files.synced:
            record = commits[0].record
            if record.sequence > reached and record.kind in (Kind.WRITE, Kind.BEAT):
                break
            commit = commits.popleft()
            files.committed = record.sequence
            if record.kind is Kind.WRITE:
                self.witnesses.on_commit(self, record, self.sender.holders(record.sequence))
                if commit.reply is not None:
                    commit.reply(record)

    def received(self, records: tuple[Record, ...]) -> None:
        """The receiver took these: they stand in the log, not yet synced."""
        self.files.log.extend(records)
        self.files.committed = len(self.files.log)

    def schedule_apply(self) -> None:
        files = self.files
        if self._is_apply_due or self.needs_salvage or files.applied >= files.synced:
            return
        self._is_apply_due = True
        self.world.after(0.001 * self.slowness, self.process, self._apply)

    def _apply(self) -> None:
        self._is_apply_due = False
        files = self.files
        reached = min(files.synced, files.applied + 50)
        for record in files.log[files.applied : reached]:
            if record.kind is Kind.BEAT:
                self._beaten(record)
        files.applied = reached
        self.schedule_apply()

    def _beaten(self, record: Record) -> None:
        self.heartbeat = record.sequence
        self._heartbeat_at_s = self.process.clock.local_s(self.world.now_s)

    # ---- small parts

    def position(self) -> Position:
        return self.files.position(len(self.files.log))

    def _sending(self) -> Sending:
        return Sending(
            acks=self.acks,
            receivers=self.sender.receivers(),
            acknowledging_count=self.sender.acknowledging_count(),
            excluded=frozenset(self.files.excluded),
            waiting_commits=sum(
                1 for commit in self.commits if commit.record.sequence <= self.files.synced
            ),
        )

    async def _pass(self, local_s: float) -> None:
        await self._clock.sleep(local_s)

    async def _note(self, epoch: Epoch) -> None:
        """Durable beside the data, whether the server runs or not."""
        if epoch > self.files.sealed_epoch:
            await self._pass(NOTE_S)
            self.files.sealed_epoch = max(self.files.sealed_epoch, epoch)

    async def _synced(self) -> None:
        """Everything that stands in the log now is durable when this returns."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls = [call for call in self._calls if not call.done()]
        self._calls.append(answer)
        late = Unavailable("the server does not answer", hint="Observe it again.")
        self.world.after(CALL_WITHIN_S, self.agent, fail, answer, late)
        self.disk.write(lambda: None, lambda: resolve(answer))
        await answer

    def _require_running(self) -> None:
        if not self.process.is_up:
            raise Conflict(f"the server of {self.node} does not run", hint="Observe it again.")
        if self.process.is_paused:
            raise Unavailable(f"the server of {self.node} does not answer", hint="Try again.")

    def _new_incarnation(self) -> Incarnation:
        self._incarnations += 1
        return Incarnation(f"{self.node}{self._incarnations}")
