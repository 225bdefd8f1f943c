"""Every safety property of Raft, by name, with its source; and the two ways to check them.

`check_group` looks at members as they stand, and costs as much as their logs are long.
`RaftHistory` watches every step, costs as much as the step changed, and sees what looking cannot:
what was promised, and whether it was durable then. It believes the effects of the machines and
the answers of the disks, never the machines' own idea of what is durable.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from primacy.consensus.machine import (
    Appended,
    Apply,
    Effect,
    Entry,
    Event,
    Install,
    Persist,
    Persisted,
    ReadIndex,
    ReadReady,
    Send,
)
from primacy.consensus.quorum import majority_of
from primacy.consensus.raft.messages import AppendReply, Message, VoteReply, VoteRequest
from primacy.consensus.raft.node import Raft, State
from primacy.errors import InvariantBroken
from primacy.model import NodeId


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str
    scope: str
    statement: str
    source: str


INVARIANTS = (
    Invariant("election-safety", "group", "a term has at most one leader", "Raft, figure 3"),
    Invariant("one-vote-per-term", "voter", "a name votes once in a term", "Raft, 5.2"),
    Invariant("leader-append-only", "leader", "a leader only appends", "Raft, figure 3"),
    Invariant("log-matching", "group", "same index and term: same prefix", "Raft, figure 3"),
    Invariant("leader-completeness", "group", "committed: in later leaders", "Raft, figure 3"),
    Invariant("state-machine-safety", "group", "one entry for each index", "Raft, figure 3"),
    Invariant("apply-in-order", "member", "applied once, without a gap", "Raft, 5.3"),
    Invariant("commit-monotonic", "member", "a commit index never falls", "Raft, figure 2"),
    Invariant("commit-follows-leader", "group", "no commit before a leader's", "Raft, 5.3"),
    Invariant("commit-has-majority", "group", "committed: durable on a majority", "Raft, 5.4.2"),
    Invariant("commit-by-own-term", "leader", "no older term is counted", "Raft, 5.4.2"),
    Invariant("durable-before-acknowledged", "member", "first the disk", "Raft, figure 2"),
    Invariant("reads-are-current", "group", "a read sees all committed before it", "thesis, 6.4"),
)
"""What `RaftHistory` holds machines to. `raft.core`, `raft.log` and `raft.node` raise, on their
own, `committed-is-kept`, `log-is-dense`, `writes-are-asked-for` and some of these."""


def check_group(members: Collection[Raft]) -> None:
    """Election safety, log matching and equal committed prefixes, for members as they stand."""
    leader_of: dict[int, NodeId] = {}
    for member in members:
        if member.state is State.LEADER:
            other = leader_of.setdefault(member.term, member.node)
            _require("election-safety", other == member.node, f"{other}, {member}")
    ordered = sorted(members, key=lambda member: member.node)
    for place, one in enumerate(ordered):
        for other_member in ordered[place + 1 :]:
            _check_pair(one, other_member)


def _check_pair(one: Raft, other: Raft) -> None:
    first = max(one.log.base_index, other.log.base_index) + 1
    last = min(one.last_index, other.last_index)
    committed = min(one.commit_index, other.commit_index)
    if first > last:
        return
    ours, theirs = one.log.slice(first, last), other.log.slice(first, last)
    has_parted = False
    for a, b in zip(ours, theirs, strict=True):
        where = f"{one.node}, {other.node} at {a.index}"
        if a.term == b.term:
            _require("log-matching", not has_parted and a.data == b.data, where)
        else:
            has_parted = True
            _require("state-machine-safety", a.index > committed, where)


class _Watched:
    """What the history keeps of one process of one member."""

    __slots__ = ("applied", "commit", "hard_term", "hard_vote", "last", "led_term", "writes")

    def __init__(self, member: Raft) -> None:
        self.commit: int = member.commit_index
        self.applied: int = member.applied_index
        self.last: int = member.last_index
        self.led_term = -1
        self.hard_term: int = member.term
        self.hard_vote = member.voted_for
        self.writes: list[Persist] = []

    def is_kept_by(self, member: Raft) -> bool:
        """Whether the next process knows of the term and the vote that the disk answered for."""
        if member.term != self.hard_term:
            return member.term > self.hard_term
        return self.hard_vote is None or member.voted_for == self.hard_vote


class _Disk:
    """What one member's disk has answered for: the terms of its log, and what a snapshot holds."""

    __slots__ = ("_first", "_terms", "snapshot")

    def __init__(self) -> None:
        self.snapshot = 0
        """Everything up to here is held by a snapshot."""
        self._first = 1
        self._terms: list[int] = []

    @property
    def last(self) -> int:
        return max(self.snapshot, self._first + len(self._terms) - 1)

    def take(self, write: Persist) -> None:
        """A write is durable: its entries void whatever stood in their place and behind it."""
        if write.snapshot is not None:
            self.snapshot = max(self.snapshot, write.snapshot.index)
            self._terms = []
        self.put(write.entries)

    def put(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        place = entries[0].index - self._first
        if not self._terms or place < 0:
            self._first, place = entries[0].index, 0
        self._terms[place:] = [entry.term for entry in entries]

    def holds(self, index: int, term: int) -> bool:
        place = index - self._first
        is_in_log = 0 <= place < len(self._terms) and self._terms[place] == term
        return is_in_log or index <= self.snapshot

    def lacks_after(self, earlier: "_Disk", unanswered: Sequence[Persist]) -> int | None:
        """As `lacks_of`, where the first of some further writes may have landed, although nobody
        was told: they void what stood in their place. Changes `earlier`."""
        first = lost = self.lacks_of(earlier)
        for write in unanswered:
            if lost is None:
                return None
            earlier.take(write)
            lost = self.lacks_of(earlier)
        return None if lost is None else first

    def lacks_of(self, earlier: "_Disk") -> int | None:
        """The first place that `earlier` held and this one holds otherwise or not at all."""
        for place, term in enumerate(earlier._terms):  # noqa: SLF001 - of the same class
            index = earlier._first + place  # noqa: SLF001 - of the same class
            if index > self.snapshot and not self.holds(index, term):
                return index
        return None


class RaftHistory:
    """Call `started` for each (re)start of a member and `observe` after each of its steps."""

    def __init__(self, voters: Collection[NodeId]) -> None:
        self._majority = majority_of(len(voters))
        self._watched: dict[NodeId, _Watched] = {}
        self._leader_of: dict[int, NodeId] = {}
        self._vote_of: dict[tuple[int, NodeId], NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[int, bytes]] = {}
        """(index, term) -> term of the entry before it, and the data."""
        self._disks: dict[NodeId, _Disk] = {}
        self._replaced: list[tuple[NodeId, _Disk]] = []
        """What it acknowledged may still be on its way."""
        self._committed: dict[int, tuple[int, int]] = {}
        """Term of a leader -> (index, term) of the last entry that it committed."""
        self._applied: dict[int, Entry] = {}
        self._reads: dict[tuple[NodeId, int], int] = {}
        self.commit_index = 0
        """The highest that any leader has reached."""

    def started(self, member: Raft) -> None:
        """A process begins: what it restored is what its disk holds, and that is no less than
        what the disk has answered for."""
        before = self._watched.get(member.node)
        self._watched[member.node] = _Watched(member)
        name = "durable-before-acknowledged"
        if before is not None:
            holds = before.is_kept_by(member)
            _require(name, holds, f"{member}: its disk has forgotten a term or a vote")
        entries = member.log.slice(member.log.base_index + 1, member.last_index)
        self._note_entries(member, entries)
        disk, earlier = _Disk(), self._disks.get(member.node)
        disk.snapshot = int(member.log.base_index)
        disk.put(entries)
        self._disks[member.node] = disk
        unanswered = [] if before is None else before.writes
        lost = None if earlier is None else disk.lacks_after(earlier, unanswered)
        detail = f"{member}: its disk answered for {lost} and has it no more"
        _require(name, lost is None, detail)

    def disk_replaced(self, node: NodeId) -> None:
        """The disk of `node` is gone, and another stands in its place."""
        self._watched.pop(node, None)
        gone = self._disks.pop(node, None)
        if gone is not None:
            self._replaced.append((node, gone))

    def observe(
        self,
        member: Raft,
        effects: Sequence[Effect[Message]],
        event: Event[Message] | None = None,
    ) -> None:
        """A step has ended. `event` is what it was told; without it, what is durable and which
        read was asked when stay unknown, and must be told by `event` of the other steps."""
        watched = self._watched.get(member.node)
        if watched is None:
            self.started(member)
            watched = self._watched[member.node]
        if isinstance(event, Persisted):
            self._on_persisted(member.node, watched, event.write_id)
        elif isinstance(event, ReadIndex):
            self._reads[member.node, event.read_id] = self.commit_index
        for effect in effects:
            self._on_effect(member, watched, effect)
        if member.state is State.LEADER:
            self._on_leader(member, watched)
        if member.commit_index != watched.commit:
            self._on_commit(member, watched)
        watched.last = member.last_index

    def _on_effect(self, member: Raft, watched: _Watched, effect: Effect[Message]) -> None:
        match effect:
            case Send(to, message):
                self._on_send(member, watched, to, message)
            case Persist():
                watched.writes.append(effect)
            case Appended(entries):
                is_leading = member.state is State.LEADER and watched.led_term == member.term
                first = entries[0].index
                holds = not is_leading or first > watched.last
                _require("leader-append-only", holds, f"{member} rewrites {first}")
                self._note_entries(member, entries)
            case Apply(entries):
                self._on_apply(member, watched, entries)
            case Install(meta):
                holds = meta.index >= watched.applied
                _require("apply-in-order", holds, f"{member} installs {meta.index}")
                watched.applied = meta.index
            case ReadReady(read_id, index):
                asked_at = self._reads.pop((member.node, read_id), 0)
                _require("reads-are-current", index >= asked_at, f"{member}: {index}, {asked_at}")
            case _:
                pass

    def _on_send(self, member: Raft, watched: _Watched, to: NodeId, message: Message) -> None:
        name = "durable-before-acknowledged"
        node = member.node
        if isinstance(message, AppendReply):
            index = message.match_index
            term = member.log.term_at(index)
            if message.term == member.term and term is not None:
                disk = self._disks.get(node)
                if index and (disk is None or not disk.holds(index, term)):
                    raise InvariantBroken(name, f"{member} acknowledges {index}")
        elif isinstance(message, VoteReply) and message.is_granted:
            self._vote(node, message.term, to)
            holds = (watched.hard_term, watched.hard_vote) == (message.term, to)
            _require(name, holds or watched.hard_term > message.term, f"{member} votes for {to}")
        elif isinstance(message, VoteRequest):
            self._vote(node, message.term, node)
            holds = (watched.hard_term, watched.hard_vote) == (message.term, node)
            _require(name, holds or watched.hard_term > message.term, f"{member} campaigns")

    def _vote(self, voter: NodeId, term: int, candidate: NodeId) -> None:
        first = self._vote_of.setdefault((term, voter), candidate)
        _require("one-vote-per-term", first == candidate, f"{voter}: {first}, {candidate}, {term}")

    def _on_persisted(self, node: NodeId, watched: _Watched, write_id: int) -> None:
        writes = watched.writes
        while writes and writes[0].write_id <= write_id:
            write = writes.pop(0)
            if write.hard is not None:
                watched.hard_term, watched.hard_vote = write.hard.term, write.hard.voted_for
            self._disks.setdefault(node, _Disk()).take(write)

    def _note_entries(self, member: Raft, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        prev_term = member.log.term_at(entries[0].index - 1) or 0
        for entry in entries:
            value = (int(prev_term), entry.data)
            if self._entries.setdefault((entry.index, entry.term), value) != value:
                raise InvariantBroken("log-matching", f"{member} at {entry.index}")
            prev_term = entry.term

    def _on_apply(self, member: Raft, watched: _Watched, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.index != watched.applied + 1:
                detail = f"{member}: {entry.index} behind {watched.applied}"
                raise InvariantBroken("apply-in-order", detail)
            watched.applied = entry.index
            if self._applied.setdefault(entry.index, entry) != entry:
                raise InvariantBroken("state-machine-safety", f"{member} at {entry.index}")

    def _on_leader(self, member: Raft, watched: _Watched) -> None:
        if watched.led_term == member.term:
            return
        watched.led_term = member.term
        first = self._leader_of.setdefault(member.term, member.node)
        _require("election-safety", first == member.node, f"{first}, {member}")
        for term, (index, entry_term) in self._committed.items():
            if term < member.term and index > member.log.base_index:
                holds = member.log.term_at(index) == entry_term
                _require("leader-completeness", holds, f"{member} lacks {index} of {entry_term}")

    def _on_commit(self, member: Raft, watched: _Watched) -> None:
        index = int(member.commit_index)
        _require("commit-monotonic", index > watched.commit, f"{member}: {index}")
        watched.commit = index
        if member.state is not State.LEADER or watched.led_term != member.term:
            holds = index <= self.commit_index
            _require("commit-follows-leader", holds, f"{member}: {index}, {self.commit_index}")
            return
        term = member.log.term_at(index)
        if term is None:
            return  # Compacted within the same step: it was applied, so it is checked there.
        detail = f"{member}: {index} of term {term}"
        _require("commit-by-own-term", term == member.term, detail)
        disks = (*self._disks.items(), *self._replaced)
        holders = {node for node, disk in disks if disk.holds(index, term)}
        detail = f"{member}: {index} on {sorted(holders)}"
        _require("commit-has-majority", len(holders) >= self._majority, detail)
        self._committed[member.term] = (index, int(term))
        self.commit_index = max(self.commit_index, index)


def _require(name: str, holds: bool, detail: str) -> None:  # noqa: FBT001 - the claim itself
    if not holds:
        raise InvariantBroken(name, detail)
