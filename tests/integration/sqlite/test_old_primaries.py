"""Old primaries come back, with real servers: what they alone have is saved, then cut, taken back
or replaced by a copy; and all nodes are equal."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.sqlite.trio import NODES, A, B, C, Trio, run
from tests.unit.engines.sqlite.storage.pair import contents_of

from primacy.engines.api import Diverged, Progress, ServerState
from primacy.engines.notes import NOTE_NAME
from primacy.errors import Conflict
from primacy.model import ORIGIN, Epoch, NodeId
from primacy.replication.log import inspecting

pytestmark = pytest.mark.integration


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return Trio(tmp_path)


async def die_alone(trio: Trio, *sql: str, acks: int) -> None:
    """a has what nobody else has, and is killed; b leads epoch 2, and c follows."""
    await trio.up(acks=1)
    for number in range(5):
        await trio[A].write("INSERT INTO t VALUES (?)", number)
    await trio.caught_up(A, B, C)
    leader = trio[A].engine
    for node in (B, C):
        await leader.exclude(node)
    await leader.set_acks(acks, may_release=True)
    for each in sql:
        await trio[A].tried(each, within_s=0.5)
    trio[A].signal_server(signal.SIGKILL)
    await trio[A].until(lambda seen: seen.state is ServerState.STOPPED)
    await trio.lead(B, 2, C)
    await trio[B].write("INSERT INTO t VALUES (100)")


async def come_back(trio: Trio, count: int) -> Diverged:
    """What is saved, and the server started again."""
    engine = trio[A].engine
    found = await engine.save_diverged(trio.branches)
    assert found.count - found.own_count == count
    assert await engine.save_diverged(trio.branches) == found
    await engine.start(as_primary=False)
    return found


@asynccontextmanager
async def writing(trio: Trio) -> AsyncIterator[None]:
    """A client of the primary goes on inside."""
    is_over = asyncio.Event()

    async def write() -> None:
        connection = await trio[B].connect()
        number = 1000
        while not is_over.is_set():
            await connection.execute("INSERT INTO t VALUES (?)", (number,))
            number += 1
        await connection.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        try:
            yield
        finally:
            is_over.set()


async def are_equal(trio: Trio) -> None:
    """All nodes, when everything is applied and nobody writes."""
    await trio[B].write("INSERT INTO t VALUES (101)")
    await trio.caught_up(B, A, C)
    for node in NODES:
        await trio[node].engine.kill()
    first, *others = [contents_of(trio[node].settings.layout.data / "db.sqlite") for node in NODES]
    assert all(each == first for each in others)
    ends = {inspecting.opened(trio[node].settings.layout.data / "log").end for node in NODES}
    assert len(ends) == 1


def test_what_was_never_applied_is_saved_and_cut(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await die_alone(trio, "INSERT INTO t VALUES (50)", acks=1)
            found = await come_back(trio, 1)
            assert "VALUES(50)" in Path(found.path).read_text()
            seen = await trio[A].engine.observe()
            assert seen.is_cut
            assert seen.received.sequence == found.parts_at - 1
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            await are_equal(trio)

    run(story())


LOST = (
    "INSERT INTO t VALUES (50)",
    "UPDATE t SET id = 60 WHERE id = 3",
    "DELETE FROM t WHERE id = 1",
)


async def rejoin(trio: Trio, found: Diverged) -> None:
    """Of a node that has applied it: the log is no prefix, and what is applied was not cut."""
    engine = trio[A].engine
    seen = await engine.observe()
    assert seen.applied.sequence >= found.parts_at
    with pytest.raises(Conflict):
        await engine.follow(B, Epoch(2), acknowledge=False)
    await trio[A].until(lambda seen: seen.replication.is_diverged)


def test_what_was_applied_is_taken_back_and_compared(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[B].engine.serve())
            await die_alone(trio, *LOST, acks=0)
            found = await come_back(trio, len(LOST))
            await rejoin(trio, found)
            assert found.is_reversible
            incarnation = (await trio[A].engine.observe()).incarnation
            async with writing(trio):  # The primary goes on while it is compared with.
                await trio[A].engine.rewind(found, B, Epoch(2))
            seen = await trio[A].engine.observe()
            assert (seen.is_torn, seen.is_cut, seen.incarnation) == (False, True, incarnation)
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            await are_equal(trio)

    run(story())


def test_a_rewind_that_does_not_end_is_visible_and_the_node_is_cloned(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await die_alone(trio, *LOST, acks=0)
            found = await come_back(trio, len(LOST))
            with pytest.raises(Exception, match="does not answer"):  # No door at the primary.
                await trio[A].engine.rewind(found, B, Epoch(2))
            trio[A].restart_agent()
            await trio[A].engine.attach()
            assert (await trio[A].engine.observe()).is_torn
            with pytest.raises(Conflict, match="has not ended"):
                await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            await doors.enter_async_context(trio[B].engine.serve())
            await copy(trio, B)
            await are_equal(trio)

    run(story())


def test_what_has_no_reverse_is_replaced_by_a_copy(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[C].engine.serve())
            await die_alone(trio, "CREATE TABLE u (x)", acks=0)
            found = await come_back(trio, 1)
            await rejoin(trio, found)
            assert "no inverse" in found.obstacle
            with pytest.raises(Conflict, match="no inverse"):
                await trio[A].engine.rewind(found, B, Epoch(2))
            assert not (await trio[A].engine.observe()).is_torn
            await trio.caught_up(B, C)
            await copy(trio, C)
            await are_equal(trio)

    run(story())


async def copy(trio: Trio, donor: NodeId) -> None:
    """As the brain does it: a new life of the node, its old data aside until it is well."""
    engine = trio[A].engine
    before = (await engine.observe()).incarnation
    note = trio[A].settings.layout.notes / NOTE_NAME
    noted = note.read_bytes()
    steps: list[Progress] = []
    await engine.clone(donor, steps.append)
    seen = await engine.observe()
    note.write_bytes(noted)  # As where the agent dies before it has noted the new life.
    trio[A].restart_agent()
    engine = trio[A].engine
    await engine.attach()
    assert (await engine.observe()).received == seen.received > ORIGIN
    assert seen.state is ServerState.STOPPED
    assert seen.incarnation not in (None, before)
    assert (seen.is_torn, seen.has_old_data) == (False, True)
    assert steps[-1].done_bytes == steps[-1].total_bytes > 0
    assert (await engine.save_diverged(trio.branches)).count == 0
    await engine.start(as_primary=True)
    await engine.follow(B, Epoch(2), acknowledge=True)
    await trio[A].until(lambda seen: seen.replication.is_receiving)
    await engine.forget_old_data()
    assert not (await engine.observe()).has_old_data


def test_a_node_is_cloned_while_clients_go_on_writing(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[B].engine.serve())
            await die_alone(trio, acks=0)
            async with writing(trio):
                await copy(trio, B)
            await are_equal(trio)

    run(story())
