"""The SQLite engine with real servers under their guards: made, led, followed, failed over."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.runtime.test_launcher import launcher
from tests.integration.sqlite.trio import A, B, C, Trio, run

import primacy.driver as db
from primacy.clock import SystemClock
from primacy.engines.api import ServerState
from primacy.engines.sqlite.files import log_end
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import ORIGIN, Epoch, Position

pytestmark = pytest.mark.integration


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return Trio(tmp_path)


def test_a_server_is_made_started_attached_to_by_the_next_agent_and_stopped(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            node = trio[A]
            assert (await node.engine.observe()).state is ServerState.ABSENT
            await node.engine.initialise()
            made = await node.engine.observe()
            assert made.state is ServerState.STOPPED
            await node.engine.start(as_primary=False)
            seen = await node.engine.observe()
            assert (seen.state, seen.is_read_only) == (ServerState.RUNNING, True)
            assert seen.received == seen.applied == ORIGIN
            assert seen.incarnation == made.incarnation
            await node.engine.seal(Epoch(7))
            pid = node.pid
            node.restart_agent()
            assert await node.engine.attach()
            seen = await node.engine.observe()
            assert (seen.state, seen.sealed_epoch, seen.starts) == (ServerState.RUNNING, 7, 1)
            assert node.pid == pid
            await node.engine.stop()
            assert (await node.engine.observe()).state is ServerState.STOPPED
            assert node.engine.guardian is None
            await node.engine.start(as_primary=True)
            assert (await node.engine.observe()).starts == 2

    run(story())


def test_a_server_that_cannot_start_says_why(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            door = trio[A].settings.doors[A]
            await trio[A].engine.initialise()
            blocker = await asyncio.start_server(lambda _r, w: w.close(), door.host, door.port)
            async with blocker:
                with pytest.raises(Rejected, match="cannot listen"):
                    await trio[A].engine.start(as_primary=False)

    run(story())


def test_foreign_data_are_not_touched(trio: Trio) -> None:
    async def story() -> None:
        data = trio[A].settings.layout.data
        data.mkdir(parents=True)
        (data / "db.sqlite").write_bytes(b"somebody else's")
        engine = trio[A].engine
        assert (await engine.observe()).state is ServerState.FOREIGN
        with pytest.raises(Rejected):
            await engine.initialise()
        with pytest.raises(Conflict):
            await engine.start(as_primary=False)
        assert [each.name for each in data.iterdir()] == ["db.sqlite"]

    run(story())


def test_an_answered_write_survives_its_primary_and_the_old_one_rejoins(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            token = await trio[A].write("INSERT INTO t VALUES (1)")
            seen = await trio[A].engine.observe()
            assert not seen.is_read_only
            assert seen.sending.receivers == {B, C}
            assert (seen.sending.acks, seen.sending.acknowledging_count) == (1, 2)
            for node in (A, B, C):
                assert await trio[node].count(token=token) == 1
            trio[A].signal_server(signal.SIGKILL)
            await trio[A].until(lambda seen: seen.state is ServerState.STOPPED)

            sealed = {node: await trio[node].engine.seal(Epoch(2)) for node in (B, C)}
            new = max(sealed, key=lambda node: sealed[node].received)
            (other,) = {B, C} - {new}
            await trio.open(new, 2, other)
            token = await trio[new].write("INSERT INTO t VALUES (2)")

            found = await trio[A].engine.save_diverged(trio.branches)
            assert found.count == 0
            await trio[A].engine.start(as_primary=True)
            await trio[A].engine.follow(new, Epoch(2), acknowledge=True)
            assert await trio[A].count(token=token) == 2
            rejoined = await trio[A].until(lambda seen: seen.replication.is_receiving)
            assert rejoined.replication.upstream == new
            assert rejoined.replication.acknowledges
            assert rejoined.replication.error is None

    run(story())


def test_a_tail_that_nobody_acknowledged_is_counted_and_cut_before_the_old_primary_rejoins(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio:
            await trio.up(acks=2)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            error = await trio[A].tried("INSERT INTO t VALUES (1)", within_s=0.5)
            assert isinstance(error, db.OutcomeUnknown)
            waiting = await trio[A].until(lambda seen: seen.sending.waiting_commits == 1)
            assert waiting.sending.waits_at == waiting.received.sequence
            await trio[A].engine.kill()
            await trio.open(B, 2, C)
            token = await trio[B].write("INSERT INTO t VALUES (2)")

            found = await trio[A].engine.save_diverged(trio.branches)
            assert (found.count, found.parts_at) == (1, waiting.received.sequence)
            await trio[A].engine.start(as_primary=False)
            assert (await trio[A].engine.observe()).is_cut
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            assert await trio[A].count(token=token) == 1

    run(story())


def test_a_node_without_data_becomes_a_replica_by_a_copy_from_the_primary_or_a_replica(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio, trio[A].engine.serve(), trio[B].engine.serve():
            await trio.start(A, B)
            await trio.lead(A, 1, B)
            await trio[A].write("CREATE TABLE t (id INTEGER PRIMARY KEY)")
            token = await trio[A].write("INSERT INTO t VALUES (1)")
            lives = set()
            for donor in (A, B):
                await trio.caught_up(A, B)
                await trio[C].engine.clone(donor, lambda _: None)
                made = await trio[C].engine.observe()
                assert (made.state, made.has_old_data) == (ServerState.STOPPED, donor == B)
                lives.add(made.incarnation)
                await trio[C].engine.start(as_primary=True)
                await trio[C].engine.follow(A, Epoch(1), acknowledge=True)
                assert await trio[C].count(token=token) == 1
            assert len(lives) == 2
            await trio[C].engine.forget_old_data()
            assert not (await trio[C].engine.observe()).has_old_data
            await trio[A].engine.exclude(B)
            await trio[A].write("INSERT INTO t VALUES (2)")  # C acknowledges.

    run(story())


def test_what_only_the_old_primary_has_in_its_data_is_taken_back_row_by_row(trio: Trio) -> None:
    async def story() -> None:
        async with trio, trio[B].engine.serve():
            await trio.up(acks=0)
            await trio.caught_up(A, B, C)
            for node in (B, C):
                await trio[A].engine.exclude(node)
            for number in (7, 8):
                await trio[A].write("INSERT INTO t VALUES (?)", number)
            await trio[A].engine.kill()
            await trio.lead(B, 2, C, acks=0)
            token = await trio[B].write("INSERT INTO t VALUES (1)")

            found = await trio[A].engine.save_diverged(trio.branches)
            assert (found.count, found.is_reversible) == (2, True)
            assert any("t" in each for each in found.tables)
            await trio[A].engine.start(as_primary=False)  # It is applied: nothing is cut.
            with pytest.raises(Conflict, match="no prefix of b's"):
                await trio[A].engine.follow(B, Epoch(2), acknowledge=False)
            await trio[A].engine.rewind(found, B, Epoch(2))
            seen = await trio[A].engine.observe()
            assert (seen.is_torn, seen.is_cut) == (False, True)
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            assert await trio[A].count(token=token) == 1

    run(story())


def test_a_copy_that_does_not_fit_its_log_says_so_wherever_it_is_looked_at_until_it_is_replaced(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio, trio[A].engine.serve():
            await trio.up()
            await trio.caught_up(A, B, C)
            await trio[B].engine.stop()
            with closing(sqlite3.connect(trio[B].settings.layout.data / "db.sqlite")) as others:
                others.execute("INSERT INTO t VALUES (7)")
                others.commit()
            await trio[B].engine.start(as_primary=True)
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio[A].write("INSERT INTO t VALUES (7)")
            broken = await trio[B].until(lambda seen: seen.replication.error is not None)
            assert not broken.replication.acknowledges

            sealed = await trio[B].engine.seal(Epoch(2))
            assert sealed.applied < sealed.received
            assert sealed.replication.error == broken.replication.error
            with pytest.raises(Rejected):
                await trio[B].engine.drain()
            await trio[B].engine.kill()
            assert (await trio[B].engine.observe()).replication.error is not None
            assert (await trio[B].engine.seal(Epoch(2))).replication.error is not None

            await trio[B].engine.clone(A, lambda _: None)
            assert (await trio[B].engine.observe()).replication.error is None

    run(story())


def test_a_database_that_is_damaged_leads_nothing_and_its_log_counts(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio.caught_up(A, B)
            held = (await trio[B].engine.observe()).received
            await trio[B].engine.kill()
            for name in ("db.sqlite", "db.sqlite-wal"):
                (trio[B].settings.layout.data / name).write_bytes(b"noise" * 1000)
            sealed = await trio[B].engine.seal(Epoch(2))
            assert (sealed.received, sealed.applied) == (held, ORIGIN)
            assert sealed.replication.error is not None  # So it leads nothing.
            with pytest.raises(Rejected):
                await trio[B].engine.start(as_primary=True)

    run(story())


def test_an_agent_that_died_behind_a_copy_does_not_take_it_for_blank(trio: Trio) -> None:
    async def story() -> None:
        async with trio, trio[A].engine.serve():
            await trio.start(A)
            await trio.lead(A, 1, acks=0)
            await trio[A].write("CREATE TABLE t (id)")
            node = trio[B]
            await node.engine.clone(A, lambda _: None)
            stands_at = (await node.engine.observe()).received
            assert stands_at == (await trio[A].engine.observe()).received
            notes = node.settings.layout.notes / "replication.json"
            notes.unlink()  # As of a crash before they were bound.
            node.restart_agent()
            assert not await node.engine.attach()
            assert (await node.engine.observe()).received == stands_at

    run(story())


def test_a_log_that_has_parted_is_refused_and_shown(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up(acks=2)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            await trio[A].tried("INSERT INTO t VALUES (1)", within_s=0.5)
            await trio[A].engine.kill()
            await trio.open(B, 2, C)
            await trio[A].engine.start(as_primary=True)
            with pytest.raises(Conflict, match="no prefix of b's"):
                await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            seen = await trio[A].engine.observe()
            assert seen.replication.is_diverged
            assert seen.replication.error is not None
            assert not seen.replication.acknowledges
            assert (seen.following_epoch, seen.replication.upstream) == (2, B)

    run(story())


def test_who_is_sealed_refuses_the_old_primary_and_never_goes_back(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio.caught_up(A, B, C)
            seen = await trio[B].engine.seal(Epoch(5))
            assert (seen.sealed_epoch, seen.replication.upstream) == (5, None)
            assert seen.received == (await trio[A].engine.observe()).received
            with pytest.raises(Conflict, match="is refused"):
                await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio[B].engine.kill()
            assert (await trio[B].engine.seal(Epoch(5))).received == seen.received

            await trio[B].engine.start(as_primary=True)
            await trio[B].engine.stop()
            end = await log_end(trio[B].settings)
            trio[B].engine._promises.publish(  # noqa: SLF001 - as of a disk that has lost something.
                Position(end.epoch, end.index + 1)
            )
            with pytest.raises(Unavailable, match="was published up to"):
                await trio[B].engine.seal(Epoch(6))

    run(story())


def test_a_frozen_server_is_hung_within_the_deadline_and_its_log_is_read(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio.caught_up(A, B)
            before = await trio[B].engine.observe()
            trio[B].signal_server(signal.SIGSTOP)
            async with asyncio.timeout(2 * trio[B].settings.timing.health_s):
                seen = await trio[B].engine.observe()
            assert (seen.state, seen.incarnation) == (ServerState.HUNG, before.incarnation)
            sealed = await trio[B].engine.seal(Epoch(2))
            assert (sealed.state, sealed.received) == (ServerState.STOPPED, before.received)

            trio[C].signal_server(signal.SIGSTOP)
            await trio[C].until(lambda seen: seen.state is ServerState.HUNG)
            trio[C].signal_server(signal.SIGCONT)
            await trio[C].until(lambda seen: seen.replication.is_receiving)

    run(story())


def test_a_switchover_loses_nothing_and_needs_no_restart(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].write("INSERT INTO t VALUES (1)")
            end = await trio[A].engine.close_doors()
            assert (await trio[A].engine.observe()).is_read_only
            await trio[B].until(lambda seen: seen.received.sequence >= end)
            guardian = trio[A].engine.guardian
            assert guardian is not None
            await guardian.close(Epoch(1))
            await trio[A].engine.demote()
            await trio.open(B, 2, A, C)
            assert await trio[B].write("INSERT INTO t VALUES (2)")
            assert await trio[A].count(token=await trio[B].write("INSERT INTO t VALUES (3)")) == 3
            assert (await trio[A].engine.observe()).starts == 1

    run(story())


def test_doors_open_again_in_their_epoch_and_a_closed_primary_writes_nothing(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            end = await trio[A].engine.close_doors()
            with pytest.raises(Conflict):
                await trio[A].engine.beat()
            assert isinstance(await trio[A].tried("INSERT INTO t VALUES (1)", within_s=1), db.Error)
            assert (await trio[A].engine.observe()).received.sequence == end
            await trio[A].engine.open_doors()
            await trio[A].engine.beat()
            beaten = await trio[A].until(lambda seen: seen.heartbeat > 0)
            await trio[B].until(lambda seen: seen.heartbeat == beaten.heartbeat)
            marker = await trio[A].engine.write_marker()
            await trio[B].until(lambda seen: seen.received.sequence >= marker)

    run(story())


def test_who_is_excluded_can_acknowledge_nothing_until_it_is_let_in(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].engine.exclude(B)
            await trio[A].engine.exclude(C)
            seen = await trio[A].engine.observe()
            assert seen.sending.excluded == {B, C}
            assert not seen.sending.receivers
            assert await trio[A].tried("INSERT INTO t VALUES (1)", within_s=0.5)
            assert await trio[A].count() == 0
            with pytest.raises(Conflict):
                await trio[A].engine.set_acks(0)
            with pytest.raises(Unavailable):
                await trio[A].engine.close_doors()
            await trio[A].engine.admit(B)
            await trio[A].until(lambda seen: not seen.sending.waiting_commits)
            assert await trio[A].count() == 1

    run(story())


def test_an_epoch_is_begun_once_and_its_row_is_found_again(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            first = trio.branches[0].first_sequence
            assert await trio[A].engine.begin_epoch(Epoch(1), A) == first
            trio[A].restart_agent()
            assert await trio[A].engine.attach()
            assert await trio[A].engine.begin_epoch(Epoch(1), A) == first
            with pytest.raises(Conflict):
                await trio[A].engine.begin_epoch(Epoch(2), B)
            assert await trio[A].write("INSERT INTO t VALUES (1)")

    run(story())


def test_no_write_is_begun_before_the_page_is_open_and_past_the_deadline_the_guard_kills(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A)
            await trio[A].engine.seal(Epoch(1))
            leader = trio[A].engine
            guardian = leader.guardian
            assert guardian is not None
            await guardian.arm(Epoch(1), SystemClock().boottime_s() + 3.0)
            row = await leader.begin_epoch(Epoch(1), A)
            await leader.set_acks(0)
            await leader.open_doors()
            assert await trio[A].tried("CREATE TABLE t (id)", within_s=0.3)
            assert (await leader.observe()).received.sequence == row
            await guardian.open(Epoch(1))
            await trio[A].write("CREATE TABLE t (id)")
            await trio[A].until(lambda seen: seen.state is ServerState.STOPPED)
            assert (await log_end(trio[A].settings)).index == row + 1

    run(story())


def test_a_server_that_the_launcher_started_outlives_its_agent(trio: Trio, tmp_path: Path) -> None:
    async def story() -> None:
        async with trio:
            node = trio[A]
            node.settings = replace(node.settings, launcher=tmp_path / "launcher.sock")
            node.restart_agent()
            await trio.start(A)
            pid = node.pid
            node.restart_agent()
            assert await node.engine.attach()
            assert (await node.engine.observe()).state is ServerState.RUNNING
            assert node.pid == pid

    with launcher(tmp_path / "launcher.sock"):
        run(story())
