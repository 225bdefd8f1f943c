"""Who acknowledges, as the servers themselves show it: switched on, cut off, uninvited."""

import asyncio
import signal

import msgspec
import pytest
from tests.integration.mariadb.conftest import A, B, C, Trio, run

from primacy.engines.notes import NoteFile
from primacy.errors import Unavailable
from primacy.model import Epoch, NodeId, Position


def insert(number: int) -> str:
    return f"INSERT INTO shop.t VALUES ({number}, {number})"


def test_a_member_that_is_locked_out_is_not_silent_before_its_switch_is_off(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].engine.exclude(C)
            seen = await trio[C].until(lambda seen: not seen.replication.is_receiving)
            assert seen.replication.acknowledges, "it would, as soon as it is let in"
            await trio[C].engine.follow(A, Epoch(1), acknowledge=False)
            assert not (await trio[C].engine.observe()).replication.acknowledges
            await trio[A].engine.admit(C)
            seen = await trio[A].until(lambda seen: seen.sending.receivers == {B, C})
            assert seen.sending.acknowledging_count == 1

    run(story())


def test_a_switch_that_was_turned_behind_the_agents_back_is_seen_and_turned_again(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[C].engine.follow(A, Epoch(1), acknowledge=False)
            await trio[C].sql("SET GLOBAL rpl_semi_sync_slave_enabled = 1")
            assert (await trio[C].engine.observe()).replication.acknowledges
            await trio[C].engine.follow(A, Epoch(1), acknowledge=False)
            assert not (await trio[C].engine.observe()).replication.acknowledges
            seen = await trio[A].until(lambda seen: seen.sending.acknowledging_count == 1)
            assert seen.sending.strangers == frozenset()

    run(story())


def test_commits_go_on_when_acknowledgements_are_asked_for_after_the_members_came_in(
    trio: Trio,
) -> None:
    """The way back from k = 0: members first, then k, under a writer that never stops."""

    async def story() -> None:
        async with trio:
            await trio.up(acks=0)
            written, is_over = 0, asyncio.Event()

            async def write() -> None:
                nonlocal written
                while not is_over.is_set():
                    written += 1
                    await trio[A].app(insert(written), within_s=5)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(write())
                for _ in range(3):
                    for node in (B, C):
                        await trio[node].engine.follow(A, Epoch(1), acknowledge=True)
                    await trio[A].until(lambda seen: seen.sending.acknowledging_count == 2)
                    await trio[A].engine.set_acks(1)
                    before = written
                    async with asyncio.timeout(10):
                        while written < before + 5:
                            await asyncio.sleep(0.01)
                    for node in (B, C):
                        await trio[node].engine.follow(A, Epoch(1), acknowledge=False)
                    await trio[A].engine.set_acks(0, may_release=True)
                is_over.set()
            await trio.caught_up(A, B, C)
            assert await trio[B].number("SELECT COUNT(*) FROM shop.t") == written

    run(story())


async def grant(trio: Trio, stray: NodeId) -> None:
    await trio[A].sql(f"CREATE USER stray_{stray}@'%' IDENTIFIED BY 'stray'")
    await trio[A].sql(f"GRANT REPLICATION SLAVE ON *.* TO stray_{stray}@'%'")


async def attach(trio: Trio, stray: NodeId, *, acknowledges: bool) -> None:
    """`stray` reads a's log as `stray_NODE`; cut off, it tries again each second, for ever."""
    account, where = f"stray_{stray}", trio[A].settings.peers[A]
    await trio[stray].sql(f"SET GLOBAL rpl_semi_sync_slave_enabled = {int(acknowledges)}")
    await trio[stray].sql(
        f"CHANGE MASTER TO MASTER_HOST = '{where.host}', MASTER_PORT = {where.port},"
        f" MASTER_USER = '{account}', MASTER_PASSWORD = 'stray', MASTER_CONNECT_RETRY = 1"
    )
    await trio[stray].sql("START SLAVE")
    await trio[A].until(lambda seen: account in seen.sending.strangers)


def test_a_stranger_that_was_cut_acknowledges_nothing_more_however_often_it_comes_back(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio:
            await trio.start()
            await trio.lead(A, 1, B)
            await trio[A].sql("CREATE TABLE primacy.t (id INT PRIMARY KEY)")
            await grant(trio, C)
            await attach(trio, C, acknowledges=True)
            seen = await trio[A].until(lambda seen: seen.sending.acknowledging_count == 2)
            assert seen.sending.strangers == {"stray_c"}
            assert seen.sending.receivers == {B}
            assert dict(seen.sending.connections) == {B: 1}
            assert await trio[A].engine.cut_strangers({"stray_c"}) == {"stray_c"}

            trio[B].signal_server(signal.SIGSTOP)
            async with asyncio.TaskGroup() as tasks:
                write = "INSERT INTO primacy.t VALUES (1)"
                writing = tasks.create_task(trio[A].sql(write, within_s=40.0))
                await trio[A].until(lambda seen: seen.sending.waiting_commits == 1)
                refused = await refused_count(trio)
                async with asyncio.timeout(20):
                    while await refused_count(trio) < refused + 20:
                        for order in ("STOP", "START"):  # A tight loop of attempts.
                            await trio[C].sql(f"{order} SLAVE IO_THREAD")
                assert not writing.done(), "nobody else may release it"
                seen = await trio[A].engine.observe()
                assert (seen.sending.waiting_commits, seen.sending.strangers) == (1, frozenset())
                trio[B].signal_server(signal.SIGCONT)

    run(story())


async def refused_count(trio: Trio) -> int:
    """How many connections a's server has refused."""
    found = await trio[A].sql("SHOW GLOBAL STATUS LIKE 'Aborted_connects'")
    return int(str(found[0]["Value"]))


def test_of_two_strangers_the_one_that_only_reads_is_let_in_again(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start()
            await trio.lead(A, 1, acks=0)
            await grant(trio, B)
            await grant(trio, C)
            await trio[A].engine.set_acks(1)
            await attach(trio, B, acknowledges=False)
            await attach(trio, C, acknowledges=True)
            await trio[A].until(lambda seen: seen.sending.acknowledging_count == 1)
            assert await trio[A].engine.cut_strangers({"stray_b", "stray_c"}) == {"stray_c"}
            seen = await trio[A].until(lambda seen: seen.sending.strangers == {"stray_b"})
            assert seen.sending.acknowledging_count == 0

    run(story())


def test_what_was_published_binds_until_it_is_there_again_or_no_history_reaches_it(
    trio: Trio,
) -> None:
    """A member that lost the end of its relay log has acknowledged it: it must not seal below."""

    def publish(position: Position) -> None:
        notes = NoteFile(trio[C].settings.layout.notes)
        notes.save(msgspec.structs.replace(notes.notes, published=position))
        trio[C].restart_agent()

    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].engine.exclude(C)
            for number in range(1, 6):
                await trio[A].app(insert(number))
            end = (await trio[A].engine.observe()).received
            await trio[C].engine.kill()
            publish(end)
            assert not await trio[C].engine.attach()
            await trio[C].engine.start(as_primary=True)
            with pytest.raises(Unavailable, match="published up to"):
                await trio[C].engine.seal(Epoch(1))
            await trio[A].engine.admit(C)
            await trio[C].engine.follow(A, Epoch(1), acknowledge=False)
            await trio.caught_up(A, C)
            assert (await trio[C].engine.seal(Epoch(2))).received >= end

            await trio[C].engine.kill()
            publish(Position(Epoch(1), end.sequence + 50))
            assert not await trio[C].engine.attach()
            await trio[C].engine.start(as_primary=True)
            await trio[C].engine.follow(A, Epoch(2), acknowledge=False)
            await trio.caught_up(A, C)
            assert (await trio[C].engine.seal(Epoch(3))).received >= end

    run(story())
