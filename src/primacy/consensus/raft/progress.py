"""What a leader knows of one follower, and how much it may send there.

PROBE        one append at a time, until it is known where the logs agree
REPLICATE    appends follow one another unanswered, within a window
SNAPSHOT     the follower needs what was compacted; nothing is appended meanwhile

         match found                    behind the compacted log
  PROBE ------------> REPLICATE    PROBE ----------------------> SNAPSHOT
        <------------                    <----------------------
          a rejection                     sent, or given up
"""

from collections import deque
from enum import Enum

from primacy.model import LogIndex


class Pace(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower, as its leader sees it. `match_index` only grows within a term."""

    __slots__ = (
        "heard_at_s",
        "inflight",
        "inflight_bytes",
        "is_probe_out",
        "match_index",
        "next_index",
        "pace",
        "round_answered",
    )

    def __init__(self, next_index: LogIndex, now_s: float) -> None:
        self.pace = Pace.PROBE
        self.match_index = LogIndex(0)
        self.next_index = next_index
        self.inflight: deque[tuple[LogIndex, int]] = deque()
        """Last index and size of each append that is under way."""
        self.inflight_bytes = 0
        self.is_probe_out = False
        self.heard_at_s = now_s
        self.round_answered = 0

    def sent(self, last_index: LogIndex, size_bytes: int) -> None:
        """An append with entries is under way."""
        if self.pace is Pace.REPLICATE:
            self.next_index = LogIndex(last_index + 1)
            self.inflight.append((last_index, size_bytes))
            self.inflight_bytes += size_bytes
        else:
            self.is_probe_out = True

    def acknowledged(self, match_index: LogIndex) -> bool:
        """Take note of a match; whether it is news."""
        while self.inflight and self.inflight[0][0] <= match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        is_news = match_index > self.match_index
        if is_news:
            self.match_index = match_index
        if self.next_index <= match_index:
            self.next_index = LogIndex(match_index + 1)
        return is_news

    def replicate(self) -> None:
        """The logs agree up to `match_index`: send on without waiting."""
        self._enter(Pace.REPLICATE, LogIndex(self.match_index + 1))

    def probe(self, next_index: LogIndex) -> None:
        self._enter(Pace.PROBE, LogIndex(max(next_index, self.match_index + 1)))

    def await_snapshot(self) -> None:
        self._enter(Pace.SNAPSHOT, self.next_index)

    def _enter(self, pace: Pace, next_index: LogIndex) -> None:
        self.pace = pace
        self.next_index = next_index
        self.is_probe_out = False
        self.inflight.clear()
        self.inflight_bytes = 0
