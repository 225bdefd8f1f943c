"""One record of the log: bytes to values and back, and the chain through all of them. Pure.

Format    `docs/formats/log.md`.
Promises  What was encoded is decoded, or `Corrupt` is raised. Two logs with one point hold the same
          records up to it: the chain is a hash of them all.
Does not  Know what a payload means, or what a file is: a record's bytes are the same everywhere.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from hashlib import blake2b

import msgspec

from primacy.errors import Conflict, Corrupt, InvariantBroken, Rejected
from primacy.model import Epoch, NodeId, Position

VERSION = 1

RECORD_BYTES_MAX = 16 << 20
"""One transaction. Below what a frame of the wire may carry, with room for its envelope."""

_SEALED = struct.Struct("<II8s")  # Length, checksum, chain.
_BODY = struct.Struct("<BBHQ16sQqQ")
_HEADER = struct.Struct("<IIQBBHQ16sQqQ")
_PLAIN = struct.Struct("<II8sBBHQ16sQ")  # A header up to the index, the chain as bytes.
_LENGTH = struct.Struct("<I")
_CHAIN_AT = 8
_BODY_AT = _SEALED.size
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a record is. Numbers are bytes on disk: they never change and are never used again."""

    ROWS = 1
    STATEMENT = 2
    DDL = 3
    EPOCH = 4
    """The first record of an epoch: a primary's first write. Its payload is an `EpochStart`."""
    MARKER = 5
    """A place at which a change of the sync set becomes valid. No data."""
    HEARTBEAT = 6
    CHECKPOINT = 7
    GTID_LIST = 8
    """Stands at the head of a file and nowhere else: not part of the sequence, not sent."""


_KINDS = {int(kind): kind for kind in Kind}
_PLAIN_KINDS = frozenset(_KINDS) - {Kind.EPOCH, Kind.GTID_LIST}


class Point(msgspec.Struct, frozen=True, order=True):
    """A place in one history: the last record's epoch, index, and the chain up to it."""

    epoch: Epoch
    index: int
    chain: int

    @property
    def position(self) -> Position:
        """What the brain compares."""
        return Position(self.epoch, self.index)

    def __str__(self) -> str:
        return f"{self.epoch}/{self.index}#{self.chain:016x}"


ORIGIN_POINT = Point(Epoch(0), 0, 0)
"""Before the first record."""


class Entry(msgspec.Struct, frozen=True):
    """What a primary appends; the log gives it its index and chain."""

    kind: Kind
    payload: bytes
    schema_hash: int
    commit_time_us: int
    """Microseconds since 1970, for people and for lag. No decision rests on it."""


class EpochStart(msgspec.Struct, frozen=True):
    """The payload of an EPOCH record, as MessagePack. Fields are added with defaults only."""

    node: NodeId


class Header(msgspec.Struct, frozen=True, gc=False):
    """What stands before a payload."""

    length: int
    chain: int
    kind: Kind
    epoch: Epoch
    source: bytes
    index: int
    commit_time_us: int
    schema_hash: int

    @property
    def point(self) -> Point:
        return Point(self.epoch, self.index, self.chain)

    @property
    def payload_bytes(self) -> int:
        return self.length - HEADER_BYTES


def source_id(node: NodeId) -> bytes:
    """16 bytes: the name itself, padded; or for a longer one its beginning and a hash. The full
    name stands in the EPOCH record and at the head of each file."""
    name = node.encode()
    if len(name) <= 16:
        return name.ljust(16, b"\0")
    return name[:8] + blake2b(name, digest_size=8).digest()


def encode(
    entries: Sequence[Entry], *, after: Point, epoch: Epoch, source: bytes
) -> tuple[bytes, Point]:
    """The records that follow `after`, and where they end. `Rejected` for one that is too large."""
    pieces: list[bytes] = []
    index = after.index
    chain = after.chain.to_bytes(8, "little")
    pack, seal, crc32 = _BODY.pack, _SEALED.pack, zlib.crc32
    for entry in entries:
        index += 1
        payload = entry.payload
        length = HEADER_BYTES + len(payload)
        if length > RECORD_BYTES_MAX:
            raise Rejected(
                f"a transaction of {length} bytes in the log exceeds the limit of "
                f"{RECORD_BYTES_MAX}",
                hint="Write less in one transaction.",
            )
        body = (
            pack(
                VERSION,
                entry.kind,
                0,
                epoch,
                source,
                index,
                entry.commit_time_us,
                entry.schema_hash,
            )
            + payload
        )
        chain = blake2b(chain + body, digest_size=8).digest()
        pieces += (seal(length, crc32(chain + body, length), chain), body)
    return b"".join(pieces), Point(epoch, index, int.from_bytes(chain, "little"))


def encode_local(kind: Kind, payload: bytes, *, at: Point) -> bytes:
    """A record that belongs to one file: it carries the point at which it stands, and is not
    counted."""
    body = _BODY.pack(VERSION, kind, 0, at.epoch, bytes(16), at.index, 0, 0) + payload
    chain = at.chain.to_bytes(8, "little")
    length = HEADER_BYTES + len(payload)
    return _SEALED.pack(length, zlib.crc32(chain + body, length), chain) + body


def length_at(data: bytes | memoryview, offset: int) -> int:
    """Of the record at `offset`, unchecked; 0 where fewer than its four bytes are left."""
    if len(data) - offset < 4:
        return 0
    length: int = _LENGTH.unpack_from(data, offset)[0]
    return length


def header_at(data: bytes | memoryview, offset: int = 0) -> Header:
    """Unchecked but for the version and the kind: the caller has checked, or will. `Rejected` for
    what a newer primacy wrote."""
    fields = _HEADER.unpack_from(data, offset)
    length, _, chain, version, kind, flags, epoch, source, index, commit_time_us, schema = fields
    known = _KINDS.get(kind)
    if version != VERSION or flags or known is None:
        raise Rejected(
            f"record {index} has version {version}, kind {kind}, flags {flags:#x}: this primacy "
            f"reads version {VERSION}, kinds 1 to {max(_KINDS)}, no flags",
            hint="A newer primacy wrote it. Upgrade this node to the release of the newest one.",
        )
    return Header(length, chain, known, epoch, source, index, commit_time_us, schema)


def is_sound(data: bytes | memoryview, offset: int, length: int) -> bool:
    """Whether `length` bytes at `offset` are there and carry their checksum."""
    if length < HEADER_BYTES or length > RECORD_BYTES_MAX or len(data) - offset < length:
        return False
    found: int = _LENGTH.unpack_from(data, offset + 4)[0]
    return zlib.crc32(memoryview(data)[offset + _CHAIN_AT : offset + length], length) == found


def decode(data: bytes) -> Iterator[tuple[Header, bytes]]:
    """Whole records, each with its payload. `Corrupt` for a wrong checksum or half a record."""
    offset = 0
    while offset < len(data):
        length = length_at(data, offset)
        if not is_sound(data, offset, length):
            raise Corrupt(
                f"at byte {offset} of {len(data)} no whole record with a right checksum begins",
                hint="Read it again; `primacy log verify` finds damage in a file.",
            )
        yield header_at(data, offset), data[offset + HEADER_BYTES : offset + length]
        offset += length


def follow(header: Header, data: bytes | memoryview, offset: int, *, after: Point) -> Point:
    """The point behind a sound record, if it continues the history at `after`; else `Conflict`."""
    if header.index != after.index + 1 or header.epoch < after.epoch:
        raise Conflict(
            f"record {header.epoch}/{header.index} does not follow {after.position}",
            hint="Ask for the records behind the own end.",
        )
    is_start = header.kind is Kind.EPOCH
    if is_start != (header.epoch > after.epoch):
        raise Conflict(
            f"record {header.epoch}/{header.index} is {header.kind.name} and follows "
            f"{after.position}: an epoch begins with its EPOCH record, and has one",
            hint="The sender's log is not one that a primary wrote. Clone this node.",
        )
    body = memoryview(data)[offset + _BODY_AT : offset + header.length]
    chained = blake2b(after.chain.to_bytes(8, "little"), digest_size=8)
    chained.update(body)
    if int.from_bytes(chained.digest(), "little") != header.chain:
        raise Conflict(
            f"record {header.epoch}/{header.index} belongs to another history: its chain does not "
            f"follow from {after}",
            hint="The histories have forked before it: one of them is to be given up.",
        )
    return header.point


def plain_run(data: bytes, offset: int, *, after: Point, source: bytes) -> tuple[int, Point]:
    """Pass over the records from `offset` on that plainly continue `after` in its own epoch, by
    `source`. Stops before the first that does not, for whatever reason: where, and the point."""
    unpack, crc32, size = _PLAIN.unpack_from, zlib.crc32, len(data)
    epoch, index, chain = after.epoch, after.index, after.chain.to_bytes(8, "little")
    while offset + HEADER_BYTES <= size:
        length, checksum, stored, version, kind, flags, its_epoch, its_source, its_index = unpack(
            data, offset
        )
        end = offset + length
        if (
            not HEADER_BYTES <= length <= RECORD_BYTES_MAX
            or end > size
            or its_index != index + 1
            or its_epoch != epoch
        ):
            break
        if version != VERSION or flags or kind not in _PLAIN_KINDS or its_source != source:
            break
        body = data[offset + _BODY_AT : end]
        if crc32(stored + body, length) != checksum:
            break
        if blake2b(chain + body, digest_size=8).digest() != stored:
            break
        chain, index, offset = stored, its_index, end
    return offset, Point(epoch, index, int.from_bytes(chain, "little"))


def epoch_start(payload: bytes) -> EpochStart:
    """`Corrupt` for what is no payload of an EPOCH record."""
    try:
        return _STARTS.decode(payload)
    except msgspec.DecodeError as error:  # A `ValidationError` is one.
        raise Corrupt(
            f"an EPOCH record of {len(payload)} bytes does not name its node: {error}",
            hint="The log was written by another program. Clone this node.",
        ) from error


_STARTS = msgspec.msgpack.Decoder(EpochStart)


def epoch_entry(node: NodeId, *, schema_hash: int, commit_time_us: int) -> Entry:
    """The first record of a reign."""
    payload = msgspec.msgpack.encode(EpochStart(node))
    return Entry(Kind.EPOCH, payload, schema_hash, commit_time_us)


def check_entries(entries: Sequence[Entry], *, after: Point, epoch: Epoch) -> None:
    """What the log's own user must keep: a broken one is a bug here, not a fault of a peer."""
    if epoch < 1:
        raise InvariantBroken("epoch-starts-its-log", "epoch 0 has no primary")
    for place, entry in enumerate(entries):
        is_start = place == 0 and epoch > after.epoch
        if (entry.kind is Kind.EPOCH) != is_start or entry.kind is Kind.GTID_LIST:
            raise InvariantBroken(
                "epoch-starts-its-log",
                f"entry {place} for epoch {epoch} behind {after.position} is {entry.kind.name}",
            )
