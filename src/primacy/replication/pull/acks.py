"""Which commits are acknowledged: rules 1 to 3 of the promotion rule, counted. Pure.

Promises  What is released is at that moment held durably by the primary and by k members under
          *every* requirement in force. Nothing is released before `open` or after `close`. A waiter
          is released once, in the order of the log.
Assumes   What a member reports it holds durably, and its log up to there is this one: the pull
          protocol compares both at connect. The caller swaps the record in the store between
          `send_swap` and `settle`, and does not guess how that ended.
Does not  Remember an earlier reign: another epoch is another `Acks`, and starts from nothing.
Source    DESIGN: the promotion rule, 1 to 3. docs/protocols/pull.md says who calls what, when.

    OPENING --open--> OPEN --close--> CLOSED

    in force:   D --begin--> D and D' --send_swap--> D and D', for good --settle--> D'
                ^               |
                +----give_up----+
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from primacy.errors import Conflict, InvariantBroken
from primacy.model import Epoch, Incarnation, Member, NodeId
from primacy.replication.records import DurabilityRecord

T = TypeVar("T")


class AckOn(Enum):
    """What a member must have done with a record before it counts."""

    RECEIVED = "received"
    """It is durable in the member's log."""
    APPLIED = "applied"
    """It is also in the member's database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a durability record asks of a commit, beside the primary's own disk."""

    acks: int
    members: frozenset[Member]
    ack_on: AckOn = AckOn.RECEIVED

    @classmethod
    def of(cls, record: DurabilityRecord, ack_on: AckOn) -> "Requirement":
        return cls(acks=record.acks, members=frozenset(record.members), ack_on=ack_on)


@dataclass(frozen=True, slots=True)
class _Report:
    incarnation: Incarnation
    received: int
    applied: int


class Acks(Generic[T]):
    """One reign of one primary. T is whatever waits for a commit."""

    def __init__(self, epoch: Epoch, requirement: Requirement, *, held: int = 0) -> None:
        """`held`: the end of the own log that is durable already."""
        self.epoch = epoch
        self._durable = held
        self._current = requirement
        self._next: Requirement | None = None
        self._alone = 0
        """What may have been acknowledged under the current requirement alone."""
        self._marker: int | None = None
        self._is_swap_sent = False
        self._is_open = False
        self._is_closed = False
        self._acknowledged = 0
        self._highest = 0
        """That `acknowledged` has ever been: up to here clients may have been answered."""
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

    def open(self) -> None:
        """The epoch row is held under the own requirement, and the own record stands (rule 3)."""
        if self._is_closed:
            raise Conflict(
                f"epoch {self.epoch} is closed: it cannot open again",
                hint="A new epoch opens, never an old one.",
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

    # ---- a change of the record (rule 2) -----------------------------------------------------

    def begin(self, to: Requirement) -> None:
        """From now on both bind. `Conflict` while another change is under way."""
        if self._next is not None:
            raise Conflict(
                "another change of the durability record is under way",
                hint="Settle it first, or give it up if its swap was not sent.",
            )
        self._next, self._alone = to, self._highest

    def mark(self, index: int) -> None:
        """The marker row stands at `index`: whoever holds it holds what the old record alone has
        acknowledged. Without a row of its own the log's end, read after `begin`, is as good."""
        self._changing()
        if index < self._alone:
            raise InvariantBroken(
                "marker-above-acknowledged",
                f"the marker {index} is below {self._alone}, acknowledged before the change",
            )
        self._marker = index

    @property
    def is_marker_held(self) -> bool:
        """The marker is acknowledged under the new requirement: the swap may be sent."""
        to, marker = self._next, self._marker
        return to is not None and marker is not None and self.held(to) >= marker

    def send_swap(self) -> None:
        """Called before the store is asked. From here on there is no way back."""
        if not self.is_marker_held:
            raise InvariantBroken(
                "marker-before-swap",
                f"the marker {self._marker} is not held under the new requirement",
            )
        self._is_swap_sent = True

    def settle(self) -> None:
        """A linearizable read shows the new record: it alone binds."""
        to = self._changing()
        if not self._is_swap_sent:
            raise InvariantBroken("swap-before-settle", "nobody has sent the swap")
        self._current, self._next, self._marker, self._is_swap_sent = to, None, None, False
        self._count()

    def give_up(self) -> None:
        """The old record alone binds again. `Conflict` once the swap was sent: it may come true."""
        self._changing()
        if self._is_swap_sent:
            raise Conflict(
                "the swap of the durability record was sent: both records bind",
                hint="Read the record, send the swap again where it is missing, then settle.",
            )
        self._next, self._marker = None, None
        self._count()

    # ---- what is known -----------------------------------------------------------------------

    @property
    def acknowledged(self) -> int:
        """Every commit up to here may be answered now; 0 before the doors open."""
        return self._acknowledged

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def in_force(self) -> tuple[Requirement, ...]:
        return (self._current,) if self._next is None else (self._current, self._next)

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def waits_at(self) -> int:
        """The index of the one that waits longest; 0 where nobody waits."""
        return self._waiting[0][0] if self._waiting else 0

    def held(self, requirement: Requirement) -> int:
        """Up to where the primary and `acks` members of `requirement` hold the log."""
        if requirement.acks == 0:
            return self._durable
        if requirement.acks > len(requirement.members):
            return 0
        counts = sorted(self._has(each, requirement) for each in requirement.members)
        return min(self._durable, counts[-requirement.acks])

    def blocked_on(self, index: int) -> tuple[NodeId, ...]:
        """The members whose word on `index` is missing, where a requirement is not met."""
        return tuple(
            sorted(
                {
                    member.node
                    for requirement in self.in_force
                    if self.held(requirement) < index
                    for member in requirement.members
                    if self._has(member, requirement) < index
                }
            )
        )

    def _has(self, member: Member, requirement: Requirement) -> int:
        report = self._reports.get(member.node)
        if report is None or report.incarnation != member.incarnation:
            return 0
        return report.received if requirement.ack_on is AckOn.RECEIVED else report.applied

    def _count(self) -> None:
        if self._is_open:
            self._acknowledged = min(self.held(each) for each in self.in_force)
            self._highest = max(self._highest, self._acknowledged)

    def _changing(self) -> Requirement:
        if self._next is None:
            raise Conflict(
                "no change of the durability record is under way", hint="Begin one first."
            )
        return self._next
