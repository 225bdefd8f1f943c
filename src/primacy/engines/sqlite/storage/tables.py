"""SQL that puts the rows of a log into a table, one text for each shape of row. Pure.

`OR ABORT` goes before any conflict clause of the table: what the primary's clause did stands in the
log as rows already, so a conflict here means that the copies differ.
"""

from collections.abc import Callable
from typing import assert_never

from primacy.engines.sqlite.storage.images import Delete, Insert, Row, Update, Value, quoted
from primacy.engines.sqlite.storage.schema import Table

Binding = tuple[Value, ...]


class TableSql:
    """Of one table in one schema."""

    def __init__(self, table: Table) -> None:
        self.table = table
        columns = table.map.columns
        self._quoted = [quoted(name) for name in columns]
        self._written = [at for at in range(len(columns)) if at not in table.map.stored]
        self._is_whole = len(self._written) == len(columns)
        self._where = _where(table)
        self.is_as_logged = self._is_whole and (table.is_keyed or table.map.alias is not None)
        """An insert's values are its parameters as they stand in the log."""
        self._has_rowid_column = not table.is_keyed and table.map.alias is None
        self._updates: dict[tuple[tuple[int, ...], bool, bool], str] = {}
        name = quoted(table.name)
        names = [self._quoted[at] for at in self._written]
        if self._has_rowid_column:
            names.insert(0, table.rowid_name)
        marks = ", ".join("?" * len(names))
        self.insert = f"INSERT OR ABORT INTO {name}({', '.join(names)}) VALUES({marks})"
        self.delete = f"DELETE FROM {name} WHERE {self._where}"
        self.delete_old = f"{self.delete}{self._same()}"
        self.exists = f"SELECT 1 FROM {name} WHERE {self._where}"
        self.inserted: Callable[[Insert], Binding] = self._make_inserted()

    def of(self, row: Row) -> tuple[str, Binding]:
        """The text and its parameters."""
        match row:
            case Insert():
                return self.insert, self.inserted(row)
            case Delete():
                if row.old is None:
                    return self.delete, (row.rowid,)
                return self.delete_old, (*self.key(row.rowid, row.old), *row.old)
            case Update():
                return self._update(row)
            case _:
                assert_never(row)

    def key(self, rowid: int, old: Binding | None) -> Binding:
        if not self.table.is_keyed:
            return (rowid,)
        return tuple((old or ())[at] for at in self.table.map.key)

    def _make_inserted(self) -> Callable[[Insert], Binding]:
        written = self._written
        if self._is_whole:
            if self._has_rowid_column:
                return lambda row: (row.rowid, *row.values)
            return lambda row: row.values
        if self._has_rowid_column:
            return lambda row: (row.rowid, *(row.values[at] for at in written))
        return lambda row: tuple(row.values[at] for at in written)

    def _update(self, row: Update) -> tuple[str, Binding]:
        is_moved = row.rowid != row.rowid_new and self._has_rowid_column
        shape = (row.columns, row.old is not None, is_moved)
        sql = self._updates.get(shape)
        if sql is None:
            sql = self._updates[shape] = self._update_sql(*shape)
        stored = self.table.map.stored
        pairs = zip(row.columns, row.values, strict=True)
        values = row.values if not stored else tuple(v for at, v in pairs if at not in stored)
        rowid_new = (row.rowid_new,) if is_moved else ()
        return sql, (*values, *rowid_new, *self.key(row.rowid, row.old), *(row.old or ()))

    def _update_sql(self, columns: tuple[int, ...], has_old: bool, is_moved: bool) -> str:  # noqa: FBT001  # The shape.
        stored = self.table.map.stored
        sets = [f"{self._quoted[at]} = ?" for at in columns if at not in stored]
        if is_moved:
            sets.append(f"{self.table.rowid_name} = ?")
        same = self._same() if has_old else ""
        name = quoted(self.table.name)
        return f"UPDATE OR ABORT {name} SET {', '.join(sets)} WHERE {self._where}{same}"

    def _same(self) -> str:
        return "".join(f" AND {name} IS ?" for name in self._quoted)


def _where(table: Table) -> str:
    if not table.is_keyed:
        return f"{quoted(table.rowid_name)} = ?"
    return " AND ".join(f"{quoted(table.map.columns[at])} = ?" for at in table.map.key)
