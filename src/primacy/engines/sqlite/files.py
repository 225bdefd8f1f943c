"""What a server that is down has on its disk: how far its log goes, how much of it is applied.

Promises  What is said of the log is durable when it is said: opening it syncs it, and a tail that a
          crash has torn is cut, as the server's own start would do.
Assumes   The server is down. `Conflict` where it has the log open after all.
"""

from pathlib import Path

import apsw

from primacy.engines.api import Diverged
from primacy.engines.sqlite.directory import LOG_NAME, database_in
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.storage.applier import Applier
from primacy.errors import Corrupt
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import ORIGIN_POINT, Point
from primacy.runtime.threads import to_its_end
from primacy.telemetry import ignore


async def log_end(settings: SqliteSettings) -> Point:
    """How far the log goes."""
    return await to_its_end(_log_end, settings)


async def applied(settings: SqliteSettings) -> Point:
    """How much of the log is in the database."""
    return await to_its_end(_applied, settings)


async def cut_unapplied(settings: SqliteSettings, found: Diverged) -> bool:
    """Cut the log where `found` says that the histories part. False where that cannot be done
    without touching the database: nothing was changed then. `is_cut` was noted before."""
    return await to_its_end(_cut_unapplied, settings, found.parts_at - 1)


def _log_end(settings: SqliteSettings) -> Point:
    with _open(settings) as log:
        return log.durable


def _applied(settings: SqliteSettings) -> Point:
    path = database_in(settings.layout.data, settings.database)
    if not path.exists():
        return ORIGIN_POINT
    try:
        return _position_in(path, settings)
    except apsw.Error as error:
        raise Corrupt(
            f"{path} cannot be read: {error}", hint="Clone the node, or look at its disk."
        ) from error


def _position_in(path: Path, settings: SqliteSettings) -> Point:
    applier = Applier(path, settings.storage)
    try:
        return applier.position
    finally:
        applier.close()


def _cut_unapplied(settings: SqliteSettings, after: int) -> bool:
    if _applied(settings).index > after:
        return False
    with _open(settings) as log:
        if log.end.index > after and log.point(after) is None:
            return False  # What both have is purged here: only a copy helps.
        log.cut(after)
    return True


def _open(settings: SqliteSettings) -> Log:
    return Log.open(settings.layout.data / LOG_NAME, limits=LogLimits(), events=ignore)
