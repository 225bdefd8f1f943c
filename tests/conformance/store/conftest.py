"""Every store, behind one fixture: the suite in this folder runs against each."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_addresses

from primacy.clock import SystemClock
from primacy.consensus.raft.timing import Timing
from primacy.coordination.embedded.client import StoreClient
from primacy.coordination.embedded.server import StoreServer, StoreSettings
from primacy.coordination.guarantees import DeclaredStore
from primacy.coordination.memory import MemoryStore
from primacy.model import NodeId
from primacy.telemetry import ignore

WITHIN_S = 60.0
"""For a whole test: a machine under load is slow, a hung test is not."""

TTL_MIN_S = 0.2
TIMING = Timing(heartbeat_s=0.05, election_timeout_min_s=0.3, election_timeout_max_s=0.6)

MakeStore = Callable[[Path], AbstractAsyncContextManager[DeclaredStore]]
Scenario = Callable[[DeclaredStore], Coroutine[Any, Any, None]]  # Any: what asyncio yields inside.


@asynccontextmanager
async def in_memory(_directory: Path) -> AsyncIterator[DeclaredStore]:
    yield MemoryStore(SystemClock(), ttl_min_s=TTL_MIN_S)


@asynccontextmanager
async def embedded(directory: Path, names: str) -> AsyncIterator[DeclaredStore]:
    clock, nodes = SystemClock(), [NodeId(name) for name in names]
    peers = dict(zip(nodes, free_addresses(len(nodes)), strict=True))
    doors = dict(zip(nodes, free_addresses(len(nodes)), strict=True))
    async with asyncio.TaskGroup() as tasks:
        running = []
        for node in nodes:
            settings = StoreSettings(
                cluster="conformance",
                node=node,
                members=peers,
                door=doors[node],
                directory=directory / node,
                timing=TIMING,
                ttl_min_s=TTL_MIN_S,
            )
            server = StoreServer(settings, clock=clock, chance=random.Random(node), events=ignore)
            running.append(tasks.create_task(server.run()))
        async with StoreClient(doors, clock, random.Random(1), within_s=20.0) as client:
            yield client
        for task in running:
            task.cancel()


def one_member(directory: Path) -> AbstractAsyncContextManager[DeclaredStore]:
    return embedded(directory, "a")


def three_members(directory: Path) -> AbstractAsyncContextManager[DeclaredStore]:
    return embedded(directory, "abc")


MAKERS: dict[str, MakeStore] = {
    "memory": in_memory,
    "one-member": one_member,
    "three-members": three_members,
}


@pytest.fixture(
    params=[
        "memory",
        pytest.param("one-member", marks=pytest.mark.integration),
        pytest.param("three-members", marks=pytest.mark.integration),
    ]
)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario against a fresh store."""
    make = MAKERS[request.param]

    async def within(scenario: Scenario) -> None:
        async with asyncio.timeout(WITHIN_S), make(tmp_path) as store:
            await scenario(store)

    return lambda scenario: asyncio.run(within(scenario))
