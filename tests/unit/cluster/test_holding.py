"""The lease and its guard: who is late, the guard or this process, after time has leapt."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from primacy.clock import SystemClock
from primacy.cluster.holding import Holding
from primacy.coordination.memory import MemoryStore
from primacy.engines.api import Engine
from primacy.model import Epoch, NodeId
from primacy.telemetry import Event

E1 = Epoch(1)
TTL_S = 4.0
LEAP_S = 0.55 * TTL_S
"""More than half a ttl, and less than the lease has left."""
WITHIN_S = 20.0


class LeapingClock(SystemClock):
    """Time passes while nobody looks: as for a process that was stopped."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.ahead_s

    def boottime_s(self) -> float:
        return super().boottime_s() + self.ahead_s


class Guard:
    """It confirms what it is told, unless it is frozen."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.told_count = 0

    async def arm(self, _epoch: Epoch, _deadline_s: float) -> None:
        return

    async def extend(self, _epoch: Epoch, _deadline_s: float) -> None:
        self.told_count += 1
        await self.thawed.wait()


class Server:
    """All that the lease needs of an engine."""

    def __init__(self, guardian: Guard) -> None:
        self.guardian = guardian


class Held:
    """A lease of epoch 1 whose guard is armed."""

    def __init__(self) -> None:
        self.clock = LeapingClock()
        self.guard = Guard()
        self.events: list[Event] = []
        self.holding = Holding(
            node=NodeId("a"),
            store=MemoryStore(self.clock),
            engine=cast(Engine, Server(self.guard)),  # A cast: it has what is asked of it here.
            clock=self.clock,
            events=self.events.append,
        )

    async def begin(self) -> "asyncio.Task[None]":
        running = asyncio.get_running_loop().create_task(self.holding.run(lambda: None))
        await self.holding.take(TTL_S)
        self.holding.claimed_epoch = E1
        await self.holding.arm(E1)
        await self.until(lambda: self.guard.told_count > 0)
        return running

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["the agent stood still", "the guard"])
def test_a_lease_is_kept_by_a_guard_that_owes_nothing(*, is_frozen: bool) -> None:
    """Half a ttl without a confirmation ends the renewing where the guard owes one. It owes none
    where this process itself stood still and told it nothing. `make calm` found it: three of three
    stops of half a second, with a lease of 1 s, were failovers."""

    async def story() -> None:
        held = Held()
        running = await held.begin()
        if is_frozen:
            held.guard.thawed.clear()
            told = held.guard.told_count
            await held.until(lambda: held.guard.told_count > told)
        held.clock.ahead_s += LEAP_S
        deadline_s = held.holding.deadline_s
        await held.until(lambda: not held.holding.is_held or held.holding.deadline_s > deadline_s)
        assert held.holding.is_held is not is_frozen
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())


def test_a_guard_that_answers_late_owes_nothing_any_more() -> None:
    async def story() -> None:
        held = Held()
        running = await held.begin()
        held.guard.thawed.clear()
        told = held.guard.told_count
        await held.until(lambda: held.guard.told_count > told)
        held.clock.ahead_s += LEAP_S
        held.guard.thawed.set()
        deadline_s = held.holding.deadline_s
        await held.until(lambda: not held.holding.is_held or held.holding.deadline_s > deadline_s)
        assert held.holding.is_held
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())
