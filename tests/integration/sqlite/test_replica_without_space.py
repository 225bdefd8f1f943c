"""A replica that cannot apply for lack of space: it says so, waits, and goes on by itself."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.sqlite.test_roles import Trio, count, damage, trio, until

import primacy
import primacy.driver as db
from primacy.cli.demo_disks import SmallDisk, why_no_disk
from primacy.clock import SystemClock
from primacy.engines.sqlite.server.replica import Replica
from primacy.engines.sqlite.storage.applier import Applier
from primacy.errors import Conflict
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.messages import Refusal
from primacy.replication.pull.receiving import ReceiverState

pytestmark = pytest.mark.integration

WHY_NO_DISK = why_no_disk(bears_room=False)


def replica_of(nodes: Trio, name: str) -> Replica:
    replica = nodes.servers[name].roles.replica
    assert replica is not None
    return replica


async def limit_pages(replica: Replica, pages: int) -> None:
    """SQLite says "database or disk is full" above so many, as on a disk without space."""

    def work(applier: Applier) -> None:
        applier._connection.pragma("max_page_count", pages)  # noqa: SLF001 - the limit is its own.

    applier, thread = replica._applier, replica._thread  # noqa: SLF001 - it is used there only.
    assert applier is not None
    await asyncio.get_running_loop().run_in_executor(thread, work, applier)


def test_a_replica_without_space_waits_unacknowledging_and_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x)")
            await count(nodes.url_of("b"), writer.token)
            b = replica_of(nodes, "b")
            await limit_pages(b, 1)  # As many as it has: no more.
            await writer.execute("INSERT INTO t VALUES (1, zeroblob(100000))")
            await until(lambda: b.trouble)
            assert "full" in b.trouble
            assert not b.must_clone
            assert b.staleness_s() is None
            assert not b.receiver.status.acknowledges
            assert b.acknowledges  # It will by itself: nobody may take it for silent.
            await nodes.follow("b", "a", 1)  # As an agent does that is not told yet.
            b.acknowledge(wanted=True)
            assert not b.receiver.status.acknowledges
            await writer.execute("INSERT INTO t VALUES (2, 'c acknowledges')")
            await limit_pages(b, 1 << 30)
            await until(lambda: not b.trouble)
            assert b.receiver.status.acknowledges
            assert await count(nodes.url_of("b"), writer.token) == 2
            b.acknowledge(wanted=False)
            assert not b.acknowledges
            b.acknowledge(wanted=True)
            await nodes.servers["c"].roles.rest()
            await writer.execute("INSERT INTO t VALUES (3, 'b acknowledges')")
            await writer.close()

    asyncio.run(work())


def test_while_it_waits_its_acknowledgement_is_missed(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x)")
            b = replica_of(nodes, "b")
            await until(lambda: b.applied == nodes.servers["b"].roles.log.durable)
            await limit_pages(b, 1)
            await writer.execute("INSERT INTO t VALUES (1, zeroblob(100000))")  # c has that.
            await until(lambda: b.trouble)
            nodes.servers["a"].roles.require(Requirement(acks=2))
            impatient = await primacy.connect_async(nodes.url, isolation_level=None, timeout_s=1)
            with pytest.raises(db.OutcomeUnknown):
                await impatient.execute("INSERT INTO t VALUES (2, 'nobody is told')")
            await impatient.close()
            await limit_pages(b, 1 << 30)
            assert await count(nodes.url_of("b"), "") <= 1
            await until(lambda: not b.trouble and b.applied.index == 4)
            await until(lambda: nodes.servers["a"].roles.log.durable.index == 4)
            assert await count(nodes.url_of("a"), "a@1:4") == 2
            await writer.close()

    asyncio.run(work())


def test_a_copy_that_is_of_no_use_follows_nobody_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            await count(nodes.url_of("b"), writer.token)
            damage(nodes.servers["b"].spec.database_path)
            await writer.execute("INSERT INTO t VALUES (1)")
            b = replica_of(nodes, "b")
            await until(lambda: b.must_clone)
            await until(lambda: b.receiver.status.state is ReceiverState.STOPPED)
            with pytest.raises(Conflict, match="applies nothing more"):
                await nodes.follow("b", "a", 1)
            assert not b.receiver.status.acknowledges
            await writer.close()

    asyncio.run(work())


@pytest.mark.skipif(WHY_NO_DISK != "", reason=f"no disk can be mounted: {WHY_NO_DISK}")
def test_a_replica_on_a_full_disk_loses_nothing_and_catches_up_when_there_is_space(
    tmp_path: Path,
) -> None:
    """Its log finds no space, or its database: whichever is first."""
    (tmp_path / "b").mkdir()
    disk = SmallDisk(tmp_path / "b", SystemClock())

    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x)")
            await count(nodes.url_of("b"), writer.token)
            b = replica_of(nodes, "b")
            await disk.fill()
            for number in range(40):
                await writer.execute("INSERT INTO t VALUES (?, randomblob(20000))", (number,))

            def is_told() -> bool:
                return b.trouble != "" or b.receiver.status.refusal is Refusal.DISK

            await until(is_told)
            assert not b.must_clone
            assert b.staleness_s() is None
            disk.free()
            assert await count(nodes.url_of("b"), writer.token) == 40
            await until(lambda: b.receiver.status.acknowledges and not b.trouble)
            assert not nodes.servers["b"].ended.is_set()
            await writer.close()

    try:
        asyncio.run(work())
    finally:
        disk.close(is_kept=False)
