"""A server's life: ABSENT, STOPPED, RUNNING, HUNG, and a directory of somebody else."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.harness import A, Answer, B, C, D, E
from tests.conformance.engine.stage import Stage, cancelled

from primacy.engines.api import ServerState
from primacy.errors import Conflict, PrimacyError, Rejected
from primacy.model import ORIGIN, Epoch

Run = Callable[[Scene], None]


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_states_and_their_transitions(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.harness.wipe(D)
        engine = stage[D]
        seen = await engine.observe()
        assert (seen.state, seen.incarnation) == (ServerState.ABSENT, None)
        assert engine.guardian is None
        assert not await engine.attach()
        with pytest.raises(Conflict):
            await engine.start(as_primary=False)

        await engine.initialise()
        made = await engine.observe()
        assert made.state is ServerState.STOPPED
        assert made.incarnation
        assert made.received == made.applied == ORIGIN
        await engine.initialise()
        assert await engine.observe() == made, "called again"

        await engine.start(as_primary=False)
        seen = await engine.observe()
        assert (seen.state, seen.incarnation) == (ServerState.RUNNING, made.incarnation)
        assert seen.is_read_only
        assert seen.received == seen.applied == ORIGIN
        assert (seen.sealed_epoch, seen.following_epoch) == (0, 0)
        assert seen.replication.upstream is None
        assert not seen.replication.is_receiving
        assert not seen.replication.acknowledges
        assert seen.starts != made.starts
        guardian, pid = engine.guardian, stage.harness.pid(D)
        assert guardian is not None
        await engine.start(as_primary=False)
        assert (engine.guardian, stage.harness.pid(D)) == (guardian, pid), "called again"

        await engine.stop()
        await engine.stop()
        stopped = await engine.observe()
        assert (stopped.state, stopped.incarnation) == (ServerState.STOPPED, made.incarnation)
        assert guardian.exited.is_set()
        assert engine.guardian is None
        await engine.start(as_primary=True)
        assert (await engine.observe()).starts not in (made.starts, seen.starts)
        await engine.kill()
        await engine.kill()
        assert (await engine.observe()).state is ServerState.STOPPED

    run(scene)


def test_a_directory_that_primacy_did_not_make_is_never_touched(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.harness.wipe(D)
        data = stage.harness.data(D)
        (data / "deep").mkdir(parents=True)
        (data / "ibdata1").write_bytes(b"somebody else's")
        (data / "deep" / "data.db").write_bytes(b"SQLite format 3\0 somebody else's")
        before = content(data)
        engine = stage[D]
        seen = await engine.observe()
        assert (seen.state, seen.incarnation) == (ServerState.FOREIGN, None)
        assert str(data) in seen.detail
        with pytest.raises(Rejected):
            await engine.initialise()
        with pytest.raises(Conflict):
            await engine.start(as_primary=False)
        await stage.ready(but=D)
        async with stage.harness.serving(A):
            with pytest.raises(Rejected):
                await engine.clone(A, lambda _: None)
        assert not await engine.attach()
        for call in (engine.stop, engine.kill, engine.forget_old_data):
            await call()
        assert content(data) == before
        assert (await engine.observe()).state is ServerState.FOREIGN

    run(scene)


def test_the_data_of_another_node_are_foreign(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        for node in (D, E):
            await stage.harness.wipe(node)
        await stage.harness.make(D)
        stage.harness.root(E).mkdir(exist_ok=True)
        stage.harness.data(D).rename(stage.harness.data(E))
        seen = await stage.seen(E)
        assert seen.state is ServerState.FOREIGN
        assert f"node {D}" in seen.detail
        with pytest.raises(Conflict):
            await stage[E].start(as_primary=False)

    run(scene)


def test_a_server_that_crashed_is_stopped_and_starts_with_all_that_it_had(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        rows = [await stage.write(A) for _ in range(3)]
        await stage.caught_up(A, B, C)
        guardian, end = stage[B].guardian, await stage.end(B)
        assert guardian is not None
        stage.signal(B, signal.SIGKILL)
        async with asyncio.timeout(5):
            await guardian.exited.wait()
        seen = await stage.seen(B)
        assert seen.state is ServerState.STOPPED
        assert stage[B].guardian is None
        await stage[B].start(as_primary=True)
        seen = await stage.seen(B)
        assert (seen.state, seen.received) == (ServerState.RUNNING, end)
        assert not seen.is_cut
        assert seen.is_read_only
        assert seen.replication.upstream is None
        assert seen.following_epoch == 0, "none since its start"
        assert seen.sealed_epoch == stage.epoch
        assert set(rows) <= set(await stage.harness.read(B))
        await stage.attach(A, B)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_a_frozen_server_is_hung_within_the_deadline_and_heals(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        before = await stage.seen(C)
        async with stage.frozen(C):
            for _ in range(2):
                began_s = time.monotonic()
                seen = await stage.seen(C)
                assert time.monotonic() - began_s < stage.harness.observed_within_s + 1.0
                assert seen.state is ServerState.HUNG
                assert seen.detail
                assert seen.incarnation == before.incarnation
                assert seen.sealed_epoch == before.sealed_epoch
        await stage.until(C, lambda seen: seen.state is ServerState.RUNNING)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_a_hung_server_can_be_killed(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        async with stage.frozen(C), asyncio.timeout(10):
            await stage[C].kill()
        assert (await stage.seen(C)).state is ServerState.STOPPED

    run(scene)


def test_an_agent_that_starts_finds_the_server_of_the_one_before_it(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        before, pid = await stage.seen(B), stage.harness.pid(B)
        assert await stage.new_agent(B)
        seen = await stage.seen(B)
        assert stage.harness.pid(B) == pid
        for name in ("state", "incarnation", "sealed_epoch", "following_epoch", "starts"):
            assert getattr(seen, name) == getattr(before, name), name
        assert seen.replication.acknowledges, "it surely does"
        assert await stage[B].attach(), "called again"
        await stage.write(A)
        await stage.equal(A, B, C)

        assert await stage.new_agent(A)
        guardian = stage[A].guardian
        assert guardian is not None
        await guardian.close(stage.epoch)  # It has said hello: the guard obeys it.
        assert not (await stage.seen(A)).is_read_only, "the doors are as they were"
        assert (await stage.seen(A)).sending.acks == 1

        await stage[C].kill()
        assert not await stage.new_agent(C)
        assert (await stage.seen(C)).state is ServerState.STOPPED

    run(scene)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.2])
def test_a_start_that_was_cancelled_is_called_again(run: Run, after_s: float) -> None:
    async def scene(stage: Stage) -> None:
        await stage.harness.wipe(D)
        await stage.harness.make(D)
        await cancelled(lambda: stage[D].start(as_primary=False), after_s)
        await stage[D].start(as_primary=False)
        assert (await stage.seen(D)).state is ServerState.RUNNING
        await cancelled(stage[D].kill, after_s / 10)
        await stage[D].kill()
        assert (await stage.seen(D)).state is ServerState.STOPPED

    run(scene)


def test_a_source_whose_commits_wait_is_killed_by_a_stop(run: Run) -> None:
    """A clean stop would commit what nobody acknowledged, or tell the client so."""

    async def scene(stage: Stage) -> None:
        await stage.ready()
        for node in (B, C):
            await stage[A].exclude(node)
        async with stage.writing(A) as (_, answer):
            await stage[A].stop()
            assert (await stage.seen(A)).state is ServerState.STOPPED
            assert await answer is not Answer.ACKNOWLEDGED

    run(scene)


async def error_of(call: Callable[[], Awaitable[object]]) -> PrimacyError | None:
    try:
        await call()
    except PrimacyError as error:
        return error
    return None


@pytest.mark.parametrize("state", [ServerState.ABSENT, ServerState.STOPPED])
def test_what_needs_a_server_is_an_error_of_the_tree_without_one(
    run: Run, state: ServerState
) -> None:
    async def scene(stage: Stage) -> None:
        await stage.harness.wipe(D)
        if state is ServerState.STOPPED:
            await stage.harness.make(D)
        epoch, engine = Epoch(stage.epoch + 1), stage[D]
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "follow": lambda: engine.follow(A, epoch, acknowledge=True),
            "drain": engine.drain,
            "begin_epoch": lambda: engine.begin_epoch(epoch, D),
            "set_acks": lambda: engine.set_acks(1),
            "open_doors": engine.open_doors,
            "close_doors": engine.close_doors,
            "write_marker": engine.write_marker,
            "exclude": lambda: engine.exclude(B),
            "admit": lambda: engine.admit(B),
            "demote": engine.demote,
            "beat": engine.beat,
        }
        found = {name: await error_of(call) for name, call in calls.items()}
        assert [name for name, error in found.items() if error is None] == []
        assert (await stage.seen(D)).state is state

    run(scene)
