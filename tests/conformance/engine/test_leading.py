"""A node as a primary: epochs, doors, acknowledgements, markers, heartbeats."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.harness import MEMBERS, SPARES, A, Answer, B, C
from tests.conformance.engine.stage import Stage, cancelled, patiently

from primacy.engines.api import ServerState
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import Epoch, NodeId, Position

Run = Callable[[Scene], None]


def test_an_epoch_is_begun_once_however_often_it_is_asked_for(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.step_down(A)
        epoch = stage.next_epoch()
        first = await stage.begin(A)
        assert await stage.end(A) == Position(epoch, first)
        assert await stage[A].begin_epoch(epoch, A) == first
        assert await stage.new_agent(A)
        assert await stage[A].begin_epoch(epoch, A) == first
        seen = await stage.seen(A)
        assert seen.received == seen.applied == Position(epoch, first), "and no more rows"
        assert seen.sealed_epoch == epoch
        assert (seen.following_epoch, seen.replication.upstream) == (0, None)
        with pytest.raises(Conflict):
            await stage[A].begin_epoch(Epoch(epoch - 1), A)
        with pytest.raises(Conflict):
            await stage[A].begin_epoch(Epoch(epoch + 1), B)
        with pytest.raises(Conflict):
            await stage[A].follow(B, Epoch(epoch - 1), acknowledge=False)

    run(scene)


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1])
def test_an_epoch_is_begun_once_although_its_caller_gave_up(run: Run, after_s: float) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.caught_up(A, B, C)
        await stage[A].kill()
        epoch = stage.next_epoch()
        await stage[C].seal(epoch)
        end = (await stage[B].seal(epoch)).received
        await stage[B].drain()
        await stage.arm(B)
        await cancelled(lambda: stage[B].begin_epoch(epoch, B), after_s)
        first = await patiently(lambda: stage[B].begin_epoch(epoch, B))
        assert first == end.sequence + 1
        await stage[B].set_acks(1)
        assert await stage.end(B) == Position(epoch, first)
        await cancelled(stage[B].open_doors, after_s)
        await stage.attach(B, C)
        await stage.open(B)
        assert not (await stage.seen(B)).is_read_only
        await stage.write(B)
        await cancelled(stage[B].close_doors, after_s)
        last = await patiently(stage[B].close_doors)
        assert last == (await stage.end(B)).sequence
        await cancelled(stage[B].demote, after_s)
        await patiently(stage[B].demote)
        await stage.equal(B, C)

    run(scene)


def test_an_epoch_row_waits_for_nobody_and_begins_behind_closed_doors(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.caught_up(A, B, C)
        await stage[A].kill()
        epoch = stage.next_epoch()
        await stage[B].seal(epoch)
        async with asyncio.timeout(10):
            await stage.begin(B, acks=1)  # Nobody is attached.
        seen = await stage.seen(B)
        assert seen.is_read_only
        assert not seen.sending.receivers
        assert await stage.harness.write(B, stage.row(), within_s=5) is Answer.REFUSED
        await stage[C].seal(epoch)
        await stage.attach(B, C)
        await stage.until(C, lambda seen: seen.received.epoch == epoch)
        assert (await stage.seen(B)).is_read_only, "an acknowledged row opens no door"
        assert await stage.harness.write(B, stage.row(), within_s=5) is Answer.REFUSED
        await stage.open(B)
        await stage[B].open_doors()  # Called again.
        await stage.write(B)
        await stage.equal(B, C)

    run(scene)


def test_a_commit_waits_for_an_acknowledgement_and_nobody_sees_it_before(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        assert (await stage.seen(A)).sending.waiting_commits == 0
        for node in (B, C):
            await stage[A].exclude(node)
        async with stage.writing(A) as (row, answer):
            seen = await stage.seen(A)
            assert seen.state is ServerState.RUNNING, "blocked, not hung"
            assert (seen.sending.waiting_commits, seen.sending.acks) == (1, 1)
            assert seen.sending.waits_at in (0, seen.received.sequence)
            assert row not in await stage.harness.read(A)
            await stage[A].admit(B)
            assert await answer is Answer.ACKNOWLEDGED
        assert row in await stage.harness.read(A)
        await stage[A].admit(C)
        assert row in await stage.equal(A, B, C)

    run(scene)


def test_no_count_is_lowered_while_commits_wait_unless_the_record_allows_it(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        for _ in range(2):
            await stage[A].set_acks(0)
            assert (await stage.seen(A)).sending.acks == 0
        for node in (B, C):
            await stage[A].exclude(node)
        await stage.write(A, is_promised=False)  # Nobody is asked.
        for _ in range(2):
            await stage[A].set_acks(1)
            assert (await stage.seen(A)).sending.acks == 1
        async with stage.writing(A) as (_, answer):
            for _ in range(2):
                with pytest.raises(Conflict):
                    await stage[A].set_acks(0)
            await stage[A].set_acks(1)  # As it is.
            seen = await stage.seen(A)
            assert (seen.sending.acks, seen.sending.waiting_commits) == (1, 1)
            assert not answer.done()
            await stage[A].set_acks(0, may_release=True)
            assert await answer is Answer.ACKNOWLEDGED
        for node in (B, C):
            await stage[A].admit(node)
        await stage.until(A, lambda seen: seen.sending.receivers == {B, C})
        await stage.equal(A, B, C)

    run(scene)


def test_as_many_acknowledge_as_are_asked_for(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        if stage[A].capabilities.acks_max == 1:
            pytest.skip(f"{stage[A].capabilities.name} does not keep two acknowledgements")
        await stage.ready()
        await stage[A].set_acks(2)
        await stage.write(A)
        await stage[A].exclude(C)
        async with stage.writing(A) as (row, answer):
            end = await stage.end(A)
            await stage.until(B, lambda seen: seen.received >= end)
            assert not answer.done(), "one of two has it"
            with pytest.raises(Conflict):
                await stage[A].set_acks(1)
            await stage[A].admit(C)
            assert await answer is Answer.ACKNOWLEDGED
        assert row in await stage.equal(A, B, C)
        await stage[A].exclude(C)
        async with stage.writing(A) as (_, answer):
            await stage[A].set_acks(1, may_release=True)
            assert await answer is Answer.ACKNOWLEDGED
        await stage[A].admit(C)

    run(scene)


def test_a_count_that_no_cluster_of_this_size_or_engine_keeps_is_refused(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        for acks in (-1, len(MEMBERS) + len(SPARES)):
            with pytest.raises(Rejected):
                await stage[A].set_acks(acks)
        assert (await stage.seen(A)).sending.acks == 1
        await stage.write(A)

    run(scene)


def test_who_is_excluded_is_gone_when_it_returns_and_acknowledges_nothing(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        end = await stage.end(A)
        for _ in range(2):
            await stage[A].exclude(C)
            seen = await stage.seen(A)
            assert seen.sending.receivers == {B}
            assert seen.sending.excluded == {C}
            assert seen.sending.acknowledging_count == 1
            assert seen.received == end, "it is no matter of the log"
        away = await stage.until(C, lambda seen: not seen.replication.is_receiving)
        assert away.replication.acknowledges, "it would, as soon as it is let in"
        await stage.write(A)
        await stage[A].exclude(B)
        async with stage.writing(A) as (_, answer):
            for node in (B, C):
                with suppress(Unavailable):
                    await stage.attach(A, node)
                assert not (await stage.seen(node)).replication.is_receiving
            assert (await stage.seen(A)).sending.receivers == frozenset()
            assert not answer.done(), "however often they try"
            for _ in range(2):
                await stage[A].admit(C)
            await stage.attach(A, C, acknowledge=False)
            seen = await stage.until(A, lambda seen: seen.sending.receivers == {C})
            assert seen.sending.excluded == {B}
            assert not answer.done(), "c is back, and silent"
            await stage[A].admit(B)
            await stage.attach(A, B)  # Not c: MariaDB never acknowledges what it received silently.
            assert await answer is Answer.ACKNOWLEDGED
        await stage.attach(A, C)
        await stage.equal(A, B, C)

    run(scene)


def test_who_is_no_data_node_is_neither_excluded_nor_admitted(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        for call in (stage[A].exclude, stage[A].admit):
            with pytest.raises(Rejected):
                await call(NodeId("nobody"))

    run(scene)


def test_exclusions_end_with_the_reign(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage[A].exclude(C)
        await stage.step_down(A)
        epoch = stage.next_epoch()
        await stage.begin(A)
        assert (await stage.seen(A)).sending.excluded == frozenset()
        await stage[A].exclude(C)
        await stage[A].begin_epoch(epoch, A)
        assert (await stage.seen(A)).sending.excluded == {C}, "called again: the same reign"
        await stage.attach(A, B)
        await stage.open(A)
        await stage.hand_over(A, B)
        assert (await stage.seen(A)).sending.excluded == frozenset(), "it leads no more"

    run(scene)


def test_strangers_are_cut_without_harm_to_anybody_else(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        assert (await stage.seen(A)).sending.strangers == frozenset()
        assert await stage[A].cut_strangers(()) == frozenset()
        seen = await stage.seen(A)
        assert seen.sending.receivers == {B, C}
        assert seen.sending.acknowledging_count == 2
        await stage.write(A)

    run(scene)


def test_doors_that_were_closed_let_nothing_in_and_nothing_is_in_flight(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        answers: dict[int, Answer] = {}

        async def write() -> None:
            answer = Answer.ACKNOWLEDGED
            while answer is Answer.ACKNOWLEDGED:
                row = stage.row()
                answer = answers[row] = await stage.harness.write(A, row, within_s=10)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(6):
                tasks.create_task(write())
            while len(answers) < 30:
                await asyncio.sleep(0.005)
            last = await stage[A].close_doors()
            seen = await stage.seen(A)
            assert seen.received.sequence == last
            assert seen.is_read_only
            assert seen.sending.waiting_commits == 0
        assert await stage[A].close_doors() == last, "called again"
        shown = set(await stage.harness.read(A))
        for row, answer in answers.items():
            if answer is not Answer.UNKNOWN:
                assert (row in shown) == (answer is Answer.ACKNOWLEDGED), (row, answer)
        assert (await stage.end(A)).sequence == last
        with pytest.raises(Conflict):
            await stage[A].beat()
        await stage[A].open_doors()
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_doors_that_cannot_be_closed_are_as_before(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        for node in (B, C):
            await stage[A].exclude(node)
        async with stage.writing(A) as (_, answer):
            with pytest.raises(Unavailable):
                await stage[A].close_doors()
            assert not (await stage.seen(A)).is_read_only
            with pytest.raises(Conflict):
                await stage[A].demote()
            assert not answer.done(), "nobody released it"
            for node in (B, C):
                await stage[A].admit(node)
            assert await answer is Answer.ACKNOWLEDGED
        await stage.write(A)
        await stage[A].beat()
        await stage[A].close_doors()

    run(scene)


def test_only_a_log_that_stands_still_is_given_up(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        with pytest.raises(Conflict):
            await stage[A].demote()
        await stage[A].close_doors()
        await stage[A].write_marker()
        with pytest.raises(Conflict):
            await stage[A].demote()
        last = await stage[A].close_doors()
        for _ in range(2):
            await stage[A].demote()
        seen = await stage.seen(A)
        assert (seen.received.sequence, seen.is_read_only) == (last, True)
        await stage.hand_over(A, B, C)
        await stage.write(B)
        await stage.equal(B, A, C)
        await stage.hand_over(B, A, C)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_a_marker_waits_for_nobody(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        row = await stage.write(A)
        end = await stage.end(A)
        first = await stage[A].write_marker()
        assert first > end.sequence
        assert await stage[A].write_marker() > first
        for node in (B, C):
            await stage.until(node, lambda seen: seen.received.sequence >= first)
        for node in (B, C):
            await stage[A].exclude(node)
        async with asyncio.timeout(5):
            marker = await stage[A].write_marker()
        assert marker > first
        async with stage.writing(A):
            waiting = await stage.end(A)
            async with asyncio.timeout(5):
                marker = await stage[A].write_marker()
            assert marker >= waiting.sequence, "whatever anybody could have acknowledged"
            for node in (B, C):
                await stage[A].admit(node)
            await stage.until(B, lambda seen: seen.received.sequence >= marker)
        assert row in await stage.equal(A, B, C)

    run(scene)


def test_heartbeats_are_numbered_replicated_and_block_with_the_commits(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        before = (await stage.seen(A)).heartbeat
        for _ in range(3):
            await stage[A].beat()
            number = (await stage.seen(A)).heartbeat
            assert number > before
            before = number
        for node in (B, C):
            seen = await stage.until(node, lambda seen: seen.heartbeat == before)
            again = await stage.seen(node)
            assert again.heartbeat_age_s >= seen.heartbeat_age_s >= 0.0
        for node in (B, C):
            await stage[A].exclude(node)
        beating = asyncio.create_task(stage[A].beat())
        try:
            await stage.until(A, lambda seen: seen.sending.waiting_commits == 1)
            assert (await stage.seen(A)).heartbeat == before
        finally:
            beating.cancel()
            await asyncio.wait([beating])
        for node in (B, C):
            await stage[A].admit(node)
        await stage.until(A, lambda seen: not seen.sending.waiting_commits)
        await stage.until(B, lambda seen: seen.heartbeat > before)

    run(scene)
