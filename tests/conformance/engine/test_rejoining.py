"""The way back of a node whose log the new history may not continue: found, saved, taken back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.harness import A, Answer, B, C
from tests.conformance.engine.stage import Stage, cancelled

from primacy.engines.api import Diverged, ServerState
from primacy.errors import Conflict

Run = Callable[[Scene], None]


async def unacknowledged(stage: Stage) -> int:
    """`a` dies with a commit that nobody has acknowledged, nor will: the others are sealed."""
    await stage.ready()
    await stage.write(A)
    await stage.caught_up(A, B, C)
    epoch = stage.next_epoch()
    for node in (B, C):
        await stage[node].seal(epoch)
    async with stage.writing(A) as (row, answer):
        await stage.crash(A)
        assert await answer is not Answer.ACKNOWLEDGED
    return row


async def asynchronous(stage: Stage, *statements: str, rows: int = 3) -> list[int]:
    """`a` writes without acknowledgements what nobody else has, and dies; `b` goes on."""
    await stage.ready()
    await stage.lead(A, B, C, acks=0)
    await stage.write(A)
    await stage.caught_up(A, B, C)
    epoch = stage.next_epoch()
    for node in (B, C):
        await stage[node].seal(epoch)
    lost = [await stage.write(A, is_promised=False) for _ in range(rows)]
    for statement in statements:
        await stage.harness.change(A, statement)
    await stage[A].beat()
    await stage[A].kill()
    await stage.fail_over(B, C)
    await stage.write(B)
    return lost


def test_an_old_primarys_unacknowledged_commit_is_counted_saved_and_cut(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        lost = await unacknowledged(stage)
        await stage.fail_over(B, C)
        await stage.write(B)
        with pytest.raises(Conflict):
            await stage[B].save_diverged(stage.branches)  # It runs.
        found = await stage.save_diverged(A)
        assert (found.count, found.own_count, found.is_certain) == (1, 0, True)
        assert found.epoch == stage.epoch
        assert found.parts_at == stage.branches[-1].first_sequence
        assert "" not in (found.ident, found.first, found.last)
        assert len(found.tables) == 1
        assert str(lost) in Path(found.path).read_text(errors="replace")
        assert await stage.save_diverged(A) == found, "called again"
        assert (await stage.seen(A)).state is ServerState.STOPPED

        assert not (await stage.seen(A)).is_cut
        await stage[A].start(as_primary=False)
        seen = await stage.seen(A)
        assert seen.is_cut, "it may not lead by right of its own record any more"
        assert seen.is_read_only
        assert lost not in await stage.harness.read(A)
        await stage.attach(B, A)
        assert lost not in await stage.equal(B, A, C)
        assert (await stage.seen(A)).replication.error is None

        await stage.hand_over(B, A, C)
        assert not (await stage.seen(A)).is_cut, "it has led since"
        await stage.write(A)
        await stage.equal(A, B, C)
        await stage[B].kill()
        assert (await stage.save_diverged(B)).count == 0, "an old primary with nothing of its own"
        await stage.rejoin(B, Diverged())
        await stage.equal(A, B, C)

    run(scene)


def test_an_old_primary_that_leads_again_keeps_what_nobody_acknowledged(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        kept = await unacknowledged(stage)
        sealed = await stage[A].seal(stage.epoch)
        assert sealed.received > (await stage.end(B)), "its log is read while it is down, or up"
        await stage[A].start(as_primary=True)
        seen = await stage.seen(A)
        assert not seen.is_cut
        assert seen.received == sealed.received
        assert seen.is_read_only
        assert seen.sending.waiting_commits == 0
        await stage.begin(A)
        await stage.attach(A, B, C)
        await stage.open(A)
        await stage.write(A)
        assert kept in await stage.equal(A, B, C)

    run(scene)


def test_what_an_old_primary_alone_has_committed_is_saved_and_taken_back(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        rows = await asynchronous(stage, "DELETE FROM {t} WHERE id % 2 = 0")
        found = await stage.save_diverged(A)
        assert (found.count, found.own_count, found.obstacle) == (5, 1, "")
        assert found.is_reversible
        files = [path for path in Path(found.path).parent.rglob("*") if path.is_file()]
        saved = "".join(path.read_text(errors="replace") for path in files)
        assert all(str(row) in saved for row in rows)
        async with stage.harness.serving(B):
            await stage.rejoin(A, found)
        seen = await stage.seen(A)
        assert seen.is_cut
        assert not seen.is_torn
        assert not set(rows) & set(await stage.equal(B, A, C))
        await stage[A].kill()
        assert (await stage.save_diverged(A)).count == 0, "nothing is left of it"
        await stage.rejoin(A, Diverged())
        await stage.write(B)
        await stage.equal(B, A, C)

    run(scene)


def test_rows_of_primacys_own_are_missed_by_nobody_and_taken_back_all_the_same(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await asynchronous(stage, rows=0)
        found = await stage.save_diverged(A)
        assert (found.count, found.own_count, found.tables) == (1, 1, ())
        async with stage.harness.serving(B):
            await stage.rejoin(A, found)
        assert not (await stage.seen(A)).is_torn
        await stage.equal(B, A, C)

    run(scene)


def test_what_has_no_reverse_is_not_begun_and_the_node_is_cloned(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        rows = await asynchronous(stage, "ALTER TABLE {t} ADD COLUMN more INT")
        found = await stage.save_diverged(A)
        assert found.count == 5
        assert not found.is_reversible
        assert found.obstacle
        await stage[A].start(as_primary=False)
        with pytest.raises(Conflict):
            await stage.attach(B, A)
        seen = await stage.seen(A)
        assert seen.replication.is_diverged
        assert seen.replication.error
        assert seen.replication.upstream == B
        assert not seen.replication.is_receiving
        async with stage.harness.serving(B):
            with pytest.raises(Conflict):
                await stage[A].rewind(found, B, stage.epoch)
            assert not (await stage.seen(A)).is_torn
            await stage[A].clone(B, lambda _: None)
        await stage[A].start(as_primary=False)
        await stage.attach(B, A)
        await stage.write(B)
        assert not set(rows) & set(await stage.equal(B, A, C))

    run(scene)


@pytest.mark.parametrize("after_s", [0.01, 0.1])
def test_a_rewind_that_was_given_up_is_done_again_or_shows_that_it_was_begun(
    run: Run, after_s: float
) -> None:
    async def scene(stage: Stage) -> None:
        rows = await asynchronous(stage)
        found = await stage.save_diverged(A)
        await stage[A].start(as_primary=False)
        async with stage.harness.serving(B):
            await cancelled(lambda: stage[A].rewind(found, B, stage.epoch), after_s)
            if (await stage.seen(A)).is_torn:
                for call in (stage.attach(B, A), stage[A].seal(stage.next_epoch())):
                    with pytest.raises(Conflict):
                        await call
                return  # Only a clone makes something of these data again.
            try:
                await stage.attach(B, A)
            except Conflict:
                await stage[A].rewind(found, B, stage.epoch)
                await stage.attach(B, A)
        assert not set(rows) & set(await stage.equal(B, A, C))

    run(scene)


def test_a_replica_that_received_more_than_the_new_primary_is_no_prefix_of_it(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.lead(A, B, C, acks=0)
        await stage.caught_up(A, B, C)
        await stage[A].exclude(B)
        row = await stage.write(A, is_promised=False)
        await stage.caught_up(A, C)
        await stage[A].kill()
        await stage.fail_over(B, acks=0)
        await stage.write(B)
        with pytest.raises(Conflict):
            await stage.attach(B, C, acknowledge=False)
        assert (await stage.seen(C)).replication.is_diverged
        await stage[C].kill()
        found = await stage.save_diverged(C)
        assert (found.count, found.is_certain) == (1, True)
        async with stage.harness.serving(B):
            await stage.rejoin(C, found)
        assert row not in await stage.equal(B, C)

    run(scene)


def test_a_stopped_replica_has_nothing_of_its_own(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.write(A)
        await stage.caught_up(A, B, C)
        for end in (stage[B].stop, stage[C].kill):
            await end()
        await stage.lead(A, acks=0)
        for node in (B, C):
            found = await stage.save_diverged(node)
            assert (found.count, found.is_certain, found.path) == (0, True, "")
            await stage.rejoin(node, found)
            assert not (await stage.seen(node)).is_cut
        await stage[A].set_acks(1)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)
