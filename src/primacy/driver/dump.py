"""A database as the SQL that makes it again: `Connection.iterdump`, `.dump` of the shell."""

import math
from collections.abc import Callable, Iterable, Iterator

from primacy.engines.sqlite.protocol import Row, Value

Ask = Callable[[str], Iterable[Row]]
"""Runs a query. Its rows are read to their end before the next is asked."""

OWN_PREFIX = "_primacy"
"""primacy's own tables belong to one cluster, and are not part of a dump."""


def dumped(ask: Ask, *, only: str = "") -> Iterator[str]:
    """Statements in an order in which they can be run; `only`: one table. Rows of shadow tables are
    left out: their virtual table makes them again."""
    yield "BEGIN;"
    kinds = {
        str(name): str(kind)
        for _, name, kind, *_ in list(ask("PRAGMA table_list"))
        if not str(name).startswith(("sqlite_", OWN_PREFIX))
    }
    schema = list(
        ask(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL "
            "ORDER BY type = 'table' DESC, type = 'index' DESC, rowid"
        )
    )
    wanted = [
        (str(kind), str(name), str(sql))
        for kind, name, table, sql in schema
        if str(table) in kinds and kinds[str(table)] != "shadow" and only in ("", str(table))
    ]
    for kind, name, sql in wanted:
        if kind == "table":
            yield f"{sql};"
            yield from _rows(ask, name)
    yield from _sequences(ask, {name for kind, name, _ in wanted if kind == "table"})
    for kind, _, sql in wanted:
        if kind != "table":
            yield f"{sql};"
    yield "COMMIT;"


def _rows(ask: Ask, table: str) -> Iterator[str]:
    columns = [
        quoted_name(str(name))
        for _, name, _, _, _, _, hidden in list(ask(f"PRAGMA table_xinfo({quoted_name(table)})"))
        if hidden == 0
    ]
    if not columns:
        return
    names = ", ".join(columns)
    into = f"INSERT INTO {quoted_name(table)} ({names}) VALUES"
    for row in ask(f"SELECT {names} FROM {quoted_name(table)}"):
        yield f"{into} ({', '.join(literal(value) for value in row)});"


def _sequences(ask: Ask, tables: set[str]) -> Iterator[str]:
    """AUTOINCREMENT goes on where it was."""
    if not list(ask("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")):
        return
    for name, highest in list(ask("SELECT name, seq FROM sqlite_sequence")):
        if name in tables:
            yield f"DELETE FROM sqlite_sequence WHERE name = {literal(name)};"
            yield f"INSERT INTO sqlite_sequence VALUES ({literal(name)}, {literal(highest)});"


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: Value) -> str:
    """A value as SQL."""
    match value:
        case None:
            return "NULL"
        case int():
            return str(value)
        case float() if math.isinf(value):
            return "9e999" if value > 0 else "-9e999"
        case float():
            return repr(value)
        case bytes():
            return f"x'{value.hex()}'"
        case str() if "\0" in value:
            return f"CAST(x'{value.encode().hex()}' AS TEXT)"
        case str():
            return "'" + value.replace("'", "''") + "'"
