"""Failovers in a row under writers, each by another way to lose a primary: nothing that was
answered is missing on any node at the end, and all nodes are equal.

The steps are the brain's, in the order of docs/protocols/failover.md. The ways are drawn from a
seed; a whole cluster, agents included, is what the demo shakes.
"""

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.sqlite.trio import NODES, A, Trio, run

import primacy
import primacy.driver as db
from primacy.engines.api import ServerState
from primacy.model import Epoch, NodeId

pytestmark = pytest.mark.integration

WRITERS = 4
SEED = 7
WRITES_BETWEEN = 50


class Traffic:
    """Writers that find the primary by themselves, until they are told to stop."""

    def __init__(self, trio: Trio) -> None:
        doors = trio[A].settings.doors
        hosts = ",".join(str(doors[node]) for node in NODES)
        self.url = f"primacy://{hosts}/db"
        self.answered: set[int] = set()
        self.is_over = asyncio.Event()
        self._numbers = itertools.count()

    async def write(self) -> None:
        mine = await primacy.connect_async(self.url, isolation_level=None)
        while not self.is_over.is_set():
            number = next(self._numbers)
            try:
                await mine.execute("INSERT INTO t VALUES (?)", (number,))
            except (db.OutcomeUnknown, db.Unavailable):
                continue
            self.answered.add(number)
        await mine.close()

    async def some_more(self) -> None:
        so_far = len(self.answered)
        while len(self.answered) < so_far + WRITES_BETWEEN:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def traffic(trio: Trio) -> AsyncIterator[Traffic]:
    going = Traffic(trio)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(going.write())
        yield going
        going.is_over.set()


async def crash(trio: Trio, lead: NodeId) -> None:
    trio[lead].signal_server(signal.SIGKILL)
    await trio[lead].until(lambda seen: seen.state is ServerState.STOPPED)


async def crash_with_a_replica(trio: Trio, lead: NodeId) -> None:
    """And the replica's log counts all the same."""
    other = next(node for node in NODES if node != lead)
    await crash(trio, other)
    await crash(trio, lead)


async def crash_with_all_agents(trio: Trio, lead: NodeId) -> None:
    trio[lead].signal_server(signal.SIGKILL)
    for node in NODES:
        trio[node].restart_agent()
        await trio[node].engine.attach()


async def cut_off(trio: Trio, lead: NodeId) -> None:
    """Its last commits reach nobody."""
    for node in NODES:
        if node != lead:
            await trio[lead].engine.exclude(node)
    await trio[lead].until(lambda seen: seen.sending.waiting_commits > 0)
    await trio[lead].engine.kill()


async def freeze(trio: Trio, lead: NodeId) -> None:
    """Hung: its agent ends it when it rejoins."""
    trio[lead].signal_server(signal.SIGSTOP)


async def hand_over(trio: Trio, lead: NodeId) -> None:
    end = await trio[lead].engine.close_doors()
    for node in NODES:
        if node != lead:
            await trio[node].until(lambda seen: seen.received.sequence >= end)
    guardian = trio[lead].engine.guardian
    assert guardian is not None
    await guardian.close((await trio[lead].engine.observe()).applied.epoch)
    await trio[lead].engine.demote()


WAYS: list[Callable[[Trio, NodeId], Awaitable[None]]] = [
    crash,
    crash_with_a_replica,
    crash_with_all_agents,
    cut_off,
    freeze,
    hand_over,
]


async def fail_over(trio: Trio, lead: NodeId, epoch: int) -> NodeId:
    """Seal the others, promote the most advanced, let the other one follow."""
    others = [node for node in NODES if node != lead]
    sealed = {node: await trio[node].engine.seal(Epoch(epoch)) for node in others}
    new = max(sealed, key=lambda node: sealed[node].received)
    for node in others:
        await trio[node].engine.start(as_primary=True)  # Where it runs, nothing is done.
    await trio.open(new, epoch, *(node for node in others if node != new))
    return new


async def rejoin(trio: Trio, old: NodeId, new: NodeId, epoch: int) -> None:
    engine = trio[old].engine
    if (await engine.observe()).state is not ServerState.RUNNING:
        await engine.kill()  # A frozen one, too.
        found = await engine.save_diverged(trio.branches)
        await engine.start(as_primary=not found.count)
    await engine.follow(new, Epoch(epoch), acknowledge=True)
    await trio[old].until(lambda seen: seen.replication.is_receiving)


def test_failovers_in_a_row_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with Trio(tmp_path) as trio:
            await trio.up()
            lead, epoch = A, 1
            ways = random.Random(SEED).sample(WAYS, k=len(WAYS))
            async with traffic(trio) as going:
                for way in ways:
                    await going.some_more()
                    await way(trio, lead)
                    epoch += 1
                    new = await fail_over(trio, lead, epoch)
                    await rejoin(trio, lead, new, epoch)
                    lead = new
                await going.some_more()
            await trio.caught_up(lead, *NODES)
            shown = []
            for node in NODES:
                connection = await trio[node].connect("target=any")
                cursor = await connection.execute("SELECT id FROM t ORDER BY id")
                shown.append([row[0] async for row in cursor])
                await connection.close()
            assert shown[0] == shown[1] == shown[2]
            assert going.answered <= set(shown[0])

    run(story())
