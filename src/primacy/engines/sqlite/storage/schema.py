"""The tables of a database, as capture and apply need them, and a hash that two nodes compare.

Promises  Equal hashes mean the same tables, indices, triggers, views, `user_version` and
          `application_id`, whatever else the files hold.
Does not  Count what belongs to one node (statistics, primacy's own tables).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

import apsw
import msgspec

from primacy.engines.sqlite.storage.images import TableMap, table_bytes
from primacy.errors import Rejected

OWN = "_primacy_"
"""Tables of primacy itself: replicated, but hidden from clients and not part of the hash."""

LOCAL = f"{OWN}position"
"""Each node has its own: no log carries it."""

SEQUENCE = "sqlite_sequence"

_ENTRIES = """
SELECT type, name, tbl_name, sql FROM sqlite_schema
WHERE name NOT LIKE 'sqlite!_stat%' ESCAPE '!' ORDER BY type, name"""

_COLUMNS = """
SELECT l.name, l.type, l.wr, x.cid, x.name, x.type, x.pk, x.hidden
FROM pragma_table_list AS l JOIN pragma_table_xinfo(l.name) AS x
WHERE l.schema = 'main' AND l.type IN ('table', 'shadow') ORDER BY l.name, x.cid"""

_PLAIN_KEYS = """
SELECT count(*) FROM pragma_index_list(?) WHERE origin = 'pk'"""

_ROWID_NAMES = ("rowid", "_rowid_", "oid")

_CONFLICTS = re.compile(r"\b(?:rollback|fail|replace)\b", re.I)
_DEFERRED = re.compile(r"\bdeferrable\b", re.I)
_COMPUTED = re.compile(r"\|\||->|\bcast\b|\bas\b|\bdefault\s*\(", re.I)
_AUTOINCREMENT = re.compile(r"\bautoincrement\b", re.I)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that has rows of its own (a shadow table too; a virtual one or a view not)."""

    name: str
    number: int
    map: TableMap
    raw: msgspec.Raw
    is_keyed: bool
    """WITHOUT ROWID: its rows are named by their primary key."""
    rowid_name: str
    """How SQL calls its rowid; empty for WITHOUT ROWID."""
    is_opaque: bool
    """It has a VIRTUAL generated column: its rows cannot be captured."""
    has_counter: bool
    is_plain: bool
    """Nothing in its definition computes: what is stored is what was given."""


@dataclass(frozen=True, slots=True)
class Schema:
    tables: dict[str, Table]
    texts: dict[str, str]
    """SQL of tables, views and triggers by lower-case name."""
    hash: int
    has_conflict_clauses: bool
    """Somewhere stands ON CONFLICT or RAISE with ROLLBACK, FAIL or REPLACE; perhaps."""
    has_deferred_keys: bool
    has_counters: bool
    virtual: frozenset[str]
    triggered: frozenset[str]
    """Tables with a trigger."""


def load(connection: apsw.Connection, *, first_number: int = 0) -> Schema:
    """Reads it all. `Rejected` for a table whose rows could not be named in a log."""
    entries = list(connection.execute(_ENTRIES))
    texts = {name.lower(): sql for _, name, _, sql in entries if sql is not None}
    tables: dict[str, Table] = {}
    for name, columns in _by_table(connection.execute(_COLUMNS)):
        if name.lower().startswith("sqlite_") or name == LOCAL:
            continue
        number = first_number + len(tables)
        tables[name] = _table(connection, number, name, columns, texts[name.lower()])
    own = [(kind, name) for kind, name, table, _ in entries if table.startswith(OWN)]
    counted = [entry for entry in entries if entry[:2] not in own and entry[1] != SEQUENCE]
    text = "\n".join(sql for *_, sql in counted if sql is not None)
    return Schema(
        tables=tables,
        texts=texts,
        hash=_hash(counted, connection),
        has_conflict_clauses=_CONFLICTS.search(text) is not None,
        has_deferred_keys=_DEFERRED.search(text) is not None,
        has_counters=any(table.has_counter for table in tables.values()),
        virtual=frozenset(
            name.lower()
            for kind, name, _, sql in counted
            if kind == "table" and sql[:14].upper() == "CREATE VIRTUAL"
        ),
        triggered=frozenset(table for kind, _, table, _ in counted if kind == "trigger"),
    )


_ColumnRow = tuple[str, str, int, int, str, str, int, int]


def _by_table(rows: Iterable[_ColumnRow]) -> Iterator[tuple[str, list[_ColumnRow]]]:
    for name, columns in groupby(rows, key=lambda row: row[0]):
        yield name, list(columns)


def _table(
    connection: apsw.Connection, number: int, name: str, columns: list[_ColumnRow], sql: str
) -> Table:
    is_without_rowid = bool(columns[0][2])
    keys = sorted((pk, cid) for _, _, _, cid, _, _, pk, _ in columns if pk)
    names = tuple(column[4] for column in columns)
    alias = None if is_without_rowid else _alias(connection, name, columns, keys)
    table = TableMap(
        number=number,
        name=name,
        columns=names,
        key=tuple(cid for _, cid in keys) if is_without_rowid else (),
        stored=tuple(cid for _, _, _, cid, _, _, _, hidden in columns if hidden == 3),
        alias=alias,
    )
    return Table(
        name=name,
        number=number,
        map=table,
        is_keyed=is_without_rowid,
        raw=table_bytes(table),
        rowid_name="" if is_without_rowid else _rowid_name(name, names, alias),
        is_opaque=any(column[7] == 2 for column in columns),
        is_plain=_COMPUTED.search(sql) is None,
        has_counter=_AUTOINCREMENT.search(sql) is not None,
    )


def _alias(
    connection: apsw.Connection, name: str, columns: list[_ColumnRow], keys: list[tuple[int, int]]
) -> int | None:
    """INTEGER PRIMARY KEY is the rowid, save in the forms that SQLite keeps an index for (DESC)."""
    if len(keys) != 1 or columns[keys[0][1]][5].upper() != "INTEGER":
        return None
    indices: int = connection.execute(_PLAIN_KEYS, (name,)).get
    return None if indices else keys[0][1]


def _rowid_name(name: str, columns: tuple[str, ...], alias: int | None) -> str:
    if alias is not None:
        return columns[alias]
    taken = {column.lower() for column in columns}
    for free in _ROWID_NAMES:
        if free not in taken:
            return free
    raise Rejected(
        f"table {name} has columns rowid, _rowid_ and oid and no INTEGER PRIMARY KEY: its rows "
        "have no name",
        hint="Rename one of the three columns, or give the table an INTEGER PRIMARY KEY.",
    )


def _hash(entries: list[tuple[str, str, str, str]], connection: apsw.Connection) -> int:
    numbers = [connection.pragma("user_version"), connection.pragma("application_id")]
    packed = msgspec.msgpack.encode([*entries, numbers])
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")
