"""The write-ahead log on disk. The format, and what recovery does, is `docs/formats/wal.md`.

Promises  A write is reported durable after `fdatasync` of everything up to it. Writes keep their
          order. What is asked for while a sync runs goes into the next one, as one record.
          A torn tail is cut and reported; other damage is refused with file and offset.
Assumes   One process has the directory (the identity's lock sees to that). A rename is atomic.
Does not  Try again: after a failed write or sync it reports `Unavailable` once and does nothing
          more, since the kernel may have dropped the pages that it could not write. Where there was
          no space for a write it reports `DiskFull`: nothing is in doubt, and the log may be opened
          again.
"""

import os
import queue
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import msgspec

from primacy import telemetry
from primacy.consensus.machine import Entry, HardState, Persist, SnapshotMeta
from primacy.errors import Corrupt, InvariantBroken, Unavailable
from primacy.runtime.files import DiskFull, is_full, replace_file, sync_directory
from primacy.telemetry import Event, Sink

GROUP_BYTES_MAX = 8 << 20
"""Entry bytes after which a group commit takes no further write: bounds its time and memory."""

_MAGIC = b"PRMYWAL1"
_VERSION = 1
_SEGMENT = struct.Struct("<8sIQQI")
_SEGMENT_BYTES = _SEGMENT.size + 4
_RECORD_MAGIC = b"PREC"
_RECORD = struct.Struct("<4sII")
_RECORD_BYTES = _RECORD.size + 4


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One write as it stands in a record: carried out in the order snapshot, hard, entries."""

    hard: HardState | None
    snapshot: SnapshotMeta | None
    entries: tuple[Entry, ...]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Write])


@dataclass
class Image:
    """What the log on disk amounts to. Recovery and the writer build it by the same function."""

    hard: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    entries: list[Entry] = field(default_factory=list)

    def apply(self, write: Write) -> None:
        """`InvariantBroken` where the entries leave a gap."""
        if write.snapshot is not None:
            self.snapshot = write.snapshot
            self.entries = []
        if write.hard is not None:
            self.hard = write.hard
        if write.entries:
            first = write.entries[0].index
            if self.entries:
                place = first - self.entries[0].index
                if not 0 <= place <= len(self.entries):
                    raise InvariantBroken("log-is-dense", f"entry {first} does not fit the log")
                del self.entries[place:]
            elif write.snapshot is None and first > self.snapshot.index + 1:
                raise InvariantBroken(
                    "log-is-dense", f"entry {first} behind snapshot {self.snapshot.index}"
                )
            self.entries.extend(write.entries)

    def compact(self, meta: SnapshotMeta, *, trailing: int) -> None:
        """A snapshot up to `meta` is durable: keep `trailing` entries up to it, and all after."""
        self.snapshot = meta
        first_kept = meta.index - trailing + 1
        if self.entries and self.entries[-1].index <= meta.index and trailing <= 0:
            self.entries = []
        elif self.entries:
            del self.entries[: max(0, first_kept - self.entries[0].index)]


@dataclass(frozen=True, slots=True)
class _Compact:
    meta: SnapshotMeta
    trailing: int


class Wal:
    """Open one with `Wal.open`; `image` is what was recovered until `start` is called."""

    def __init__(self, directory: Path, number: int, fd: int, salt: int, image: Image) -> None:
        self.image = image
        self._directory = directory
        self._number = number
        self._fd = fd
        self._salt = salt
        self._queue: queue.SimpleQueue[Persist | _Compact | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.sync_count = 0
        self.written_bytes = 0

    @classmethod
    def open(cls, directory: Path, *, sink: Sink = telemetry.ignore) -> "Wal":
        """Recover the newest segment, or create the first. Blocks; call it before the loop runs
        or in a thread. `Corrupt` names file and offset."""
        for leftover in directory.glob("wal-*.log.new"):
            leftover.unlink()
        numbers = segment_numbers(directory)
        if not numbers:
            image = Image()
            fd, salt = _create_segment(directory, 1, image)
            return cls(directory, 1, fd, salt, image)
        number = numbers[-1]
        fd, salt, image = _recover_segment(segment_path(directory, number), number, sink)
        _remove_segments(directory, numbers[:-1])
        return cls(directory, number, fd, salt, image)

    def start(
        self, on_durable: Callable[[int], None], on_failure: Callable[[Exception], None]
    ) -> None:
        """Both are called in the writer's thread: `on_durable` with the last write id of each
        group, `on_failure` once, after which nothing more is written."""
        self._thread = threading.Thread(
            target=self._run, args=(on_durable, on_failure), name="wal-writer", daemon=True
        )
        self._thread.start()

    def write(self, persist: Persist) -> None:
        """Ask for a write; returns at once. The machine bounds how much it has under way."""
        self._queue.put(persist)

    def compact(self, meta: SnapshotMeta, *, trailing: int) -> None:
        """Start a new segment without what a durable snapshot up to `meta` holds, in order with
        the writes."""
        self._queue.put(_Compact(meta, trailing))

    def close(self) -> None:
        """End the writer after what it was asked for. Blocks for one sync at most, or a few."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- the writer's thread ------------------------------------------------------------

    def _run(
        self, on_durable: Callable[[int], None], on_failure: Callable[[Exception], None]
    ) -> None:
        try:
            carried: Persist | _Compact | None = None
            while True:
                item = self._queue.get() if carried is None else carried
                carried = None
                match item:
                    case None:
                        return
                    case _Compact(meta, trailing):
                        self._rotate(meta, trailing)
                    case Persist():
                        group, carried, is_over = self._gather(item)
                        self._commit(group)
                        on_durable(group[-1].write_id)
                        if is_over:
                            return
                    case _:
                        assert_never(item)
        except DiskFull as full:
            on_failure(full)
        except OSError as error:
            failure = Unavailable(
                f"the write-ahead log in {self._directory} cannot be written: {error}",
                hint="This member stops. Look at the disk (space, errors), then start it again.",
            )
            failure.__cause__ = error
            on_failure(failure)
        except InvariantBroken as error:
            on_failure(error)

    def _gather(self, first: Persist) -> tuple[list[Persist], _Compact | None, bool]:
        """All that waits now, up to the limit, a compaction, or the end."""
        group = [first]
        size_bytes = sum(len(entry.data) for entry in first.entries)
        while size_bytes < GROUP_BYTES_MAX:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            match item:
                case None:
                    return group, None, True
                case _Compact():
                    return group, item, False
                case Persist():
                    group.append(item)
                    size_bytes += sum(len(entry.data) for entry in item.entries)
                case _:
                    assert_never(item)
        return group, None, False

    def _commit(self, group: Sequence[Persist]) -> None:
        writes = [Write(each.hard, each.snapshot, each.entries) for each in group]
        for write in writes:
            self.image.apply(write)
        record = _record(self._salt, writes)
        with self._needing_space():
            _write_all(self._fd, record)
        os.fdatasync(self._fd)
        self.sync_count += 1
        self.written_bytes += len(record)

    def _rotate(self, meta: SnapshotMeta, trailing: int) -> None:
        if meta.index < self.image.snapshot.index:
            return  # An older snapshot was saved late; a newer one already rules.
        self.image.compact(meta, trailing=trailing)
        with self._needing_space():  # The old segment stands until the new one is whole.
            fd, salt = _create_segment(self._directory, self._number + 1, self.image)
        os.close(self._fd)
        self._fd, self._salt = fd, salt
        self._number += 1
        numbers = segment_numbers(self._directory)
        _remove_segments(self._directory, numbers[:-1])

    @contextmanager
    def _needing_space(self) -> Iterator[None]:
        """Around writes before a sync: what fails here for want of space leaves a torn tail, or a
        file beside, which recovery cuts off. A *sync* that fails leaves more in doubt."""
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            raise DiskFull(
                f"no space for the write-ahead log in {self._directory}",
                hint="This member stands aside until there is space. Make some.",
            ) from error


# ---- segments -------------------------------------------------------------------------------


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"wal-{number:016d}.log"


def segment_numbers(directory: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("wal-")) for path in directory.glob("wal-*.log"))


def _remove_segments(directory: Path, numbers: Iterable[int]) -> None:
    for number in numbers:
        segment_path(directory, number).unlink()


def _create_segment(directory: Path, number: int, image: Image) -> tuple[int, int]:
    """Write header and head beside, sync, rename, sync the directory. Returns (fd, salt)."""
    salt = secrets.randbits(32)
    head = b"".join(_record(salt, [write]) for write in _head_writes(image))
    header = _SEGMENT.pack(_MAGIC, _VERSION, number, _SEGMENT_BYTES + len(head), salt)
    header += zlib.crc32(header).to_bytes(4, "little")
    path = segment_path(directory, number)
    replace_file(path, [header, head])
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), salt


def _head_writes(image: Image) -> list[Write]:
    """The whole image, entries in records of at most about GROUP_BYTES_MAX."""
    writes: list[Write] = []
    part: list[Entry] = []
    size_bytes = 0
    for entry in image.entries:
        part.append(entry)
        size_bytes += len(entry.data)
        if size_bytes >= GROUP_BYTES_MAX:
            writes.append(Write(None, None, tuple(part)))
            part, size_bytes = [], 0
    if part:
        writes.append(Write(None, None, tuple(part)))
    first = writes[0].entries if writes else ()
    return [Write(image.hard, image.snapshot, first), *writes[1:]]


def _record(salt: int, writes: list[Write]) -> bytes:
    payload = _ENCODER.encode(writes)
    header = _RECORD.pack(_RECORD_MAGIC, len(payload), zlib.crc32(payload))
    return header + zlib.crc32(header, salt).to_bytes(4, "little") + payload


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# ---- recovery -------------------------------------------------------------------------------


def _recover_segment(path: Path, number: int, sink: Sink) -> tuple[int, int, Image]:
    data = path.read_bytes()
    head_end, salt = _read_header(path, data, number)
    image = Image()
    offset = _SEGMENT_BYTES
    is_torn = False
    while offset < len(data) and not is_torn:
        end = _sound_record_end(path, data, offset, head_end=head_end, salt=salt)
        if end is None:
            is_torn = True
        else:
            _apply_record(path, offset, data[offset + _RECORD_BYTES : end], image)
            offset = end
    if offset < head_end:
        raise _corrupt(path, offset, "the head is not whole")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    if is_torn:
        os.ftruncate(fd, offset)
        fields: dict[str, telemetry.Value] = {
            "file": str(path),
            "offset": offset,
            "cut_bytes": len(data) - offset,
        }
        sink(Event("wal-tail-cut", fields))
    os.fsync(fd)  # What was read may stand in the page cache only: its writer died before its sync.
    sync_directory(path.parent)
    return fd, salt, image


def _read_header(path: Path, data: bytes, number: int) -> tuple[int, int]:
    if len(data) < _SEGMENT_BYTES:
        raise _corrupt(path, 0, "the file is shorter than its header")
    magic, version, stored_number, head_end, salt = _SEGMENT.unpack_from(data)
    checksum = int.from_bytes(data[_SEGMENT.size : _SEGMENT_BYTES], "little")
    if magic != _MAGIC or checksum != zlib.crc32(data[: _SEGMENT.size]):
        raise _corrupt(path, 0, "the header is damaged")
    if version != _VERSION:
        raise _corrupt(path, 8, f"the format has version {version}, not {_VERSION}")
    if stored_number != number:
        raise _corrupt(path, 12, f"the header says segment {stored_number}")
    return head_end, salt


def _sound_record_end(
    path: Path, data: bytes, offset: int, *, head_end: int, salt: int
) -> int | None:
    """Where the record at `offset` ends; None for a torn tail; `Corrupt` for any other damage."""
    header = _read_record_header(data, offset, salt)
    if header is None:
        if offset < head_end or _sound_header_follows(data, offset + 1, salt):
            raise _corrupt(path, offset, "a record's header is damaged and sound records follow")
        return None
    length, checksum = header
    end = offset + _RECORD_BYTES + length
    if end <= len(data) and zlib.crc32(data[offset + _RECORD_BYTES : end]) == checksum:
        return end
    if offset < head_end or end < len(data):
        raise _corrupt(path, offset, "a record that was durable is damaged")
    return None


def _read_record_header(data: bytes, offset: int, salt: int) -> tuple[int, int] | None:
    if len(data) - offset < _RECORD_BYTES:
        return None
    magic, length, checksum = _RECORD.unpack_from(data, offset)
    stored = int.from_bytes(data[offset + _RECORD.size : offset + _RECORD_BYTES], "little")
    if magic != _RECORD_MAGIC:
        return None
    if stored != zlib.crc32(data[offset : offset + _RECORD.size], salt):
        return None
    return length, checksum


def _sound_header_follows(data: bytes, offset: int, salt: int) -> bool:
    while (offset := data.find(_RECORD_MAGIC, offset)) >= 0:
        if _read_record_header(data, offset, salt) is not None:
            return True
        offset += 1
    return False


def _apply_record(path: Path, offset: int, payload: bytes, image: Image) -> None:
    try:
        for write in _DECODER.decode(payload):
            image.apply(write)
    except (msgspec.DecodeError, InvariantBroken) as error:
        raise _corrupt(path, offset, f"a record with a right checksum is wrong: {error}") from error


def _corrupt(path: Path, offset: int, what: str) -> Corrupt:
    return Corrupt(
        f"{path}, offset {offset}: {what}",
        hint="Nothing was changed. Keep a copy of the directory; then remove it and let this "
        "member join with a new disk, as the manual says under 'A member lost its disk'.",
    )
