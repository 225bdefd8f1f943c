"""A consistent copy of the database file beside the server that goes on writing, for a clone.

    hold the log -> one read transaction: the position row, then every page -> sync -> what it is

Promises  The copy is the data of one point of the history, its position row included, and stands
          whole and synced when `copy_database` returns; what broke off is removed. From that point
          on the log is held under the copy's name, until somebody releases it.
Does not  Keep the write-ahead log short meanwhile: the read transaction pins it.
"""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from primacy.engines.sqlite.storage import position
from primacy.engines.sqlite.storage.connection import (
    StorageSettings,
    open_copy,
    open_own_reader,
)
from primacy.errors import Unavailable
from primacy.replication.log.log import Log
from primacy.replication.log.record import Point
from primacy.runtime.files import DiskFull, free_bytes, is_full, sync_file

STEP_BYTES = 1 << 20
"""Copied at a time. Between two steps a copy can be given up, and is held back."""

RESERVE_BYTES = 256 << 20
"""Left free beside a copy: it must not be what fills a disk that has to take commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What a copy is of."""

    point: Point
    gtids: str
    """Everything up to there: what the receiver's log begins with."""
    size_bytes: int


def copy_database(
    log: Log,
    settings: StorageSettings,
    *,
    database_path: Path,
    into: Path,
    bytes_per_s: int,
    stop: threading.Event,
) -> Copy:
    """Blocks. At most `bytes_per_s` of the file, if that is above 0. `Unavailable` once `stop` is
    set, `DiskFull` without the space for it. What stood at `into` is replaced."""
    discard(into)
    with _discarding(log, into):
        with closing(open_own_reader(database_path, settings)) as source:
            source.execute("BEGIN")
            point = position.read(source)  # The transaction's snapshot is taken here.
            log.hold(into.name, point.index)
            _check_space(into, _size_bytes(source))
            with closing(open_copy(into)) as target:
                _copy_pages(source, target, bytes_per_s=bytes_per_s, stop=stop)
        sync_file(into)
        gtids = str(log.gtids_until(point.index))
    return Copy(point=point, gtids=gtids, size_bytes=into.stat().st_size)


def discard(path: Path) -> None:
    """Nothing of a copy is left; the log may still be held."""
    path.unlink(missing_ok=True)


@contextmanager
def _discarding(log: Log, into: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        discard(into)
        log.release(into.name)
        if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and is_full(error)):
            raise _no_space(into, "the rest of the copy") from error
        if isinstance(error, apsw.Error | OSError):
            raise Unavailable(
                f"the copy {into} cannot be made: {error}",
                hint="Look at the disk, and at what else uses that folder.",
            ) from error
        raise


def _copy_pages(
    source: apsw.Connection, target: apsw.Connection, *, bytes_per_s: int, stop: threading.Event
) -> None:
    pages = max(1, STEP_BYTES // int(source.pragma("page_size")))
    pause_s = STEP_BYTES / bytes_per_s if bytes_per_s else 0.0
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            if stop.wait(pause_s):
                raise Unavailable("the copy was given up", hint="Ask for another one.")
            backup.step(pages)


def _size_bytes(source: apsw.Connection) -> int:
    return int(source.pragma("page_count")) * int(source.pragma("page_size"))


def _check_space(into: Path, size_bytes: int) -> None:
    if free_bytes(into.parent) < size_bytes + RESERVE_BYTES:
        raise _no_space(into, f"{size_bytes >> 20} MiB and {RESERVE_BYTES >> 20} in reserve")


def _no_space(into: Path, needed: str) -> DiskFull:
    return DiskFull(
        f"no space in {into.parent} for {needed}: {free_bytes(into.parent) >> 20} MiB are free",
        hint="Make space on the donor's disk, or let another node give the copy.",
    )
