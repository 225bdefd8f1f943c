"""Linearizable reads without a log write.

Source    Ongaro's thesis, section 6.4 (ReadIndex)
Promises  A read becomes ready only after a majority has confirmed, in a round of heartbeats that
          began after the read was asked for, that this member still leads; so a leader that was
          paused or cut off never answers from the past. No read is answered before an entry of
          the leader's own term is committed: until then it may not know what is.
Does not  Rest on clocks or leases.
"""

from primacy.consensus.machine import ReadReady, Refused
from primacy.consensus.quorum import reached_by_majority
from primacy.consensus.raft.core import Core, State
from primacy.consensus.raft.replication import Replication
from primacy.model import LogIndex, NodeId


class Reads:
    """Reads that arrive while a round is out wait for the next: one round serves many."""

    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication
        self._waiting: list[int] = []
        self._confirming: list[int] = []
        self._round = 0
        self._index = LogIndex(0)

    def ask(self, read_id: int) -> None:
        limit = self._core.limits.reads_waiting_max
        if len(self._waiting) >= limit:
            reason = f"{limit} reads wait to be confirmed"
            self._core.effects.append(Refused(read_id, self._core.node, reason))
            return
        self._waiting.append(read_id)
        self._start()

    def settle(self) -> None:
        """End a step: go on where something was waited for, or give up with the lead."""
        if not self._waiting and not self._confirming:
            return
        core = self._core
        if core.state is not State.LEADER:
            self._refuse_all()
            return
        if self._confirming:
            rounds = [progress.round_answered for progress in core.progress.values()]
            rounds.append(self._replication.round)
            if reached_by_majority(rounds) >= self._round:
                core.effects += [ReadReady(read_id, self._index) for read_id in self._confirming]
                self._confirming = []
        self._start()

    def _start(self) -> None:
        core, replication = self._core, self._replication
        if self._confirming or not self._waiting:
            return
        if core.commit_index < replication.term_start_index:
            return
        self._confirming, self._waiting = self._waiting, []
        self._index = core.commit_index
        if core.peers:
            replication.heartbeat()
        self._round = replication.round

    def _refuse_all(self) -> None:
        core = self._core
        leader: NodeId | None = core.leader
        for read_id in self._confirming + self._waiting:
            core.effects.append(Refused(read_id, leader, "this member no longer leads"))
        self._confirming, self._waiting = [], []
