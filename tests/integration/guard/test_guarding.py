"""Guard and agent's side, with real processes and real signals."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from primacy.clock import SystemClock
from primacy.engines.guardchild import GuardSpec
from primacy.engines.guardclient import Client, Standing, obeyed
from primacy.engines.guarding import Guarded, attach, start_guard
from primacy.errors import Conflict, OutcomeUnknown, Rejected
from primacy.model import Epoch
from primacy.runtime.page import PageReader, PageState
from primacy.runtime.processes import family

pytestmark = pytest.mark.integration
CLOCK = SystemClock()
WITHIN_S = 20.0
E1, E2 = Epoch(1), Epoch(2)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await CLOCK.sleep(0.005)


async def freeze(guarded: Guarded) -> None:
    """SIGSTOP to a guard that waits in poll(), and not in the middle of a round."""
    stat = Path(f"/proc/{guarded.guard.name.pid}/stat")

    def state() -> bytes:
        return stat.read_bytes().rpartition(b")")[2].split()[0]

    await until(lambda: state() == b"S")
    guarded.guard.kill(signal.SIGSTOP)
    await until(lambda: state() == b"T")


def in_s(seconds: float) -> float:
    return CLOCK.boottime_s() + seconds


@asynccontextmanager
async def started(spec: GuardSpec) -> AsyncIterator[Guarded]:
    """A guard whose database has forked its child; all of it is gone afterwards."""
    guarded = await start_guard(spec)
    database = guarded.database.name
    try:
        await until(lambda: len(family(database)) == 2)
        yield guarded
    finally:
        if not guarded.exited.is_set():
            os.kill(guarded.guard.name.pid, signal.SIGCONT)
        async with asyncio.timeout(WITHIN_S):
            await guarded.kill()
        assert family(database) == []
        guarded.detach()


def run(scenario: Coroutine[Any, Any, None]) -> None:  # Any: what a coroutine yields to its loop.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


def test_an_epoch_is_armed_opened_closed_and_never_opened_again(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            reader = PageReader(guarded.page_path)
            with pytest.raises(Conflict, match="not armed"):
                await guarded.open(E1)
            await guarded.arm(E1, in_s(60))
            assert not reader.permits(E1)
            await guarded.open(E1)
            assert reader.permits(E1)
            assert not reader.permits(E2)
            with pytest.raises(Conflict, match="is open"):
                await guarded.arm(E2, in_s(60))
            await guarded.close(E1)
            assert not reader.permits(E1)
            for attempt in (guarded.arm(E1, in_s(60)), guarded.open(E1), guarded.extend(E1, 1e6)):
                with pytest.raises(Conflict, match="closed is final"):
                    await attempt
            await guarded.arm(E2, in_s(60))
            await guarded.open(E2)
            assert reader.permits(E2)
            assert not reader.permits(E1)
            reader.close()

    run(scenario())


def test_an_extension_only_raises_and_only_what_is_armed(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            first = await guarded.arm(E1, in_s(60))
            lower = await guarded.extend(E1, in_s(30))
            assert lower.deadline_ns == first.deadline_ns
            higher = await guarded.extend(E1, in_s(90))
            assert higher.deadline_ns > first.deadline_ns
            with pytest.raises(Conflict, match="not armed"):
                await guarded.extend(E2, in_s(90))

    run(scenario())


def test_at_the_deadline_the_database_is_killed_and_the_page_closed(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            reader = PageReader(guarded.page_path)
            await guarded.arm(E1, in_s(0.3))
            await guarded.open(E1)
            async with asyncio.timeout(WITHIN_S):
                await guarded.exited.wait()
                await guarded.gone()
            assert reader.read().state is PageState.CLOSED
            assert not reader.permits(E1)
            assert family(guarded.database.name) == []
            assert "deadline of epoch 1 passed" in stubborn_spec.status_path.read_text()
            reader.close()

    run(scenario())


def test_a_closed_epoch_lets_the_database_live_unless_its_deadline_is_kept(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            await guarded.arm(E1, in_s(60))
            kept = await guarded.close(E1, keep_deadline=True)
            assert (kept.state, kept.deadline_ns > 0) == ("closed", True)
            lifted = await guarded.close(E1)
            assert lifted.deadline_ns == 0
            await guarded.arm(E2, in_s(0.3))
            await guarded.close(E2, keep_deadline=True)
            async with asyncio.timeout(WITHIN_S):
                await guarded.exited.wait()

    run(scenario())


def test_kill_returns_when_guard_database_and_its_child_are_gone(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            await guarded.arm(E1, in_s(60))
            await guarded.open(E1)
            reader = PageReader(guarded.page_path)
            await guarded.kill()
            assert not reader.permits(E1)
            assert guarded.guard.has_exited()
            assert guarded.database.has_exited()
            assert family(guarded.database.name) == []
            reader.close()

    run(scenario())


def test_kill_works_on_a_frozen_guard(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            await guarded.arm(E1, in_s(60))
            await guarded.open(E1)
            reader = PageReader(guarded.page_path)
            await freeze(guarded)
            with pytest.raises(Conflict, match="lives"):
                guarded.close_page_of_dead_guard()
            async with asyncio.timeout(WITHIN_S):
                await guarded.kill()
            assert not reader.permits(E1)
            assert family(guarded.database.name) == []
            reader.close()

    run(scenario())


def test_the_death_of_the_database_is_heard_and_closes_the_page(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            await guarded.arm(E1, in_s(60))
            await guarded.open(E1)
            reader = PageReader(guarded.page_path)
            guarded.database.kill()
            async with asyncio.timeout(WITHIN_S):
                await guarded.exited.wait()
                assert guarded.exit_reason == "the database exited"
                await guarded.gone()
            assert reader.read().state is PageState.CLOSED
            assert family(guarded.database.name) == []
            reader.close()

    run(scenario())


def test_after_the_guards_death_the_agent_closes_the_page_and_sees_the_rest_off(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            await guarded.arm(E1, in_s(60))
            await guarded.open(E1)
            reader = PageReader(guarded.page_path)
            guarded.guard.kill()
            async with asyncio.timeout(WITHIN_S):
                await guarded.exited.wait()
                await guarded.gone()
            assert reader.read().state is PageState.CLOSED
            assert guarded.database.has_exited()
            assert family(guarded.database.name) == []
            with pytest.raises(OutcomeUnknown):
                await guarded.extend(E1, in_s(60))
            reader.close()

    run(scenario())


def test_a_frozen_guard_lets_nothing_pass_and_kills_when_it_thaws(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            reader = PageReader(guarded.page_path)
            await guarded.arm(E1, in_s(0.5))
            await guarded.open(E1)
            await freeze(guarded)
            await until(lambda: not reader.permits(E1))
            page = reader.read()
            assert page.state is PageState.OPEN  # The clock alone refuses.
            assert not guarded.exited.is_set()
            guarded.guard.kill(signal.SIGCONT)
            async with asyncio.timeout(WITHIN_S):
                await guarded.exited.wait()
                await guarded.gone()
            assert reader.read().state is PageState.CLOSED
            reader.close()

    run(scenario())


def test_an_extension_that_waits_in_the_inbox_is_read_before_the_deadline_is_judged(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            deadline_s = in_s(0.5)
            await guarded.arm(E1, deadline_s)
            await guarded.open(E1)
            await freeze(guarded)
            answer = asyncio.ensure_future(guarded.extend(E1, in_s(60)))
            await until(lambda: CLOCK.boottime_s() > deadline_s)
            guarded.guard.kill(signal.SIGCONT)
            async with asyncio.timeout(WITHIN_S):
                await answer
            assert (await guarded.status()).state == "open"
            assert not guarded.exited.is_set()

    run(scenario())


def test_a_new_agents_hello_drops_the_earlier_ones(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as old:
            await old.arm(E1, in_s(60))
            onlooker = await Client.connect(stubborn_spec.socket_path)
            with pytest.raises(Conflict, match="hello"):
                await obeyed(onlooker.send("close", {"epoch": 1}))
            await freeze(old)
            pending = asyncio.ensure_future(old.extend(E1, in_s(900)))
            await asyncio.sleep(0)  # It is sent when its task begins.
            with socket.socket(socket.AF_UNIX) as successor:
                successor.connect(str(stubborn_spec.socket_path))
                successor.sendall(b'{"op": "hello", "pid": 1}\n')
                old.guard.kill(signal.SIGCONT)
                with pytest.raises(OutcomeUnknown):
                    await pending
            new = await attach(stubborn_spec.status_path.parent)
            assert new is not None
            with pytest.raises(OutcomeUnknown):
                await old.extend(E1, in_s(60))
            standing = await new.extend(E1, in_s(120))
            assert standing.deadline_ns < in_s(800) * 1e9
            assert standing.agent_pid == os.getpid()
            new.detach()

    run(scenario())


AGENT = """
import asyncio, sys
from pathlib import Path
from primacy.clock import SystemClock
from primacy.engines.guardchild import read_spec
from primacy.engines.guarding import start_guard
from primacy.model import Epoch

async def main():
    clock = SystemClock()
    guarded = await start_guard(read_spec(Path(sys.argv[1])))
    await guarded.arm(Epoch(1), clock.boottime_s() + float(sys.argv[2]))
    await guarded.open(Epoch(1))
    print("open", flush=True)
    await clock.sleep(1000)

asyncio.run(main())
"""


async def agent_that_dies(spec: GuardSpec, *, deadline_s: float) -> None:
    """An agent in a process of its own, killed when its epoch is open."""
    spec_file = spec.status_path.parent / "asked.json"
    spec_file.write_bytes(spec.encode())
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        AGENT,
        str(spec_file),
        str(deadline_s),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": "src"},
    )
    assert agent.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        assert await agent.stdout.readline() == b"open\n"
        agent.kill()
        await agent.wait()


def test_the_database_outlives_its_agent_and_is_adopted_with_its_deadline(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        await agent_that_dies(stubborn_spec, deadline_s=60)
        guarded = await attach(stubborn_spec.status_path.parent)
        assert guarded is not None
        standing: Standing = await guarded.status()
        assert (standing.state, standing.epoch) == ("open", 1)
        assert standing.deadline_ns > CLOCK.boottime_s() * 1e9
        await guarded.extend(E1, in_s(90))
        await guarded.kill()
        assert family(guarded.database.name) == []
        guarded.detach()
        assert await attach(stubborn_spec.status_path.parent) is None

    run(scenario())


def test_without_an_agent_the_deadline_still_kills(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        await agent_that_dies(stubborn_spec, deadline_s=1.0)
        reader = PageReader(stubborn_spec.page_path)
        await until(lambda: reader.read().state is PageState.CLOSED)
        await until(lambda: '"exited"' in stubborn_spec.status_path.read_text())
        assert await attach(stubborn_spec.status_path.parent) is None
        reader.close()

    run(scenario())


def test_a_guard_that_died_unattended_leaves_a_page_that_attach_closes(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        await agent_that_dies(stubborn_spec, deadline_s=600)
        reader = PageReader(stubborn_spec.page_path)
        page = reader.read()
        os.kill(page.guard.pid, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{page.guard.pid}/exe").exists())
        assert await attach(stubborn_spec.status_path.parent) is None
        assert reader.read().state is PageState.CLOSED
        async with started(stubborn_spec) as again:
            with pytest.raises(Conflict, match="closed is final"):
                await again.arm(E1, in_s(60))
        reader.close()

    run(scenario())


def test_a_second_guard_for_the_same_page_is_refused(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            with pytest.raises(Conflict, match="another guard holds"):
                await start_guard(stubborn_spec)
            assert (await guarded.status()).ok

    run(scenario())


def test_a_program_that_cannot_be_executed_is_refused_with_the_reason(
    stubborn_spec: GuardSpec,
) -> None:
    async def scenario() -> None:
        missing = replace(stubborn_spec, argv=("/nonexistent/mariadbd",))
        with pytest.raises(Rejected, match="cannot execute /nonexistent/mariadbd"):
            await start_guard(missing)
        nobody_like_this = replace(stubborn_spec, user="no-such-user")
        with pytest.raises(Rejected, match="no user"):
            await start_guard(nobody_like_this)
        assert await attach(stubborn_spec.status_path.parent) is None

    run(scenario())


def test_hangup_and_interrupt_are_ignored_and_sigterm_kills(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as guarded:
            guarded.guard.kill(signal.SIGHUP)
            guarded.guard.kill(signal.SIGINT)
            assert (await guarded.status()).ok
            guarded.guard.kill(signal.SIGTERM)
            async with asyncio.timeout(WITHIN_S):
                await guarded.exited.wait()
                await guarded.gone()
            assert "SIGTERM" in stubborn_spec.status_path.read_text()

    run(scenario())


def test_gone_may_be_asked_again_when_a_successor_has_the_page(stubborn_spec: GuardSpec) -> None:
    async def scenario() -> None:
        async with started(stubborn_spec) as first:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(first.gone())
                tasks.create_task(first.kill())
                tasks.create_task(first.gone())
            async with started(stubborn_spec) as second:
                await second.arm(E1, in_s(60))
                await second.open(E1)
                await first.gone()
                assert (await second.status()).state == "open"

    run(scenario())
