"""Which commits are acknowledged: rules 1 and 3 of the promotion rule, counted. Pure.

Promises  What is released is at that moment held durably by the primary and by k of those that
          count: they acknowledge, and were not told away since. Nothing is released before `open`
          or after `close`. A waiter is released once, in the order of the log.
Assumes   What a node reports it holds durably, and its log up to there is this one: the pull
          protocol compares both at connect. Who may acknowledge is decided elsewhere, and in time:
          whoever is not in the durability record is silent, or excluded and forgotten here. The
          transition of rule 2 is the brain's: it asks for more before the record does, and for less
          only after it.
Does not  Remember an earlier reign: another epoch is another `Acks`, and starts from nothing.
Source    DESIGN: the promotion rule, 1 to 3. docs/protocols/pull.md says who calls what, when.

    OPENING --open--> OPEN --close--> CLOSED
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from primacy.errors import Conflict, InvariantBroken
from primacy.model import Epoch, Incarnation, Member, NodeId

T = TypeVar("T")


class AckOn(Enum):
    """What a member must have done with a record before it counts."""

    RECEIVED = "received"
    """It is durable in the member's log."""
    APPLIED = "applied"
    """It is also in the member's database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What is asked of a commit, beside the primary's own disk."""

    acks: int
    ack_on: AckOn = AckOn.RECEIVED

    def is_less_than(self, other: "Requirement") -> bool:
        """Something that `other` keeps waiting, this one might release."""
        is_sooner = self.ack_on is AckOn.RECEIVED and other.ack_on is AckOn.APPLIED
        return self.acks < other.acks or (is_sooner and self.acks > 0)


@dataclass(frozen=True, slots=True)
class _Report:
    incarnation: Incarnation
    received: int
    applied: int


class Acks(Generic[T]):
    """One reign of one primary. T is whatever waits for a commit."""

    def __init__(self, epoch: Epoch, *, held: int = 0) -> None:
        """`held`: the end of the own log that is durable already."""
        self.epoch = epoch
        self.requirement: Requirement | None = None
        """None: nobody has said yet what a commit waits for, so none is acknowledged."""
        self._durable = held
        self._is_open = False
        self._is_closed = False
        self._acknowledged = 0
        self._reports: dict[NodeId, _Report] = {}
        self._waiting: deque[tuple[int, T]] = deque()

    # ---- what happens ------------------------------------------------------------------------

    def persisted(self, index: int) -> None:
        """The primary's own log is durable up to `index`."""
        self._durable = max(self._durable, index)
        self._count()

    def report(self, member: Member, epoch: Epoch, *, received: int, applied: int) -> None:
        """A member holds this much, as it says to the primary of `epoch`. The latest word counts:
        one life of a node replaces another, and whoever lost something holds it no longer. Words
        to another reign are ignored."""
        if epoch != self.epoch:
            return
        self._reports[member.node] = _Report(member.incarnation, received, min(applied, received))
        self._count()

    def forget(self, node: NodeId) -> None:
        """Nothing that it has said counts any more: it is excluded, or acknowledges no longer."""
        if self._reports.pop(node, None) is not None:
            self._count()

    def require(self, to: Requirement, *, may_release: bool = False) -> None:
        """From now on a commit waits for this. `Conflict` where commits wait that less would
        release, unless the durability record allows that."""
        known = self.requirement
        if known is not None and self._waiting and to.is_less_than(known) and not may_release:
            raise Conflict(
                f"{len(self._waiting)} commits wait for {known.acks} acknowledgement(s)"
                f" ({known.ack_on.value}): fewer would answer them with success",
                hint="Record first that fewer are asked for.",
            )
        self.requirement = to
        self._count()

    def open(self) -> None:
        """The epoch row is held under the own requirement, and the own record stands (rule 3)."""
        if self._is_closed:
            raise Conflict(
                f"epoch {self.epoch} is closed: it cannot open again",
                hint="A new epoch opens, never an old one.",
            )
        if self.requirement is None:
            raise Conflict(
                f"epoch {self.epoch}: nobody has said how many acknowledgements a commit waits for",
                hint="Set that first.",
            )
        self._is_open = True
        self._count()

    def close(self) -> list[T]:
        """For good. Returns, in order, those whose outcome nobody knows here any more."""
        self._is_closed, self._is_open = True, False
        left = [waiter for _, waiter in self._waiting]
        self._waiting.clear()
        return left

    # ---- waiting -----------------------------------------------------------------------------

    def wait(self, index: int, waiter: T) -> None:
        """Release `waiter` once `index` is acknowledged. In the order of the log."""
        if self._is_closed:
            raise Conflict(
                f"epoch {self.epoch} is closed: nothing is acknowledged any more",
                hint="Look for the new primary.",
            )
        if self._waiting and self._waiting[-1][0] > index:
            raise InvariantBroken(
                "waiters-in-order", f"{index} waits behind {self._waiting[-1][0]}"
            )
        self._waiting.append((index, waiter))

    def released(self) -> list[T]:
        """Whoever need not wait any longer, each once, in order."""
        done: list[T] = []
        if not self._is_open:
            return done
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._acknowledged:
            done.append(waiting.popleft()[1])
        return done

    # ---- what is known -----------------------------------------------------------------------

    @property
    def acknowledged(self) -> int:
        """Every commit up to here may be answered now; 0 before the doors open."""
        return self._acknowledged

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def waits_at(self) -> int:
        """The index of the one that waits longest; 0 where nobody waits."""
        return self._waiting[0][0] if self._waiting else 0

    def held(self, requirement: Requirement) -> int:
        """Up to where the primary and `acks` of those that count hold the log."""
        if requirement.acks == 0:
            return self._durable
        if requirement.acks > len(self._reports):
            return 0
        counts = sorted(_has(each, requirement) for each in self._reports.values())
        return min(self._durable, counts[-requirement.acks])

    def _count(self) -> None:
        if self._is_open and self.requirement is not None:
            self._acknowledged = self.held(self.requirement)


def _has(report: _Report, requirement: Requirement) -> int:
    return report.received if requirement.ack_on is AckOn.RECEIVED else report.applied
