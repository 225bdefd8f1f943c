"""What was received is never lost: sealing, draining, salvaging, following, cloning."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.integration.mariadb.conftest import A, B, C, Node, Trio, run

from primacy.engines.api import Branch, Progress, ServerState
from primacy.engines.mariadb.connection import rows
from primacy.engines.mariadb.logs import relay_logs
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import Epoch, Position


@asynccontextmanager
async def blocked_applier(node: Node) -> AsyncIterator[None]:
    """A lock on the table that the next transaction changes; it ends with its connection."""
    holder = node.session()
    await holder.run(lambda c: rows(c, "LOCK TABLES shop.t WRITE"), within_s=10)
    try:
        yield
    finally:
        holder.reset()


async def write(node: Node, *ids: int) -> None:
    for number in ids:
        await node.app(f"INSERT INTO shop.t VALUES ({number}, {number})")


COUNT = "SELECT COUNT(*) FROM shop.t"


def test_a_replica_follows_and_shows_it(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await write(trio[A], 1, 2, 3)
            await trio.caught_up(A, B, C)
            seen = await trio[B].engine.observe()
            assert seen.replication.upstream == A
            assert seen.replication.is_receiving
            assert seen.replication.is_applying
            assert seen.replication.acknowledges
            assert seen.following_epoch == seen.sealed_epoch == 1
            assert seen.is_read_only
            source = await trio[A].engine.observe()
            assert source.sending.receivers == {B, C}
            assert source.sending.acknowledging_count == 2
            assert await trio[C].number(COUNT) == 3

    run(story())


def test_a_seal_keeps_what_is_received_and_not_applied(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await write(trio[A], 1)
            await trio.caught_up(A, B)
            async with blocked_applier(trio[B]):
                await write(trio[A], 2, 3)
                end = (await trio[A].engine.observe()).received
                await trio[B].until(lambda seen: seen.received >= end)
                await trio[A].engine.kill()
                sealed = await trio[B].engine.seal(Epoch(2))
                assert sealed.received == end
                assert sealed.applied < end
                assert not sealed.replication.is_receiving
            await trio[B].engine.drain()
            assert await trio[B].number(COUNT) == 3

    run(story())


def test_a_seal_sees_the_epoch_of_a_row_that_is_not_applied(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio.caught_up(A, B, C)
            async with blocked_applier(trio[C]):
                await write(trio[A], 1)
                last = (await trio[A].engine.observe()).received
                await trio[C].until(lambda seen: seen.received >= last)
                # The same log goes on with the row of a later epoch.
                first = await trio[A].engine.begin_epoch(Epoch(2), A)
                await trio[C].until(lambda seen: seen.received.sequence >= first)
                sealed = await trio[C].engine.seal(Epoch(3))
                assert sealed.received == Position(Epoch(2), first)
                assert sealed.applied.epoch == 1

    run(story())


def test_a_replica_that_crashed_salvages_its_relay_log(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await write(trio[A], 1)
            await trio.caught_up(A, B)
            async with blocked_applier(trio[B]):
                await write(trio[A], 2, 3)
                end = (await trio[A].engine.observe()).received
                await trio[B].until(lambda seen: seen.received >= end)
                await trio[A].engine.kill()
                trio[B].signal_server(signal.SIGKILL)
                await trio[B].until(lambda seen: seen.state is ServerState.STOPPED)
            sealed = await trio[B].engine.seal(Epoch(2))
            assert sealed.received == sealed.applied == end
            assert await trio[B].number(COUNT) == 3
            assert await trio[B].engine.begin_epoch(Epoch(2), B) == end.sequence + 1

    run(story())


def test_a_started_replica_says_that_it_needs_a_salvage(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            async with blocked_applier(trio[B]):
                await write(trio[A], 1)
                end = (await trio[A].engine.observe()).received
                await trio[B].until(lambda seen: seen.received >= end)
                await trio[B].engine.kill()
            await trio[B].engine.start(as_primary=True)
            assert (await trio[B].engine.observe()).needs_salvage
            await trio[B].engine.salvage()
            seen = await trio[B].engine.observe()
            assert not seen.needs_salvage
            assert seen.applied == end
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await write(trio[A], 2)
            await trio.caught_up(A, B)
            assert await trio[B].number(COUNT) == 2

    run(story())


def test_a_relay_log_that_cannot_be_applied_says_all_the_same_how_far_it_goes(trio: Trio) -> None:
    """Others may hold as much: they must know, or nobody can lead while this node cannot."""

    async def story() -> None:
        async with trio:
            await trio.up()
            await write(trio[A], 1)
            await trio.caught_up(A, B)
            applied = (await trio[B].engine.observe()).applied
            await trio[B].sql("SET STATEMENT sql_log_bin = 0 FOR INSERT INTO shop.t VALUES (2, 0)")
            async with blocked_applier(trio[B]):
                await write(trio[A], 2, 3)
                end = (await trio[A].engine.observe()).received
                await trio[B].until(lambda seen: seen.received >= end)
                await trio[B].engine.kill()
            sealed = await trio[B].engine.seal(Epoch(2))
            seen = await trio[B].engine.observe()
            for each in (sealed, seen):
                assert (each.received, each.applied) == (end, applied)
                assert each.needs_salvage
                assert "cannot be replayed" in (each.replication.error or "")
            await trio[B].sql("SET STATEMENT sql_log_bin = 0 FOR DELETE FROM shop.t WHERE id = 2")
            await trio[B].engine.salvage()
            seen = await trio[B].engine.observe()
            assert seen.received == seen.applied == end
            assert seen.replication.error is None

    run(story())


def test_a_relay_log_with_a_torn_end_is_salvaged_up_to_it(trio: Trio) -> None:
    """As a disk that is full leaves it: nobody has acknowledged half an event."""

    async def story() -> None:
        async with trio:
            await trio.up()
            await write(trio[A], 1)
            await trio.caught_up(A, B)
            async with blocked_applier(trio[B]):
                await write(trio[A], 2, 3)
                end = (await trio[A].engine.observe()).received
                await trio[B].until(lambda seen: seen.received >= end)
                await trio[B].engine.kill()
            newest = relay_logs(trio[B].settings.layout.data)[-1]
            os.truncate(newest, newest.stat().st_size - 7)
            await trio[B].engine.start(as_primary=True)
            await trio[B].engine.salvage()
            assert await trio[B].number(COUNT) == 2
            assert (await trio[B].engine.observe()).applied.sequence == end.sequence - 1
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio.caught_up(A, B)
            assert await trio[B].number(COUNT) == 3

    run(story())


def test_a_frozen_replica_seals_after_all(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await write(trio[A], 1)
            await trio.caught_up(A, B)
            trio[B].signal_server(signal.SIGSTOP)
            sealed = await trio[B].engine.seal(Epoch(2))
            assert sealed.received == (await trio[A].engine.observe()).received

    run(story())


def test_a_sealed_node_refuses_the_old_primary(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[B].engine.seal(Epoch(2))
            trio[B].restart_agent()
            await trio[B].engine.attach()
            with pytest.raises(Conflict):
                await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            seen = await trio[B].engine.observe()
            assert not seen.replication.is_receiving
            assert seen.sealed_epoch == 2
            with pytest.raises(Conflict):
                await trio[B].engine.seal(Epoch(1))

    run(story())


def test_acknowledging_switches_without_losing_the_relay_log(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            async with blocked_applier(trio[B]):
                await write(trio[A], 1, 2)
                end = (await trio[A].engine.observe()).received
                await trio[B].until(lambda seen: seen.received >= end)
                await trio[B].engine.follow(A, Epoch(1), acknowledge=False)
                seen = await trio[B].until(lambda seen: seen.replication.is_receiving)
                assert not seen.replication.acknowledges
                assert seen.received == end
            await trio.caught_up(A, B)
            assert await trio[B].number(COUNT) == 2
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio[A].until(lambda seen: seen.sending.acknowledging_count == 2)

    run(story())


async def end_of(node: Node) -> int:
    return (await node.engine.observe()).received.sequence


def test_a_clone_follows_where_its_donor_stood(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A, B)
            first = await trio.lead(A, 1, B)
            await trio[A].sql("CREATE USER app@'%' IDENTIFIED BY 'app'")
            await trio[A].sql("CREATE DATABASE shop")
            await trio[A].sql("GRANT ALL ON shop.* TO app@'%'")
            await trio[A].sql("CREATE TABLE shop.t (id BIGINT PRIMARY KEY, v INT) ENGINE=InnoDB")
            await write(trio[A], *range(20))
            shown: list[Progress] = []
            async with trio[A].engine.serve():
                await trio[C].engine.clone(A, shown.append)
            assert shown[-1].label == "preparing"
            assert max(each.done_bytes for each in shown) > 0
            seen = await trio[C].engine.observe()
            assert seen.state is ServerState.STOPPED
            assert seen.received.sequence > 0
            assert seen.incarnation not in (None, (await trio[A].engine.observe()).incarnation)
            await trio[C].engine.start(as_primary=True)
            await trio[C].engine.follow(A, Epoch(1), acknowledge=True)
            await write(trio[A], 100)
            await trio.caught_up(A, C)
            assert await trio[C].number(COUNT) == 21
            # Its log begins after the epoch's row, and is a part of the history all the same.
            await trio[C].engine.stop()
            branch = Branch(epoch=Epoch(1), node=A, first_sequence=first)
            assert (await trio[C].engine.save_diverged([branch])).count == 0
            later = Branch(epoch=Epoch(2), node=B, first_sequence=await end_of(trio[A]))
            assert (await trio[C].engine.save_diverged([branch, later])).count == 1
            await trio[C].engine.start(as_primary=True)
            await trio[C].engine.follow(A, Epoch(1), acknowledge=True)
            await trio.caught_up(A, C)
            # And it can lead.
            await trio[A].engine.kill()
            await trio.lead(C, 2, B)
            await write(trio[C], 200)
            await trio.caught_up(C, B)
            assert await trio[B].number(COUNT) == 22

    run(story())


def test_a_clone_over_old_data_keeps_them_until_told(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            before = (await trio[C].engine.observe()).incarnation
            async with trio[A].engine.serve():
                await trio[C].engine.clone(A, lambda _: None)
            seen = await trio[C].engine.observe()
            assert seen.has_old_data
            assert seen.incarnation != before
            assert seen.sealed_epoch == 1
            await trio[C].engine.forget_old_data()
            assert not (await trio[C].engine.observe()).has_old_data

    run(story())


def test_a_cancelled_clone_leaves_the_old_data(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            before = await trio[C].engine.observe()
            reached = asyncio.Event()
            async with trio[A].engine.serve(), asyncio.TaskGroup() as tasks:
                cloning = tasks.create_task(trio[C].engine.clone(A, lambda _: reached.set()))
                await reached.wait()
                cloning.cancel()
            seen = await trio[C].engine.observe()
            assert seen.state is ServerState.RUNNING
            assert seen.incarnation == before.incarnation

    run(story())


def test_a_clone_of_a_donor_that_is_down_fails_and_changes_nothing(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].engine.kill()
            before = await trio[C].engine.observe()
            async with trio[A].engine.serve():
                with pytest.raises(Unavailable, match="backup on a failed"):
                    await trio[C].engine.clone(A, lambda _: None)
            with pytest.raises(Unavailable, match="does not answer"):
                await trio[C].engine.clone(B, lambda _: None)
            seen = await trio[C].engine.observe()
            assert seen.incarnation == before.incarnation

    run(story())


def test_a_clone_door_gives_nothing_to_a_stranger(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            trio.make(A)
            await trio[A].engine.start(as_primary=True)
            stranger = Trio(trio[B].settings.state_dir / "x", trio[B].settings.state_dir)[B]
            settings = trio[B].settings
            object.__setattr__(stranger.settings, "clone_doors", settings.clone_doors)
            object.__setattr__(stranger.settings, "cluster_secret", b"another")
            async with trio[A].engine.serve():
                with pytest.raises((Unavailable, Rejected)):
                    await stranger.engine.clone(A, lambda _: None)
            assert not stranger.settings.layout.data.exists()

    run(story())
