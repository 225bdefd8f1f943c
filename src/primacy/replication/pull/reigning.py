"""One reign of this node as primary: its log goes out, and its commits wait for the policy.

Promises  Receivers get a record while this disk still syncs it. `acknowledged` returns once the
          point may be answered by `Acks`, and raises `OutcomeUnknown` once the reign has ended: by
          then nobody's report counts any more.
Assumes   One event loop; the log is appended to by other threads, one at a time. The door serves
          nobody else meanwhile.
Does not  Talk to the store: whoever does says `open`, and takes the steps of a change of the record
          on `acks` between `step` and `step`.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from primacy.errors import Conflict, OutcomeUnknown
from primacy.model import Epoch, Member, NodeId
from primacy.replication.log.record import Point
from primacy.replication.pull.acks import Acks, Requirement
from primacy.replication.pull.door import PullDoor, ServedLog
from primacy.replication.pull.messages import Hop, Report, last_point
from primacy.replication.pull.source import Reign

PIECE_BYTES = 64 << 20
"""Read at a time of what was just appended, from memory: more than a group of commits."""


class GrowingLog(ServedLog, Protocol):
    """`replication.log.Log`. The watchers are called in the thread that appends, or syncs."""

    @property
    def durable(self) -> Point: ...
    def read(self, after: int, *, bytes_max: int, until: int | None = None) -> bytes: ...
    def on_growth(self, watcher: Callable[[Point], None]) -> Callable[[], None]: ...
    def on_durable(self, watcher: Callable[[Point], None]) -> Callable[[], None]: ...


class Reigning:
    """From `begin` to `end`, in the event loop. Another epoch is another one."""

    def __init__(
        self, node: NodeId, epoch: Epoch, log: GrowingLog, door: PullDoor, requirement: Requirement
    ) -> None:
        """`requirement`: of the policy that this primary opens under."""
        self.epoch = epoch
        self.acks: Acks[asyncio.Future[None]] = Acks(epoch, requirement, held=log.durable.index)
        self._node = node
        self._log = log
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._offered = log.end.index
        self._offering = threading.Lock()
        self._changed = asyncio.Event()
        self._unwatch: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Before the epoch's first record is appended: others are to receive it."""
        self._door.serve(Reign(self.epoch, (Hop(self._node),)))
        self._unwatch = [self._log.on_growth(self._grew), self._log.on_durable(self._synced)]
        self._grew(self._log.end)

    def end(self) -> None:
        """When it returns no receiver is attached, and no report of this reign counts."""
        self._is_over = True
        for unwatch in self._unwatch:
            unwatch()
        self._door.withdraw()
        for waiter in self.acks.close():
            if not waiter.done():
                waiter.set_exception(self._is_lost())
        self._changed.set()

    def open(self) -> None:
        """The epoch's record is held, and the own durability record stands (rule 3)."""
        self.acks.open()
        self.step()

    def on_report(self, member: Member, epoch: Epoch, report: Report) -> None:
        """For the door: each report that counts."""
        received, applied = report.received.index, report.applied.index
        self.acks.report(member, epoch, received=received, applied=applied)
        self.step()

    def step(self) -> None:
        """Answer whoever need not wait any longer. After each call on `acks` from outside."""
        for waiter in self.acks.released():
            if not waiter.done():
                waiter.set_result(None)
        self._changed.set()

    async def acknowledged(self, point: Point) -> None:
        """Until a commit at `point` may be answered. In the order of the log."""
        if self._is_over:
            raise self._is_lost()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self.acks.wait(point.index, waiter)
        self.step()
        await waiter

    async def held(self, index: int, requirement: Requirement) -> None:
        """Until everything up to `index` is held under `requirement`, doors or not: the epoch's
        record, or a marker."""
        while not self._is_over:
            if self.acks.held(requirement) >= index:
                return
            self._changed.clear()
            await self._changed.wait()
        raise self._is_lost()

    # ---- from the log's threads --------------------------------------------------------------

    def _grew(self, end: Point) -> None:
        with self._offering:
            while self._offered < end.index:
                after = self._offered
                data = self._log.read(after, bytes_max=PIECE_BYTES, until=end.index)
                if not data:
                    raise Conflict(
                        f"the log was cut behind {after} during epoch {self.epoch}",
                        hint="A primary's log only grows. Stop this node.",
                    )
                reached = last_point(data)
                self._offered = reached.index
                self._call(partial(self._offer, data, after, reached))

    def _synced(self, durable: Point) -> None:
        self._call(partial(self._persisted, durable.index))

    def _call(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # The loop has ended: so has the reign.
            self._loop.call_soon_threadsafe(work)

    def _offer(self, data: bytes, after: int, end: Point) -> None:
        if not self._is_over:
            self._door.offer(data, after=after, end=end)

    def _persisted(self, index: int) -> None:
        if not self._is_over:
            self.acks.persisted(index)
            self.step()

    def _is_lost(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"epoch {self.epoch} of {self._node} ended before the commit was acknowledged",
            hint="The new primary's history decides. Read before you write it again.",
        )
