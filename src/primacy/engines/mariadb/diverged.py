"""What an old primary had that the new history has not: read from its files, saved, counted.

The server is down. Its log belongs to the new history up to the place where the new epoch begins;
what lies at or beyond that place was written by nobody whom the cluster followed, unless the log
goes on with the new epoch's own row.

Promises  Nothing is removed; what is found is saved as SQL and as raw log files, synced.
"""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from primacy.engines.api import Branch, Diverged
from primacy.engines.mariadb.gtid import DOMAIN
from primacy.engines.mariadb.logs import Reading, binary_logs, read_logs
from primacy.engines.mariadb.notes import replace_durably, sync_folder
from primacy.engines.mariadb.settings import MariaDbSettings

SQL_NAME = "transactions.sql"
RAW_FILES_KEPT = 2
"""A cut reaches no further back: the server rotates at every start and every 256 MB."""
ANY_SERVER = 1
"""A start position is found by its sequence; the server id in it is not looked at."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last complete transaction of a server that is down."""

    sequence: int
    text: str


async def log_end(settings: MariaDbSettings) -> LogEnd:
    """Read the newest binary logs until one has a transaction. 0 for an empty log."""
    for path in reversed(binary_logs(settings.layout.data)):
        reading = await read_logs(settings.programs.binlog, [path])
        if reading.transactions:
            return LogEnd(reading.last_sequence, str(reading.transactions[-1]))
    return LogEnd(0, "")


async def save_diverged(settings: MariaDbSettings, branch: Branch, *, stamp: str) -> Diverged:
    """`stamp` names the folder beside the epoch."""
    files = binary_logs(settings.layout.data)
    if (await log_end(settings)).sequence < branch.first_sequence:
        return Diverged()
    folder = settings.layout.diverged / f"{branch.epoch}-{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    sql = folder / SQL_NAME
    reading = await _read_from(settings, files, branch.first_sequence, sql)
    lost = [each for each in reading.transactions if each.sequence >= branch.first_sequence]
    if _goes_on(reading, branch) or not lost:
        await asyncio.to_thread(shutil.rmtree, folder)
        return Diverged(is_certain=reading.is_whole)
    await asyncio.to_thread(_keep, folder, files, f"{reading.words}\n")
    return Diverged(count=len(lost), path=str(sql), is_certain=reading.is_whole)


def _goes_on(reading: Reading, branch: Branch) -> bool:
    """The epoch's own row stands in this log, at its place: this log is a part of the history."""
    return any(
        (row.epoch, row.node, row.sequence) == (branch.epoch, branch.node, branch.first_sequence)
        for row in reading.epochs
    )


async def _read_from(
    settings: MariaDbSettings, files: list[Path], first_sequence: int, sql: Path
) -> Reading:
    program = settings.programs.binlog
    before = first_sequence - 1
    start = f"{DOMAIN}-{ANY_SERVER}-{before}" if before else ""
    reading = await read_logs(program, files, start=start, save_to=sql)
    if reading.transactions or not start:
        return reading
    return await read_logs(program, files, save_to=sql)  # The log begins after that place.


def _keep(folder: Path, files: list[Path], words: str) -> None:
    """The newest raw logs as well; copies, since a start that cuts shortens the file in place."""
    for path in files[-RAW_FILES_KEPT:]:
        shutil.copy2(path, folder / path.name)
    replace_durably(folder / "mariadb-binlog.txt", words.encode())
    with (folder / SQL_NAME).open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(folder)
    sync_folder(folder.parent)
