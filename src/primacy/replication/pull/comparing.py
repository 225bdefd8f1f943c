"""Where two logs part: the last common point, found with few questions. Pure.

Promises  `common` is the last point that both logs have, once `ask` has no more questions; None
          where even the lowest differs.
Assumes   The rolling hash: logs that agree at an index agree at every index below it.
"""

from collections.abc import Mapping

from primacy.replication.log.record import Point
from primacy.replication.pull.messages import POINTS_MAX


class Search:
    """Between `low` and `high`, both included; both logs have all of them."""

    def __init__(self, low: int, high: int) -> None:
        self.common: Point | None = None
        self._low = low - 1
        """Known to be equal, or below the range, of which nothing can be known."""
        self._high = high + 1
        """Known to differ, or above the range."""

    def ask(self) -> tuple[int, ...]:
        """The indexes to compare next; empty when the answer is known."""
        count = self._high - self._low - 1
        if count <= 0:
            return ()
        if count <= POINTS_MAX:
            return tuple(range(self._low + 1, self._high))
        steps = (
            self._low + 1 + (count - 1) * each // (POINTS_MAX - 1) for each in range(POINTS_MAX)
        )
        return tuple(dict.fromkeys(steps))

    def learn(self, own: Mapping[int, Point | None], other: Mapping[int, Point | None]) -> bool:
        """False: one of the logs no longer has what was asked for; begin again."""
        for index in sorted(own):
            point = own[index]
            if point is None or other.get(index) is None:
                return False
            if point != other[index]:
                self._high = min(self._high, index)
                break
            if index > self._low:
                self._low, self.common = index, point
        return True
