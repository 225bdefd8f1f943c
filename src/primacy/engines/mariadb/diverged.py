"""What a node has that the new history has not: read from its files, saved, counted.

The server is down. Its log belongs to the new history up to the place where the two part: the
lowest beginning of a later epoch whose own row does not stand in this log, or what a replica wrote
by itself after the last row that it shares. What lies at or beyond that place was written by nobody
whom the cluster followed.

Promises  Nothing is removed; what is found is saved as SQL, in plain words and as raw log files,
          and synced. Found again, it is the same folder.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from primacy.engines.api import Branch, Diverged
from primacy.engines.histories import parting
from primacy.engines.mariadb.errant import Author, errant
from primacy.engines.mariadb.gtid import before
from primacy.engines.mariadb.logs import Reading, binary_logs, read_logs, save_logs
from primacy.engines.mariadb.notes import replace_durably
from primacy.engines.mariadb.rewinding import obstacle
from primacy.engines.mariadb.scanning import Change
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.model import Position
from primacy.runtime.files import sync_directory

SQL_NAME = "transactions.sql"
READABLE_NAME = "readable.sql"
RAW_FILES_KEPT = 2
"""A cut reaches no further back: the server rotates at every start and every 256 MB."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last complete transaction of a server that is down."""

    sequence: int
    text: str


async def log_end(settings: MariaDbSettings) -> LogEnd:
    """Read the newest binary logs until one has a transaction. 0 for an empty log."""
    for path in reversed(binary_logs(settings.layout.data)):
        reading = await read_logs(settings.programs.binlog, [path])
        if reading.changes:
            return LogEnd(reading.last_sequence, str(reading.changes[-1].gtid))
    return LogEnd(0, "")


async def save_diverged(
    settings: MariaDbSettings, branches: Sequence[Branch], base: Position
) -> Diverged:
    """`branches`: where the epochs of the cluster begin, as far as they are known. `base`: where
    the log of a clone begins; what the cluster had until then is in its data."""
    end = (await log_end(settings)).sequence
    within = [each for each in branches if each.first_sequence <= end]
    if not within:
        return Diverged()
    first = min(each.first_sequence for each in within)
    reading = await read_from(settings, first)
    held = [
        Branch(epoch=row.epoch, node=row.node, first_sequence=row.sequence)
        for row in reading.epochs
    ]
    held += [each for each in within if _is_in_data(each, base)]
    own = _errant(settings, reading, [each for each in within if each in held])
    found = [each for each in (own, parting(within, held, end)) if each is not None]
    parts_at = min(found, key=lambda each: each.first_sequence, default=None)
    if parts_at is None:
        return Diverged(is_certain=reading.is_whole)
    lost = [each for each in reading.changes if each.gtid.sequence >= parts_at.first_sequence]
    if not lost:
        return Diverged(is_certain=reading.is_whole)
    saved = await _save(settings, parts_at, lost, reading)
    return replace(saved, is_errant=own is not None)


def _errant(settings: MariaDbSettings, reading: Reading, shared: Sequence[Branch]) -> Branch | None:
    """Where this node went on by itself in an epoch that is not its own: after the last transaction
    that it shares. The sequence of its first may be a higher one, if another was being applied."""
    newest = max(shared, key=lambda each: each.epoch, default=None)
    if newest is None:
        return None
    author = Author(settings.node, settings.server_id)
    own = errant(reading.transactions, author, newest.node, newest.first_sequence)
    if not own:
        return None
    before_own = [each.sequence for each in reading.transactions if each.sequence < own[0].sequence]
    return replace(newest, first_sequence=max(before_own, default=own[0].sequence - 1) + 1)


def _is_in_data(branch: Branch, base: Position) -> bool:
    """Its row was cloned: the log, which begins later, cannot show it."""
    return branch.epoch <= base.epoch and branch.first_sequence <= base.sequence


async def read_from(settings: MariaDbSettings, first_sequence: int) -> Reading:
    """The log from one sequence on."""
    program, files = settings.programs.binlog, binary_logs(settings.layout.data)
    start = before(first_sequence)
    reading = await read_logs(program, files, start=start)
    if reading.changes or not start:
        return reading
    return await read_logs(program, files)  # The log begins after that place.


async def _save(
    settings: MariaDbSettings, branch: Branch, lost: list[Change], reading: Reading
) -> Diverged:
    node, last = settings.node, lost[-1].gtid
    ident = f"{node}-{branch.epoch}-{last.sequence}"
    folder = settings.layout.diverged / ident
    await asyncio.to_thread(_make_private, folder)
    files = binary_logs(settings.layout.data)
    is_from_start = reading.changes[0].gtid.sequence > branch.first_sequence
    saved = await save_logs(
        settings.programs.binlog,
        files,
        start="" if is_from_start else before(branch.first_sequence),
        replayable=folder / SQL_NAME,
        readable=folder / READABLE_NAME,
    )
    await asyncio.to_thread(_keep, folder, files, f"{saved.words}\n")
    return Diverged(
        ident=ident,
        epoch=branch.epoch,
        count=len(lost),
        own_count=sum(1 for each in lost if each.is_own),
        first=str(lost[0].gtid),
        last=str(last),
        tables=tuple(sorted({table for each in lost if not each.is_own for table in each.tables})),
        path=str(folder / SQL_NAME),
        is_certain=saved.is_whole,
        parts_at=branch.first_sequence,
        obstacle=obstacle(lost, saved),
    )


def _make_private(folder: Path) -> None:
    """Rows of the application: for nobody but the agent's user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _keep(folder: Path, files: list[Path], words: str) -> None:
    """The newest raw logs as well; copies, since a start that cuts shortens the file in place."""
    for path in files[-RAW_FILES_KEPT:]:
        shutil.copy2(path, folder / path.name)
    replace_durably(folder / "mariadb-binlog.txt", words.encode())
    for name in (SQL_NAME, READABLE_NAME):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(folder)
    sync_directory(folder.parent)
