"""A reign's side of the pull protocol: what is appended goes to the replicas, and what they report
releases commits.

    writer's thread     append -> appended() . . sync -> acknowledged() waits
    event loop                        |  to the door            ^ released
                                      v                         |
    replicas                    receive, sync, report ----------+

Promises  `acknowledged` returns only when the policy holds for the point; `Conflict` when the reign
          has ended first: then the outcome is for the next one to say.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future

from primacy.errors import Conflict
from primacy.model import Epoch, Member, NodeId
from primacy.replication.log.record import Point
from primacy.replication.pull.acks import Acks, Requirement
from primacy.replication.pull.door import PullDoor
from primacy.replication.pull.messages import Report

Waiter = Future[None]


class Leading:
    """Its methods belong to the event loop, but for `appended`, `acknowledged` and `persisted`."""

    def __init__(self, epoch: Epoch, *, durable: int, door: PullDoor) -> None:
        self.acks: Acks[Waiter] = Acks(epoch, held=durable)
        self._loop = asyncio.get_running_loop()
        self._door = door

    # ---- in the writer's thread ------------------------------------------------------------

    def appended(self, data: bytes, after: int, end: Point) -> None:
        """Before the sync, which runs while the network does."""
        self._loop.call_soon_threadsafe(lambda: self._door.offer(data, after=after, end=end))

    def acknowledged(self, point: Point) -> None:
        """Durable here. Blocks until it is where the policy wants it. Where it wants nothing more,
        the loop is not waited for: what was appended before more was asked for stands below the
        marker of that change."""
        asked = self.acks.requirement
        if asked is not None and asked.acks == 0:
            self.persisted(point)
            return
        waiter: Waiter = Future()
        self._loop.call_soon_threadsafe(self._wait, point.index, waiter)
        waiter.result()

    def persisted(self, point: Point) -> None:
        """Durable here, and nobody waits for it: the epoch's own record, a marker."""
        self._loop.call_soon_threadsafe(self._note, point.index)

    # ---- in the event loop -----------------------------------------------------------------

    def report(self, member: Member, epoch: Epoch, report: Report) -> None:
        """A member holds so much; or says that what it holds does not count."""
        if report.acknowledges:
            received, applied = report.received.index, report.applied.index
            self.acks.report(member, epoch, received=received, applied=applied)
        elif epoch == self.acks.epoch:
            self.acks.forget(member.node)
        self.release()

    def exclude(self, node: NodeId) -> None:
        """When this returns it is not attached and nothing of it counts."""
        self._door.exclude(node)
        self.acks.forget(node)

    def admit(self, node: NodeId) -> None:
        self._door.admit(node)

    def require(self, to: Requirement, *, may_release: bool) -> None:
        self.acks.require(to, may_release=may_release)
        self.release()

    def open(self) -> None:
        """The own durability record stands."""
        self.acks.open()
        self.release()

    def release(self) -> None:
        """After whatever may have released somebody."""
        _finish(self.acks.released())

    def close(self, why: str) -> None:
        """For good."""
        for waiter in self.acks.close():
            waiter.set_exception(_ended(why))

    def _wait(self, index: int, waiter: Waiter) -> None:
        self.acks.persisted(index)
        try:
            self.acks.wait(index, waiter)
        except Conflict as error:
            waiter.set_exception(error)
        self.release()

    def _note(self, index: int) -> None:
        self.acks.persisted(index)
        self.release()


def _finish(waiters: Iterable[Waiter]) -> None:
    for waiter in waiters:
        waiter.set_result(None)


def _ended(why: str) -> Conflict:
    return Conflict(f"the reign ended first: {why}", hint="The next primary decides.")
