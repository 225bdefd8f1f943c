"""How likely is it that a peer has gone? One number for each, from when it was heard. Pure.

Source    Hayashibara, Defago, Yared, Katayama, "The phi accrual failure detector", SRDS 2004,
          section IV: phi = -log10(P(a silence lasts longer than this one)), the silences taken to
          be normally distributed, mean and spread estimated from a window of arrivals.
What is   Published statuses, as the store's watch brings them: a node that is well speaks at
heard     least every `STATUS_EVERY_S`. While the store itself is silent (an election, or this
          node is cut off) nobody's silence grows by more than `STORE_PAUSE_MAX_S`.
Promises  phi grows with a silence, and stays low for a peer that has always been slow.
Does not  Decide anything. It may influence only how long the brain waits: when a silent member
          leaves the sync set, for whom the recorded primary or an equally advanced node waits, and
          whether a replica takes a lease before the primary's has ended. Who may be promoted, what
          counts as acknowledged and when a database is killed never rest on it.
"""

import math
from collections import deque

from primacy.model import NodeId

STATUS_EVERY_S = 1.0
"""A status is published at least this often by a node that is well."""

RHYTHM_S = 1.25
"""The shortest mean silence that is believed: `STATUS_EVERY_S` and the publisher's own step. A busy
node speaks more often, and may turn calm at any moment."""

SPREAD_MIN_S = 0.2
"""However regular a peer has been: the scheduler and the disk are not."""

WINDOW = 100
"""Silences remembered of each peer: a minute or two."""

ABSENCE_S = 10.0
"""A silence this long was no pause but a life that ended: it teaches nothing about the next."""

STORE_PAUSE_MAX_S = 1.25
"""Own statuses come by the same watch: when not even these do, it is the store that is silent."""

CERTAIN_PHI = 8.0
"""One in 10^8 silences of this peer lasts as long: it is taken to have gone."""

PHI_MAX = 99.0


def phi_of(silent_s: float, *, mean_s: float, spread_s: float) -> float:
    """Of a silence of `silent_s`, given how long those before it lasted."""
    tail = 0.5 * math.erfc((silent_s - mean_s) / (spread_s * math.sqrt(2.0)))
    return PHI_MAX if tail < 10.0**-PHI_MAX else max(0.0, -math.log10(tail))


class _Peer:
    """One peer's arrivals: times on the detector's own clock."""

    def __init__(self, heard_at_s: float) -> None:
        self.heard_at_s = heard_at_s
        self._silences_s: deque[float] = deque()
        self._sum_s = 0.0
        self._sum_of_squares = 0.0

    def hear(self, now_s: float) -> None:
        silence_s = now_s - self.heard_at_s
        self.heard_at_s = now_s
        if silence_s >= ABSENCE_S:
            self._silences_s.clear()
            self._sum_s = self._sum_of_squares = 0.0
            return
        self._note(silence_s, 1)
        self._silences_s.append(silence_s)
        if len(self._silences_s) > WINDOW:
            self._note(self._silences_s.popleft(), -1)

    def _note(self, silence_s: float, sign: int) -> None:
        self._sum_s += sign * silence_s
        self._sum_of_squares += sign * silence_s**2

    def phi(self, silent_s: float) -> float:
        count = max(1, len(self._silences_s))
        mean_s = self._sum_s / count
        variance = max(0.0, self._sum_of_squares / count - mean_s**2)
        return phi_of(
            silent_s,
            mean_s=max(RHYTHM_S, mean_s),
            spread_s=max(SPREAD_MIN_S, math.sqrt(variance)),
        )


class Suspicions:
    """Fed with every arrival; asked by whoever plans. Times are seconds on one monotonic clock."""

    def __init__(self, now_s: float) -> None:
        self._arrived_at_s = now_s
        """The last arrival of anything."""
        self._counted_s = 0.0
        """Up to then: time without the pauses of the store."""
        self._peers: dict[NodeId, _Peer] = {}

    def arrived(self, now_s: float) -> None:
        """The store has said something, about whomever."""
        self._counted_s = self._count(now_s)
        self._arrived_at_s = max(now_s, self._arrived_at_s)

    def hear(self, node: NodeId, now_s: float) -> None:
        """The node has spoken."""
        self.arrived(now_s)
        peer = self._peers.get(node)
        if peer is None:
            self._peers[node] = _Peer(self._counted_s)
        else:
            peer.hear(self._counted_s)

    def forget(self, node: NodeId) -> None:
        self._peers.pop(node, None)

    def silent_for_s(self, now_s: float) -> dict[NodeId, float]:
        """Of each peer that was ever heard, the pauses of the store left out."""
        counted_s = self._count(now_s)
        return {node: counted_s - peer.heard_at_s for node, peer in self._peers.items()}

    def phis(self, now_s: float) -> dict[NodeId, float]:
        return {
            node: self._peers[node].phi(silent_s)
            for node, silent_s in self.silent_for_s(now_s).items()
        }

    def _count(self, now_s: float) -> float:
        gap_s = max(0.0, now_s - self._arrived_at_s)
        return self._counted_s + min(gap_s, STORE_PAUSE_MAX_S)
