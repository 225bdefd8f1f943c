"""Snapshot files: written in pieces, verified, sent and received. See `docs/formats/snapshot.md`.

Promises  A file with a snapshot's name is whole and durable. The event loop is held for one piece
          of the writer's iterator at a time and for no disk access.
Assumes   A piece takes the iterator less than 20 ms; one process has the directory.
Does not  Know what a piece means.
"""

import asyncio
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from primacy.clock import Clock
from primacy.consensus.machine import SnapshotMeta
from primacy.errors import Corrupt, Rejected
from primacy.model import LogIndex, Term
from primacy.runtime.files import PRIVATE, sync_directory

KEEP_COUNT = 2
"""The newest, and the one before it: a receiver may still be reading that."""

PIECE_BYTES_MAX = 64 << 20
SNAPSHOT_BYTES_MAX = 4 << 30
"""A received file above this is refused; the store holds small facts."""

_SLICE_S = 0.004
"""How long pieces are taken from the iterator before the loop gets a turn."""

_BUFFER_BYTES = 1 << 20
_MAGIC = b"PRMYSNP1"
_VERSION = 1
_HEADER = struct.Struct("<8sIQQ")
_HEADER_BYTES = _HEADER.size + 4
_PIECE = struct.Struct("<II")


class SnapshotStore:
    """The snapshots in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for leftover in directory.glob("snapshot-*.new"):
            leftover.unlink()

    def metas(self) -> list[SnapshotMeta]:
        """All that stand here, the newest first. Reads names only."""
        found = [_meta_of(path) for path in self._directory.glob("snapshot-*.snap")]
        return sorted(found, key=lambda meta: (meta.index, meta.term), reverse=True)

    def path(self, meta: SnapshotMeta) -> Path:
        return self._directory / f"snapshot-{meta.index:020d}-{meta.term:020d}.snap"

    def load(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Its pieces, each checked as it is read; blocks. `Corrupt` names file and offset."""
        return _read_pieces(self.path(meta), meta)

    def verify(self, meta: SnapshotMeta) -> None:
        """Read it once. `Corrupt` where it is not whole."""
        for _ in self.load(meta):
            pass

    async def save(self, meta: SnapshotMeta, pieces: Iterator[bytes], clock: Clock) -> None:
        """Write the pieces durably under the name of `meta`. On cancellation or error nothing but
        a `.new` is left, which the next start removes."""
        path = self.path(meta)
        beside = path.with_name(path.name + ".new")
        header = _HEADER.pack(_MAGIC, _VERSION, meta.index, meta.term)
        checksum = zlib.crc32(header)
        buffer = bytearray(header + checksum.to_bytes(4, "little"))
        fd = await asyncio.to_thread(_create, beside)
        with os.fdopen(fd, "wb", buffering=0) as file:
            slice_began_s = clock.now_s()
            for piece in pieces:
                checksum = _append_piece(buffer, piece, checksum)
                if len(buffer) >= _BUFFER_BYTES:
                    await asyncio.to_thread(_write_all, fd, bytes(buffer))
                    buffer.clear()
                    slice_began_s = clock.now_s()
                elif clock.now_s() - slice_began_s >= _SLICE_S:
                    await clock.sleep(0)
                    slice_began_s = clock.now_s()
            _append_piece(buffer, b"", checksum)
            await asyncio.to_thread(_write_all, fd, bytes(buffer))
            await asyncio.to_thread(os.fsync, fd)
            file.close()
        await asyncio.to_thread(self._publish, beside, path)

    def begin_receiving(self, meta: SnapshotMeta, sender: str) -> "SnapshotFile":
        """Open a file for a peer's pieces. Blocks shortly."""
        path = self.path(meta)
        return SnapshotFile(self, meta, path.with_name(f"{path.name}.{sender}.new"))

    def _publish(self, beside: Path, path: Path) -> None:
        beside.rename(path)
        sync_directory(self._directory)
        for meta in self.metas()[KEEP_COUNT:]:
            self.path(meta).unlink()

    def adopt(self, beside: Path, meta: SnapshotMeta) -> None:
        """Verify a received file, make it durable, and give it its name. Blocks."""
        for _ in _read_pieces(beside, meta):
            pass
        fd = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._publish(beside, self.path(meta))


class SnapshotFile:
    """One snapshot that is arriving from a peer, in order. All methods block."""

    def __init__(self, store: SnapshotStore, meta: SnapshotMeta, beside: Path) -> None:
        self.meta = meta
        self.offset = 0
        self._store = store
        self._beside = beside
        self._fd = _create(beside)

    def write(self, offset: int, data: bytes) -> None:
        """`Rejected` for a gap, or above SNAPSHOT_BYTES_MAX."""
        if offset != self.offset:
            raise Rejected(
                f"a snapshot's piece for offset {offset} came at {self.offset}",
                hint="The sender begins again.",
            )
        if offset + len(data) > SNAPSHOT_BYTES_MAX:
            raise Rejected(
                f"a snapshot exceeds {SNAPSHOT_BYTES_MAX} bytes",
                hint="Remove keys from the store; it is meant for small facts.",
            )
        _write_all(self._fd, data)
        self.offset += len(data)

    def finish(self) -> None:
        """Verify it and make it durable. `Corrupt` where it is not whole."""
        self._close()
        self._store.adopt(self._beside, self.meta)

    def abandon(self) -> None:
        """Remove what has arrived. Harmless after `finish`."""
        self._close()
        self._beside.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _meta_of(path: Path) -> SnapshotMeta:
    try:
        _, index, term = path.stem.split("-")
        return SnapshotMeta(index=LogIndex(int(index)), term=Term(int(term)))
    except ValueError as error:
        raise _corrupt(path, 0, "the name is not that of a snapshot") from error


def _append_piece(buffer: bytearray, piece: bytes, checksum: int) -> int:
    length = len(piece).to_bytes(4, "little")
    checksum = zlib.crc32(piece, zlib.crc32(length, checksum))
    buffer += length
    buffer += checksum.to_bytes(4, "little")
    buffer += piece
    return checksum


def _read_pieces(path: Path, meta: SnapshotMeta) -> Iterator[bytes]:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        checksum = zlib.crc32(header[: _HEADER.size])
        if len(header) < _HEADER_BYTES or header[_HEADER.size :] != checksum.to_bytes(4, "little"):
            raise _corrupt(path, 0, "the header is damaged")
        if _HEADER.unpack_from(header) != (_MAGIC, _VERSION, meta.index, meta.term):
            raise _corrupt(path, 0, "the header is of another format or another snapshot")
        offset = _HEADER_BYTES
        while True:
            head = file.read(_PIECE.size)
            if len(head) < _PIECE.size:
                raise _corrupt(path, offset, "the file ends too early")
            length, stored = _PIECE.unpack(head)
            if length > PIECE_BYTES_MAX:
                raise _corrupt(path, offset, "a piece is too large")
            piece = file.read(length)
            checksum = zlib.crc32(piece, zlib.crc32(head[:4], checksum))
            if len(piece) < length or stored != checksum:
                raise _corrupt(path, offset, "a piece is damaged")
            if length == 0:
                break
            yield piece
            offset += _PIECE.size + length
        if file.read(1):
            raise _corrupt(path, offset, "something follows the end")


def _corrupt(path: Path, offset: int, what: str) -> Corrupt:
    return Corrupt(
        f"{path}, offset {offset}: {what}",
        hint="Remove the file if an older snapshot and the log are there; otherwise let this "
        "member join with a new disk.",
    )
