"""The newest bytes of the log in memory: what replicas ask for is seldom older.

Promises  What it returns are bytes that stand in the log, whole records, in order.
Assumes   One thread adds and cuts; any number read.
"""

import threading
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice

from primacy.replication.log.record import Header, header_at, length_at


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one call appended."""

    first: int
    last: int
    file: str
    offset: int
    data: bytes

    def place_of(self, index: int) -> int:
        """Where record `index` begins in `data`."""
        place = 0
        for _ in range(index - self.first):
            place += length_at(self.data, place)
        return place


class Newest:
    """Holds at most about `size_bytes_max`, and always the last chunk."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._chunks: list[Chunk] = []
        self._dropped = 0
        self._lock = threading.Lock()

    def add(self, chunk: Chunk) -> None:
        with self._lock:
            chunks = self._chunks
            chunks.append(chunk)
            self._size_bytes += len(chunk.data)
            while self._size_bytes > self._size_bytes_max and self._dropped < len(chunks) - 1:
                self._size_bytes -= len(chunks[self._dropped].data)
                self._dropped += 1
            if self._dropped > len(chunks) // 2:  # Seldom, so that one append costs little.
                del chunks[: self._dropped]
                self._dropped = 0

    def clear(self) -> None:
        with self._lock:
            self._chunks = []
            self._dropped = 0
            self._size_bytes = 0

    def read(self, after: int, *, bytes_max: int, until: int) -> bytes | None:
        """Whole records of `after` + 1 to `until`, at least one; None where it is not here."""
        found = self._from(after + 1, bytes_max=bytes_max)
        if not found:
            return None
        pieces: list[bytes] = []
        size_bytes = 0
        for chunk in found:
            if chunk.first > until:
                break
            begin = chunk.place_of(after + 1) if chunk.first <= after else 0
            room_bytes = bytes_max - size_bytes
            piece = chunk.data[begin:] if begin else chunk.data
            if len(piece) > room_bytes or chunk.last > until:
                count = until - max(after, chunk.first - 1)
                piece = _whole(piece, room_bytes, count, is_first=not pieces)
                pieces.append(piece)
                break
            pieces.append(piece)
            size_bytes += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def header(self, index: int) -> tuple[Header, Chunk, int] | None:
        """A record's header, the chunk it is in, and where it begins there."""
        chunks = self._from(index, bytes_max=1)
        if not chunks:
            return None
        place = chunks[0].place_of(index)
        return header_at(chunks[0].data, place), chunks[0], place

    def _from(self, index: int, *, bytes_max: int) -> list[Chunk]:
        """The chunks from the one that holds `index` on, until `bytes_max` are behind it."""
        with self._lock:
            chunks = self._chunks
            if not chunks or not chunks[self._dropped].first <= index <= chunks[-1].last:
                return []
            place = bisect_right(chunks, index, lo=self._dropped, key=_first) - 1
            found = [chunks[place]]
            left_bytes = bytes_max
            for chunk in islice(chunks, place + 1, None):
                if left_bytes <= 0:
                    break
                found.append(chunk)
                left_bytes -= len(chunk.data)
            return found


def _first(chunk: Chunk) -> int:
    return chunk.first


def _whole(data: bytes, bytes_max: int, count: int, *, is_first: bool) -> bytes:
    """At most `count` records from the beginning of `data` that fit; one if it is the first."""
    end = 0
    for taken in range(count):
        length = length_at(data, end)
        if not length or (end + length > bytes_max and (taken or not is_first)):
            break
        end += length
    return data[:end]
