"""Leading: epoch rows, acknowledgements, doors, the sync set, the way back of an old primary."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.integration.mariadb.conftest import A, B, C, Trio, run

from primacy.engines.api import Branch, ServerState
from primacy.engines.mariadb.accounts import Login
from primacy.engines.mariadb.connection import rows
from primacy.engines.notes import NoteFile
from primacy.errors import Conflict, PrimacyError, Rejected, Unavailable
from primacy.model import Epoch, Position

COUNT = "SELECT COUNT(*) FROM shop.t"


def insert(number: int) -> str:
    return f"INSERT INTO shop.t VALUES ({number}, {number})"


def test_an_acknowledgement_lets_a_commit_return_and_its_absence_blocks_it(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            for node in (B, C):
                await trio[A].engine.exclude(node)
            assert (await trio[A].engine.observe()).sending.acknowledging_count == 0
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(trio[A].app(insert(2), within_s=30))
                seen = await trio[A].until(lambda seen: seen.sending.waiting_commits == 1)
                assert seen.state is ServerState.RUNNING
                assert not waiting.done()
                assert await trio[A].number(COUNT) == 1, "nobody sees it before it is held"
                with pytest.raises(Conflict):
                    await trio[A].engine.set_acks(0)
                with pytest.raises(Unavailable):
                    await trio[A].engine.close_doors()
                assert not (await trio[A].engine.observe()).is_read_only
                marker = await trio[A].engine.write_marker()
                assert marker >= seen.received.sequence
                await trio[A].engine.admit(B)
                await waiting
            assert await trio[A].number(COUNT) == 2

    run(story())


def test_doors_stay_shut_while_nobody_acknowledges(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A, B)
            await trio[A].engine.begin_epoch(Epoch(1), A)
            await trio[B].engine.follow(A, Epoch(1), acknowledge=False)
            await trio[A].engine.set_acks(1)
            with pytest.raises(Unavailable, match="no replica acknowledges"):
                await trio[A].engine.open_doors()
            assert (await trio[A].engine.observe()).is_read_only
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio[A].engine.open_doors()
            assert not (await trio[A].engine.observe()).is_read_only

    run(story())


def test_more_than_one_acknowledgement_is_refused(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A)
            with pytest.raises(Rejected, match="sqlite"):
                await trio[A].engine.set_acks(2)

    run(story())


def test_beginning_an_epoch_again_returns_the_same_row(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.start(A)
            first = await trio[A].engine.begin_epoch(Epoch(3), A)
            assert await trio[A].engine.begin_epoch(Epoch(3), A) == first
            assert (await trio[A].engine.observe()).received == Position(Epoch(3), first)
            with pytest.raises(Conflict):
                await trio[A].engine.begin_epoch(Epoch(2), A)

    run(story())


def test_an_epoch_whose_row_was_written_and_not_heard_of_is_begun_all_the_same(trio: Trio) -> None:
    """Else a node that was once cut could never return, once its own record stands (seed 1124)."""

    def forget() -> None:
        notes = NoteFile(trio[A].settings.layout.notes)
        notes.save(msgspec.structs.replace(notes.notes, is_cut=True, led_from=0))
        trio[A].restart_agent()

    async def story() -> None:
        async with trio:
            await trio.start(A)
            first = await trio[A].engine.begin_epoch(Epoch(3), A)
            await asyncio.to_thread(forget)
            await trio[A].engine.attach()
            assert (await trio[A].engine.observe()).is_cut
            assert await trio[A].engine.begin_epoch(Epoch(3), A) == first
            assert not (await trio[A].engine.observe()).is_cut
            await trio[A].engine.kill()
            sealed = await trio[A].engine.seal(Epoch(4))
            assert sealed.state is ServerState.STOPPED, (
                "its files are read: no start commits the rest"
            )
            assert sealed.received == Position(Epoch(3), first)

    run(story())


def test_an_old_primary_that_is_killed_comes_back_clean(trio: Trio) -> None:
    """Its commit that nobody acknowledged is saved, counted and cut; the rest it shares."""

    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            await trio.caught_up(A, B, C)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            with pytest.raises(PrimacyError):
                await trio[A].app(insert(2), within_s=0.5)
            await trio[A].engine.kill()
            first = await trio.lead(B, 2, C)
            await trio[B].app(insert(3))
            branch = Branch(epoch=Epoch(2), node=B, first_sequence=first)
            found = await trio[A].engine.save_diverged([branch])
            assert found.count == 1
            assert found.is_certain
            assert "INSERT INTO `shop`.`t`" in Path(found.path).read_text()
            await trio[A].engine.start(as_primary=False)
            assert (await trio[A].engine.observe()).is_cut
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            await trio.caught_up(B, A, C)
            for node in (A, B, C):
                rows_ = await trio[node].sql("SELECT id FROM shop.t ORDER BY id")
                assert [row["id"] for row in rows_] == [1, 3], node
            assert (await trio[A].engine.observe()).replication.error is None

    run(story())


def test_an_old_primary_whose_log_was_cut_seals_for_what_is_left_of_it(trio: Trio) -> None:
    """It said how far it went, it was cut, and who led next was gone before it could follow."""

    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            await trio.caught_up(A, B, C)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            with pytest.raises(PrimacyError):
                await trio[A].app(insert(2), within_s=0.5)
            await trio[A].engine.kill()
            before = (await trio[A].engine.seal(Epoch(2))).received
            await trio[A].engine.start(as_primary=False)
            after = (await trio[A].engine.seal(Epoch(3))).received
            assert after == Position(Epoch(1), before.sequence - 1)

    run(story())


def test_an_old_primary_takes_its_own_events_back(trio: Trio) -> None:
    """A cut goes behind what others hold: it removes all that was not committed here yet, although
    a replica has it. The new primary sends it again, under this server's own id."""

    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            await trio.caught_up(A, B, C)
            for node in (B, C):
                await trio[node].engine.follow(A, Epoch(1), acknowledge=False)
            with pytest.raises(PrimacyError):
                await trio[A].app(insert(2), within_s=0.5)  # Received by both, answered by none.
            await trio.caught_up(A, B, C)
            await trio[A].engine.kill()
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            await trio.lead(B, 2, C)
            await trio[A].engine.start(as_primary=False)
            await trio[A].engine.follow(B, Epoch(2), acknowledge=False)
            await trio.caught_up(B, A, C)
            for node in (A, B, C):
                rows_ = await trio[node].sql("SELECT id FROM shop.t ORDER BY id")
                assert [row["id"] for row in rows_] == [1, 2], node

    run(story())


def test_an_old_primary_whose_whole_epoch_was_cut_seals_for_what_came_before(trio: Trio) -> None:
    """After a power cut even the epoch's row may go; its log is that of a replica then."""

    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            end = (await trio[A].engine.observe()).received
            await trio[A].engine.kill()
            notes = NoteFile(trio[A].settings.layout.notes)
            row = Position(Epoch(2), end.sequence + 1)
            led = msgspec.structs.replace(
                notes.notes, led_epoch=row.epoch, led_from=row.sequence, published=row
            )
            notes.save(led)
            trio[A].restart_agent()
            assert not await trio[A].engine.attach()
            with pytest.raises(Unavailable, match="Binary logs are missing"):
                await trio[A].engine.seal(Epoch(3))
            notes.save(msgspec.structs.replace(led, is_cut=True))
            trio[A].restart_agent()
            assert not await trio[A].engine.attach()
            assert (await trio[A].engine.seal(Epoch(3))).received == end

    run(story())


def test_a_stopped_old_primary_seals_from_its_files(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            end = (await trio[A].engine.observe()).received
            await trio[A].engine.kill()
            sealed = await trio[A].engine.seal(Epoch(2))
            assert sealed.state is ServerState.STOPPED
            assert sealed.received == end
            assert (await trio[A].engine.observe()).state is ServerState.STOPPED

    run(story())


def test_an_old_primary_without_extra_commits_has_nothing_diverged(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            await trio.caught_up(A, B, C)
            await trio[A].engine.kill()
            first = await trio.lead(B, 2, C)
            branch = Branch(epoch=Epoch(2), node=B, first_sequence=first)
            assert (await trio[A].engine.save_diverged([branch])).count == 0
            await trio[B].engine.kill()
            assert (await trio[B].engine.save_diverged([branch])).count == 0, "its own epoch"

    run(story())


def test_a_diverged_node_is_refused_and_says_so(trio: Trio) -> None:
    """Asynchronous: a commit that no replica had cannot be cut any more."""

    async def story() -> None:
        async with trio:
            await trio.up(acks=0)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            await trio[A].app(insert(1))
            await trio[A].app(insert(2))
            await trio[A].engine.kill()
            first = await trio.lead(B, 2, C, acks=0)
            found = await trio[A].engine.save_diverged(
                [Branch(epoch=Epoch(2), node=B, first_sequence=first)]
            )
            assert found.count == 2
            await trio[A].engine.start(as_primary=False)
            with pytest.raises(Conflict, match="no prefix"):
                await trio[A].engine.follow(B, Epoch(2), acknowledge=False)
            seen = await trio[A].engine.observe()
            assert seen.replication.is_diverged
            assert seen.replication.upstream == B
            assert not seen.replication.is_receiving

    run(story())


def test_a_log_of_equal_length_from_another_branch_is_refused(trio: Trio) -> None:
    """GTIDs tie where two primaries wrote as much; epochs do not."""

    async def story() -> None:
        async with trio:
            await trio.up(acks=0)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            await trio[A].app(insert(1))
            await trio[A].engine.stop()
            await trio.lead(B, 2, acks=0)
            seen = await trio[B].engine.observe()
            await trio[A].engine.start(as_primary=False)
            assert (await trio[A].engine.observe()).received.sequence == seen.received.sequence
            with pytest.raises(Conflict, match="no prefix"):
                await trio[A].engine.follow(B, Epoch(2), acknowledge=False)

    run(story())


def test_a_switchover_moves_the_lead_and_loses_nothing(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            await trio[A].app(insert(1))
            last = await trio[A].engine.close_doors()
            with pytest.raises(Conflict):
                await trio[A].app(insert(2))
            with pytest.raises(Conflict):
                await trio[A].engine.beat()
            await trio[B].until(lambda seen: seen.received.sequence >= last)
            await trio[A].engine.demote()
            first = await trio.lead(B, 2, C)
            assert first == last + 1
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            await trio[B].app(insert(2))
            await trio.caught_up(B, A, C)
            for node in (A, C):
                assert await trio[node].number(COUNT) == 2
            # And back again: it has led before.
            await trio[B].engine.close_doors()
            await trio.caught_up(B, A, C)
            await trio[B].engine.demote()
            await trio.lead(A, 3, C)
            await trio[B].engine.follow(A, Epoch(3), acknowledge=True)
            await trio[A].app(insert(3))
            await trio.caught_up(A, B, C)
            assert await trio[B].number(COUNT) == 3

    run(story())


def test_a_demotion_is_refused_when_the_log_has_moved(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            with pytest.raises(Conflict):
                await trio[A].engine.demote()
            await trio[A].engine.close_doors()
            await trio[A].sql("INSERT INTO shop.t VALUES (9, 9)")
            with pytest.raises(Conflict, match="moved"):
                await trio[A].engine.demote()

    run(story())


def test_closing_the_doors_ends_a_statement_that_blocks_it(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            app = trio[A].session(Login("app", "app"))
            await app.run(lambda c: rows(c, "LOCK TABLES shop.t WRITE"), within_s=5)
            await trio[A].engine.close_doors()
            assert (await trio[A].engine.observe()).is_read_only
            app.reset()

    run(story())


def test_an_excluded_node_is_gone_and_stays_away(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            before = (await trio[A].engine.observe()).received
            await trio[A].engine.exclude(C)
            seen = await trio[A].engine.observe()
            assert seen.sending.receivers == {B}
            assert seen.sending.excluded == {C}
            assert seen.received == before, "the lock is local, not in the log"
            away = await trio[C].until(lambda seen: not seen.replication.is_receiving)
            assert away.replication.acknowledges, "it would, as soon as it is let in"
            await trio[C].engine.follow(A, Epoch(1), acknowledge=False)
            assert not (await trio[C].engine.observe()).replication.acknowledges
            await trio[A].engine.admit(C)
            seen = await trio[A].until(lambda seen: seen.sending.receivers == {B, C})
            assert seen.sending.acknowledging_count == 1, "c is back, and silent"
            assert seen.sending.excluded == frozenset()

    run(story())


def test_who_was_excluded_in_an_earlier_reign_can_follow_the_next(trio: Trio) -> None:
    """The lock is of this server and outlives its reign: it kept a follower out for seconds."""

    async def story() -> None:
        async with trio:
            await trio.start(A, B)
            await trio[A].engine.begin_epoch(Epoch(1), A)
            await trio[A].engine.exclude(B)
            await trio[A].engine.begin_epoch(Epoch(2), A)
            assert (await trio[A].engine.observe()).sending.excluded == frozenset()
            await trio[B].engine.follow(A, Epoch(2), acknowledge=False)
            await trio.caught_up(A, B)
            await trio[A].engine.exclude(B)
            await trio[A].engine.begin_epoch(Epoch(2), A)
            assert (await trio[A].engine.observe()).sending.excluded == {B}, "called again"
            await trio[B].engine.begin_epoch(Epoch(3), B)
            await trio[A].engine.follow(B, Epoch(3), acknowledge=False)
            assert (await trio[A].engine.observe()).sending.excluded == frozenset()

    run(story())


def test_heartbeats_are_numbered_and_reach_the_replicas(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await trio.up()
            for _ in range(3):
                await trio[A].engine.beat()
            assert (await trio[A].engine.observe()).heartbeat == 3
            await trio[B].until(lambda seen: seen.heartbeat == 3)

    run(story())
