"""Where a record stands: from its index to file and offset, and back.

Promises  A lookup reads at most `EVERY_BYTES`, or what was written between two syncs, more than
          what it looks for.
Does not  Check checksums: whoever takes a record out of the log does, by `decode`.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from primacy.replication.log.record import HEADER_BYTES, RECORD_BYTES_MAX, length_at
from primacy.replication.log.segments import MARK_BYTES, Head, corrupt

EVERY_BYTES = 16 << 10
"""Between two entries of an index: four thousand entries for a file of the usual size."""

WALK_BYTES = 32 << 10
"""Read at a time where one record is looked for: two steps of the index."""

INDEX_BYTES = 1 << 20
"""Read at a time where a whole file is walked."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A record in a file of this node: other nodes have it elsewhere."""

    file: str
    offset: int

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}"


class SparseIndex:
    """Some records of one file, and where they begin. The first is always there."""

    def __init__(self, first_index: int, first_offset: int) -> None:
        self._indexes = [first_index]
        self._offsets = [first_offset]

    def add(self, index: int, offset: int) -> None:
        """Taken if it is far enough behind the last one. Indexes and offsets only grow."""
        if offset - self._offsets[-1] >= EVERY_BYTES:
            self._offsets.append(offset)  # Readers look at `_indexes` first.
            self._indexes.append(index)

    def before(self, index: int) -> tuple[int, int]:
        """The last known (index, offset) not behind `index`."""
        place = max(bisect_right(self._indexes, index) - 1, 0)
        return self._indexes[place], self._offsets[place]

    def until(self, offset: int) -> "SparseIndex":
        """Another one, without what begins at `offset` or behind it."""
        made = SparseIndex(self._indexes[0], self._offsets[0])
        for index, known in zip(self._indexes, self._offsets, strict=True):
            if known < offset:
                made.add(index, known)
        return made


@dataclass(slots=True)
class Segment:
    """One file of the log, as it is known in memory."""

    path: Path
    head: Head
    end_offset: int
    """Behind its last record. Readers go no further."""

    index: SparseIndex | None = None
    """None: the file was there before this process, and nobody has looked into it yet."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole record in a buffer."""

    index: int
    file_offset: int
    begin: int
    end: int
    data: bytes


def frames(segment: Segment, index: int) -> Iterator[Frame]:
    """Records of a file from `index` on, by their lengths. `Corrupt` where a length cannot be;
    `FileNotFoundError` once the file is purged."""
    known = segment.index or index_of(segment)
    at, offset = known.before(index)
    end_offset = segment.end_offset
    fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for frame in _walk(fd, segment.path, at, offset, end_offset, step_bytes=WALK_BYTES):
            if frame.index >= index:
                yield frame
    finally:
        os.close(fd)


def index_of(segment: Segment) -> SparseIndex:
    """Make the index of a file that was there before; kept in `segment`."""
    head = segment.head
    made = SparseIndex(head.before.index + 1, head.first_offset)
    fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        begin = (head.before.index + 1, head.first_offset)
        end_offset = segment.end_offset
        for frame in _walk(fd, segment.path, *begin, end_offset, step_bytes=INDEX_BYTES):
            made.add(frame.index, frame.file_offset)
    finally:
        os.close(fd)
    segment.index = made
    return made


def _walk(
    fd: int, path: Path, index: int, offset: int, end_offset: int, *, step_bytes: int
) -> Iterator[Frame]:
    want = step_bytes
    while offset < end_offset:
        data = os.pread(fd, min(want, end_offset - offset), offset)
        place = 0
        while True:
            length = length_at(data, place)
            if length == MARK_BYTES:
                place += length
            elif HEADER_BYTES <= length <= len(data) - place:
                yield Frame(index, offset + place, place, place + length, data)
                index += 1
                place += length
            else:
                break
        if place:
            offset += place
            want = step_bytes
        elif HEADER_BYTES <= length <= min(RECORD_BYTES_MAX, end_offset - offset) and want < length:
            want = length
        else:
            raise corrupt(path, offset, f"a record says that it is {length} bytes long")


def collect(segment: Segment, after: int, *, last: int, bytes_max: int) -> bytes:
    """The file's records from `after` + 1 to `last`, those that fit into `bytes_max`, and at least
    the first. The end of the file ends them. `Corrupt` where the first is not there."""
    known = segment.index or index_of(segment)
    index, offset = known.before(after + 1)
    end_offset = segment.end_offset
    fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            want = bytes_max + EVERY_BYTES + WALK_BYTES
            data = os.pread(fd, min(want, end_offset - offset), offset)
            taken = _take(data, index, after=after, last=last, bytes_max=bytes_max)
            if taken.pieces:
                return b"".join(taken.pieces)
            offset, index = offset + taken.end, taken.next_index
            if taken.end:
                continue
            length = length_at(data, 0)  # Of a record that is larger than what was read.
            if not HEADER_BYTES <= length <= min(RECORD_BYTES_MAX, end_offset - offset):
                what = f"record {index} is not there: its length would be {length}"
                raise corrupt(segment.path, offset, what)
            if index == after + 1:
                return os.pread(fd, length, offset)
            offset, index = offset + length, index + 1
    finally:
        os.close(fd)


class _Taken(NamedTuple):
    pieces: list[bytes]
    end: int
    """Where in the buffer the next frame begins."""
    next_index: int


def _take(data: bytes, index: int, *, after: int, last: int, bytes_max: int) -> _Taken:
    """What stands between the marks, from `after` + 1 on. `index` is the first record's."""
    pieces: list[bytes] = []
    size = len(data)
    left_bytes = bytes_max
    place, begin = 0, -1
    while index <= last:
        length = length_at(data, place)
        if length == MARK_BYTES:
            if begin >= 0:
                pieces.append(data[begin:place])
                begin = -1
            place += length
            continue
        if not HEADER_BYTES <= length <= size - place:
            break
        if index > after:
            if length > left_bytes and (pieces or begin >= 0):
                break
            left_bytes -= length
            begin = place if begin < 0 else begin
        index += 1
        place += length
    if begin >= 0:
        pieces.append(data[begin:place])
    return _Taken(pieces, place, index)
