"""Every store, behind one fixture: the suite in this folder runs against each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from primacy.clock import SystemClock
from primacy.coordination.guarantees import DeclaredStore
from primacy.coordination.memory import MemoryStore

WITHIN_S = 30.0
"""For a whole test: a machine under load is slow, a hung test is not."""

MakeStore = Callable[[], AbstractAsyncContextManager[DeclaredStore]]
Scenario = Callable[[DeclaredStore], Coroutine[Any, Any, None]]  # Any: what asyncio yields inside.


@asynccontextmanager
async def in_memory() -> AsyncIterator[DeclaredStore]:
    yield MemoryStore(SystemClock(), ttl_min_s=0.2)


MAKERS: dict[str, MakeStore] = {"memory": in_memory}


@pytest.fixture(params=MAKERS)
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario against a fresh store."""
    make = MAKERS[request.param]

    async def within(scenario: Scenario) -> None:
        async with asyncio.timeout(WITHIN_S), make() as store:
            await scenario(store)

    return lambda scenario: asyncio.run(within(scenario))
