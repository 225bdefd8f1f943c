"""The cluster that the tests share, and the moves of a brain: lead, hand over, mend."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from tests.conformance.engine.harness import MEMBERS, SPARES, A, Answer, B, C, Harness

from primacy.engines.api import Branch, Diverged, Engine, Guardian, Observation, ServerState
from primacy.errors import Conflict, PrimacyError, Unavailable
from primacy.model import Epoch, NodeId, Position

T = TypeVar("T")

UNTIL_S = 20.0
LEASE_S = 3600.0
"""No deadline passes in a test that does not arm one itself."""


class Stage:
    """Three nodes of one engine, of which `a` leads, and two without a disk."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.epoch = Epoch(0)
        """The newest that was begun or sealed for."""
        self.branches: list[Branch] = []
        self._leader: NodeId | None = None
        self._pages: dict[NodeId, tuple[Guardian, Epoch]] = {}
        self._row = 0
        self._promised: set[int] = set()

    def __getitem__(self, node: NodeId) -> Engine:
        return self.harness.engine(node)

    # -- looking

    async def seen(self, node: NodeId) -> Observation:
        return await self[node].observe()

    async def until(
        self, node: NodeId, holds: Callable[[Observation], object], *, within_s: float = UNTIL_S
    ) -> Observation:
        """Observe until the claim holds."""
        seen = await self.seen(node)
        async with asyncio.timeout(within_s):
            while not holds(seen):
                await asyncio.sleep(0.01)
                seen = await self.seen(node)
        return seen

    async def end(self, node: NodeId) -> Position:
        return (await self.seen(node)).received

    async def caught_up(self, source: NodeId, *replicas: NodeId) -> None:
        end = await self.end(source)
        for node in replicas:
            await self.until(node, lambda seen: seen.applied >= end)

    async def equal(self, source: NodeId, *replicas: NodeId) -> list[int]:
        """All show the same rows, every promised one among them."""
        await self.caught_up(source, *replicas)
        rows = list(await self.harness.read(source))
        assert self._promised <= set(rows), "an acknowledged row is lost"
        for node in replicas:
            assert list(await self.harness.read(node)) == rows, node
        return rows

    # -- clients

    def row(self) -> int:
        """A number that no other row has."""
        self._row += 1
        return self._row

    async def write(self, node: NodeId, *, is_promised: bool = True) -> int:
        """One acknowledged row. `is_promised`: it is in every later history."""
        row = self.row()
        assert await self.harness.write(node, row, within_s=10.0) is Answer.ACKNOWLEDGED
        if is_promised:
            self._promised.add(row)
        return row

    @asynccontextmanager
    async def writing(self, node: NodeId) -> AsyncIterator[tuple[int, "asyncio.Task[Answer]"]]:
        """A write that waits for an acknowledgement: the row and the task of its answer. What was
        not answered at the end is given up."""
        row = self.row()
        task = asyncio.create_task(self.harness.write(node, row, within_s=30.0))
        try:
            await self.until(node, lambda seen: seen.sending.waiting_commits == 1)
            assert not task.done()
            yield row, task
        finally:
            task.cancel()
            await asyncio.wait([task])

    # -- servers

    def signal(self, node: NodeId, number: int) -> None:
        os.kill(self.harness.pid(node), number)

    async def crash(self, node: NodeId) -> Observation:
        """The server dies, and nobody asked for it."""
        self.signal(node, signal.SIGKILL)
        return await self.until(node, lambda seen: seen.state is ServerState.STOPPED)

    @asynccontextmanager
    async def frozen(self, node: NodeId) -> AsyncIterator[None]:
        pid = self.harness.pid(node)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # It may have been killed while it was frozen.
                os.kill(pid, signal.SIGCONT)

    async def new_agent(self, node: NodeId) -> bool:
        """The agent has died, and its successor looks for the server."""
        self.harness.restart_agent(node)
        return await self[node].attach()

    async def fresh(self, node: NodeId, *, as_primary: bool = False) -> None:
        """A running server with empty data."""
        await self.harness.wipe(node)
        await self.harness.make(node)
        await self[node].start(as_primary=as_primary)

    async def up(self, node: NodeId) -> None:
        """A seal may leave a server down."""
        if (await self.seen(node)).state is ServerState.STOPPED:
            await self[node].start(as_primary=True)

    def _guardian(self, node: NodeId) -> Guardian:
        guardian = self[node].guardian
        if guardian is None:
            raise Conflict("the database has no guard", hint="Start it.")
        return guardian

    # -- the moves of a brain

    def next_epoch(self) -> Epoch:
        self.epoch = Epoch(self.epoch + 1)
        return self.epoch

    async def begin(self, primary: NodeId, *, acks: int = 1) -> int:
        """Win the next epoch and begin it, doors closed, as the hands of an agent do. `primary`
        must be sealed for it, lead already, or be ready to."""
        epoch, engine = self.epoch, self[primary]
        await engine.drain()
        await self.arm(primary)
        first = await engine.begin_epoch(epoch, primary)
        self.branches.append(Branch(epoch=epoch, node=primary, first_sequence=first))
        await engine.set_acks(acks, may_release=True)
        return first

    async def arm(self, primary: NodeId) -> None:
        guardian = self._guardian(primary)
        _, earlier = self._pages.pop(primary, (None, self.epoch))
        if earlier < self.epoch:
            with suppress(Conflict):  # Of another server's page.
                await guardian.close(earlier)
        await guardian.arm(self.epoch, time.clock_gettime(time.CLOCK_BOOTTIME) + LEASE_S)
        self._pages[primary] = guardian, self.epoch

    async def open(self, primary: NodeId) -> None:
        guardian = self._guardian(primary)
        await self[primary].open_doors()
        await guardian.open(self.epoch)
        self._leader = primary

    async def lead(self, primary: NodeId, *followers: NodeId, acks: int = 1) -> int:
        """A whole failover to a node that can be sealed for it; who leads steps down first."""
        if primary == self._leader:
            await self.step_down(primary)
        epoch = self.next_epoch()
        for node in (primary, *followers):
            await self[node].seal(epoch)
        await self.up(primary)
        first = await self.begin(primary, acks=acks)
        await self.attach(primary, *followers, acknowledge=acks > 0)
        for node in followers:
            await self.until(node, lambda seen: seen.received >= Position(epoch, first))
        await self.open(primary)
        return first

    async def attach(self, primary: NodeId, *nodes: NodeId, acknowledge: bool = True) -> None:
        for node in nodes:
            await self[node].follow(primary, self.epoch, acknowledge=acknowledge)

    async def step_down(self, node: NodeId) -> None:
        """Who leads with open doors, and nobody waits."""
        self._leader = None
        if not (await self.seen(node)).is_read_only:
            await self[node].close_doors()
            await self[node].demote()
            guardian, epoch = self._pages.pop(node)
            await guardian.close(epoch)

    async def hand_over(self, source: NodeId, target: NodeId, *others: NodeId) -> None:
        """A switchover."""
        await self.step_down(source)
        last = await self.end(source)
        await self.until(target, lambda seen: seen.received >= last)
        await self.lead(target, source, *others)

    async def fail_over(self, target: NodeId, *others: NodeId, acks: int = 1) -> None:
        """Whoever led is gone, or to be."""
        self._leader = None
        await self.lead(target, *others, acks=acks)

    async def save_diverged(self, node: NodeId) -> Diverged:
        """What a stopped node has that the present history has not."""
        return await self[node].save_diverged(self.branches)

    async def rejoin(self, node: NodeId, found: Diverged) -> None:
        """A stopped node follows again, by whatever the engine needs: a cut, or a rewind."""
        leader = self.leader
        await self[node].start(as_primary=found.count == 0)
        try:
            await self.attach(leader, node)
        except Conflict:
            assert (await self.seen(node)).replication.is_diverged
            await self[node].rewind(found, leader, self.epoch)
            await self.attach(leader, node)

    @property
    def leader(self) -> NodeId:
        assert self._leader is not None
        return self._leader

    # -- between two tests

    async def ready(self, *, but: NodeId | None = None) -> None:
        """`a` leads with its doors open, b and c follow it and acknowledge, no spare but `but` has
        a disk."""
        for node in SPARES:
            if node != but:
                await self.harness.wipe(node)
        if not await self._is_whole():
            await self._mend()
            assert await self._is_whole()
        rows = set(await self.harness.read(A))
        assert self._promised <= rows, "an acknowledged row is lost"

    async def _is_whole(self) -> bool:
        of_a = await self.seen(A)
        guardian = self[A].guardian
        is_leading = (
            guardian is not None
            and self._leader == A
            and self._pages.get(A) == (guardian, self.epoch)
            and not of_a.is_read_only
            and of_a.sending.acks == 1
            and of_a.sending.receivers == {B, C}
            and of_a.sending.acknowledging_count == 2
            and not of_a.sending.excluded
            and not of_a.sending.waiting_commits
        )
        return is_leading and all([self._follows(await self.seen(node)) for node in (B, C)])

    def _follows(self, seen: Observation) -> bool:
        replication = seen.replication
        return (
            replication.upstream == A
            and replication.is_receiving
            and replication.is_applying
            and replication.acknowledges
            and replication.error is None
            and seen.sealed_epoch == seen.following_epoch == self.epoch
            and not seen.has_old_data
        )

    async def _mend(self) -> None:
        """A failover to whoever has most; who is not as it was made has another disk."""
        try:
            await self._gather()
            if self.leader != A:
                others = [node for node in (B, C) if node != self.leader]
                await self.hand_over(self.leader, A, *others)
        except (PrimacyError, TimeoutError):
            await self._rebuild()
        await self._settled()

    async def _gather(self) -> None:
        self._leader = None
        epoch, sealed = self.next_epoch(), dict[NodeId, Position]()
        for node in MEMBERS:
            seen = await self.seen(node)
            if seen.is_torn or seen.has_old_data:
                await self.fresh(node)
            sealed[node] = (await self[node].seal(epoch)).received
            await self.up(node)
        winner = max(MEMBERS, key=lambda node: sealed[node])
        followers = [node for node in MEMBERS if node != winner]
        first = await self.begin(winner)
        for node in followers:
            try:
                if (await self.seen(node)).is_cut:
                    await self.fresh(node)
                await self.attach(winner, node)
            except PrimacyError:
                await self.fresh(node)
                await self.attach(winner, node)
            await self.until(node, lambda seen: seen.received >= Position(epoch, first))
        await self.open(winner)

    async def _rebuild(self) -> None:
        self._leader = None
        self._promised.clear()
        self.branches.clear()
        async with asyncio.TaskGroup() as tasks:
            for node in MEMBERS:
                tasks.create_task(self.fresh(node))
        await self.lead(A, B, C)
        await self.harness.define(A)
        await self.caught_up(A, B, C)

    async def _settled(self) -> None:
        async with asyncio.timeout(UNTIL_S):
            while not await self._is_whole():
                await asyncio.sleep(0.01)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """As an agent does whose last call was cancelled: what that one began may not have ended."""
    async with asyncio.timeout(UNTIL_S):
        while True:
            try:
                return await call()
            except (Unavailable, Conflict):
                await asyncio.sleep(0.05)


async def cancelled(call: Callable[[], Awaitable[object]], after_s: float) -> None:
    """Call it and lose patience: cancelled `after_s` later, unless it was through by then. It may
    be too early to call it again: whoever helped it has not heard of the end yet."""

    async def answered() -> None:
        await call()

    task = asyncio.create_task(answered())
    await asyncio.wait([task], timeout=after_s)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and not isinstance(task.exception(), Unavailable | None):
        raise task.exception() or AssertionError
