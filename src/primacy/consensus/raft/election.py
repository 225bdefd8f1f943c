"""Elections: timeouts, pre-vote, votes, and the planned hand-over.

Source    Ongaro and Ousterhout 2014, sections 5.2 and 5.4.1; Ongaro's thesis, 3.10 (transfer)
          and 9.6 (pre-vote)
Promises  At most one vote for each term, durable before it is sent; the own vote counts, and
          the requests leave, only after it is durable. Nobody's term changes by a pre-vote. A
          member that has heard its leader within the shortest election timeout votes for
          nobody, unless that leader asked for the election.

                 timeout                pre-votes of a majority            votes of a majority
     FOLLOWER ------------> PRE_CANDIDATE ------------------> CANDIDATE ------------> LEADER
        ^  |                     |  ^        timeout             |                       |
        |  |                     |  +----------------------------+                       |
        |  +-- TimeoutNow -------|------------------------------>|                       |
        +---- a leader, a higher term, or refusals of a majority; no majority heard -----+
"""

import math

from primacy.consensus.raft.core import Core, State
from primacy.consensus.raft.messages import (
    PreVoteReply,
    PreVoteRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from primacy.consensus.raft.replication import Replication
from primacy.model import NodeId, Term


class Election:
    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication
        self._granted: set[NodeId] = set()
        self._refused: set[NodeId] = set()
        self.transfer_to: NodeId | None = None
        self._transfer_due_s = math.inf
        self._is_transfer_told = False

    # ---- candidate ----------------------------------------------------------------------

    def pre_campaign(self) -> None:
        """Ask whether a campaign would be won, before anybody is disturbed by one."""
        core = self._core
        core.state = State.PRE_CANDIDATE
        core.name_leader(None)
        core.draw_election_timeout()
        self._granted, self._refused = {core.node}, set()
        if core.majority == 1:
            self._campaign(is_transfer=False)
            return
        log = core.log
        for peer in core.peers:
            core.send(
                peer, PreVoteRequest(core.term, core.incarnation, log.last_index, log.last_term)
            )

    def _campaign(self, *, is_transfer: bool) -> None:
        core, log = self._core, self._core.log
        core.state = State.CANDIDATE
        core.vote(Term(core.term + 1), core.node)
        core.name_leader(None)
        core.draw_election_timeout()
        self._granted, self._refused = set(), set()
        for peer in core.peers:
            # Held until the vote is durable: a candidate that forgot it could ask for the same
            # term again, with another log.
            core.reply(
                peer,
                VoteRequest(
                    core.term, core.incarnation, log.last_index, log.last_term, is_transfer
                ),
            )

    def on_durable(self) -> None:
        """The own vote counts from here on."""
        core = self._core
        if core.state is State.CANDIDATE and core.is_vote_durable:
            self._granted.add(core.node)
            self._lead_if_elected()

    def on_pre_vote_reply(self, sender: NodeId, message: PreVoteReply) -> None:
        core = self._core
        if core.state is not State.PRE_CANDIDATE or message.for_term != core.term + 1:
            return
        (self._granted if message.is_granted else self._refused).add(sender)
        if len(self._granted) >= core.majority:
            self._campaign(is_transfer=False)
        else:
            self._stand_back_if_refused()

    def on_vote_reply(self, sender: NodeId, message: VoteReply) -> None:
        if self._core.state is not State.CANDIDATE:
            return
        (self._granted if message.is_granted else self._refused).add(sender)
        self._lead_if_elected()
        self._stand_back_if_refused()

    def _lead_if_elected(self) -> None:
        core = self._core
        if core.node in self._granted and len(self._granted) >= core.majority:
            core.state = State.LEADER
            core.name_leader(core.node)
            core.election_due_s = math.inf
            self.transfer_to = None
            self._replication.lead()

    def _stand_back_if_refused(self) -> None:
        core = self._core
        if core.state is not State.LEADER and len(self._refused) >= core.majority:
            core.follow(core.term, None)

    # ---- voter --------------------------------------------------------------------------

    def is_lease_held(self) -> bool:
        """Whether this member leads, or has heard its leader so lately that it needs no other."""
        core = self._core
        if core.leader is None:
            return False
        heard_ago_s = core.now_s - core.leader_heard_at_s
        return core.leader == core.node or heard_ago_s < core.timing.election_timeout_min_s

    def on_pre_vote_request(self, sender: NodeId, message: PreVoteRequest) -> None:
        core = self._core
        is_granted = (
            message.term >= core.term
            and not self.is_lease_held()
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        for_term = Term(message.term + 1)
        core.reply_soon(sender, PreVoteReply(core.term, core.incarnation, for_term, is_granted))

    def on_vote_request(self, sender: NodeId, message: VoteRequest) -> None:
        core = self._core
        if message.term > core.term:
            if self.is_lease_held() and not message.is_transfer:
                return  # Not even the term: the leader is fine.
            core.follow(message.term, None)
        is_granted = (
            message.term == core.term
            and core.voted_for in (None, sender)
            and core.leader in (None, sender)
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        if not is_granted:
            core.reply_soon(sender, VoteReply(core.term, core.incarnation, is_granted=False))
            return
        if core.voted_for is None:
            core.vote(core.term, sender)
        core.draw_election_timeout()
        core.reply(sender, VoteReply(core.term, core.incarnation, is_granted=True))

    def _is_up_to_date(self, last_term: int, last_index: int) -> bool:
        log = self._core.log
        return (last_term, last_index) >= (log.last_term, log.last_index)

    # ---- transfer -----------------------------------------------------------------------

    def transfer(self, to: NodeId) -> None:
        """Hand over to `to` once its log is whole; give up after one election timeout."""
        core = self._core
        if core.state is not State.LEADER or to not in core.progress:
            return
        self.transfer_to = to
        self._transfer_due_s = core.now_s + core.timing.election_timeout_max_s
        self._is_transfer_told = False
        self.go_on_with_transfer()

    def go_on_with_transfer(self) -> None:
        core, to = self._core, self.transfer_to
        if to is None:
            return
        if core.state is not State.LEADER or core.now_s >= self._transfer_due_s:
            self.transfer_to = None
        elif not self._is_transfer_told and core.progress[to].match_index == core.log.last_index:
            self._is_transfer_told = True
            core.send(to, TimeoutNow(core.term, core.incarnation))

    def on_timeout_now(self) -> None:
        if self._core.state is not State.LEADER:
            self._campaign(is_transfer=True)
