"""What a modelled database keeps on its disk: one log, and the notes beside it.

The log is a list of records, numbered from 1; a record's epoch is that of the primary that wrote
it. Two records are the same only if they are equal in all; engines compare (epoch, sequence).
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from primacy.engines.api import Branch, Diverged
from primacy.engines.histories import parting
from primacy.model import ORIGIN, Epoch, Incarnation, NodeId, Position


class Kind(Enum):
    """What a record carries."""

    EPOCH_ROW = "epoch-row"
    MARKER = "marker"
    WRITE = "write"
    BEAT = "beat"


class Record(NamedTuple):
    epoch: Epoch
    sequence: int
    kind: Kind
    uid: int
    """Of the write, as its client named it; unique in a run."""


class Commit:
    """A write on its way: in the log, perhaps synced, perhaps acknowledged."""

    __slots__ = ("record", "reply", "since_s")

    def __init__(
        self, record: Record, reply: Callable[[Record | None], None] | None, since_s: float
    ) -> None:
        self.record = record
        self.reply = reply
        self.since_s = since_s


class Files:
    """A data directory. What is beyond `synced` is in the page cache and a crash may lose it."""

    __slots__ = (
        "applied",
        "broken_at",
        "committed",
        "excluded",
        "has_old_data",
        "incarnation",
        "is_cut",
        "led_epoch",
        "log",
        "sealed_epoch",
        "synced",
    )

    def __init__(self) -> None:
        self.incarnation: Incarnation | None = None
        self.log: list[Record] = []
        self.synced = 0
        self.applied = 0
        self.committed = 0
        """Up to here nothing waits for an acknowledgement: a start as a replica cuts the rest."""
        self.sealed_epoch = Epoch(0)
        self.led_epoch = Epoch(0)
        """The last epoch that was begun here, until this node follows again."""
        self.broken_at: int | None = None
        """This record cannot be applied to this data: rows that it changes are not as they were."""
        self.is_cut = False
        self.has_old_data = False
        self.excluded: set[NodeId] = set()

    @property
    def is_absent(self) -> bool:
        return self.incarnation is None

    @property
    def last_epoch(self) -> Epoch:
        return self.log[-1].epoch if self.log else Epoch(0)

    def position(self, sequence: int) -> Position:
        """Of the record at `sequence`; ORIGIN of the empty log."""
        if not sequence:
            return ORIGIN
        return Position(self.log[sequence - 1].epoch, sequence)

    def holds(self, position: Position) -> bool:
        """Whether the log has a record that compares equal: a receiver there has a prefix."""
        if position.sequence == 0:
            return True
        if position.sequence > len(self.log):
            return False
        return self.log[position.sequence - 1].epoch == position.epoch

    @property
    def is_applier_broken(self) -> bool:
        """It stands before a record that it cannot apply."""
        return (
            self.broken_at is not None
            and self.applied >= self.broken_at - 1
            and self.synced >= self.broken_at
        )

    def has_applied(self, sequence: int) -> bool:
        return sequence <= self.applied

    def mark_synced(self, sequence: int) -> None:
        self.synced = max(self.synced, min(sequence, len(self.log)))

    def lose_unsynced(self) -> None:
        del self.log[self.synced :]
        self.applied = min(self.applied, self.synced)
        self.committed = min(self.committed, self.synced)

    def forget_commits(self, count: int) -> None:
        """So many were not in the tables yet when the server died."""
        self.committed = max(0, self.committed - count)

    def recover(self, *, as_primary: bool) -> int:
        """What a start makes of the tail. Only a server that led and shall not go on takes back
        what its tables have not; all others commit it anew. Returns how many records went."""
        if as_primary or not self.led_epoch:
            self.committed = len(self.log)
            return 0
        gone = len(self.log) - self.committed
        if gone:
            del self.log[self.committed :]
            self.synced = min(self.synced, self.committed)
            self.applied = min(self.applied, self.committed)
            self.is_cut = True
        return gone

    def diverged(self, branches: Sequence[Branch]) -> Diverged:
        """What a history whose epochs begin at `branches` has not of this log."""
        rows = {(each.epoch, each.sequence) for each in self.log if each.kind is Kind.EPOCH_ROW}
        held = [each for each in branches if (each.epoch, each.first_sequence) in rows]
        branch = parting(branches, held, len(self.log))
        if branch is None:
            return Diverged()
        first = branch.first_sequence
        return Diverged(
            ident=f"{branch.epoch}-{len(self.log)}",
            epoch=branch.epoch,
            count=len(self.log) - first + 1,
            path="saved.sql",
            parts_at=first,
        )

    def cut_from(self, first: int) -> None:
        """Take back everything from there on. Whoever does that has noted `is_cut` before."""
        del self.log[first - 1 :]
        self.synced = min(self.synced, first - 1)
        self.applied = min(self.applied, first - 1)
        self.committed = min(self.committed, first - 1)

    def backed_up(self) -> int:
        """How far a backup that is taken now goes."""
        return min(self.synced, self.committed, self.applied)

    def copy_from(self, donor: "Files", incarnation: Incarnation) -> None:
        """A clone: what the donor had committed and applied, under a new incarnation. Own refusals
        stay. A backup rolls back what waits for its acknowledgement, and takes no relay log."""
        self.log = donor.log[: donor.backed_up()]
        self.synced = self.applied = self.committed = len(self.log)
        self.incarnation = incarnation
        self.broken_at = None
        self.led_epoch = Epoch(0)
        self.is_cut = False
        self.has_old_data = True
        self.excluded = set()
