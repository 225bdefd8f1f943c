"""Runs one store member in the simulated world: its disk, its timer, its peers and its clients.

The machine is the real one; what a host does around it (write, send, snapshot, wake) is done here
with virtual time. A crash keeps `MemberFiles` and nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

from primacy.consensus.machine import (
    Effect,
    Event,
    Excluded,
    Install,
    LeaderChanged,
    Persist,
    Persisted,
    Received,
    Send,
    SendSnapshot,
    SnapshotMeta,
    SnapshotReceived,
    SnapshotSaved,
    SnapshotSent,
    Tick,
)
from primacy.consensus.raft.messages import Message, VoteReply
from primacy.consensus.raft.node import Limits, Raft, Timing
from primacy.coordination.api import WatchBatch
from primacy.coordination.embedded.commands import Answer
from primacy.coordination.embedded.kv import Kv
from primacy.coordination.embedded.member import MemberLimits, StoreMember
from primacy.coordination.embedded.requests import (
    Changes,
    ClientRequest,
    MemberEffect,
    MemberEvent,
    Replaced,
    Reply,
    RequestBody,
    SnapshotDue,
)
from primacy.errors import Corrupt
from primacy.model import LogIndex, NodeId
from primacy.sim.disk import Disk
from primacy.sim.invariants import Invariants
from primacy.sim.loop import RESOLUTION_S
from primacy.sim.member_files import MemberFiles
from primacy.sim.moments import Moment
from primacy.sim.network import Network
from primacy.sim.world import Process, World

SNAPSHOT_WRITE_S = 0.02
SNAPSHOT_SEND_S = 0.05
SNAPSHOT_GIVE_UP_S = 0.5

Watcher = Callable[[WatchBatch | None], None]
"""Hears each revision that is applied here; None where the state was replaced."""


class SeenRaft(Raft):
    """The same machine, with somebody who looks at what it does."""

    witness: Invariants | None = None

    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        was = self.state
        effects = super().step(now_s, event)
        if self.witness is not None:
            self.witness.on_raft(self, event, effects, was)
        return effects


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreParts:
    """How members are put together; a planted bug replaces one of these."""

    timing: Timing
    limits: Limits
    member_limits: MemberLimits
    raft: type[SeenRaft] = SeenRaft
    member: type[StoreMember] = StoreMember
    files: type[MemberFiles] = MemberFiles


class MemberHost:
    """One member and its surroundings, across its lives."""

    def __init__(  # noqa: PLR0913  # The parts of a host: each is handed in.
        self,
        node: NodeId,
        voters: Iterable[NodeId],
        world: World,
        network: Network,
        *,
        process: Process,
        disk: Disk,
        parts: StoreParts,
        witness: Invariants,
    ) -> None:
        self.node = node
        self.process = process
        self.disk = disk
        self.peers: dict[NodeId, MemberHost] = {}
        self.files = parts.files(f"{node}-disk-1")
        self.member: StoreMember | None = None
        self.watchers: list[Watcher] = []
        self.lives = 1
        """How many disks this member has had."""
        self._voters = tuple(voters)
        self._world = world
        self._network = network
        self._parts = parts
        self._witness = witness
        self._wake_due_s = float("inf")
        self._request_id = 0
        self._replies: dict[int, Callable[[Answer], None]] = {}
        self._received: dict[SnapshotMeta, tuple[bytes, ...]] = {}

    # ---- lives

    def boot(self) -> None:
        """The process has just been started: read the disk, and go on. `Corrupt`: refused."""
        parts = self._parts
        restored, pieces = self.files.restore()
        kv = Kv.from_pieces(iter(pieces)) if pieces else Kv()
        chance = self._world.stream(f"raft/{self.node}").random
        now_s = self._now_s()
        raft = parts.raft(
            self.node, self._voters, parts.timing, restored, chance, now_s, limits=parts.limits
        )
        raft.witness = self._witness
        self._witness.on_boot(raft)
        self.member = parts.member(
            self.node, raft, kv, restored=restored, now_s=now_s, limits=parts.member_limits
        )
        self._wake_due_s = float("inf")
        self._rearm()

    @property
    def can_be_watched(self) -> bool:
        """It runs, takes part and knows a leader: what it does not say has not happened."""
        member = self.member
        return member is not None and member.raft.is_admitted and member.raft.leader is not None

    @property
    def is_refused(self) -> bool:
        """Whether the next start will find damage that it must not pass over."""
        try:
            self.files.check()
        except Corrupt:
            return True
        return False

    def wipe(self) -> None:
        """While the process is down: its disk is gone, and a blank one stands in its place."""
        self.lives += 1
        self.files = self._parts.files(f"{self.node}-disk-{self.lives}")
        self._witness.on_disk_replaced(self.node)

    def crash(self) -> None:
        self.disk.crash()
        self.member = None
        self.watchers.clear()
        self._replies.clear()
        self._received.clear()

    # ---- requests

    def request(self, body: RequestBody, answer: Callable[[Answer], None]) -> None:
        """A client's request has arrived here. `answer` is called at most once."""
        if self.member is None:
            return
        self._request_id += 1
        self._replies[self._request_id] = answer
        self.step(ClientRequest(self._request_id, body))

    # ---- stepping

    def step(self, event: MemberEvent) -> None:
        member = self.member
        if member is None:
            return
        effects = member.step(self._now_s(), event)
        self._carry_out(member, effects)
        self._rearm()

    def _carry_out(  # noqa: C901, PLR0912  # One case for each effect: a closed set.
        self, member: StoreMember, effects: list[MemberEffect]
    ) -> None:
        for effect in effects:
            match effect:
                case Send(to, message):
                    peer = self.peers[to]
                    self._network.send(
                        self.node, peer.process, "raft", peer.on_message, self.node, message
                    )
                    if isinstance(message, VoteReply) and message.is_granted:
                        self._witness.moments.has_come(Moment.VOTED, self.node)
                case Persist():
                    self._persist(effect)
                case Reply(request_id, body):
                    self._replies.pop(request_id)(body)
                case Changes(batch):
                    self._witness.on_changes(self.node, batch)
                    for watcher in tuple(self.watchers):
                        watcher(batch)
                case Replaced():
                    for watcher in tuple(self.watchers):
                        watcher(None)
                case SendSnapshot(to, _):
                    self._send_snapshot(to, member.raft.term)
                case Install(meta):
                    self._world.trace.sometimes("store snapshot installed")
                    self._witness.moments.has_come(Moment.INSTALLED, self.node)
                    pieces = iter(self._received[meta])
                    self._carry_out(member, member.install(self._now_s(), meta, pieces))
                case SnapshotDue():
                    self._save_snapshot(member)
                case LeaderChanged():
                    self._world.note(self.node, "store-leader", str(effect))
                case Excluded(by, reason):
                    self._world.trace.sometimes("wiped voter refused")
                    self._world.note(self.node, "store-excluded", f"by {by}: {reason}")
                case _:
                    assert_never(effect)

    def on_message(self, sender: NodeId, message: Message) -> None:
        self.step(Received(sender, message))

    # ---- disk and snapshots

    def _persist(self, write: Persist) -> None:
        files, received = self.files, self._received
        self.disk.write(
            lambda: files.persist(write, received), lambda: self.step(Persisted(write.write_id))
        )

    def _save_snapshot(self, member: StoreMember) -> None:
        meta, frozen = member.freeze()
        pieces = tuple(frozen)
        self._world.trace.sometimes("store snapshot saved")
        self._world.after(SNAPSHOT_WRITE_S, self.process, self._snapshot_saved, meta, pieces)

    def _snapshot_saved(self, meta: SnapshotMeta, pieces: tuple[bytes, ...]) -> None:
        trailing = self._parts.limits.trailing_entries
        self.files.save_snapshot(meta, pieces, trailing_entries=trailing)
        self.step(SnapshotSaved(meta))

    def _send_snapshot(self, to: NodeId, term: int) -> None:
        files = self.files
        meta, pieces = files.snapshot, files.pieces
        self._world.after(
            SNAPSHOT_SEND_S, self.process, self._ship_snapshot, to, term, meta, pieces
        )

    def _ship_snapshot(
        self, to: NodeId, term: int, meta: SnapshotMeta, pieces: tuple[bytes, ...]
    ) -> None:
        peer = self.peers[to]
        self._network.send(
            self.node, peer.process, "snapshot", peer.on_snapshot, self, term, meta, pieces
        )
        self._world.after(SNAPSHOT_GIVE_UP_S, self.process, self._snapshot_given_up, to, meta)

    def on_snapshot(
        self, sender: "MemberHost", term: int, meta: SnapshotMeta, pieces: tuple[bytes, ...]
    ) -> None:
        """A peer's snapshot has arrived and is written beside the own one."""
        self._received[meta] = pieces
        self.files.take_snapshot(meta, pieces)
        self._network.send(
            self.node, sender.process, "snapshot", sender.on_snapshot_taken, self.node, meta
        )
        self.step(SnapshotReceived(sender.node, term, meta))  # type: ignore[arg-type]  # A Term.

    def on_snapshot_taken(self, to: NodeId, meta: SnapshotMeta) -> None:
        self.step(SnapshotSent(to, meta, is_delivered=True))

    def _snapshot_given_up(self, to: NodeId, meta: SnapshotMeta) -> None:
        self.step(SnapshotSent(to, meta, is_delivered=False))

    # ---- time

    def _now_s(self) -> float:
        return self.process.clock.local_s(self._world.now_s)

    def _rearm(self) -> None:
        """One timer is enough: a later wish waits for the earlier one to fire."""
        member = self.member
        if member is None or member.wake_at_s >= self._wake_due_s:
            return
        self._wake_due_s = member.wake_at_s
        if self._wake_due_s == float("inf"):
            return
        true_s = self.process.clock.true_s(self._wake_due_s)
        soonest_s = RESOLUTION_S if self._wake_due_s > self._now_s() else 0.0
        delay_s = max(soonest_s, true_s - self._world.now_s)
        self._world.after(delay_s, self.process, self._wake, self._wake_due_s)

    def _wake(self, due_s: float) -> None:
        if due_s != self._wake_due_s:
            return  # An earlier wish came in between.
        self._wake_due_s = float("inf")
        if self.member is not None and self.member.wake_at_s <= self._now_s() + 1e-9:
            self.step(Tick())
        else:
            self._rearm()

    @property
    def applied_index(self) -> LogIndex:
        return LogIndex(0) if self.member is None else self.member.kv.index
