"""Opening a log's directory: the heads of all files, and the last one record by record.

Promises  Nothing is changed where something is damaged; a leftover of a file that was being made
          is removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from primacy.replication.gtid import GtidSet
from primacy.replication.log.offsets import Segment, SparseIndex
from primacy.replication.log.record import Point
from primacy.replication.log.recovery import recover_last
from primacy.replication.log.segments import (
    Head,
    corrupt,
    create_file,
    file_numbers,
    file_path,
    mark_at_end,
    read_head,
)
from primacy.replication.log.spans import Span, spans_of
from primacy.replication.log.tail import Tail
from primacy.runtime.files import DiskFull, is_full, sync_directory
from primacy.telemetry import Sink


@dataclass(frozen=True, slots=True)
class Opened:
    """A directory as it was found, ready to go on."""

    segments: list[Segment]
    spans: list[Span]
    end: Point
    tail: Tail


def open_directory(directory: Path, *, base: Point, gtids: GtidSet, events: Sink) -> Opened:
    """A directory without a log gets one that begins at `base`. Blocks."""
    for leftover in directory.glob("log-*.bin.new"):
        leftover.unlink()
    numbers = file_numbers(directory)
    if not numbers:
        head = create_file(directory, 1, before=base, gtids=gtids)
        tail = Tail.of_new(directory, head)
        segment = new_segment(directory, head)
        return Opened([segment], spans_of(gtids, last=base.index), base, tail)
    heads = checked_heads(directory, numbers)
    segments = [closed_segment(directory, head) for head in heads[:-1]]
    last = heads[-1]
    path = file_path(directory, last.number)
    fd, scanned = recover_last(path, last, events)
    tail = Tail(fd, last, end_offset=scanned.end_offset, marked_offset=scanned.durable_offset)
    segments.append(Segment(path, last, scanned.end_offset, scanned.index))
    spans = [*spans_of(last.gtids, last=last.before.index), *scanned.starts]
    return Opened(segments, spans, scanned.end, tail)


def checked_heads(directory: Path, numbers: list[int]) -> list[Head]:
    """Of all files, oldest first. `Corrupt` for a gap between them."""
    heads = [read_head(file_path(directory, number), number) for number in numbers]
    for before, behind in pairwise(heads):
        path = file_path(directory, behind.number)
        if behind.number != before.number + 1:
            raise corrupt(path, 0, f"the file before it is missing: {before.number} is the next")
        if behind.before <= before.before:
            what = f"it begins at {behind.before}, and the file before it at {before.before}"
            raise corrupt(path, 0, what)
    return heads


def closed_segment(directory: Path, head: Head) -> Segment:
    """A file with a successor. It ends with a mark; more is looked at when somebody reads it."""
    path = file_path(directory, head.number)
    size_bytes = path.stat().st_size
    if mark_at_end(path, head, size_bytes) is None:
        what = "it was finished by a mark, and does not end with one"
        raise corrupt(path, size_bytes, what)
    return Segment(path, head, size_bytes)


def new_segment(directory: Path, head: Head) -> Segment:
    """A file without a record."""
    index = SparseIndex(head.before.index + 1, head.first_offset)
    return Segment(file_path(directory, head.number), head, head.first_offset, index)


@contextmanager
def needing_space(directory: Path) -> Iterator[None]:
    """Around what makes a file: without space nothing has changed."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFull(
            f"no space for the log in {directory}",
            hint="Nothing was written. Make space on the disk of the node's state directory.",
        ) from error


def remove_file(path: Path) -> None:
    """Durably, so that files go one after another, whatever the file system does."""
    path.unlink()
    sync_directory(path.parent)
