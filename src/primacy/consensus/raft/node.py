"""Raft: a log that a majority agrees on, and the leader that extends it.

Source    D. Ongaro, J. Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014;
          D. Ongaro, "Consensus: Bridging Theory and Practice", 2014
Promises  The properties of `primacy.consensus.invariants`: one leader for each term, equal
          logs up to the commit index, nothing committed is ever lost while a majority of disks
          keeps what it has synced. Once a majority is connected and timers settle, there is a
          leader.
Assumes   A disk keeps what it has acknowledged, or starts a new life under a new incarnation.
          `now_s` is monotonic; how fast it runs is a matter of liveness only.
Does not  Change the set of voters, or remember which proposals it has seen.

This module decides which part sees which event, in which state and term:

    admission    is the sender who it was, and am I?          raft/admission.py
    election     who leads                                    raft/election.py
    replication  what is in the log, and what is committed    raft/replication.py
    reads        what may be answered now                     raft/reads.py
"""

import math
from collections.abc import Callable, Collection
from typing import assert_never

from primacy.consensus.machine import (
    Effect,
    Event,
    Persisted,
    Propose,
    ReadIndex,
    Received,
    Refused,
    SnapshotReceived,
    SnapshotSaved,
    SnapshotSent,
    Tick,
    TransferLeadership,
)
from primacy.consensus.quorum import heard_by_majority_s
from primacy.consensus.raft.admission import Admission
from primacy.consensus.raft.core import Core, Restored, State
from primacy.consensus.raft.election import Election
from primacy.consensus.raft.log import Log
from primacy.consensus.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Hello,
    HelloReply,
    Message,
    PreVoteReply,
    PreVoteRequest,
    Refusal,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from primacy.consensus.raft.reads import Reads
from primacy.consensus.raft.replication import Replication
from primacy.consensus.raft.timing import Limits, Timing
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId, Term

__all__ = ["Limits", "Message", "Raft", "Restored", "State", "Timing"]


class Raft:
    """One member. `step` is all that happens to it; the properties are for looking only."""

    def __init__(  # noqa: PLR0913 - the contract of every host, and the limits that tests lower
        self,
        node: NodeId,
        voters: Collection[NodeId],
        timing: Timing,
        restored: Restored,
        chance: Callable[[], float],
        now_s: float,
        *,
        limits: Limits | None = None,
    ) -> None:
        """`chance` draws from [0, 1)."""
        if node not in voters:
            raise ValueError(f"{node} is not among the voters {sorted(voters)}")
        self._core = Core(
            node,
            voters,
            timing=timing,
            limits=limits or Limits(),
            restored=restored,
            chance=chance,
            now_s=now_s,
        )
        self._admission = Admission(self._core)
        self._replication = Replication(self._core)
        self._election = Election(self._core, self._replication)
        self._reads = Reads(self._core, self._replication)
        self._quorum_due_s = math.inf
        if self._core.is_admitted:
            self._core.draw_election_timeout()
            if not self._core.peers:
                self._core.election_due_s = now_s  # There is nobody to wait for.
        self.wake_at_s = self._next_wake_s()

    def __str__(self) -> str:
        core = self._core
        return f"{core.node} {core.state.name} of term {core.term}"

    @property
    def node(self) -> NodeId:
        return self._core.node

    @property
    def term(self) -> Term:
        return self._core.term

    @property
    def voted_for(self) -> NodeId | None:
        return self._core.voted_for

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def leader(self) -> NodeId | None:
        return self._core.leader

    @property
    def log(self) -> Log:
        return self._core.log

    @property
    def commit_index(self) -> LogIndex:
        return self._core.commit_index

    @property
    def applied_index(self) -> LogIndex:
        """Up to here, entries were handed over in `Apply` or `Install`."""
        return self._core.applied_index

    @property
    def stable_index(self) -> LogIndex:
        """Up to here, the log is known to be durable on this member's disk."""
        return self._core.stable_index

    @property
    def last_index(self) -> LogIndex:
        return self._core.log.last_index

    @property
    def is_admitted(self) -> bool:
        """Whether this member takes part: not while a blank disk still asks its peers."""
        return self._core.is_admitted and self._core.excluded_by is None

    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        core = self._core
        effects: list[Effect[Message]] = []
        core.effects = effects
        if now_s > core.now_s:
            core.now_s = now_s
        if core.state is State.LEADER and core.now_s >= self._quorum_due_s:
            self._check_quorum()
        was_leader = core.state is State.LEADER
        match event:
            case Received(sender, message):
                self._on_message(sender, message)
            case Persisted(write_id):
                self._on_persisted(write_id)
            case Tick():
                self._on_time()
            case Propose() | ReadIndex() | TransferLeadership():
                self._on_request(event)
            case SnapshotSaved() | SnapshotSent() | SnapshotReceived():
                self._on_snapshot_event(event)
            case _:
                assert_never(event)
        if core.state is State.LEADER and not was_leader:
            self._quorum_due_s = core.now_s + core.timing.election_timeout_max_s
        self._election.go_on_with_transfer()
        self._reads.settle()
        core.flush()
        self.wake_at_s = self._next_wake_s()
        return effects

    # ---- the host asks ------------------------------------------------------------------

    def _on_request(self, event: Propose | ReadIndex | TransferLeadership) -> None:
        match event:
            case TransferLeadership(to):
                self._election.transfer(to)
            case Propose():
                reason = self._why_not()
                if self._election.transfer_to is not None:
                    reason = f"the lead is being handed to {self._election.transfer_to}"
                if reason is None:
                    self._replication.propose(event)
                else:
                    self._core.effects.append(Refused(event.proposal_id, self._core.leader, reason))
            case ReadIndex(read_id):
                reason = self._why_not()
                if reason is None:
                    self._reads.ask(read_id)
                else:
                    self._core.effects.append(Refused(read_id, self._core.leader, reason))
            case _:
                assert_never(event)

    def _why_not(self) -> str | None:
        core = self._core
        if core.state is State.LEADER:
            return None
        if core.excluded_by is not None:
            return f"{core.excluded_by} refuses this member: its disk is another than it knew"
        if not core.is_admitted:
            return "this member's disk is blank, and not every voter has answered yet"
        return "this member does not lead"

    # ---- time and disk ------------------------------------------------------------------

    def _on_time(self) -> None:
        core = self._core
        if core.excluded_by is not None:
            return
        self._admission.on_time()
        if not core.is_admitted:
            return
        if core.state is State.LEADER:
            if core.now_s >= self._replication.heartbeat_due_s:
                self._replication.heartbeat()
        elif core.now_s >= core.election_due_s:
            self._election.pre_campaign()

    def _on_persisted(self, write_id: int) -> None:
        core = self._core
        has_grown = core.persisted(write_id)
        if core.state is State.CANDIDATE:
            self._election.on_durable()
        elif core.state is State.LEADER and has_grown:
            self._replication.advance_commit()

    def _check_quorum(self) -> None:
        """A leader that has heard no majority for so long may have been replaced: stand back."""
        core = self._core
        moments_s = [progress.heard_at_s for progress in core.progress.values()]
        moments_s.append(core.now_s)
        self._quorum_due_s = heard_by_majority_s(moments_s) + core.timing.election_timeout_max_s
        if core.now_s >= self._quorum_due_s:
            core.follow(core.term, None)

    def _next_wake_s(self) -> float:
        core = self._core
        if core.excluded_by is not None:
            return math.inf
        if not core.is_admitted:
            return self._admission.hello_due_s
        if core.state is State.LEADER:
            return min(self._replication.heartbeat_due_s, self._quorum_due_s)
        return core.election_due_s

    # ---- messages -----------------------------------------------------------------------

    def _on_message(self, sender: NodeId, message: Message) -> None:
        core = self._core
        if sender not in core.peers:
            return  # Not a voter of this group.
        if isinstance(message, Refusal):
            self._admission.on_refusal(sender, message)
            return
        if core.excluded_by is not None or not self._admission.knows(sender, message):
            return
        match message:
            case Append() | Heartbeat():
                self._on_leader_message(sender, message)
            case AppendReply() | AppendRejected() | HeartbeatReply():
                self._on_follower_message(sender, message)
            case PreVoteRequest() | VoteRequest():
                self._on_candidate_message(sender, message)
            case PreVoteReply() | VoteReply() | TimeoutNow():
                self._on_election_message(sender, message)
            case Hello():
                self._admission.on_hello(sender, message)
            case HelloReply():
                self._admission.on_hello_reply(sender, message)
            case _:
                assert_never(message)

    def _on_leader_message(self, sender: NodeId, message: Append | Heartbeat) -> None:
        core = self._core
        if message.term < core.term:
            # Tell the deposed leader, or one whose followers have moved on, of the higher term.
            core.reply_soon(sender, HeartbeatReply(core.term, core.incarnation, 0))
            return
        self._follow(sender, message.term)
        if isinstance(message, Append):
            self._replication.on_append(sender, message)
        else:
            self._replication.on_heartbeat(message.commit_index)
            core.reply_soon(sender, HeartbeatReply(core.term, core.incarnation, message.round))

    def _follow(self, leader: NodeId, term: Term) -> None:
        """The sender leads `term`, which is not below the own."""
        core = self._core
        if term > core.term or core.leader != leader or core.state is not State.FOLLOWER:
            if term == core.term and core.state is State.LEADER:
                raise InvariantBroken("election-safety", f"{core.node}, {leader} lead {term}")
            core.follow(term, leader)
        core.heard_leader()

    def _on_follower_message(
        self, sender: NodeId, message: AppendReply | AppendRejected | HeartbeatReply
    ) -> None:
        core = self._core
        if message.term > core.term:
            core.follow(message.term, None)
            return
        if message.term < core.term or core.state is not State.LEADER:
            return
        progress = core.progress[sender]
        progress.heard_at_s = core.now_s
        match message:
            case AppendReply():
                self._replication.on_append_reply(sender, message)
            case AppendRejected():
                self._replication.on_append_rejected(sender, message)
            case HeartbeatReply():
                progress.round_answered = max(progress.round_answered, message.round)
                self._replication.on_heartbeat_reply(sender, progress)
            case _:
                assert_never(message)

    def _on_candidate_message(self, sender: NodeId, message: PreVoteRequest | VoteRequest) -> None:
        """These judge the term themselves: not every higher one is followed."""
        if isinstance(message, VoteRequest):
            self._election.on_vote_request(sender, message)
        else:
            self._election.on_pre_vote_request(sender, message)

    def _on_election_message(
        self, sender: NodeId, message: PreVoteReply | VoteReply | TimeoutNow
    ) -> None:
        core = self._core
        if message.term > core.term:
            core.follow(message.term, None)
            return
        match message:
            case PreVoteReply():
                self._election.on_pre_vote_reply(sender, message)
            case VoteReply():
                if message.term == core.term:
                    self._election.on_vote_reply(sender, message)
            case TimeoutNow():
                if message.term == core.term:
                    self._election.on_timeout_now()
            case _:
                assert_never(message)

    def _on_snapshot_event(self, event: SnapshotSaved | SnapshotSent | SnapshotReceived) -> None:
        core = self._core
        match event:
            case SnapshotSaved():
                self._replication.on_snapshot_saved(event)
            case SnapshotSent():
                if core.state is State.LEADER:
                    self._replication.on_snapshot_sent(event)
            case SnapshotReceived(sender, term):
                if self.is_admitted and term >= core.term and sender in core.peers:
                    self._follow(sender, term)
                    self._replication.on_snapshot(event)
            case _:
                assert_never(event)
