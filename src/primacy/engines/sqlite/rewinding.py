"""In the server: take back the end of the log, in the database and in the log. Blocks.

    the log's tail that was never applied is cut -> inverse rows and position row, in one commit ->
    the log is cut at the same place

Promises  After a crash anywhere in between, the same call ends it; the database is at one point of
          its log's history all the while.
Assumes   The server rests: nobody else writes to log or database.
"""

from contextlib import closing
from pathlib import Path

from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.errors import Conflict
from primacy.replication.log.log import Log
from primacy.replication.log.record import Header, Point, decode

REWOUND_BYTES_MAX = 64 << 20
"""Of the log that is taken back: it is in memory as a whole. Beyond, a copy is as quick."""

READ_BYTES = 4 << 20


def rewind(log: Log, settings: StorageSettings, *, database_path: Path, to: int) -> Point:
    """Returns where both are then. `Conflict` where that place is not in the log any more, or too
    much lies behind it; `NotInvertible`, `ApplyFailed` as `Applier.rewind`: then nothing of what
    was applied has changed."""
    with closing(Applier(database_path, settings)) as applier:
        reached = applier.position.index
        log.cut(max(reached, to))
        if reached > to:
            point = log.point(to)
            if point is None:
                raise Conflict(
                    f"the log begins behind {log.first.position}: nothing can be taken back to "
                    f"record {to}",
                    hint="Clone the node.",
                )
            applier.rewind(_tail(log, after=to), to=point)
            log.cut(to)
    return log.end


def _tail(log: Log, *, after: int) -> list[tuple[Header, bytes]]:
    found: list[tuple[Header, bytes]] = []
    size_bytes = 0
    while after < log.end.index:
        data = log.read(after, bytes_max=READ_BYTES)
        size_bytes += len(data)
        if size_bytes > REWOUND_BYTES_MAX:
            raise Conflict(
                f"more than {REWOUND_BYTES_MAX >> 20} MiB of the log would be taken back",
                hint="Clone the node.",
            )
        found += decode(data)
        after = found[-1][0].index
    return found
