"""The log and the database file, brought to the same place.

position row <= durable end of the log, in the same history        else the copy is of no use
a primary      applies what stands behind the row: its own history is what the log says
a replica      leaves it: which of it stands is not known before the primary is
"""

from collections.abc import Iterable
from pathlib import Path

from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.failures import opening
from primacy.errors import Rejected
from primacy.replication.log.log import Log
from primacy.replication.log.record import Header, Kind, Point, decode

READ_BYTES = 1 << 20
"""Applied at a time."""


class Replay:
    """Applies what the log has and the database has not, in pieces. One thread; blocks."""

    def __init__(self, path: Path, log: Log, settings: StorageSettings) -> None:
        log.sync()  # Nothing is in the database that is not durable in the log.
        self.heartbeat = 0
        """The newest that was applied."""
        self._log = log
        with opening(path):
            self._applier = Applier(path, settings)
        try:
            check_same_history(self._applier.position, log)
        except BaseException:
            self.close()
            raise

    @property
    def applied(self) -> Point:
        return self._applier.position

    @property
    def is_done(self) -> bool:
        return self.applied.index >= self._log.durable.index

    def step(self) -> Point:
        """About `READ_BYTES` of it. Returns where the database is then."""
        if not self.is_done:
            records = list(decode(self._log.read(self.applied.index, bytes_max=READ_BYTES)))
            self._applier.apply(records)
            self.heartbeat = newest_heartbeat(records) or self.heartbeat
        return self.applied

    def close(self) -> None:
        self._applier.close()


def newest_heartbeat(records: Iterable[tuple[Header, bytes]]) -> int:
    """Its number: the index of its record. 0 where there is none among them."""
    return max((head.index for head, _ in records if head.kind is Kind.HEARTBEAT), default=0)


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
