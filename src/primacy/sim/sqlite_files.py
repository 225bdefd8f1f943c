"""What a modelled SQLite server keeps on its disk: a log, and a database that is never ahead of it.

    log         1 ... first | first + 1 ... synced | in the page cache
    database    1 ... applied, as its position row says: what follows is the tail

The log is durable before the database commits, so a crash takes back commits and no record. What
stands behind the position row waits until it is known which history the node belongs to.
"""

from collections.abc import Sequence
from dataclasses import replace

from primacy.engines.api import Branch, Diverged
from primacy.model import ORIGIN, Incarnation
from primacy.sim.engine_log import Files, Record


class SqliteFiles(Files):
    """A data directory."""

    __slots__ = ("applied_max", "first", "is_torn", "published", "unfit")

    def __init__(self) -> None:
        super().__init__()
        self.first = 0
        """The log begins behind this record: a copy has what was before as data only."""
        self.applied_max = 0
        """How far the database has ever been, by this history."""
        self.is_torn = False
        self.published = ORIGIN
        """How far this node has said that it goes: never undercut, but by what is cut."""
        self.unfit: str | None = None
        """Why the database cannot take what comes next of the log: noted, so that no restart
        forgets it. Only a copy or a rewind ends that."""

    @property
    def last(self) -> Record | None:
        return self.log[-1] if self.log else None

    def stands(self, record: Record | None) -> bool:
        """Whether this log has it: a chain of hashes says that all before it is the same, too."""
        if record is None:
            return True
        return record.sequence <= len(self.log) and self.log[record.sequence - 1] == record

    def has_applied(self, sequence: int) -> bool:
        return sequence <= self.applied_max

    def commit_to(self, sequence: int) -> None:
        """COMMIT, with the position row."""
        if self.broken_at is not None and sequence >= self.broken_at:
            self.broken_at = None  # Written by this node itself: the row is as it says.
        self.applied = sequence
        self.applied_max = max(self.applied_max, sequence)

    def lose_unsynced(self) -> None:
        """Whom the door turns away stands in the server's memory."""
        super().lose_unsynced()
        self.excluded.clear()

    def forget_commits(self, count: int) -> None:
        """A crash takes back the last COMMITs: they were not synced, their records are."""
        self.applied = max(self.first, self.applied - count)

    def recover(self, *, as_primary: bool) -> int:
        """Nothing is taken back or applied by a start."""
        del as_primary
        return 0

    def cut_from(self, first: int) -> None:
        super().cut_from(first)
        self.applied_max = min(self.applied_max, first - 1)
        self.published = min(self.published, self.position(self.synced))
        self.unfit = None

    def backed_up(self) -> int:
        return min(self.synced, self.applied)

    def copy_from(self, donor: Files, incarnation: Incarnation) -> None:
        super().copy_from(donor, incarnation)
        self.first = self.applied_max = len(self.log)
        self.published = self.position(self.first)

    def diverged(self, branches: Sequence[Branch]) -> Diverged:
        found = super().diverged(branches)
        if found.count and found.parts_at <= self.first:
            return replace(found, obstacle="the log does not reach back to where they part")
        return found
