"""At the start: the log and the database file, brought to the same place.

    position row <= durable end of the log, in the same history        else the copy is of no use
    a primary      applies what stands behind the row: its own history is what the log says
    a replica      leaves it: which of it stands is not known before the primary is

Blocks: nothing is served yet.
"""

from pathlib import Path

from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.failures import opening
from primacy.errors import Rejected
from primacy.replication.log.log import Log
from primacy.replication.log.record import Point, decode
from primacy.telemetry import Event, Sink

READ_BYTES = 1 << 20
"""Applied at a time."""


def replayed(path: Path, log: Log, settings: StorageSettings, *, events: Sink) -> Point:
    """Apply what the log has and the database has not. Returns where both are then."""
    with opening(path):
        applier = Applier(path, settings)
    try:
        start = applier.position
        check_same_history(start, log)
        while applier.position.index < log.end.index:
            data = log.read(applier.position.index, bytes_max=READ_BYTES)
            applier.apply(list(decode(data)))
        records = applier.position.index - start.index
        if records:
            at = str(applier.position.position)
            events(Event("sql-replayed", {"records": records, "position": at}))
        return applier.position
    finally:
        applier.close()


def check_same_history(reached: Point, log: Log) -> None:
    """`Rejected`: the file was changed behind the log's back, or belongs to another log."""
    if reached.index > log.end.index:
        raise Rejected(
            f"the database is at {reached.position}, its log ends at {log.end.position}",
            hint="One of them was restored or replaced alone. Clone this node again.",
        )
    known = log.point(reached.index)
    if known is not None and known != reached:
        raise Rejected(
            f"the database is at {reached}, its log has {known} there: two histories",
            hint="One of them was restored or replaced alone. Clone this node again.",
        )
