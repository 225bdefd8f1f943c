"""What a node has that the new history has not: read from its files, saved, counted.

The server is down. Its log belongs to the new history up to the place where the two part: the
lowest beginning of a later epoch whose own row does not stand in this log, or what a replica wrote
by itself after the last row that it shares. What lies at or beyond that place was written by nobody
whom the cluster followed. A log may be long: it is read from the last epoch row on that is known to
be shared, and of the files before only the heads.

Promises  Nothing is removed; what is found is saved as SQL, in plain words and as raw log files,
          and synced. Found again, it is the same folder.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from primacy.engines.api import Branch, Diverged
from primacy.engines.histories import parting
from primacy.engines.mariadb.errant import Author, errant
from primacy.engines.mariadb.gtid import Gtid, before
from primacy.engines.mariadb.logs import (
    Reading,
    binary_logs,
    files_from,
    read_logs,
    save_logs,
)
from primacy.engines.mariadb.observe import EpochRow
from primacy.engines.mariadb.rewinding import obstacle
from primacy.engines.mariadb.scanning import Change
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.notes import replace_durably
from primacy.model import ORIGIN, Epoch, Position
from primacy.runtime.files import sync_directory
from primacy.runtime.threads import to_its_end

SQL_NAME = "transactions.sql"
READABLE_NAME = "readable.sql"
RAW_FILES_KEPT = 2
"""A cut reaches no further back: the server rotates at every start and every 256 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What is known of a log without reading it."""

    base: Position = ORIGIN
    """Where the log of a clone begins; what the cluster had until then is in its data."""
    row: Branch | None = None
    """The newest epoch row that was seen in the tables."""
    is_written_on: bool = False
    """The server has shown transactions of its own."""

    def holds(self, branch: Branch) -> bool:
        """Its row need not be found: it is in the data, and the log may begin later."""
        is_in_base = branch.epoch <= self.base.epoch and branch.first_sequence <= self.base.sequence
        return is_in_base or branch == self.row


def branch_of(row: EpochRow) -> Branch:
    return Branch(epoch=row.epoch, node=row.node, first_sequence=row.sequence)


async def log_end(settings: MariaDbSettings) -> Reading:
    """The newest binary log that has a transaction, without its rows; empty for an empty log."""
    is_whole = True
    for path in reversed(binary_logs(settings.layout.data)):
        reading = await read_logs(settings.programs.binlog, [path], has_rows=False)
        is_whole = is_whole and reading.is_whole
        if reading.changes:
            return replace(reading, is_whole=is_whole)
    return Reading(is_whole=is_whole)


async def save_diverged(
    settings: MariaDbSettings, branches: Sequence[Branch], known: Remembered
) -> Diverged:
    """`branches`: where the epochs of the cluster begin, as far as they are known."""
    end = await log_end(settings)
    within = [each for each in branches if each.first_sequence <= end.last_sequence]
    if not within:
        return Diverged()
    held = [each for each in within if known.holds(each)]
    shared_epoch = max((each.epoch for each in held), default=Epoch(0))
    unknown = [each.first_sequence for each in within if each.epoch > shared_epoch]
    reading = await read_from(settings, min(unknown)) if unknown else end
    held += [branch_of(row) for row in reading.epochs]
    shared = [each for each in within if each in held]
    newest = max(shared, key=lambda each: each.epoch, default=None)
    own = None if newest is None else await _errant(settings, newest, end, known)
    found = [each for each in (own, parting(within, held, end.last_sequence)) if each is not None]
    is_whole = reading.is_whole and end.is_whole
    parts_at = min(found, key=lambda each: each.first_sequence, default=None)
    if parts_at is None:
        return Diverged(is_certain=is_whole)
    if own is not None:
        reading = await read_from(settings, parts_at.first_sequence)
    lost = [each for each in reading.changes if each.gtid.sequence >= parts_at.first_sequence]
    if not lost:
        return Diverged(is_certain=is_whole)
    saved = await _save(settings, parts_at, lost, reading)
    return replace(saved, is_errant=own is not None)


async def _errant(
    settings: MariaDbSettings, newest: Branch, end: Reading, known: Remembered
) -> Branch | None:
    """Where this node went on by itself in an epoch that is not its own: after the last transaction
    that it shares. The sequence of its first may be a higher one, if another was being applied.

    Such transactions stand at the end, since no transaction of the primary fits behind them; unless
    somebody has switched `gtid_strict_mode` off. Then all of the epoch is read.
    """
    author = Author(settings.node, settings.server_id)

    def own(transactions: Sequence[Gtid]) -> list[Gtid]:
        return errant(transactions, author, newest.node, newest.first_sequence)

    if not own(end.transactions) and not known.is_written_on:
        return None
    reading = end
    if own(end.transactions[:1]) or not own(end.transactions[-1:]):
        reading = await read_from(settings, newest.first_sequence, has_rows=False)
    found = own(reading.transactions)
    if not found:
        return None
    first = found[0].sequence
    before_own = [each.sequence for each in reading.transactions if each.sequence < first]
    return replace(newest, first_sequence=max(before_own, default=first - 1) + 1)


async def read_from(
    settings: MariaDbSettings, first_sequence: int, *, has_rows: bool = True
) -> Reading:
    """The log from one sequence on."""
    program = settings.programs.binlog
    files = await files_from(program, binary_logs(settings.layout.data), first_sequence)
    start = before(first_sequence)
    reading = await read_logs(program, files, start=start, has_rows=has_rows)
    if reading.changes or not start:
        return reading
    return await read_logs(program, files, has_rows=has_rows)  # It begins after that place.


async def _save(
    settings: MariaDbSettings, branch: Branch, lost: list[Change], reading: Reading
) -> Diverged:
    node, last = settings.node, lost[-1].gtid
    ident = f"{node}-{branch.epoch}-{last.sequence}"
    folder = settings.layout.diverged / ident
    await to_its_end(_make_private, folder)
    files = binary_logs(settings.layout.data)
    is_from_start = reading.changes[0].gtid.sequence > branch.first_sequence
    saved = await save_logs(
        settings.programs.binlog,
        await files_from(settings.programs.binlog, files, branch.first_sequence),
        start="" if is_from_start else before(branch.first_sequence),
        replayable=folder / SQL_NAME,
        readable=folder / READABLE_NAME,
    )
    await to_its_end(_keep, folder, files, f"{saved.words}\n")
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
