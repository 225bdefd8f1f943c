"""Logs in a directory, and records to put into them."""

import shutil
from pathlib import Path

from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Entry, Kind, decode, epoch_entry
from primacy.telemetry import Event

A = NodeId("a")
B = NodeId("b")


def rows(*sizes: int) -> list[Entry]:
    return [Entry(Kind.ROWS, bytes([size % 251]) * size, 7, 1_000_000 + size) for size in sizes]


def start(node: NodeId) -> list[Entry]:
    return [epoch_entry(node, schema_hash=1, commit_time_us=5)]


def opened(
    directory: Path,
    *,
    file_bytes: int = 1 << 20,
    cache_bytes: int = 1 << 20,
    told: list[Event] | None = None,
) -> Log:
    limits = LogLimits(file_bytes=file_bytes, cache_bytes=cache_bytes)
    return Log.open(directory, limits=limits, events=([] if told is None else told).append)


def with_rows(
    directory: Path, *sizes: int, file_bytes: int = 1 << 20, cache_bytes: int = 1 << 20
) -> Log:
    """A log of node a's first epoch: its EPOCH record, then rows, each appended and synced."""
    log = opened(directory, file_bytes=file_bytes, cache_bytes=cache_bytes)
    log.append(start(A), epoch=Epoch(1), source=A)
    log.sync()
    for size in sizes:
        log.append(rows(size), epoch=Epoch(1), source=A)
        log.sync()
    return log


def copied(directory: Path, name: str) -> Path:
    """As a kill at this moment would leave it."""
    copy = directory.with_name(name)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    return copy


def everything(log: Log, *, bytes_max: int = 1 << 20) -> bytes:
    """All that the log has, in as many reads as that takes."""
    pieces: list[bytes] = []
    after = log.first.index
    while data := log.read(after, bytes_max=bytes_max):
        pieces.append(data)
        after += sum(1 for _ in decode(data))
    return b"".join(pieces)


def only_file(directory: Path) -> Path:
    (path,) = directory.glob("log-*.bin")
    return path
