"""The preupdate hook: every row as it changes, in the order in which SQLite changes it.

Promises  Whatever a statement did to ordinary tables stands in `events`, by triggers, cascades,
          REPLACE and virtual tables' shadow tables too; a row that could not be taken down is a
          `problem`, and then the statement must be undone.
Does not  Learn that SQLite undid rows (a failed statement, ROLLBACK TO): whoever undoes them cuts
          `events`. See counters of AUTOINCREMENT, or what DDL does inside.
"""

from collections.abc import Callable, Mapping

import apsw

from primacy.engines.sqlite.storage.images import (
    DELETE,
    INSERT,
    OPAQUE,
    UPDATE,
    Counters,
    Ddl,
    Images,
    RowTuple,
    Statement,
    Value,
)
from primacy.engines.sqlite.storage.schema import Table
from primacy.errors import Rejected

Event = RowTuple | Statement | Ddl | Counters

EVENTS_MAX = 1_000_000
"""Rows of one transaction. Its record is too large long before: this bounds memory."""


class Capture:
    """One per connection, for its life."""

    def __init__(self, connection: apsw.Connection, *, images: Images) -> None:
        self.events: list[Event] = []
        self.problem: Exception | None = None
        self.opaque_count = 0
        self.blob_rows: list[tuple[Table, int, tuple[Value, ...]]] = []
        """Written by incremental blob I/O: the table, the rowid, and the row before."""
        self._tables: dict[str, Table] = {}
        self._numbers: dict[str, int] = {}
        """Of the tables whose rows can be seen."""
        self._connection = connection
        self._hook = self._make_hook(is_full=images is Images.FULL)

    def start(self, tables: Mapping[str, Table]) -> None:
        """Also after each change of the schema."""
        self._tables.clear()
        self._tables.update(tables)
        self._numbers.clear()
        seen = ((name, table.number) for name, table in tables.items() if not table.is_opaque)
        self._numbers.update(seen)
        self._connection.preupdate_hook(self._hook)

    def stop(self) -> None:
        self._connection.preupdate_hook(None)

    def cut(self, mark: int) -> None:
        """SQLite has undone what came behind `mark`."""
        del self.events[mark:]
        self.problem = None
        self.opaque_count = 0
        self.blob_rows.clear()

    def _make_hook(self, *, is_full: bool) -> Callable[[apsw.PreUpdate], None]:
        events, append, number_of = self.events, self.events.append, self._numbers.get
        inserted = apsw.SQLITE_INSERT

        def hook(row: apsw.PreUpdate) -> None:
            try:
                number = number_of(row.table_name)
                if number is None or len(events) >= EVENTS_MAX:
                    self._note_unseen(row)
                elif row.opcode == inserted:
                    append((INSERT, number, row.rowid, row.new))
                else:
                    self._note_change(row, is_full=is_full)
            except Exception as error:  # noqa: BLE001  # SQLite cannot be told; the caller is.
                self.problem = self.problem or error

        return hook

    def _note_change(self, row: apsw.PreUpdate, *, is_full: bool) -> None:
        table = self._tables[row.table_name]
        old = row.old if is_full or table.is_keyed else None
        if row.opcode == apsw.SQLITE_DELETE:
            if row.blob_write >= 0:
                self.blob_rows.append((table, row.rowid, row.old or ()))
            else:
                self.events.append((DELETE, table.number, row.rowid, old))
            return
        no_change, changed = apsw.no_change, row.update or ()
        columns = [at for at, value in enumerate(changed) if value is not no_change]
        rowid, rowid_new = row.rowid, row.rowid_new
        if columns or rowid != rowid_new:
            values = [changed[at] for at in columns]
            self.events.append((UPDATE, table.number, rowid, rowid_new, old, columns, values))

    def _note_unseen(self, row: apsw.PreUpdate) -> None:
        table = self._tables.get(row.table_name)
        if table is None:
            return  # Statistics and counters: other events tell of them.
        if not table.is_opaque:
            raise Rejected(
                f"a transaction touches more than {EVENTS_MAX} rows",
                hint="Do it in several transactions.",
            )
        self.opaque_count += 1
        self.events.append((OPAQUE, table.number, row.rowid, row.rowid_new, row.opcode))
