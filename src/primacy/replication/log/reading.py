"""The reading half of a log: what it holds, by index, from any thread.

Promises  Whole records, never past `end`; the newest of them without a file. What was being read
          while the log was cut is not returned.
Assumes   The writing half changes the state under `_state`, and replaces lists, never edits them;
          and before it touches a file that readers may have open.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from primacy.errors import Conflict, Corrupt, Rejected
from primacy.model import Epoch, NodeId
from primacy.replication.gtid import Gtid, GtidSet
from primacy.replication.log import spans as named
from primacy.replication.log.newest import Newest
from primacy.replication.log.offsets import Place, Segment, collect, frames
from primacy.replication.log.record import Point, header_at
from primacy.replication.log.spans import Span

T = TypeVar("T")


class Purged(Conflict):
    """What was asked for has been removed: whoever needs it has to begin from a copy."""

    def __init__(self, *, after: int, first: Point) -> None:
        super().__init__(
            f"the log begins behind {first.position}: record {after + 1} was purged",
            hint="Clone the node that needs it.",
        )
        self.after = after
        self.first = first


class Seen(NamedTuple):
    """What a reader goes by, all of one moment."""

    cut_count: int
    end: Point
    segments: list[Segment]


class Readable:
    """State and questions. `Log` adds what changes it."""

    def __init__(
        self,
        directory: Path,
        segments: list[Segment],
        spans: list[Span],
        end: Point,
        *,
        cache_bytes: int,
    ) -> None:
        self.directory = directory
        self.end = end
        """Behind the last record that was appended."""
        self.durable = end
        """All up to here survives a loss of power."""
        self.cut_count = 0
        """Grows with each cut: what was read before one may be gone."""
        self._segments = segments
        self._spans = spans
        self._newest = Newest(cache_bytes)
        self._state = threading.Lock()

    @property
    def first(self) -> Point:
        """Everything up to here has been purged, or was never here. Reading begins behind it."""
        return self._segments[0].head.before

    @property
    def gtids(self) -> GtidSet:
        """Everything up to `end`, what was purged included."""
        with self._state:
            return named.gtids_of(self._spans, last=self.end.index)

    @property
    def spans(self) -> list[Span]:
        """Who wrote which part of it, what was purged included."""
        with self._state:
            return list(self._spans)

    def gtids_until(self, index: int) -> GtidSet:
        """Everything up to a record that is or was in the log."""
        with self._state:
            return named.gtids_of(self._spans, last=min(index, self.end.index))

    def gtid_of(self, index: int) -> Gtid:
        """The name of a record that is or was in the log."""
        with self._state:
            if not 1 <= index <= self.end.index:
                raise Rejected(
                    f"the log has no record {index}: it ends at {self.end.position}",
                    hint="Ask for one from 1 on.",
                )
            return named.gtid_at(self._spans, index)

    def node_of(self, epoch: Epoch) -> NodeId | None:
        """Who was the primary of an epoch that left records."""
        with self._state:
            return next((span.node for span in self._spans if span.epoch == epoch), None)

    def first_of(self, epoch: Epoch) -> int:
        """The index of the record with which an epoch began; 0 where it left none."""
        with self._state:
            return next((span.first for span in self._spans if span.epoch == epoch), 0)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return _size_of(self._segments)

    def point(self, index: int) -> Point | None:
        """None where the record is purged or not there yet."""
        return self._steadily(lambda seen: self._point(seen, index))

    def _point(self, seen: Seen, index: int) -> Point | None:
        first = seen.segments[0].head.before
        for known in (seen.end, self.durable, first):
            if known.index == index:
                return known
        if not first.index < index <= seen.end.index:
            return None
        cached = self._newest.header(index)
        if cached is not None:
            return cached[0].point
        for frame in frames(_segment_of(seen, index), index):
            return header_at(frame.data, frame.begin).point
        return None

    def place_of(self, index: int) -> Place | None:
        """In which file of this node a record begins, and where."""
        return self._steadily(lambda seen: self._place_of(seen, index))

    def _place_of(self, seen: Seen, index: int) -> Place | None:
        if not seen.segments[0].head.before.index < index <= seen.end.index:
            return None
        cached = self._newest.header(index)
        if cached is not None:
            _, chunk, place = cached
            return Place(chunk.file, chunk.offset + place)
        segment = _segment_of(seen, index)
        for frame in frames(segment, index):
            return Place(segment.path.name, frame.file_offset)
        return None

    def bytes_after(self, index: int) -> int:
        """What follows a record, in bytes of the files: the lag of whoever has it."""

        def look(seen: Seen) -> int:
            place = self._place_of(seen, index + 1)
            if place is None:
                return 0 if index >= seen.end.index else _size_of(seen.segments)
            behind = [each for each in seen.segments if each.path.name >= place.file]
            return _size_of(behind) - place.offset

        return self._steadily(look) or 0

    def read(self, after: int, *, bytes_max: int, until: int | None = None) -> bytes:
        """Whole records behind `after` and not behind `until`: about `bytes_max`, and at least one
        even if it alone is larger. b"" where there is none yet. `Purged` below `first`; `Conflict`
        behind the end, where the log was cut, and where it was cut meanwhile."""
        seen = self._seen()
        first, end = seen.segments[0].head.before, seen.end
        last = end.index if until is None else min(until, end.index)
        if after < first.index:
            raise Purged(after=after, first=first)
        if after > end.index:
            raise Conflict(
                f"the log ends at {end.position}: there is nothing behind {after}",
                hint="It was cut. Compare points and follow again.",
            )
        if after >= last:
            return b""
        try:
            data = self._newest.read(after, bytes_max=bytes_max, until=last)
            if data is None:
                segment = _segment_of(seen, after + 1)
                data = collect(segment, after, last=last, bytes_max=bytes_max)
        except (Corrupt, FileNotFoundError) as error:
            self._check_uncut(seen)
            if isinstance(error, Corrupt):
                raise
            raise Purged(after=after, first=self.first) from error
        self._check_uncut(seen)
        return data

    def _seen(self) -> Seen:
        with self._state:
            return Seen(self.cut_count, self.end, self._segments)

    def _check_uncut(self, seen: Seen) -> None:
        if self.cut_count != seen.cut_count:
            raise Conflict("the log was cut while it was read", hint="Follow again.")

    def _steadily(self, look: Callable[[Seen], T]) -> T | None:
        """Looked at again where the log was cut meanwhile. None where the file was purged."""
        while True:
            seen = self._seen()
            try:
                found: T | None = look(seen)
            except FileNotFoundError:
                found = None
            except Corrupt:
                if self.cut_count == seen.cut_count:
                    raise
                continue
            if self.cut_count == seen.cut_count:
                return found


def _size_of(segments: list[Segment]) -> int:
    return sum(segment.end_offset for segment in segments)


def _segment_of(seen: Seen, index: int) -> Segment:
    """The file that holds a record. `FileNotFoundError` if it was purged a moment ago."""
    for each in reversed(seen.segments):
        if each.head.before.index < index:
            return each
    raise FileNotFoundError(f"the file of record {index} was purged")
