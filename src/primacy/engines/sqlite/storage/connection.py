"""Opening the database file: pragmas, limits, guards. Nobody else calls `apsw.Connection`.

Writer     journal_mode=WAL, synchronous=NORMAL: the log is what makes a commit durable, and a power
           loss leaves a prefix of the commits. Defensive: shadow tables are not for clients.
Applier    the same file on a replica; may write shadow tables; triggers and foreign keys are off.
Reader     query only.
Own reader the same for primacy itself: it sees primacy's tables too, and leaves the WAL as it is.
Copy       a file that is being made from another: nothing of it is kept to undo it, or synced.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import apsw

from primacy.engines.sqlite.storage.images import Images
from primacy.engines.sqlite.storage.rules import Rules


class Logging(Enum):
    """How a transaction stands in the log. The same on all nodes of a cluster."""

    ROW = "row"
    """Every row as it became. What cannot be seen so is logged as a statement, or refused."""
    STATEMENT = "statement"
    """The statement, where it gives the same in whatever order SQLite visits rows; else rows."""
    MIXED = "mixed"
    """As before, but only where it touches many rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """What the whole cluster must agree on, and a few sizes."""

    logging: Logging = Logging.ROW
    images: Images = Images.FULL
    foreign_keys: bool = True
    recursive_triggers: bool = False
    mixed_rows_min: int = 32
    """From so many rows on, mixed logging prefers the statement."""
    cache_kib: int = 16_384
    checkpoint_pages: int = 4_000
    """16 MB of WAL between two checkpoints."""
    busy_timeout_ms: int = 5_000


VALUE_BYTES_MAX = 8 << 20
"""One value or row. Below the largest record, with room for its old image."""

_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: VALUE_BYTES_MAX,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 1 << 20,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 10_000,
}

STATEMENTS_CACHED = 512
"""Prepared statements that a connection keeps: beyond what an application usually has."""


def open_writer(
    path: Path, settings: StorageSettings, *, rules: Rules, vfs: str
) -> apsw.Connection:
    connection = _open(path, settings, vfs=vfs)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, int(settings.foreign_keys))
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    connection.pragma("recursive_triggers", settings.recursive_triggers)
    for limit, value in _LIMITS.items():
        connection.limit(limit, value)
    connection.set_authorizer(rules)
    return connection


def open_applier(path: Path, settings: StorageSettings, *, vfs: str) -> apsw.Connection:
    connection = _open(path, settings, vfs=vfs)
    connection.pragma("recursive_triggers", settings.recursive_triggers)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    return connection


def open_reader(path: Path, settings: StorageSettings) -> apsw.Connection:
    """For queries of clients; the same guards, and nothing can be written."""
    connection = _open(path, settings, vfs=None)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    for limit, value in _LIMITS.items():
        connection.limit(limit, value)
    connection.pragma("query_only", True)  # noqa: FBT003  # The value of a pragma.
    connection.set_authorizer(Rules())
    return connection


def open_own_reader(path: Path, settings: StorageSettings) -> apsw.Connection:
    connection = _open(path, settings, vfs=None)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("query_only", True)  # noqa: FBT003  # The value of a pragma.
    return connection


def open_copy(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "off")
    connection.pragma("synchronous", "off")
    return connection


def _open(path: Path, settings: StorageSettings, *, vfs: str | None) -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs=vfs, statementcachesize=STATEMENTS_CACHED)
    connection.set_busy_timeout(settings.busy_timeout_ms)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "normal")
    connection.pragma("cache_size", -settings.cache_kib)
    connection.wal_autocheckpoint(settings.checkpoint_pages)
    return connection
