"""What can go wrong between a log and a database file. The branch says who must act."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from primacy.errors import Rejected, Unavailable

RECLONE = (
    "This copy is not what the log says it is: clone the node again, and keep the file to see why."
)


class GroupLost(Unavailable):
    """All transactions of the open group were undone, not only the one that failed.

    Nothing of them is in the log. Roll the group back, and run the others again.
    """


class ApplyFailed(Rejected):
    """A record does not fit the database. Nothing of its group was applied."""


class ChangedByOthers(ApplyFailed):
    """Somebody wrote to the database file past the log."""


class SchemaMismatch(ApplyFailed):
    """The tables are not those that the record was written for."""


class MissingRow(ApplyFailed):
    """The row that the record changes is not there."""


class RowExists(ApplyFailed):
    """The row that the record inserts is there already, or another holds a key of it."""


class RowDiffers(ApplyFailed):
    """The row is there, and is not what it was on the primary."""


class StatementDiffers(ApplyFailed):
    """A statement that was run again did not change what it had changed on the primary."""


class NotInvertible(Rejected):
    """A transaction cannot be taken back row by row. Clone the node instead."""


def is_damage(error: BaseException) -> bool:
    """The file's own pages make no sense. Not what SQLite says in the same words of a virtual
    table, which a client can bring about (FTS5 beside other content than it has indexed)."""
    damage = (apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB)
    return isinstance(error, apsw.Error) and getattr(error, "extendedresult", 0) in damage


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Around the first look at a database file: SQLite's errors in words that say what to do."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Rejected(f"the database file {path} is damaged: {error}", hint=RECLONE) from error
    except apsw.Error as error:
        if isinstance(error, apsw.BusyError) and not _has_wal(path):
            what = f"the database file {path} was emptied or overwritten while it was open"
            raise Rejected(what, hint=RECLONE) from error
        raise Unavailable(
            f"the database file {path} cannot be opened: {error}",
            hint="Look at the disk (space, errors) and the file's owner, then try again.",
        ) from error


def _has_wal(path: Path) -> bool:
    """The file's head names a WAL, as ours does from its beginning. What was written over it does
    not, and never will: a WAL needs the file alone, and our own readers have it open. SQLite looks:
    whoever else opens a file here and closes it takes SQLite's locks on it away."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return bool(connection.pragma("journal_mode") == "wal")
        finally:
            connection.close()
    except apsw.Error:
        return True  # Nobody knows: it is tried again.
