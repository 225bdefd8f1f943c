"""Row images and statements: what one transaction wrote, as the payload of a log record. Pure.

Format    `docs/formats/changes.md`. An array of steps, in the order in which they happened.
Promises  What was encoded is decoded with the same values and types, or `Corrupt` is raised.
Does not  Know a database: tables are named by the map that each step of rows carries.

The writer makes rows as plain tuples, which have the same bytes as the Structs below and cost
half as much; whoever reads gets the Structs.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any  # See `Cell`.

import msgspec

from primacy.errors import Corrupt
from primacy.replication.log.record import Kind

Value = None | int | float | str | bytes
Cell = Any  # A `Value`: msgspec cannot say a union of str and bytes, and gives exactly these.
Params = Sequence[Value] | Mapping[str, Value]

DATA = frozenset({Kind.ROWS, Kind.STATEMENT, Kind.DDL})
"""The records whose payload is a change."""

INSERT, DELETE, UPDATE, OPAQUE = 0, 1, 2, 3
"""Tags of rows. OPAQUE never leaves a node: a row whose values SQLite would not show."""

RowTuple = tuple[object, ...]
"""(INSERT, table, rowid, values) | (DELETE, table, rowid, old) |
(UPDATE, table, rowid, rowid_new, old, columns, values) | (OPAQUE, table, rowid, rowid_new, op)"""


class Images(Enum):
    """How much of an old row a record carries."""

    FULL = "full"
    """All of it: replicas compare it, and a transaction can be taken back."""
    MINIMAL = "minimal"
    """Its key alone."""


class TableMap(msgspec.Struct, frozen=True, array_like=True):
    """The table that `number` means in this step."""

    number: int
    name: str
    columns: tuple[str, ...]
    key: tuple[int, ...]
    """Columns of the primary key of a WITHOUT ROWID table. Empty: rows are named by rowid."""
    stored: tuple[int, ...]
    """Generated columns: in the image, never written."""
    alias: int | None
    """The column that is the rowid (INTEGER PRIMARY KEY)."""


class Insert(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=INSERT):
    table: int
    rowid: int
    values: tuple[Cell, ...]


class Delete(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=DELETE):
    table: int
    rowid: int
    old: tuple[Cell, ...] | None


class Update(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=UPDATE):
    table: int
    rowid: int
    rowid_new: int
    old: tuple[Cell, ...] | None
    columns: tuple[int, ...]
    """Those that changed, and `values` are theirs."""
    values: tuple[Cell, ...]


Row = Insert | Delete | Update


class Rows(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """Rows in the order in which they were written: none may be left out or moved."""

    tables: tuple[msgspec.Raw, ...]
    """Each a `TableMap`; as bytes, since one that was seen before need not be decoded again."""
    rows: list[Row]

    @property
    def maps(self) -> dict[int, TableMap]:
        found = map(decode_table, self.tables)
        return {each.number: each for each in found}


class Statement(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """SQL to run again, with all that it depends on beside the data."""

    sql: str
    params: list[Cell] | dict[str, Cell]
    now_ms: int
    seed: int
    last_insert_rowid: int
    """Before it."""
    rows_affected: int
    rows_digest: int
    """Of the rows that it changed, triggers and cascades included. Another one: diverged."""


class Ddl(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A change of the schema, or another statement that runs without rows of its own."""

    sql: str


class Counter(msgspec.Struct, frozen=True, array_like=True):
    """A row of sqlite_sequence, before and after. `None`: not there."""

    rowid: int
    old: tuple[Cell, Cell] | None
    new: tuple[Cell, Cell] | None


class Counters(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """AUTOINCREMENT moves these where no hook sees it, even by rows that were never inserted."""

    counters: list[Counter]


Step = Rows | Statement | Ddl | Counters

_ENCODER = msgspec.msgpack.Encoder()
_TABLES = msgspec.msgpack.Decoder(TableMap)
_DECODER = msgspec.msgpack.Decoder(list[Step])
encode = _ENCODER.encode


def table_bytes(table: TableMap) -> msgspec.Raw:
    """Encoded once for each table, and copied into every record that names it."""
    return msgspec.Raw(_ENCODER.encode(table))


def decode_table(raw: msgspec.Raw) -> TableMap:
    """`Corrupt` for what is none."""
    try:
        return _TABLES.decode(raw)
    except msgspec.DecodeError as error:
        raise _unreadable(raw, error) from error


def encode_events(
    events: Iterable[RowTuple | Statement | Ddl | Counters], tables: Mapping[int, msgspec.Raw]
) -> bytes:
    """What a transaction did, in order. Rows that stand together become one step."""
    steps: list[object] = []
    run: list[RowTuple] = []
    for event in events:
        if type(event) is tuple:
            run.append(event)
            continue
        if run:
            steps.append(_rows_step(run, tables))
            run = []
        steps.append(event)
    if run:
        steps.append(_rows_step(run, tables))
    return encode(steps)


def _rows_step(rows: list[RowTuple], tables: Mapping[int, msgspec.Raw]) -> object:
    numbers: dict[object, None] = dict.fromkeys(row[1] for row in rows)
    maps = tuple(tables[number] for number in numbers)  # type: ignore[index]  # Row[1] is one.
    return (0, maps, rows)


def decode(payload: bytes) -> list[Step]:
    """`Corrupt` for what is no payload of a change."""
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError as error:  # A `ValidationError` is one.
        raise _unreadable(payload, error) from error


def _unreadable(data: bytes | msgspec.Raw, error: Exception) -> Corrupt:
    return Corrupt(
        f"a change of {len(bytes(data))} bytes cannot be read: {error}",
        hint="A newer primacy wrote it, or another program: upgrade this node or clone it.",
    )


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def digest(rows: Iterable[RowTuple], names: Mapping[int, str]) -> int:
    """The same for the same rows on every node: by the table's name, not by its number here, and in
    whatever order they were visited."""
    total = 0
    for row in rows:
        named = (names[row[1]], row[0], row[2:])  # type: ignore[index]  # Row[1] is a number.
        total += zlib.crc32(encode(named))
    return total & 0xFFFF_FFFF
