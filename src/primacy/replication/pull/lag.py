"""How far behind: in transactions, bytes and seconds, by one node's own monotonic clock. Pure.

Promises  The seconds are the age of the oldest record that is missing, since it was appended here;
          where that was longer ago than is remembered, they are at least so many.
"""

from collections import deque
from dataclasses import dataclass

SAMPLES_MAX = 4096
SAMPLE_EVERY_S = 0.02
"""Together: the last eighty seconds at least. Older lag is a lower bound, and large anyway."""


@dataclass(frozen=True, slots=True)
class Lag:
    """All three are 0 for whoever is level."""

    transactions: int = 0
    size_bytes: int = 0
    delay_s: float = 0.0


LEVEL = Lag()


@dataclass(slots=True)
class _Sample:
    last: int
    at_s: float


class Growth:
    """Remembers when the log grew to where."""

    def __init__(self, end: int, now_s: float) -> None:
        self.end = end
        self.total_bytes = 0
        """By how much the log has grown since then."""
        self._began_s = now_s
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES_MAX)

    def grew(self, end: int, size_bytes: int, now_s: float) -> None:
        """`size_bytes` more make the log end at `end`."""
        if end <= self.end:
            return
        self.total_bytes += size_bytes
        last = self._samples[-1] if self._samples else None
        if last is not None and now_s - last.at_s < SAMPLE_EVERY_S:
            last.last = end
        else:
            self._samples.append(_Sample(end, now_s))
        self.end = end

    def lag(self, index: int, unsent_bytes: int, now_s: float) -> Lag:
        """Of somebody who has everything up to `index`; the caller knows the bytes."""
        if index >= self.end:
            return LEVEL
        at_s = self._began_s
        for sample in reversed(self._samples):
            if sample.last <= index:
                break
            at_s = sample.at_s
        return Lag(self.end - index, unsent_bytes, max(0.0, now_s - at_s))
