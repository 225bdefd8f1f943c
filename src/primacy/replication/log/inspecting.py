"""A log's directory looked at from outside: verified, listed, searched. Changes not one byte.

Promises  `verify` reads everything and says of each file what it holds and where it is damaged.
Does not  Take the directory's lock: of a node that runs, the last file's end may be half written,
          which then looks like a tail that the next start would cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from primacy.errors import Corrupt, NotFound
from primacy.replication.gtid import Gtid, GtidSet
from primacy.replication.log.offsets import Segment
from primacy.replication.log.opening import checked_heads, closed_segment
from primacy.replication.log.reading import Readable
from primacy.replication.log.record import HEADER_BYTES, Header, Point
from primacy.replication.log.recovery import Scanned
from primacy.replication.log.segments import (
    Head,
    corrupt,
    file_numbers,
    file_path,
    mark_at_end,
)
from primacy.replication.log.spans import Span, gtid_at, gtids_of, spans_of


class FileReport(msgspec.Struct, frozen=True):
    """One file, as far as it could be read."""

    file: str
    size_bytes: int
    before: str
    end: str
    records: int
    payload_bytes: int
    end_offset: int
    """Behind its last sound record or mark."""
    durable_offset: int
    """Before it, everything is known to have been durable."""
    torn_bytes: int
    """Behind `end_offset`: what a crash left, and the next start will cut."""
    damage: str | None
    """What is wrong, with path and offset; None for a sound file."""


class Report(msgspec.Struct, frozen=True):
    """A whole log."""

    directory: str
    files: list[FileReport]
    first: str
    end: str
    gtids: str
    """Everything up to the end, what was purged included."""
    records: int

    @property
    def damage(self) -> str | None:
        """The first, with file and offset."""
        return next((each.damage for each in self.files if each.damage is not None), None)


@dataclass(frozen=True, slots=True)
class Found:
    """A record, and where it is."""

    file: str
    offset: int
    gtid: Gtid
    header: Header
    payload: bytes


def log_directory(directory: Path) -> Path:
    """`directory` itself, or the log in a node's state directory. `NotFound` without one."""
    for each in (directory, directory / "log", directory / "data" / "log"):
        if each.is_dir() and file_numbers(each):
            return each
    raise NotFound(
        f"{directory} holds no log: there is no file log-000000000001.bin or later in it",
        hint="Name the node's state directory, or the directory `data/log` in it.",
    )


def opened(directory: Path) -> Readable:
    """To be read by index, while no process writes to it. It ends where the next start would cut a
    torn tail. `Corrupt` where that start would refuse it; `NotFound` without a log."""
    log, damage = opened_until_damage(directory)
    if damage is not None:
        raise damage
    return log


def opened_until_damage(directory: Path) -> tuple[Readable, Corrupt | None]:
    """The same as far as its last file makes sense, and what is wrong behind that."""
    heads = checked_heads(directory, file_numbers(log_directory(directory)))
    last = heads[-1]
    path = file_path(directory, last.number)
    scanned = Scanned(path, last, path.read_bytes())
    damage: Corrupt | None = None
    try:
        scanned.read()
        scanned.raise_damage(is_last=True)
    except Corrupt as error:
        damage = error
    segments = [closed_segment(directory, head) for head in heads[:-1]]
    segments.append(Segment(path, last, scanned.end_offset, scanned.index))
    spans = [*spans_of(last.gtids, last=last.before.index), *scanned.starts]
    return Readable(directory, segments, spans, scanned.end, cache_bytes=0), damage


def verify(directory: Path) -> Report:
    """`Rejected` for a newer version; `Corrupt` for a damaged head; other damage is reported."""
    heads = checked_heads(directory, file_numbers(directory))
    reports: list[FileReport] = []
    end, spans = heads[0].before, spans_of(heads[0].gtids, last=heads[0].before.index)
    records = 0
    for head in heads:
        is_last = head is heads[-1]
        scanned, report = _verified(directory, head, end, is_last=is_last)
        reports.append(report)
        records += report.records
        end = scanned.end
        spans += scanned.starts
        if report.damage is not None:
            break
    gtids = gtids_of(spans, last=end.index)
    first = str(heads[0].before.position)
    return Report(str(directory), reports, first, str(end), str(gtids), records)


def _verified(
    directory: Path, head: Head, before: Point, *, is_last: bool
) -> tuple[Scanned, FileReport]:
    path = file_path(directory, head.number)
    scanned = Scanned(path, head, path.read_bytes())
    size_bytes = path.stat().st_size
    records = payload_bytes = 0
    damage: str | None = None
    try:
        if head.before != before:
            raise corrupt(
                path, 0, f"it begins behind {head.before}, and the file before it ends at {before}"
            )
        for _, header in scanned.records():
            records += 1
            payload_bytes += header.payload_bytes
        scanned.raise_damage(is_last=is_last)
        if not is_last and mark_at_end(path, head, size_bytes) is None:
            raise corrupt(path, size_bytes, "it has a successor, and does not end with a mark")
    except Corrupt as error:
        damage = error.what
    is_torn = scanned.damage is not None and damage is None
    return scanned, FileReport(
        file=path.name,
        size_bytes=size_bytes,
        before=str(head.before),
        end=str(scanned.end),
        records=records,
        payload_bytes=payload_bytes,
        end_offset=scanned.end_offset,
        durable_offset=scanned.durable_offset,
        torn_bytes=size_bytes - scanned.end_offset if is_torn else 0,
        damage=damage,
    )


def records(directory: Path, *, after: int = 0, file: str | None = None) -> Iterator[Found]:
    """Every record behind `after`, in order; of one file only, if `file` is given. Ends at a torn
    tail; `Corrupt` at any other damage, `NotFound` for a file that is not there."""
    heads = checked_heads(directory, file_numbers(directory))
    names = [file_path(directory, head.number).name for head in heads]
    if file is not None and file not in names:
        raise NotFound(f"{directory} has no file {file}", hint=f"It has {names[0]} to {names[-1]}.")
    for place, head in enumerate(heads):
        path = file_path(directory, head.number)
        is_wanted = file is None or path.name == file
        is_before = place + 1 < len(heads) and heads[place + 1].before.index <= after
        if is_wanted and not is_before:
            yield from _records_of(path, head, after, is_last=place + 1 == len(heads))


def _records_of(path: Path, head: Head, after: int, *, is_last: bool) -> Iterator[Found]:
    data = path.read_bytes()
    scanned = Scanned(path, head, data)
    spans: list[Span] = spans_of(head.gtids, last=head.before.index)
    for offset, header in scanned.records():
        if header.index > after:
            payload = data[offset + HEADER_BYTES : offset + header.length]
            gtid = gtid_at([*spans, *scanned.starts], header.index)
            yield Found(path.name, offset, gtid, header, payload)
    scanned.raise_damage(is_last=is_last)


def commit_time(header: Header) -> str:
    """In UTC, to the microsecond; the number itself where no calendar reaches."""
    try:
        at = datetime.fromtimestamp(header.commit_time_us // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{header.commit_time_us}us"
    return at.replace(microsecond=header.commit_time_us % 1_000_000).isoformat()


# ---- finding --------------------------------------------------------------------------------


def find_index(directory: Path, index: int) -> Found:
    """`NotFound` says what the log has instead."""
    for found in records(directory, after=index - 1):
        if found.header.index == index:
            return found
        break
    raise _not_there(directory, f"record {index}")


def find_gtid(directory: Path, gtids: GtidSet) -> Found:
    """Of a set of one. `NotFound` where another node's epoch has that index, too."""
    if gtids.count != 1:
        raise NotFound(f"{gtids} is {gtids.count} transactions", hint="Name one, such as b@3:101.")
    (gtid,) = gtids
    found = find_index(directory, gtid.number)
    if found.gtid != gtid:
        raise NotFound(
            f"{gtid} is not in this log: its record {gtid.number} is {found.gtid}",
            hint="It belongs to another history. Look in the logs of the other nodes.",
        )
    return found


def find_time(directory: Path, commit_time_us: int) -> Found:
    """The first record that was committed at that time or later, by the primaries' clocks."""
    for found in records(directory):
        if found.header.commit_time_us >= commit_time_us:
            return found
    raise _not_there(directory, "record that was committed then or later")


def find_place(directory: Path, file: str, offset: int) -> Found:
    """The record that holds a byte of a file."""
    for found in records(directory, file=file):
        if found.offset <= offset < found.offset + found.header.length:
            return found
        if found.offset > offset:
            break
    raise NotFound(
        f"no record of {file} holds the byte at {offset}",
        hint="It is in the file's head, in a mark, or behind the end.",
    )


def _not_there(directory: Path, what: str) -> NotFound:
    report = verify(directory)
    return NotFound(
        f"the log in {directory} has no {what}: it begins behind {report.first} and ends at "
        f"{report.end}",
        hint="What is older was purged, or is in another node's log.",
    )
