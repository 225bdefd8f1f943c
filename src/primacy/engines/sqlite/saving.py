"""The end of a log, written aside to be read and to be used: as SQL, and as a log of its own.

Promises  Both stand whole and synced once `end` has returned. Written again, they are replaced.
          `DiskFull` where there is no space for them.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from primacy.engines.sqlite.storage.images import DATA
from primacy.engines.sqlite.storage.readable import sql_of
from primacy.engines.sqlite.tally import Tally
from primacy.errors import Corrupt
from primacy.replication.log.inspecting import commit_time
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.opening import needing_space
from primacy.replication.log.reading import Readable
from primacy.replication.log.record import Header, Point, decode
from primacy.runtime.files import sync_directory
from primacy.telemetry import ignore

SQL_NAME = "readable.sql"
RECORDS_NAME = "records"

HEAD = """\
-- Transactions that lost their place in the history of the cluster, behind {point}.
-- Rows are named by rowid or key, as they were then; what was there before stands in remarks.
-- docs/guides/diverged.md says how to bring them back.
"""


@contextmanager
def beginning(folder: Path, log: Readable, *, after: int) -> Iterator["Saving"]:
    """What `log` has behind one of its places goes to `folder`. A failure leaves no half there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # Rows of the application: for nobody but the agent's user.
    records, sql_path = folder / f"{RECORDS_NAME}.new", folder / f"{SQL_NAME}.new"
    shutil.rmtree(records, ignore_errors=True)
    point = log.point(after) or log.first
    gtids = log.gtids_until(point.index)
    try:
        with (
            needing_space(folder),
            Log.begin(records, at=point, gtids=gtids, limits=LogLimits(), events=ignore) as kept,
            sql_path.open("w", encoding="utf-8") as sql,
        ):
            sql.write(HEAD.format(point=_named(log, point)))
            yield Saving(folder, log, after=after, kept=kept, sql=sql)
    finally:
        sql_path.unlink(missing_ok=True)
        shutil.rmtree(records, ignore_errors=True)


class Saving:
    """Under way."""

    def __init__(
        self, folder: Path, source: Readable, *, after: int, kept: Log, sql: TextIO
    ) -> None:
        self.path = folder / SQL_NAME
        self.after = after
        """Up to here everything has been taken."""
        self.tally = Tally()
        self._folder = folder
        self._source = source
        self._kept = kept
        self._sql = sql

    def take(self, data: bytes) -> None:
        """Records that follow. `Corrupt`, `Conflict` for one that is damaged: those before it are
        kept."""
        size_bytes = 0
        try:
            for header, payload in decode(data):
                self._write(header, payload)
                size_bytes += header.length
                self.after = header.index
        finally:
            self._kept.append_received(data[:size_bytes])

    def end(self, words: str) -> None:
        """`words`: why it ends before the log does, where it does."""
        if words:
            self._sql.write(f"\n-- It could not be read any further: {_one_line(words)}\n")
        self._sql.flush()
        os.fsync(self._sql.fileno())
        self._kept.close()
        records = self._folder / RECORDS_NAME
        shutil.rmtree(records, ignore_errors=True)
        self._kept.directory.rename(records)
        Path(self._sql.name).rename(self.path)
        sync_directory(self._folder)
        sync_directory(self._folder.parent)

    def _write(self, header: Header, payload: bytes) -> None:
        is_own = self.tally.add(header, payload)
        gtid = self._source.gtid_of(header.index)
        lines = [f"\n-- transaction {gtid}, {commit_time(header)}"]
        if is_own:
            lines.append(f"-- {header.kind.name}: primacy's own")
        try:
            lines += sql_of(payload) if header.kind in DATA else ()
        except Corrupt as error:  # Its checksum is right: a newer release wrote it.
            lines.append(f"-- {_one_line(error.what)}")
        self._sql.writelines(f"{line}\n" for line in lines)


def _named(log: Readable, point: Point) -> str:
    return str(log.gtid_of(point.index)) if point.index else "its beginning"


def _one_line(text: str) -> str:
    return " ".join(text.split())
