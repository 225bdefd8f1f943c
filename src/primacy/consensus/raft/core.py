"""What all parts of a Raft member share: its term, its log, and the order of its promises.

Nothing leaves before what it promises is durable. A part changes the state and says what must
be sent; `flush` ends the step: it asks for one write that holds everything changed, and holds
back the replies until the disk has answered for it.

    reply()        after every write asked for so far: votes, acknowledgements
    reply_soon()   after the last write of term, vote and incarnations only: a slow disk that is
                   busy with entries must not make a follower look dead
    send()         at once: what promises nothing
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from primacy.consensus.machine import (
    Appended,
    Apply,
    Effect,
    Entry,
    HardState,
    Install,
    LeaderChanged,
    Persist,
    Send,
    SnapshotMeta,
)
from primacy.consensus.raft.log import Log
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.progress import Progress
from primacy.consensus.raft.timing import Limits, Timing
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId, Term


class State(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Restored:
    """What the disk gave at the start.

    `entries` are dense and may begin before the snapshot. `incarnation` is the random id of this
    disk's life: made when the disk was blank, and kept with it.
    """

    hard: HardState
    entries: tuple[Entry, ...]
    snapshot: SnapshotMeta
    incarnation: str


class Core:
    """The shared state. Its parts change it; nothing else does."""

    def __init__(  # noqa: PLR0913, PLR0915 - all that a member is made of, once
        self,
        node: NodeId,
        voters: Collection[NodeId],
        *,
        timing: Timing,
        limits: Limits,
        restored: Restored,
        chance: Callable[[], float],
        now_s: float,
    ) -> None:
        self.node = node
        self.voters = tuple(sorted(voters))
        self.peers = tuple(peer for peer in self.voters if peer != node)
        self.majority = len(self.voters) // 2 + 1
        self.timing = timing
        self.limits = limits
        self.chance = chance
        self.now_s = now_s
        self.incarnation = restored.incarnation

        self.term = restored.hard.term
        self.voted_for = restored.hard.voted_for
        self.incarnations = dict(restored.hard.incarnations)
        self.log = Log(restored.snapshot, restored.entries)
        self.stable_index = self.log.last_index
        self.commit_index = restored.snapshot.index
        self.applied_index = restored.snapshot.index

        self.state = State.FOLLOWER
        self.leader: NodeId | None = None
        self.leader_heard_at_s = -math.inf
        self.election_due_s = math.inf
        self.election_timeout_s = timing.election_timeout_max_s
        self.progress: dict[NodeId, Progress] = {}
        """Of each peer, while this member leads."""
        self.is_admitted = _was_admitted(node, restored)
        self.excluded_by: NodeId | None = None

        self.effects: list[Effect[Message]] = []
        self._told: tuple[NodeId | None, Term] = (None, Term(0))
        self._is_hard_dirty = False
        self._unsaved_from: int | None = None
        is_voided = bool(restored.entries) and self.log.last_index == restored.snapshot.index
        self._unsaved_snapshot = restored.snapshot if is_voided else None
        """At the start: the crash came between a received snapshot and the restart of the log."""
        self._write_id = 0
        self._hard_write_id = 0
        self._durable_id = 0
        self._entry_writes: deque[list[int]] = deque()
        """[write id, last index that it makes stable]: lowered when a conflict voids entries."""
        self._replies: list[Send[Message]] = []
        self._replies_soon: list[Send[Message]] = []
        self._held: deque[tuple[int, Send[Message]]] = deque()
        self._held_soon: deque[tuple[int, Send[Message]]] = deque()

    # ---- sending ------------------------------------------------------------------------

    def send(self, to: NodeId, message: Message) -> None:
        self.effects.append(Send(to, message))

    def reply(self, to: NodeId, message: Message) -> None:
        self._replies.append(Send(to, message))

    def reply_soon(self, to: NodeId, message: Message) -> None:
        self._replies_soon.append(Send(to, message))

    # ---- term, vote, leader -------------------------------------------------------------

    def note_incarnation(self, peer: NodeId, incarnation: str) -> None:
        self.incarnations[peer] = incarnation
        self._is_hard_dirty = True

    def vote(self, term: Term, candidate: NodeId) -> None:
        self.term, self.voted_for = term, candidate
        self._is_hard_dirty = True

    def follow(self, term: Term, leader: NodeId | None) -> None:
        """Become, or stay, a follower of `leader` in `term`."""
        if term > self.term:
            self.term, self.voted_for = term, None
            self._is_hard_dirty = True
        self.state = State.FOLLOWER
        self.progress = {}
        self.name_leader(leader)
        self.draw_election_timeout()

    def name_leader(self, leader: NodeId | None) -> None:
        self.leader = leader
        if self._told[0] != leader or (leader is not None and self._told[1] != self.term):
            self._told = (leader, self.term)
            self.effects.append(LeaderChanged(leader, self.term))

    def heard_leader(self) -> None:
        self.leader_heard_at_s = self.now_s
        self.election_due_s = self.now_s + self.election_timeout_s

    def draw_election_timeout(self) -> None:
        low, high = self.timing.election_timeout_min_s, self.timing.election_timeout_max_s
        self.election_timeout_s = low + (high - low) * self.chance()
        self.election_due_s = self.now_s + self.election_timeout_s

    # ---- the log ------------------------------------------------------------------------

    def extend_log(self, entries: Sequence[Entry]) -> None:
        """Put `entries` into the log; what they contradict is voided first."""
        first = entries[0].index
        if first <= self.log.last_index:
            if first <= self.commit_index:
                raise InvariantBroken(
                    "committed-is-kept", f"{self.node}: entry {first}, commit {self.commit_index}"
                )
            self.log.truncate_from(first)
            self._void_stability_from(first)
        self.log.append(entries)
        if self._unsaved_from is None or first < self._unsaved_from:
            self._unsaved_from = first
        self.effects.append(Appended(tuple(entries)))

    def install(self, snapshot: SnapshotMeta) -> None:
        """The log restarts behind a snapshot that the host already holds durably."""
        self.log.restart_behind(snapshot)
        self._entry_writes.clear()
        self.stable_index = self.commit_index = self.applied_index = snapshot.index
        self._unsaved_snapshot = snapshot
        self._unsaved_from = None
        self.effects.append(Install(snapshot))

    def commit_to(self, index: int) -> None:
        if index > self.commit_index:
            self.commit_index = LogIndex(index)
            self.apply_committed()

    def apply_committed(self) -> None:
        """Hand over what is committed and durable here.

        What is committed but not yet durable here waits: a state machine, or a snapshot of one,
        never runs ahead of the log that it would be restored from.
        """
        last = min(self.commit_index, self.stable_index)
        if last > self.applied_index:
            self.effects.append(Apply(self.log.slice(self.applied_index + 1, last)))
            self.applied_index = LogIndex(last)

    # ---- the disk -----------------------------------------------------------------------

    @property
    def is_vote_durable(self) -> bool:
        """Whether term, vote and incarnations stand on the disk as they stand here."""
        return not self._is_hard_dirty and self._hard_write_id <= self._durable_id

    def persisted(self, write_id: int) -> bool:
        """The disk answered. Whether more of the log became stable."""
        if write_id <= self._durable_id:
            return False
        if write_id > self._write_id:
            raise InvariantBroken(
                "writes-are-asked-for", f"{self.node}: {write_id} of {self._write_id}"
            )
        self._durable_id = write_id
        stable_before = self.stable_index
        while self._entry_writes and self._entry_writes[0][0] <= write_id:
            last = self._entry_writes.popleft()[1]
            self.stable_index = LogIndex(max(self.stable_index, last))
        for held in (self._held, self._held_soon):
            while held and held[0][0] <= write_id:
                self.effects.append(held.popleft()[1])
        if self.stable_index == stable_before:
            return False
        self.apply_committed()
        return True

    def flush(self) -> None:
        """End a step: ask for one write of all that changed, then let go or hold the replies."""
        first = self._unsaved_from
        if self._is_hard_dirty or first is not None or self._unsaved_snapshot is not None:
            self._write_id += 1
            hard = None
            if self._is_hard_dirty:
                hard = HardState(
                    term=self.term,
                    voted_for=self.voted_for,
                    incarnations=dict(self.incarnations),
                )
                self._hard_write_id = self._write_id
            entries: tuple[Entry, ...] = ()
            if first is not None:
                entries = self.log.slice(first, self.log.last_index)
                self._entry_writes.append([self._write_id, self.log.last_index])
            # First among the effects: the disk starts while the rest is carried out.
            self.effects.insert(0, Persist(self._write_id, hard, entries, self._unsaved_snapshot))
            self._is_hard_dirty, self._unsaved_from, self._unsaved_snapshot = False, None, None
        if self._replies:
            self._release(self._replies, self._held, self._write_id)
        if self._replies_soon:
            self._release(self._replies_soon, self._held_soon, self._hard_write_id)

    def _release(
        self,
        replies: list[Send[Message]],
        held: deque[tuple[int, Send[Message]]],
        needed_id: int,
    ) -> None:
        if needed_id <= self._durable_id:
            self.effects.extend(replies)
        else:
            held.extend((needed_id, each) for each in replies)
        replies.clear()

    def _void_stability_from(self, index: int) -> None:
        """Entries from `index` on were replaced: no earlier write can make the new ones stable,
        even one of an entry with the same term and index that came, went and came back."""
        last = index - 1
        self.stable_index = LogIndex(min(self.stable_index, last))
        for write in self._entry_writes:
            write[1] = min(write[1], last)


def _was_admitted(node: NodeId, restored: Restored) -> bool:
    """A member that has its own incarnation noted was admitted; so was, for disks of hand-made
    histories, one that has a term or a log: neither is touched before the admission."""
    return (
        node in restored.hard.incarnations
        or restored.hard.term > 0
        or bool(restored.entries)
        or restored.snapshot.index > 0
    )
