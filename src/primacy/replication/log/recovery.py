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
    plain_run,
    source_id,
)
from primacy.replication.log.segments import (
    MARK_BYTES,
    Head,
    corrupt,
    durable_by_marks,
    mark_at,
    write_at,
)
from primacy.replication.log.spans import Span, spans_of
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
    """A file taken from its head to its end, or to where it is damaged: by `read` or `records`."""

    def __init__(self, path: Path, head: Head, data: bytes) -> None:
        self.path = path
        self.head = head
        self.end = head.before
        self.end_offset = head.first_offset
        self.durable_offset = head.first_offset
        self.index = SparseIndex(head.before.index + 1, head.first_offset)
        self.starts: list[Span] = []
        self.damage: Damage | None = None
        before = spans_of(head.gtids, last=head.before.index)
        self._source = source_id(before[-1].node) if before else b""
        self._data = data
        self._is_over = False

    def read(self) -> None:
        """All of it. `Corrupt` where a record that carries its checksum does not belong; `Rejected`
        for a newer version's."""
        while not self._is_over:
            offset, first = self.end_offset, self.end.index + 1
            self.end_offset, self.end = plain_run(
                self._data, offset, after=self.end, source=self._source
            )
            if self.end_offset > offset:
                self.index.add(first, offset)
            self._step()

    def records(self) -> Iterator[tuple[int, Header]]:
        """The same, with each record's offset and header on the way."""
        while not self._is_over:
            found = self._step()
            if found is not None:
                yield found

    def _step(self) -> tuple[int, Header] | None:
        """Past what stands at `end_offset`: a record, which is returned, or a mark; or it ends."""
        data, offset, header = self._data, self.end_offset, None
        length = length_at(data, offset)
        if length == MARK_BYTES:
            durable_offset = mark_at(data, offset, self.head.salt)
            if durable_offset is None:
                self._found_damage("a mark is damaged")
                return None
            self.durable_offset = max(self.durable_offset, durable_offset)
        elif is_sound(data, offset, length):
            header = header_at(data, offset)
            self._take(offset, header)
        elif not length and data.count(0, offset) == len(data) - offset:
            self._is_over = True
            return None
        else:
            self._found_damage("no whole record with a right checksum stands here")
            return None
        self.end_offset += length
        return None if header is None else (offset, header)

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
                self._source = source_id(start.node)
        except (Conflict, Corrupt) as error:
            raise corrupt(self.path, offset, error.what) from error
        if header.source != self._source:
            raise corrupt(self.path, offset, "a record is not by the primary of its epoch")
        self.index.add(header.index, offset)

    def _found_damage(self, what: str) -> None:
        by_marks = durable_by_marks(self._data, self.end_offset, self.head.salt)
        self.damage = Damage(self.end_offset, what, max(by_marks, self.durable_offset))
        self._is_over = True


def recover_last(path: Path, head: Head, events: Sink) -> tuple[int, Scanned]:
    """Open the last file to go on behind what it holds, all of which is durable from then on."""
    data = path.read_bytes()
    scanned = Scanned(path, head, data)
    scanned.read()
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
