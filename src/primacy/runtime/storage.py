"""All that one member keeps on its disk: identity, write-ahead log, snapshots.

Promises  A directory serves one node of one cluster in one process. What `restored` says is what
          the machine had been told to be durable, and perhaps more that it had asked for.
Source    `docs/formats/wal.md`
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from primacy import telemetry
from primacy.clock import Clock
from primacy.consensus.machine import Persist, SnapshotMeta
from primacy.consensus.raft.core import Restored
from primacy.errors import Corrupt, Rejected
from primacy.model import NodeId
from primacy.runtime.files import DiskFull, is_full, lock_directory, replace_file
from primacy.runtime.snapshots import SnapshotStore
from primacy.runtime.wal import Image, Wal, segment_numbers, segment_path
from primacy.telemetry import Event, Sink

TRAILING_ENTRIES = 5_000
"""Entries kept behind a snapshot, as Raft's own `Limits.trailing_entries`."""

V = TypeVar("V")

_IDENTITY = "identity.json"
_VERSION = 1


class Identity(msgspec.Struct, frozen=True):
    """Whose disk this is, and which life of it."""

    version: int
    cluster: str
    node: NodeId
    incarnation: str


class MemberStorage:
    """Open with `MemberStorage.open`, then hand it to a host, which starts and closes it."""

    def __init__(
        self, opened: "_Opened", restored: Restored, lock: int, *, trailing_entries: int
    ) -> None:
        self.identity = opened.identity
        self.snapshots = opened.snapshots
        self.restored = restored
        self._wal = opened.wal
        self._lock = lock
        self._trailing_entries = trailing_entries

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        cluster: str,
        node: NodeId,
        trailing_entries: int = TRAILING_ENTRIES,
        sink: Sink = telemetry.ignore,
    ) -> "MemberStorage":
        """Create or recover. Blocks. `Rejected` for another's directory or one that cannot be
        used, `Conflict` while another process has it, `Corrupt` for damage, `DiskFull`."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.ExitStack() as undo:
                lock = lock_directory(directory)
                undo.callback(os.close, lock)
                opened = _open(directory, cluster, node, sink)
                undo.callback(opened.wal.close)
                restored = _restored(opened, sink)
                undo.pop_all()
        except OSError as error:
            if is_full(error):
                raise DiskFull(
                    f"no space in {directory}: {error}",
                    hint="This member stands aside until there is space. Make some.",
                ) from error
            raise Rejected(
                f"{directory} cannot be used: {error}",
                hint="Give this process a directory of its own that it may write to, on a disk "
                "that works and has space.",
            ) from error
        return cls(opened, restored, lock, trailing_entries=trailing_entries)

    def start(
        self, on_durable: Callable[[int], None], on_failure: Callable[[Exception], None]
    ) -> None:
        """Begin to write. Both callbacks run in this event loop."""
        loop = asyncio.get_running_loop()

        def tell_durable(write_id: int) -> None:
            _call_if_open(loop, on_durable, write_id)

        def tell_failure(error: Exception) -> None:
            _call_if_open(loop, on_failure, error)

        self._wal.start(tell_durable, tell_failure)

    def write(self, persist: Persist) -> None:
        """Returns at once; `on_durable` tells of it."""
        self._wal.write(persist)

    async def save_snapshot(
        self, meta: SnapshotMeta, pieces: Iterator[bytes], clock: Clock
    ) -> None:
        """Write it durably, then have the log compacted behind it."""
        await self.snapshots.save(meta, pieces, clock)
        self._wal.compact(meta, trailing=self._trailing_entries)

    @property
    def sync_count(self) -> int:
        """Group commits so far."""
        return self._wal.sync_count

    def close(self) -> None:
        """Ends the writer and gives the directory free. Blocks for a sync or a few."""
        self._wal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> "MemberStorage":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Opened:
    identity: Identity
    wal: Wal
    snapshots: SnapshotStore


def _open(directory: Path, cluster: str, node: NodeId, sink: Sink) -> _Opened:
    had_identity = _check_identity(directory, cluster, node)
    wal = Wal.open(directory, sink=sink)
    try:
        if not had_identity:
            _write_identity(directory, cluster, node, wal.image)
        return _Opened(_read_identity(directory), wal, SnapshotStore(directory))
    except BaseException:
        wal.close()
        raise


def _restored(opened: _Opened, sink: Sink) -> Restored:
    image = opened.wal.image
    snapshot = _newest_usable(opened.snapshots, image, sink)
    return Restored(image.hard, tuple(image.entries), snapshot, opened.identity.incarnation)


def _call_if_open(loop: asyncio.AbstractEventLoop, callback: Callable[[V], None], value: V) -> None:
    """From the writer's thread. A loop that was closed has nobody left who waits."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, value)


def _check_identity(directory: Path, cluster: str, node: NodeId) -> bool:
    """Whether the directory has one, of this cluster and node, and a log."""
    path = directory / _IDENTITY
    if not path.exists():
        return False
    identity = _read_identity(directory)
    if (identity.cluster, identity.node) != (cluster, node):
        raise Rejected(
            f"{directory} belongs to node {identity.node} of cluster {identity.cluster}, not to "
            f"node {node} of cluster {cluster}",
            hint="Configure another directory, or start the node that owns this one.",
        )
    if not segment_numbers(directory):
        raise Corrupt(
            f"{directory} has an identity and no log: {segment_path(directory, 1)} is missing",
            hint="Nothing was changed. Restore the log, or remove the directory and let this "
            "member join with a new disk.",
        )
    return True


def _read_identity(directory: Path) -> Identity:
    path = directory / _IDENTITY
    try:
        identity = msgspec.json.decode(path.read_bytes(), type=Identity)
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"{path}, offset 0: {error}",
            hint="Nothing was changed. Remove the directory and let this member join with a new "
            "disk.",
        ) from error
    if identity.version != _VERSION:
        raise Rejected(
            f"{path} has version {identity.version}, this primacy reads {_VERSION}",
            hint="Run the release that wrote it.",
        )
    return identity


def _write_identity(directory: Path, cluster: str, node: NodeId, image: Image) -> None:
    """The last file of a new directory: once it stands, all of it does."""
    if image != Image() or any(directory.glob("snapshot-*.snap")):
        raise Corrupt(
            f"{directory} holds a log and no {_IDENTITY}",
            hint="Nothing was changed. Restore the file, or remove the directory and let this "
            "member join with a new disk.",
        )
    identity = Identity(_VERSION, cluster, node, secrets.token_hex(16))
    replace_file(directory / _IDENTITY, [msgspec.json.encode(identity)])


def _newest_usable(snapshots: SnapshotStore, image: Image, sink: Sink) -> SnapshotMeta:
    """The newest snapshot that is whole and from which the log goes on.

    It may be newer than the log knows: it was received, and the crash came before the log
    restarted behind it. An older one serves where the log reaches back to it.
    """
    damage: Corrupt | None = None
    for meta in snapshots.metas():
        if not _goes_on_from(meta, image):
            continue
        try:
            snapshots.verify(meta)
        except Corrupt as error:
            sink(Event("snapshot-damaged", {"what": error.what}))
            damage = damage or error
        else:
            return meta
    if damage is not None and image.snapshot.index > 0:
        raise damage
    if not _goes_on_from(SnapshotMeta(), image):
        raise Corrupt(
            f"the log begins behind index {image.snapshot.index}, and no snapshot reaches it",
            hint="Nothing was changed. Restore the snapshot file, or remove the directory and let "
            "this member join with a new disk.",
        )
    return SnapshotMeta()


def _goes_on_from(meta: SnapshotMeta, image: Image) -> bool:
    if image.entries:
        return meta.index + 1 >= image.entries[0].index
    return meta.index >= image.snapshot.index
