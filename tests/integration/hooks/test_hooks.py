"""Hooks as real processes: told of each change, ended in time, heard in the log."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from primacy.clock import SystemClock
from primacy.cluster.hooks import OUTPUT_BYTES_MAX, WAITING_MAX, Hooks, HookSettings
from primacy.cluster.roles import RoleSeen
from primacy.model import Epoch, NodeId
from primacy.runtime.processes import process_start_time
from primacy.telemetry import Event

pytestmark = pytest.mark.integration

B = NodeId("b")
PRIMARY = RoleSeen(role="primary", epoch=Epoch(4), primary=B)
REPLICA = RoleSeen(role="replica", epoch=Epoch(5), primary=NodeId("a"))
NONE = RoleSeen(role="none", epoch=Epoch(5), primary=None)


@asynccontextmanager
async def running(
    *command: str, timeout_s: float = 20.0
) -> AsyncIterator[tuple[Hooks, list[Event]]]:
    events: list[Event] = []
    settings = HookSettings(cluster="shop", node=B, command=command, timeout_s=timeout_s)
    hooks = Hooks(settings, clock=SystemClock(), events=events.append)
    task = asyncio.get_running_loop().create_task(hooks.run())
    try:
        yield hooks, events
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def named(events: list[Event], name: str) -> list[Event]:
    return [each for each in events if each.name == name]


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_it_is_told_the_role_and_nothing_of_the_agent_s_environment(tmp_path: Path) -> None:
    async def story() -> None:
        async with running("/usr/bin/env") as (hooks, events):
            hooks.tell(PRIMARY)
            await until(lambda: bool(named(events, "hook-ended")))
            said = {str(each.fields["line"]) for each in named(events, "hook-said")}
            assert {
                "PRIMACY_CLUSTER=shop",
                "PRIMACY_NODE=b",
                "PRIMACY_ROLE=primary",
                "PRIMACY_EPOCH=4",
                "PRIMACY_PRIMARY=b",
            } <= said
            assert len(said) == 7
            assert named(events, "hook-ended")[0].fields["code"] == 0

    asyncio.run(story())


def test_it_runs_once_for_each_change_and_in_their_order(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def story() -> None:
        async with running(script(tmp_path, f"echo $PRIMACY_ROLE >> {out}")) as (hooks, events):
            for seen in (NONE, PRIMARY, PRIMARY, NONE, REPLICA, REPLICA):
                hooks.tell(seen)
            await until(lambda: len(named(events, "hook-ended")) == 3)

    asyncio.run(story())
    assert out.read_text().split() == ["primary", "none", "replica"]


def test_one_that_hangs_is_killed_with_its_children_and_the_next_one_runs(tmp_path: Path) -> None:
    child = tmp_path / "child"
    text = f"[ $PRIMACY_ROLE = replica ] && exit 3\nsleep 600 & echo $! > {child}\nwait"

    async def story() -> None:
        async with running(script(tmp_path, text), timeout_s=0.5) as (hooks, events):
            hooks.tell(PRIMARY)
            hooks.tell(REPLICA)
            await until(lambda: len(named(events, "hook-ended")) == 2)
            first, second = named(events, "hook-ended")
            assert (first.fields["how"], second.fields["how"]) == ("killed", "ended")
            assert second.fields["code"] == 3
            pid = int(child.read_text())
            await until(lambda: process_start_time(pid) is None)

    asyncio.run(story())


def test_cancelling_ends_the_command_that_runs(tmp_path: Path) -> None:
    own = tmp_path / "own"

    async def story() -> int:
        text = f"echo $$ > {own}.new && mv {own}.new {own}\nexec sleep 600"
        async with running(script(tmp_path, text)) as (hooks, _):
            hooks.tell(PRIMARY)
            await until(own.exists)
            return int(own.read_text())

    assert process_start_time(asyncio.run(story())) is None


def test_a_flood_of_output_is_read_and_cut() -> None:
    async def story() -> None:
        flood = "import sys\nfor _ in range(50000): sys.stdout.write('x' * 9 + '\\n')"
        async with running(sys.executable, "-c", flood) as (hooks, events):
            hooks.tell(PRIMARY)
            await until(lambda: bool(named(events, "hook-ended")))
            said = sum(len(str(each.fields["line"])) + 1 for each in named(events, "hook-said"))
            assert OUTPUT_BYTES_MAX - 10 <= said <= OUTPUT_BYTES_MAX + 1

    asyncio.run(story())


def test_a_program_that_is_not_there_is_told_and_harms_nobody() -> None:
    async def story() -> None:
        async with running("/no/such/program") as (hooks, events):
            hooks.tell(PRIMARY)
            await until(lambda: bool(named(events, "hook-failed")))
            hooks.tell(REPLICA)
            await until(lambda: len(named(events, "hook-failed")) == 2)

    asyncio.run(story())


def test_where_changes_pile_up_the_oldest_are_dropped() -> None:
    async def story() -> None:
        async with running("/bin/sleep", "600") as (hooks, events):
            for _ in range(WAITING_MAX):
                hooks.tell(PRIMARY)
                hooks.tell(REPLICA)
            assert len(named(events, "hook-dropped")) == WAITING_MAX

    asyncio.run(story())
