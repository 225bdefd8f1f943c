"""A model of a database server that ships its log: the process, its memory and its disk.

    client write -> append -> fsync -> ship -> receiver appends -> fsync -> acknowledge -> OK
                                                              \\-> applies, some time later

Promises  What MariaDB's semi-synchronous replication promises with AFTER_SYNC, for any number of
          acknowledgements: any k acknowledging receivers end a commit's wait, whoever they are.
          What another engine does otherwise stands in `sqlite_model`.
Does not  Check who may lead or acknowledge: that is what is being tested.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from primacy.engines.api import Observation, Replication, Sending, ServerState
from primacy.errors import Unavailable
from primacy.model import Epoch, Incarnation, NodeId, Position
from primacy.replication.pull.acks import AckOn
from primacy.sim.disk import Disk
from primacy.sim.engine_log import Commit, Files, Kind, Record
from primacy.sim.loop import SimClock, fail
from primacy.sim.network import Network
from primacy.sim.shipping import Receiver, Sender
from primacy.sim.witness import Witnesses
from primacy.sim.world import Process, World

if TYPE_CHECKING:
    from primacy.sim.guard_model import SimGuard


COMMITS_FORGOTTEN = (0, 0, 1, 3)
"""A server that was killed may find its last commits in its log only: its tables were not synced.
A start as a primary commits them anew, a start as a replica takes them for unacknowledged."""


class ModelServer:
    """One server on one host. `process` lives and dies apart from the agent that calls."""

    files_type: type[Files] = Files
    sender_type: type[Sender] = Sender
    receiver_type: type[Receiver] = Receiver

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
        self.files = self.files_type()
        self.fleet: dict[NodeId, ModelServer] = {}
        self.is_read_only = True
        self.acks = 0
        self.ack_on = AckOn.RECEIVED
        self.epoch = Epoch(0)
        """Of which this server is primary in this life; 0 while it is not."""
        self.cannot_start: str | None = None
        """The server's last words, where it ends while it starts."""
        self.commits: deque[Commit] = deque()
        self.slowness = 1.0
        self.receiver = self.receiver_type(self)
        self.sender = self.sender_type(self)
        self.starts = 0
        self.needs_salvage = False
        self.following_epoch = Epoch(0)
        self.heartbeat = 0
        self._heartbeat_at_s = 0.0
        self._closed_at: int | None = None
        self._calls: list[asyncio.Future[None]] = []
        self._clock = SimClock(world, agent)
        self._chance = world.stream(f"engine/{node}")
        self._incarnations = 0
        self._is_apply_due = False
        disk.waits_for_space = True
        disk.on_failure = self._disk_failed

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
        self.files.forget_commits(self._chance.choice(COMMITS_FORGOTTEN))
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

    def _disk_failed(self, why: str) -> None:
        """A server that cannot sync its log must not go on: it aborts."""
        self.world.note(self.node, "engine-aborts", why)
        self.crash()

    def wipe(self) -> None:
        """Its directory is gone, notes included; a blank one stands in its place."""
        self.crash()
        self.witnesses.disk_replaced(self)
        self.files = self.files_type()
        self.cannot_start = None

    def give_back(self, files: Files) -> None:
        """The disk that was taken out stands here again."""
        self.crash()
        self.witnesses.disk_replaced(self)
        self.files = files

    def write(self, uid: int, reply: Callable[[Record | None], None]) -> bool:
        """A client's statement arrived. False: refused. `reply` comes with the record when it is
        committed, with None when the connection broke and nobody knows."""
        if self.is_read_only or not self.process.is_up:
            return False
        self._append(Kind.WRITE, uid, reply)
        return True

    # ---- what can be seen

    def observation(self) -> Observation:
        files, process = self.files, self.process
        if files.is_absent:
            return Observation(state=ServerState.ABSENT)
        is_up = process.is_up
        now_s = process.clock.local_s(self.world.now_s)
        return Observation(
            state=self._state(),
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
            starts=self.starts,
            heartbeat=self.heartbeat,
            heartbeat_age_s=max(0.0, now_s - self._heartbeat_at_s),
        )

    def _state(self) -> ServerState:
        process = self.process
        if not process.is_up:
            return ServerState.STOPPED
        return ServerState.HUNG if process.is_paused or self._hangs() else ServerState.RUNNING

    def _hangs(self) -> bool:
        """A primary waits for space, and whoever asks it something waits with it."""
        return self.disk.is_full and not self.is_read_only

    def can_be_copied(self) -> bool:
        return self.process.is_running

    def position(self) -> Position:
        return self.files.position(len(self.files.log))

    def _sending(self) -> Sending:
        head = self.commits[0].record.sequence if self.commits else 0
        return Sending(
            waits_at=head if head <= self.files.synced else 0,
            acks=self.acks,
            receivers=self.sender.receivers(),
            acknowledging_count=self.sender.acknowledging_count(),
            excluded=frozenset(self.files.excluded),
            waiting_commits=sum(
                1 for commit in self.commits if commit.record.sequence <= self.files.synced
            ),
        )

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
        if self._is_apply_due or self.needs_salvage or files.applied >= self._applicable():
            return
        self._is_apply_due = True
        self.world.after(0.001 * self.slowness, self.process, self._apply)

    def _apply(self) -> None:
        self._is_apply_due = False
        files = self.files
        reached = min(self._applicable(), files.applied + 50)
        for record in files.log[files.applied : reached]:
            if record.kind is Kind.BEAT:
                self._beaten(record)
        files.applied = reached
        self._has_applied()
        self.schedule_apply()

    def _has_applied(self) -> None:
        """The applier came further."""

    def _applicable(self) -> int:
        """How far the applier can come."""
        files = self.files
        return files.synced if files.broken_at is None else min(files.synced, files.broken_at - 1)

    def _beaten(self, record: Record) -> None:
        self.heartbeat = record.sequence
        self._heartbeat_at_s = self.process.clock.local_s(self.world.now_s)

    def _new_incarnation(self) -> Incarnation:
        self._incarnations += 1
        return Incarnation(f"{self.node}{self._incarnations}")
