"""A change as SQL, to be read and, with care, to be run: what a person sees of a record. Pure.

It names rows as the log does, by rowid or primary key. Where the database has moved on, or another
row has taken the place, running it is the reader's decision.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from primacy.engines.sqlite.storage.images import (
    Cell,
    Counters,
    Ddl,
    Delete,
    Insert,
    Row,
    Rows,
    Statement,
    Step,
    TableMap,
    Update,
    decode,
    quoted,
)

_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def sql_of(payload: bytes) -> Iterator[str]:
    """Statements, each with its semicolon, and remarks. `Corrupt` for what is no change."""
    return lines_of(decode(payload))


def lines_of(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        match step:
            case Rows():
                maps = step.maps
                for row in step.rows:
                    yield _row(row, maps[row.table])
            case Statement():
                yield from _statement(step)
            case Ddl():
                yield _ended(step.sql)
            case Counters():
                yield from _counters(step)
            case _:
                assert_never(step)


def literal(value: Cell) -> str:
    """A value as SQL writes it."""
    match value:
        case None:
            return "NULL"
        case str():
            text = "'" + value.replace("'", "''") + "'"
            return text if "\0" not in text else f"CAST(x'{value.encode().hex()}' AS TEXT)"
        case bytes():
            return f"x'{value.hex()}'"
        case float() if value in (float("inf"), float("-inf")):
            return "9e999" if value > 0 else "-9e999"
        case _:
            return repr(value)


def _row(row: Row, table: TableMap) -> str:
    name = quoted(table.name)
    match row:
        case Insert():
            pairs = [pair for pair in enumerate(row.values) if pair[0] not in table.stored]
            columns = [quoted(table.columns[at]) for at, _ in pairs]
            values = [literal(value) for _, value in pairs]
            if table.alias is None and not table.key:
                columns.insert(0, _rowid_name(table))
                values.insert(0, literal(row.rowid))
            return f"INSERT INTO {name}({', '.join(columns)}) VALUES({', '.join(values)});"
        case Delete():
            was = "" if row.old is None else f" -- was {', '.join(map(literal, row.old))}"
            return f"DELETE FROM {name} WHERE {_key(row.rowid, row.old, table)};{_safe(was)}"
        case Update():
            changed = zip(row.columns, row.values, strict=True)
            pairs = [(at, value) for at, value in changed if at not in table.stored]
            sets = [f"{quoted(table.columns[at])} = {literal(value)}" for at, value in pairs]
            if row.rowid != row.rowid_new and table.alias is None:
                sets.append(f"{_rowid_name(table)} = {row.rowid_new}")
            where = _key(row.rowid, row.old, table)
            return f"UPDATE {name} SET {', '.join(sets)} WHERE {where};{_safe(_was(row, table))}"
        case _:
            assert_never(row)


def _was(row: Update, table: TableMap) -> str:
    if row.old is None:
        return ""
    old = (f"{table.columns[at]} {literal(row.old[at])}" for at in row.columns)
    return f" -- was {', '.join(old)}"


def _key(rowid: int, old: tuple[Cell, ...] | None, table: TableMap) -> str:
    if table.key and old is not None:
        parts = (f"{quoted(table.columns[at])} = {literal(old[at])}" for at in table.key)
        return " AND ".join(parts)
    name = _rowid_name(table) if table.alias is None else quoted(table.columns[table.alias])
    return f"{name} = {rowid}"


def _rowid_name(table: TableMap) -> str:
    taken = {column.lower() for column in table.columns}
    return next((name for name in _ROWID_NAMES if name not in taken), "rowid")


def _statement(step: Statement) -> Iterator[str]:
    if step.params:
        named = step.params.items() if isinstance(step.params, dict) else enumerate(step.params, 1)
        values = ", ".join(f"{name}: {literal(value)}" for name, value in named)
        yield _safe(f"-- parameters {values}")
    yield f"-- at {step.now_ms} ms since 1970, seed {step.seed}, rows {step.rows_affected}"
    yield _ended(step.sql)


def _counters(step: Counters) -> Iterator[str]:
    for counter in step.counters:
        new = "gone" if counter.new is None else f"{counter.new[0]} {literal(counter.new[1])}"
        old = "none" if counter.old is None else f"{counter.old[0]} {literal(counter.old[1])}"
        yield _safe(f"-- counter of AUTOINCREMENT: {new}, was {old}")


def _ended(sql: str) -> str:
    """On a line of its own, since a remark may end the text."""
    stripped = sql.rstrip()
    return stripped if stripped.endswith(";") else f"{stripped}\n;"


def _safe(remark: str) -> str:
    """On one line: a line break in a value would end the remark, and what follows would be run."""
    return remark.replace("\r", "\\r").replace("\n", "\\n")
