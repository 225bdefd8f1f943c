"""A primary's file and a replica's, with the bytes of a log between them and nothing else."""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw

from primacy.clock import SystemClock
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.images import Params, Step, decode
from primacy.engines.sqlite.storage.running import Result
from primacy.engines.sqlite.storage.schema import LOCAL
from primacy.engines.sqlite.storage.writer import Writer
from primacy.model import Epoch
from primacy.replication.log import record
from primacy.replication.log.record import ORIGIN_POINT, Entry, Header

EPOCH = Epoch(1)
SOURCE = b"a".ljust(16, b"\0")

Contents = dict[str, list[str]]


class OldClock(SystemClock):
    """Says 2001, so that nobody who asks the system instead says the same."""

    def __init__(self) -> None:
        self._asked = 0

    def wall_s(self) -> float:
        self._asked += 1
        return 978_307_200 + self._asked / 1000


class Pair:
    """The writer's groups are committed, encoded, decoded and applied in `end_group`."""

    def __init__(self, directory: Path, settings: StorageSettings | None = None) -> None:
        self.settings = settings or StorageSettings()
        self.paths = directory / "primary.db", directory / "replica.db"
        self.writer = Writer(self.paths[0], self.settings, clock=OldClock(), seeds=random.Random(7))
        self.applier = Applier(self.paths[1], self.settings)
        self.point = ORIGIN_POINT
        self.records: list[tuple[Header, bytes]] = []
        self._entries: list[Entry] = []

    def close(self) -> None:
        self.writer.close()
        self.applier.close()

    def damage(self, sql: str) -> None:
        """Behind the back of the replica, while nobody has its file open."""
        self.applier.close()
        with closing(apsw.Connection(str(self.paths[1]))) as other:
            other.execute(sql)
        self.applier = Applier(self.paths[1], self.settings)

    def begin(self) -> None:
        self.writer.begin()

    def note_change(self) -> None:
        if (change := self.writer.change()) is not None:
            self._entries.append(Entry(change.kind, change.payload, change.schema_hash, 0))

    def end_group(self, *, is_applied: bool = True) -> None:
        data, self.point = record.encode(
            self._entries, after=self.point, epoch=EPOCH, source=SOURCE
        )
        self._entries.clear()
        records = list(record.decode(data))
        self.records += records
        self.writer.commit(self.point)
        if is_applied:
            self.applier.apply(records)

    def run(self, sql: str, params: Params = ()) -> Result:
        """A group of one transaction of one statement."""
        self.begin()
        try:
            result = self.writer.run(sql, params)
        except BaseException:
            self.writer.rollback()
            raise
        self.note_change()
        self.end_group()
        return result

    def together(self, *deeds: str | Callable[[Writer], object]) -> None:
        """A group of one transaction of several statements."""
        self.begin()
        with self.writer.transaction():
            for deed in deeds:
                _ = self.writer.execute(deed) if isinstance(deed, str) else deed(self.writer)
        self.note_change()
        self.end_group()

    def last_steps(self) -> list[Step]:
        return decode(self.records[-1][1])

    def assert_equal(self) -> None:
        primary, replica = (contents_of(path) for path in self.paths)
        assert primary == replica


def contents_of(path: Path) -> Contents:
    """Every row with its rowid and its values' types, the schema, and what the header says."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        found: Contents = {
            "": [
                repr(connection.pragma("integrity_check")),
                repr(connection.pragma("user_version")),
            ]
        }
        schema = list(connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2"))
        found["sqlite_schema"] = [repr(each) for each in schema if "sqlite_stat" not in each[1]]
        assert found[""][0] == "'ok'", found[""][0]
        for kind, name, _ in schema:
            if kind == "table" and "sqlite_stat" not in name and name != LOCAL:
                found[name] = _rows(connection, name)
        return found


def _rows(connection: apsw.Connection, name: str) -> list[str]:
    table = name.replace('"', '""')
    try:
        rows = list(connection.execute(f'SELECT _rowid_, * FROM "{table}" ORDER BY 1'))
    except apsw.SQLError:  # WITHOUT ROWID.
        rows = list(connection.execute(f'SELECT * FROM "{table}"'))
    return [repr(row) for row in rows]
