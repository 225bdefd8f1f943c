"""What an operator asks of a witness: to begin again, and nothing else."""

import asyncio

from primacy.cli.witness import WitnessTasks
from primacy.clock import SystemClock
from primacy.coordination.api import Put, Txn
from primacy.coordination.memory import MemoryStore
from primacy.model import NodeId
from primacy.replication.records import (
    OUTCOMES_PREFIX,
    TASKS_PREFIX,
    NodeTask,
    RequestOutcome,
    decoded,
    encoded,
    node_key,
)
from primacy.telemetry import ignore

W = NodeId("w")
KEY = node_key(TASKS_PREFIX, W)
WITHIN_S = 20.0


async def ask(store: MemoryStore, task: NodeTask) -> None:
    await store.txn(Txn(then=(Put(KEY, encoded(task)),)))


async def outcome(store: MemoryStore, request_id: str) -> RequestOutcome:
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = (await store.range(f"{OUTCOMES_PREFIX}{request_id}")).items
            if found:
                return decoded(RequestOutcome, found[0].value)
            await asyncio.sleep(0.005)


def test_it_begins_again_when_its_own_life_is_named_and_the_next_one_says_so() -> None:
    async def story() -> None:
        clock = SystemClock()
        store = MemoryStore(clock)
        task = NodeTask(request_id="r", node=W, kind="restart-agent", of="one")
        first = WitnessTasks(W, "one", store=store, clock=clock, events=ignore)
        waiting = asyncio.get_running_loop().create_task(first.asked_to_begin_again())
        await asyncio.sleep(0)
        assert not waiting.done()
        await ask(store, task)
        async with asyncio.timeout(WITHIN_S):
            await waiting
        second = WitnessTasks(W, "two", store=store, clock=clock, events=ignore)
        waiting = asyncio.get_running_loop().create_task(second.asked_to_begin_again())
        assert (await outcome(store, "r")).is_done
        assert (await store.range(KEY)).items == ()
        waiting.cancel()

    asyncio.run(story())


def test_what_only_a_data_node_can_do_is_refused() -> None:
    async def story() -> None:
        clock = SystemClock()
        store = MemoryStore(clock)
        await ask(store, NodeTask(request_id="r", node=W, kind="reinit", of="one"))
        tasks = WitnessTasks(W, "one", store=store, clock=clock, events=ignore)
        waiting = asyncio.get_running_loop().create_task(tasks.asked_to_begin_again())
        told = await outcome(store, "r")
        assert (told.is_done, told.detail) == (False, "w is a witness")
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(story())
