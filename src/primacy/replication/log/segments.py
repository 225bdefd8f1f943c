"""The files of a log: their names, their heads, and the marks between records.

Format    `docs/formats/log.md`.
Promises  A file that can be seen has its whole head: it is written beside, synced and renamed.
Assumes   One process writes to the directory.
"""

import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from primacy.errors import Corrupt, Rejected
from primacy.model import Epoch
from primacy.replication.gtid import GtidSet
from primacy.replication.log.record import (
    HEADER_BYTES,
    Kind,
    Point,
    encode_local,
    header_at,
    is_sound,
    length_at,
)
from primacy.runtime.files import replace_file

MAGIC = b"PRMYLOG1"
VERSION = 1

HEAD_BYTES_MAX = 8 << 20
"""The fixed part and the GTID list."""

_PREFIX = struct.Struct("<8sI")
_HEAD = struct.Struct("<8sIIQQQQQI")
_HEAD_BYTES = _HEAD.size + 4
_MARK = struct.Struct("<IIQQ")
MARK_BYTES = _MARK.size


class Head(NamedTuple):
    """What a file says of itself: everything that the log held before it, and where it begins."""

    number: int
    before: Point
    gtids: GtidSet
    salt: int
    first_offset: int
    """Of the first record, behind the head."""


def file_path(directory: Path, number: int) -> Path:
    return directory / f"log-{number:012d}.bin"


def file_numbers(directory: Path) -> list[int]:
    """In order. Other files are not ours, and are left alone."""
    found = (path.stem.removeprefix("log-") for path in directory.glob("log-*.bin"))
    return sorted(int(name) for name in found if len(name) == 12 and name.isdigit())


def create_file(directory: Path, number: int, *, before: Point, gtids: GtidSet) -> Head:
    """Blocks. What a crash leaves is a `.new` beside, or the whole file."""
    salt = secrets.randbits(64)
    listed = encode_local(Kind.GTID_LIST, str(gtids).encode(), at=before)
    prefix_crc = zlib.crc32(_PREFIX.pack(MAGIC, VERSION))
    place = (before.epoch, before.index, before.chain)
    fixed = _HEAD.pack(MAGIC, VERSION, prefix_crc, number, *place, salt, len(listed))
    fixed += zlib.crc32(fixed).to_bytes(4, "little")
    path = file_path(directory, number)
    try:
        replace_file(path, [fixed, listed])
    except OSError:
        path.with_name(path.name + ".new").unlink(missing_ok=True)
        raise
    return Head(number, before, gtids, salt, len(fixed) + len(listed))


def read_head(path: Path, number: int) -> Head:
    """`Corrupt` for a damaged one; `Rejected` for a newer version."""
    with path.open("rb") as file:
        fixed = file.read(_HEAD_BYTES)
        stored, epoch, index, chain, salt, length = _fixed_part(path, fixed)
        if stored != number:
            raise corrupt(path, _PREFIX.size + 4, f"the head says that this is file {stored}")
        if length > HEAD_BYTES_MAX:
            raise corrupt(path, _HEAD.size - 4, f"the head announces {length} bytes")
        listed = file.read(length)
    if length_at(listed, 0) != length or not is_sound(listed, 0, length):
        raise corrupt(path, _HEAD_BYTES, "the list of GTIDs at its head is damaged")
    header = header_at(listed)
    before = Point(Epoch(epoch), index, chain)
    if header.kind is not Kind.GTID_LIST or header.point != before:
        raise corrupt(path, _HEAD_BYTES, "the list of GTIDs at its head belongs to another file")
    gtids = GtidSet.parse(listed[HEADER_BYTES:].decode())
    return Head(number, before, gtids, salt, _HEAD_BYTES + length)


def _fixed_part(path: Path, fixed: bytes) -> tuple[int, int, int, int, int, int]:
    if len(fixed) < _HEAD_BYTES:
        raise corrupt(path, 0, f"the file has {len(fixed)} bytes, its head alone has more")
    magic, version, prefix_crc, number, epoch, index, chain, salt, length = _HEAD.unpack_from(fixed)
    if magic != MAGIC or prefix_crc != zlib.crc32(fixed[: _PREFIX.size]):
        raise corrupt(path, 0, "the head is damaged, or this is no log of primacy")
    if version != VERSION:
        raise Rejected(
            f"{path} has version {version} of the log's format, this primacy reads {VERSION}",
            hint="Nothing was changed. Run the release that wrote it, or a newer one.",
        )
    if int.from_bytes(fixed[_HEAD.size :], "little") != zlib.crc32(fixed[: _HEAD.size]):
        raise corrupt(path, 0, "the head is damaged")
    return number, epoch, index, chain, salt, length


# ---- marks ----------------------------------------------------------------------------------


def encode_mark(salt: int, durable_offset: int) -> bytes:
    """Says, inside a file: what stands before `durable_offset` was durable when this was written.
    It is no record, belongs to this file, and is never sent."""
    rest = struct.pack("<QQ", salt, durable_offset)
    return struct.pack("<II", MARK_BYTES, zlib.crc32(rest, MARK_BYTES)) + rest


def mark_at(
    data: bytes | memoryview, offset: int, salt: int, *, file_offset: int = 0
) -> int | None:
    """The durable offset that the mark at `offset` names; None where no sound mark stands.
    `file_offset` is where `data` begins in its file."""
    if offset < 0 or len(data) - offset < MARK_BYTES:
        return None
    length, checksum, stored_salt, durable_offset = _MARK.unpack_from(data, offset)
    if length != MARK_BYTES or stored_salt != salt or durable_offset > file_offset + offset:
        return None
    if zlib.crc32(memoryview(data)[offset + 8 : offset + MARK_BYTES], MARK_BYTES) != checksum:
        return None
    found: int = durable_offset
    return found


def mark_at_end(path: Path, head: Head, size_bytes: int) -> int | None:
    """What the mark that ends a file of `size_bytes` says, if one does."""
    begin = max(size_bytes - MARK_BYTES, 0)
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(MARK_BYTES)
    return mark_at(data, 0, head.salt, file_offset=begin)


def durable_by_marks(data: bytes, offset: int, salt: int) -> int:
    """The furthest that any sound mark from `offset` on says was durable; 0 without one. Finds
    marks wherever they stand, since behind damage nothing tells where a record begins."""
    wanted = salt.to_bytes(8, "little")
    furthest = 0
    while (found := data.find(wanted, offset)) >= 0:
        furthest = max(furthest, mark_at(data, found - 8, salt) or 0)
        offset = found + 1
    return furthest


def corrupt(path: Path, offset: int, what: str) -> Corrupt:
    return Corrupt(
        f"{path}, offset {offset}: {what}",
        hint="Nothing was changed. Keep a copy of the directory, and clone this node again.",
    )


def write_at(fd: int, data: bytes, offset: int) -> None:
    """All of it."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        offset += count
        view = view[count:]
