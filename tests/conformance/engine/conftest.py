"""Every engine, behind one fixture: the suite in this folder runs against each.

The nodes of one engine serve all its tests, in one event loop: making a cluster costs more than
most tests, and mending one that a test left behind is a test as well.
"""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.engine.harness import Harness
from tests.conformance.engine.mariadb import MariaDbHarness
from tests.conformance.engine.sqlite import SqliteHarness
from tests.conformance.engine.stage import Stage
from tests.integration.mariadb.conftest import folder_for_all

WITHIN_S = 60.0
"""For a whole test: a machine under load is slow, a hung test is not."""

Scene = Callable[[Stage], Coroutine[Any, Any, None]]  # Any: what asyncio yields inside.


async def mariadb(root: Path) -> Harness:
    harness = MariaDbHarness(root)
    await harness.make_template()
    return harness


def why_not_mariadb() -> str:
    is_there = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/bin")
    return "" if is_there else "mariadbd is not installed"


async def sqlite(root: Path) -> Harness:
    return SqliteHarness(root)


MAKERS = {"mariadb": mariadb, "sqlite": sqlite}


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("sqlite", marks=pytest.mark.integration),
        pytest.param(
            "mariadb",
            marks=[
                pytest.mark.integration,
                pytest.mark.mariadb,
                pytest.mark.skipif(why_not_mariadb() != "", reason=why_not_mariadb()),
            ],
        ),
    ],
)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Scene], None]]:
    """Plays a scene on the engine's stage."""
    with folder_for_all() as root, asyncio.Runner() as runner:
        harness = runner.run(MAKERS[request.param](root))
        stage = Stage(harness)

        async def within(scene: Scene) -> None:
            async with asyncio.timeout(WITHIN_S):
                await scene(stage)

        try:
            yield lambda scene: runner.run(within(scene))
        finally:
            runner.run(harness.close())
