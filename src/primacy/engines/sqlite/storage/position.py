"""The position row: how much of the log is in the database file, in the same commit as the data.

It is at or before the durable end of the log, always: no commit happens before its records are
durable. So replaying what stands behind it gives exactly the logged history.
"""

from collections.abc import Callable

import apsw

from primacy.engines.sqlite.storage.schema import LOCAL as TABLE
from primacy.model import Epoch
from primacy.replication.log.record import Point

_CREATE = f"""
CREATE TABLE IF NOT EXISTS {TABLE}(
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, place INTEGER, chain INTEGER)"""
_FIRST = f"INSERT OR IGNORE INTO {TABLE} VALUES(1, 0, 0, 0)"
_PAGE = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
_READ = f"SELECT epoch, place, chain FROM {TABLE}"
_WRITE = f"UPDATE {TABLE} SET epoch = ?, place = ?, chain = ?"

_CHAIN_OFFSET = 1 << 64
"""A chain has 64 bits without a sign; an INTEGER has one."""


def prepare(connection: apsw.Connection) -> None:
    """In every file, before anything else: each node has one of its own, and no log carries it."""
    connection.execute(_CREATE)
    connection.execute(_FIRST)


def read(connection: apsw.Connection) -> Point:
    epoch, place, chain = connection.execute(_READ).get
    return Point(Epoch(epoch), place, chain % _CHAIN_OFFSET)


def page(connection: apsw.Connection) -> int:
    """Of the file, that the row is on."""
    found: int = connection.execute(_PAGE, (TABLE,)).get
    return found


def write(execute: Callable[[str, tuple[int, ...]], object], point: Point) -> None:
    """Inside the transaction whose data it speaks of."""
    chain = point.chain - _CHAIN_OFFSET if point.chain >> 63 else point.chain
    execute(_WRITE, (point.epoch, point.index, chain))
