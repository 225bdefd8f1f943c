"""Checksums of whole tables at one point of the history: are two copies of them equal?

Promises  Equal sums mean equal rows, rowids, types and AUTOINCREMENT counters, whatever else the
          two files hold. All are of one read transaction, whose point is told.
"""

from collections.abc import Iterable
from contextlib import closing
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import apsw
import msgspec

from primacy.engines.sqlite.storage import position
from primacy.engines.sqlite.storage.connection import StorageSettings, open_own_reader
from primacy.engines.sqlite.storage.images import quoted
from primacy.engines.sqlite.storage.schema import Table, load
from primacy.errors import Conflict
from primacy.replication.log.record import Point

SUMMED_BYTES_MAX = 256 << 20
"""Of all tables together. Beyond, a copy of the node is as quick."""

ROWS_AT_A_TIME = 500

MISSING_ROWS = -1

_encode = msgspec.msgpack.Encoder().encode


class TableSum(msgspec.Struct, frozen=True):
    """Of one table. One that is not there has `MISSING_ROWS`."""

    table: str
    rows: int
    digest: str


class TableSums(msgspec.Struct, frozen=True):
    """In the order in which they were asked for."""

    point: Point
    sums: tuple[TableSum, ...]


def table_sums(path: Path, settings: StorageSettings, tables: Iterable[str]) -> TableSums:
    """Blocks, and reads the tables from beginning to end. `Conflict` where they are too large."""
    with closing(open_own_reader(path, settings)) as connection:
        connection.execute("BEGIN")
        point = position.read(connection)
        schema = load(connection)
        left_bytes = SUMMED_BYTES_MAX
        sums: list[TableSum] = []
        for name in tables:
            table = schema.tables.get(name)
            if table is None:
                sums.append(TableSum(name, MISSING_ROWS, ""))
                continue
            found, size_bytes = _sum_of(connection, table, left_bytes)
            left_bytes -= size_bytes
            sums.append(found)
        return TableSums(point, tuple(sums))


def _sum_of(connection: apsw.Connection, table: Table, bytes_max: int) -> tuple[TableSum, int]:
    made = blake2b(_encode(table.map.columns), digest_size=16)
    size_bytes = count = 0
    rows = connection.execute(_all_rows(table))
    while some := list(islice(rows, ROWS_AT_A_TIME)):
        data = _encode(some)
        count += len(some)
        size_bytes += len(data)
        if size_bytes > bytes_max:
            raise Conflict(
                f"the tables to be compared have more than {SUMMED_BYTES_MAX >> 20} MiB",
                hint="Clone the node.",
            )
        made.update(data)
    if table.has_counter:
        counter = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        made.update(_encode(connection.execute(counter, (table.name,)).fetchall()))
    return TableSum(table.name, count, made.hexdigest()), size_bytes


def _all_rows(table: Table) -> str:
    """In the order in which they are stored: by rowid, or by the key."""
    name = quoted(table.name)
    if table.is_keyed:
        key = ", ".join(quoted(table.map.columns[at]) for at in table.map.key)
        return f"SELECT * FROM {name} ORDER BY {key}"
    rowid = quoted(table.rowid_name) if table.map.alias is not None else table.rowid_name
    return f"SELECT {rowid}, * FROM {name} ORDER BY {rowid}"
