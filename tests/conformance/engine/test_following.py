"""A node as a replica: the seal note, following, acknowledging, positions."""

import asyncio
import itertools
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.harness import A, Answer, B, C, D
from tests.conformance.engine.stage import Stage, cancelled

from primacy.engines.api import Observation, ServerState
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import Epoch, NodeId, Position

Run = Callable[[Scene], None]


async def acknowledging(stage: Stage, count: int) -> None:
    """So many of the two that follow `a` do."""
    await stage.until(
        A,
        lambda seen: seen.sending.receivers == {B, C} and seen.sending.acknowledging_count == count,
    )


def test_a_replica_follows_shows_it_and_takes_no_writes(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.write(A)
        await stage.equal(A, B, C)
        seen = await stage.seen(B)
        assert seen.replication.upstream == A
        assert seen.replication.is_receiving
        assert seen.replication.is_applying
        assert seen.replication.acknowledges
        assert seen.replication.error is None
        assert not seen.replication.is_diverged
        assert seen.following_epoch == seen.sealed_epoch == stage.epoch
        assert seen.received.epoch == seen.applied.epoch == stage.epoch
        assert seen.is_read_only
        assert not seen.sending.receivers
        of_a = await stage.seen(A)
        assert of_a.sending.receivers == {B, C}
        assert of_a.sending.acknowledging_count == 2
        assert not of_a.is_read_only
        assert await stage.harness.write(B, stage.row(), within_s=5) is Answer.REFUSED

    run(scene)


def test_follow_again_changes_nothing_but_who_acknowledges(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        end = await stage.end(B)
        await stage.attach(A, B)
        for acknowledge in (False, False, True, True):
            await stage.attach(A, B, acknowledge=acknowledge)
            seen = await stage.seen(B)
            assert seen.replication.acknowledges is acknowledge
            assert seen.replication.upstream == A
            assert seen.received == end, "nothing of it is received twice, or lost"
            await acknowledging(stage, 2 if acknowledge else 1)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_who_does_not_acknowledge_releases_nothing(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.attach(A, B, C, acknowledge=False)
        await stage.until(A, lambda seen: seen.sending.acknowledging_count == 0)
        async with stage.writing(A) as (row, answer):
            end = await stage.end(A)
            for node in (B, C):
                await stage.until(node, lambda seen: seen.received >= end)
            for _ in range(3):
                assert (await stage.seen(A)).sending.waiting_commits == 1
            assert not answer.done(), "both hold it, and neither has said so"
            assert row not in await stage.harness.read(A)
            await stage[A].set_acks(0, may_release=True)
            assert await answer is Answer.ACKNOWLEDGED
        await stage.attach(A, B, C)

    run(scene)


@pytest.mark.parametrize("agent", ["the same agent", "a new agent"])
def test_an_epoch_below_the_note_is_refused(run: Run, agent: str) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        old = stage.epoch
        sealed = await stage[B].seal(stage.next_epoch())
        assert sealed.sealed_epoch == stage.epoch
        assert not sealed.replication.is_receiving
        assert sealed.replication.upstream is None
        if agent == "a new agent":
            assert await stage.new_agent(B)
        with pytest.raises(Conflict):
            await stage[B].follow(A, old, acknowledge=True)
        with pytest.raises(Conflict):
            await stage[B].begin_epoch(old, B)
        with pytest.raises(Conflict):
            await stage[B].seal(old)
        seen = await stage.seen(B)
        assert (seen.sealed_epoch, seen.received) == (stage.epoch, sealed.received)
        assert seen.is_read_only
        assert not seen.replication.is_receiving
        await stage.write(A)  # By c's acknowledgement.
        assert (await stage.seen(B)).received == sealed.received

    run(scene)


def test_who_follows_an_epoch_is_not_sealed_for_it(run: Run) -> None:
    """A seal counts for exactly its epoch: one that was overtaken would count a second time."""

    async def scene(stage: Stage) -> None:
        await stage.ready()
        for node in (A, B):
            with pytest.raises(Conflict):
                await stage[node].seal(stage.epoch)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_what_sealed_nodes_hold_does_not_grow_and_their_primary_is_told_nothing(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.write(A)
        epoch = stage.next_epoch()
        ends = {node: (await stage[node].seal(epoch)).received for node in (B, C)}
        async with stage.writing(A) as (row, answer):
            for node in (B, C):
                again = await stage[node].seal(epoch)
                assert again.received == ends[node], "called again"
                assert (await stage.seen(node)).received == ends[node]
                assert row not in await stage.harness.read(node)
            assert not answer.done()
            await stage[A].kill()
            assert await answer is not Answer.ACKNOWLEDGED

    run(scene)


@pytest.mark.parametrize("state", [ServerState.STOPPED, ServerState.HUNG])
def test_a_seal_finds_all_that_was_received_on_a_server_that_does_not_answer(
    run: Run, state: ServerState
) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage[A].exclude(C)
        rows = [await stage.write(A) for _ in range(5)]
        end = await stage.end(A)
        if state is ServerState.HUNG:
            async with stage.frozen(B):
                sealed = await stage[B].seal(stage.next_epoch())
        else:
            stage.signal(B, signal.SIGKILL)
            sealed = await stage[B].seal(stage.next_epoch())
        assert sealed.received >= end, "it acknowledged all of it, and nobody else did"
        assert sealed.sealed_epoch == stage.epoch
        assert (await stage[B].seal(stage.epoch)).received == sealed.received
        await stage.up(B)
        await stage[B].drain()
        assert set(rows) <= set(await stage.harness.read(B))

    run(scene)


def test_a_seal_says_how_far_the_log_goes_and_not_how_far_it_is_applied(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        if stage.harness.why_applier_cannot_be_held:
            pytest.skip(stage.harness.why_applier_cannot_be_held)
        await stage.ready()
        await stage[A].exclude(C)
        async with stage.harness.applier_held(B):
            rows = [await stage.write(A) for _ in range(3)]
            end = await stage.end(A)
            await stage[A].kill()
            sealed = await stage[B].seal(stage.next_epoch())
            assert sealed.received == end
            assert sealed.applied < end
        await stage[B].drain()
        assert (await stage.seen(B)).applied == end
        assert set(rows) <= set(await stage.harness.read(B))
        await stage[B].drain()  # Called again.
        await stage[C].seal(stage.epoch)
        assert await stage.begin(B, acks=1) == end.sequence + 1

    run(scene)


def test_what_was_received_and_not_applied_survives_the_server(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        if stage.harness.why_applier_cannot_be_held:
            pytest.skip(stage.harness.why_applier_cannot_be_held)
        await stage.ready()
        await stage[A].exclude(C)
        async with stage.harness.applier_held(B):
            rows = [await stage.write(A) for _ in range(3)]
            end = await stage.end(A)
            await stage[B].kill()
        await stage[B].start(as_primary=True)
        await stage[B].salvage()
        await stage[B].salvage()  # Called again.
        seen = await stage.seen(B)
        assert not seen.needs_salvage
        assert seen.received >= end
        await stage[B].seal(stage.next_epoch())
        await stage[B].drain()
        assert set(rows) <= set(await stage.harness.read(B))

    run(scene)


@pytest.mark.parametrize("after_s", [0.1, 0.2])
def test_a_seal_finds_what_was_not_applied_although_the_start_was_given_up(
    run: Run, after_s: float
) -> None:
    async def scene(stage: Stage) -> None:
        if stage.harness.why_applier_cannot_be_held:
            pytest.skip(stage.harness.why_applier_cannot_be_held)
        await stage.ready()
        await stage[A].exclude(C)
        async with stage.harness.applier_held(B):
            await stage.write(A)
            end = await stage.end(A)
            await stage[B].kill()
        await cancelled(lambda: stage[B].start(as_primary=True), after_s)
        await stage.until(B, lambda seen: seen.state is not ServerState.HUNG)
        assert (await stage[B].seal(stage.next_epoch())).received >= end

    run(scene)


def test_a_seal_finds_what_was_not_applied_although_the_agent_is_another(run: Run) -> None:
    """It came while the server did not answer, and could not ask it for anything."""

    async def scene(stage: Stage) -> None:
        if stage.harness.why_applier_cannot_be_held:
            pytest.skip(stage.harness.why_applier_cannot_be_held)
        await stage.ready()
        await stage[A].exclude(C)
        async with stage.harness.applier_held(B):
            await stage.write(A)
            end = await stage.end(A)
            await stage[B].kill()
        await stage[B].start(as_primary=True)
        async with stage.frozen(B):
            assert await stage.new_agent(B)
        await stage.until(B, lambda seen: seen.state is ServerState.RUNNING)
        assert (await stage[B].seal(stage.next_epoch())).received >= end

    run(scene)


def test_no_seal_below_what_was_published_until_it_is_there_again(run: Run) -> None:
    """A member that lost the end of its log has acknowledged it: it may not count without it."""

    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage[C].seal(stage.next_epoch())
        await stage[C].kill()
        await stage.harness.publish_more(C, 3)
        await stage[C].start(as_primary=True)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await stage[C].seal(stage.epoch)
        assert (await stage.seen(C)).sealed_epoch == stage.epoch, "the note comes first"
        await stage.lead(A, B)
        for _ in range(3):
            await stage.write(A)
        await stage.attach(A, C, acknowledge=False)
        await stage.caught_up(A, C)
        end = await stage.end(A)
        assert (await stage[C].seal(stage.next_epoch())).received >= end

    run(scene)


def test_positions_only_grow_and_nothing_is_applied_that_was_not_received(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        shown: dict[NodeId, list[Observation]] = {A: [], B: [], C: []}
        is_over = asyncio.Event()

        async def look(node: NodeId) -> None:
            while not is_over.is_set():
                shown[node].append(await stage.seen(node))

        async with asyncio.TaskGroup() as tasks:
            for node in shown:
                tasks.create_task(look(node))
            for _ in range(10):
                await stage.write(A)
            await stage.attach(A, B, acknowledge=False)
            await stage.attach(A, B, acknowledge=True)
            await stage.hand_over(A, B, C)
            for _ in range(10):
                await stage.write(B)
            is_over.set()
        for node, found in shown.items():
            for before, after in itertools.pairwise(found):
                assert before.received <= after.received, node
                assert before.applied <= after.applied, node
                assert before.sealed_epoch <= after.sealed_epoch, node
                assert after.applied <= after.received, node
        await stage.equal(B, A, C)

    run(scene)


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.05, 0.3])
def test_what_a_replica_was_asked_is_asked_again_after_its_caller_gave_up(
    run: Run, after_s: float
) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        row = await stage.write(A)
        await stage.caught_up(A, B)
        await stage.step_down(A)
        await stage.caught_up(A, B)
        end = await stage.end(B)
        engine, epoch = stage[B], stage.next_epoch()
        await cancelled(lambda: engine.seal(epoch), after_s)
        seen = await stage.seen(B)
        assert seen.state is ServerState.RUNNING
        sealed = await engine.seal(epoch)
        assert (sealed.received, sealed.sealed_epoch) == (end, epoch)
        assert not sealed.replication.is_receiving
        await cancelled(engine.drain, after_s)
        await engine.drain()
        for node in (A, C):
            await stage[node].seal(epoch)
        await stage.begin(A)
        await cancelled(lambda: engine.follow(A, epoch, acknowledge=True), after_s)
        await engine.follow(A, epoch, acknowledge=True)
        await cancelled(lambda: engine.follow(A, epoch, acknowledge=False), after_s)
        await engine.follow(A, epoch, acknowledge=True)
        await stage.until(A, lambda seen: seen.sending.acknowledging_count == 1)
        await stage.open(A)
        await stage.write(A)
        await stage.attach(A, C)
        assert row in await stage.equal(A, B, C)

    run(scene)


def test_who_is_no_data_node_is_followed_by_nobody(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        with pytest.raises(Rejected):
            await stage[B].follow(NodeId("nobody"), stage.epoch, acknowledge=True)
        assert (await stage.seen(B)).replication.upstream == A

    run(scene)


def test_a_primary_that_is_away_is_followed_once_it_is_back(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        epoch = stage.next_epoch()
        await stage[B].seal(epoch)
        with suppress(Unavailable):
            await stage[B].follow(D, epoch, acknowledge=True)
        seen = await stage.seen(B)
        assert not seen.replication.is_receiving
        assert seen.following_epoch == epoch, "the note comes first"
        with pytest.raises(Conflict):
            await stage[B].follow(A, Epoch(epoch - 1), acknowledge=True)

    run(scene)


def test_the_others_of_a_new_primary_receive_its_epoch(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.write(A)
        await stage.caught_up(A, B, C)
        await stage[A].kill()
        first = await stage.lead(B, C)
        seen = await stage.until(C, lambda seen: seen.applied.epoch == stage.epoch)
        assert seen.received >= Position(stage.epoch, first)
        assert seen.following_epoch == stage.epoch
        await stage.write(B)
        await stage.equal(B, C)

    run(scene)
