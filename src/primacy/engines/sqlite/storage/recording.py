"""What the open transaction has changed so far, and the marks that savepoints go back to."""

from collections.abc import Sequence

import apsw
import msgspec

from primacy.engines.sqlite.storage import counters, images
from primacy.engines.sqlite.storage.capture import Capture
from primacy.engines.sqlite.storage.images import Ddl, Images, Statement
from primacy.engines.sqlite.storage.schema import Schema, load
from primacy.errors import Rejected
from primacy.replication.log.record import HEADER_BYTES, RECORD_BYTES_MAX, Kind

PAYLOAD_BYTES_MAX = RECORD_BYTES_MAX - HEADER_BYTES


class Change(msgspec.Struct, frozen=True, gc=False):
    """What one transaction wrote, ready for the log."""

    kind: Kind
    payload: bytes
    schema_hash: int


class Mark(msgspec.Struct, frozen=True):
    """A place in the open transaction."""

    events_count: int
    schema_loads: int
    counters: counters.State | None


class Recording:
    """Of one connection: its schema, its capture, and the counters as the log knows them."""

    def __init__(self, connection: apsw.Connection, *, images: Images) -> None:
        self._connection = connection
        self.capture = Capture(connection, images=images)
        self.events = self.capture.events
        self._schema_loads = 0
        self._numbers_used = 0
        self._raws: dict[int, msgspec.Raw] = {}
        self._names: dict[int, str] = {}
        self._counters: counters.State | None = None
        self._data_version: object = None
        self.schema: Schema
        self.load_schema()

    def load_schema(self) -> None:
        """After every change of it. Tables get new numbers: rows taken down before keep theirs."""
        # Statistics in memory follow renamed tables and outlive an undone ANALYZE; nodes that
        # read them again after each change of the schema make the same plans.
        self._connection.execute("ANALYZE sqlite_schema")
        self.schema = load(self._connection, first_number=self._numbers_used)
        self._schema_loads += 1
        self._numbers_used += len(self.schema.tables)
        for table in self.schema.tables.values():
            self._raws[table.number] = table.raw
            self._names[table.number] = table.name
        self.capture.start(self.schema.tables)

    def begin_group(self) -> None:
        self.capture.cut(0)
        if self._schema_loads > 1:
            self._forget_old_tables()
        if self._counters is None and self.schema.has_counters:
            self._counters = counters.read(self._connection)

    def _forget_old_tables(self) -> None:
        kept = {table.number for table in self.schema.tables.values()}
        self._raws = {number: raw for number, raw in self._raws.items() if number in kept}
        self._names = {number: name for number, name in self._names.items() if number in kept}
        self._schema_loads = 1

    def mark(self) -> Mark:
        return Mark(len(self.events), self._schema_loads, self._counters)

    def back_to(self, mark: Mark) -> bool:
        """SQLite has undone what came since. Whether the schema is another now."""
        self.capture.cut(mark.events_count)
        self._counters = mark.counters
        if self._schema_loads == mark.schema_loads:
            return False
        self.load_schema()
        return True

    def forget_all(self) -> None:
        """SQLite has undone the whole group."""
        self.capture.cut(0)
        self.load_schema()
        self._counters = None

    def note_counters(self) -> None:
        """Takes down which counters the last statement has moved."""
        before = self._counters or {}
        self._counters = counters.read(self._connection)
        if (step := counters.moved(before, self._counters)) is not None:
            self.events.append(step)

    def see_counters(self) -> None:
        """They are what the replicas' own DDL makes of them as well."""
        self._counters = counters.read(self._connection) if self.schema.has_counters else None

    def digest(self, since: int) -> int:
        """Of the rows behind `since`. Those that the hook cannot see count as they are now."""
        rows = [row for row in self.events[since:] if type(row) is tuple]
        if self.capture.opaque_count:
            rows = [self._shown(row) if row[0] == images.OPAQUE else row for row in rows]
        return images.digest(rows, self._names)

    def _shown(self, row: images.RowTuple) -> images.RowTuple:
        table = self.schema.tables[self._names[row[1]]]  # type: ignore[index]  # A number.
        if table.is_keyed:
            return row  # It has no rowid to be asked by.
        name, rowid = images.quoted(table.name), images.quoted(table.rowid_name)
        found = self._connection.execute(f"SELECT * FROM {name} WHERE {rowid} = ?", (row[3],))
        return (*row, found.fetchall())

    def sees_others(self) -> bool:
        """Whether another connection has written to the file since the last time; not at first."""
        before, self._data_version = self._data_version, self._connection.pragma("data_version")
        return before not in (None, self._data_version)

    def take(self) -> Change | None:
        """All of the transaction, which then is over. `Rejected` where no record could hold it."""
        events = self.events
        if not events:
            return None
        first = events[0]
        kind = Kind.ROWS
        if len(events) == 1 and type(first) is tuple:  # The most frequent transaction of all.
            number: int = first[1]  # type: ignore[assignment]  # A table's.
            payload = images.encode(((0, (self._raws[number],), events),))
        else:
            payload = images.encode_events(events, self._raws)
            kind = _kind_of(events)
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise Rejected(
                f"a transaction of {len(payload)} bytes in the log exceeds the limit of "
                f"{PAYLOAD_BYTES_MAX}",
                hint="Write less in one transaction.",
            )
        events.clear()
        return Change(kind, payload, self.schema.hash)


def _kind_of(events: Sequence[object]) -> Kind:
    kinds = {type(event) for event in events}
    if Ddl in kinds:
        return Kind.DDL
    return Kind.STATEMENT if Statement in kinds else Kind.ROWS
