"""What was appended last, as frames: made once, sent to every receiver that is level.

Promises  At most about `size_bytes_max` are kept; the oldest go first.
"""

from collections import deque
from dataclasses import dataclass

from primacy.replication.pull.messages import records_frame


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole records, appended at once."""

    end: int
    """The index of the last one."""
    size_bytes: int
    frame: bytes


class Recent:
    """Pieces by the index before each."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._pieces: dict[int, Piece] = {}
        self._order: deque[int] = deque()

    def add(self, data: bytes, *, after: int, end: int) -> None:
        self._pieces[after] = Piece(end, len(data), records_frame(data))
        self._order.append(after)
        self._size_bytes += len(data)
        while self._size_bytes > self._size_bytes_max:
            self._size_bytes -= self._pieces.pop(self._order.popleft()).size_bytes

    def after(self, index: int) -> Piece | None:
        return self._pieces.get(index)

    def clear(self) -> None:
        self._pieces.clear()
        self._order.clear()
        self._size_bytes = 0
