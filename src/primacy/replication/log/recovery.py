"""What a log's file holds, checked byte by byte; and what a crash may have left at its end.

Promises  A tail that a crash left unfinished is cut and reported. Damage before a place that is
          known to have been durable is `Corrupt`, with file and offset, and nothing is changed.
Does not  Cut anything but the end of the last file: a file that has a successor was durable.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from primacy.errors import Conflict, Corrupt
from primacy.replication.log.offsets import SparseIndex
from primacy.replication.log.record import (
    HEADER_BYTES,
    Header,
    Kind,
    epoch_start,
    follow,
    header_at,
    is_sound,
    length_at,
)
from primacy.replication.log.segments import (
    MARK_BYTES,
    Head,
    corrupt,
    durable_by_marks,
    mark_at,
    write_at,
)
from primacy.replication.log.spans import Span
from primacy.runtime.files import sync_directory
from primacy.telemetry import Event, Sink, Value


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file stops making sense, and how far it is known to have been durable."""

    offset: int
    what: str
    durable_offset: int

    @property
    def is_torn_tail(self) -> bool:
        """Nothing says that this was ever durable: a crash before a sync leaves such an end."""
        return self.durable_offset <= self.offset


class Scanned:
    """A file read from its head to its end, or to where it is damaged."""

    def __init__(self, path: Path, head: Head, data: bytes) -> None:
        self.path = path
        self.head = head
        self.end = head.before
        self.end_offset = head.first_offset
        self.durable_offset = head.first_offset
        self.index = SparseIndex(head.before.index + 1, head.first_offset)
        self.starts: list[Span] = []
        self.damage: Damage | None = None
        self.has_spare_zeros = False
        self._data = data

    def records(self) -> Iterator[tuple[int, Header]]:
        """Each record's offset and header. To be taken to the end. `Corrupt` where a record that
        carries its checksum does not belong; `Rejected` for a newer version's."""
        data, salt = self._data, self.head.salt
        offset = self.head.first_offset
        while offset < len(data):
            length = length_at(data, offset)
            if length == MARK_BYTES:
                durable_offset = mark_at(data, offset, salt)
                if durable_offset is None:
                    self._found_damage(offset, "a mark is damaged")
                    return
                self.durable_offset = max(self.durable_offset, durable_offset)
                offset += MARK_BYTES
            elif is_sound(data, offset, length):
                header = header_at(data, offset)
                self._take(offset, header)
                yield offset, header
                offset += length
            elif not length and data.count(0, offset) == len(data) - offset:
                self.has_spare_zeros = True
                return
            else:
                self._found_damage(offset, "no whole record with a right checksum stands here")
                return
            self.end_offset = offset

    def raise_damage(self, *, is_last: bool) -> None:
        """`Corrupt` for what no crash leaves."""
        damage = self.damage
        if damage is not None and not (is_last and damage.is_torn_tail):
            raise corrupt(
                self.path,
                damage.offset,
                f"{damage.what}, and all before offset {damage.durable_offset} had been durable",
            )

    def _take(self, offset: int, header: Header) -> None:
        try:
            self.end = follow(header, self._data, offset, after=self.end)
            if header.kind is Kind.EPOCH:
                start = epoch_start(self._data[offset + HEADER_BYTES : offset + header.length])
                self.starts.append(Span(header.epoch, start.node, header.index))
        except (Conflict, Corrupt) as error:
            raise corrupt(self.path, offset, error.what) from error
        self.index.add(header.index, offset)

    def _found_damage(self, offset: int, what: str) -> None:
        by_marks = durable_by_marks(self._data, offset, self.head.salt)
        self.damage = Damage(offset, what, max(by_marks, self.durable_offset))


def recover_last(path: Path, head: Head, events: Sink) -> tuple[int, Scanned]:
    """Open the last file to go on behind what it holds, all of which is durable from then on."""
    data = path.read_bytes()
    scanned = Scanned(path, head, data)
    for _ in scanned.records():
        pass
    scanned.raise_damage(is_last=True)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if scanned.end_offset < len(data):
            os.ftruncate(fd, scanned.end_offset)
        # What was read may stand in the page cache only, and after a failed sync the kernel takes
        # its pages for clean: written again, they are dirty, and the sync below is a true one.
        unsure = min(scanned.durable_offset, scanned.end_offset)
        write_at(fd, data[unsure : scanned.end_offset], unsure)
        os.fsync(fd)
        sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        raise
    damage = scanned.damage
    if damage is not None:
        fields: dict[str, Value] = {
            "file": str(path),
            "offset": damage.offset,
            "cut_bytes": len(data) - damage.offset,
            "end": str(scanned.end.position),
        }
        events(Event("log-tail-cut", fields))
    return fd, scanned
