"""A copy of another node's data: whole, with a new incarnation, or not at all."""

from collections.abc import Callable

import pytest
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.harness import A, B, C, D
from tests.conformance.engine.stage import Stage, cancelled

from primacy.engines.api import Progress, ServerState
from primacy.errors import Rejected, Unavailable
from primacy.model import NodeId

Run = Callable[[Scene], None]


def quiet(_: Progress) -> None:
    """Nobody looks."""


def test_a_clone_follows_where_its_donor_stood_and_can_lead(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        for _ in range(3):
            await stage.write(A)
        shown: list[Progress] = []
        async with stage.harness.serving(A):
            await stage[D].clone(A, shown.append)
        assert all(each.label for each in shown)
        assert max(each.done_bytes for each in shown) > 0
        seen = await stage.seen(D)
        assert seen.state is ServerState.STOPPED
        assert not seen.has_old_data
        assert seen.incarnation
        assert seen.incarnation != (await stage.seen(A)).incarnation
        await stage.write(A)
        for after_s in (0.0, 0.05, 0.15, 0.25):  # A start that was given up is called again.
            await cancelled(lambda: stage[D].start(as_primary=False), after_s)
        await stage[D].start(as_primary=False)
        await stage.attach(A, D)
        await stage.equal(A, B, C, D)

        await stage[D].kill()
        assert (await stage.save_diverged(D)).count == 0, "its log begins where the copy stood"
        await stage[D].start(as_primary=True)
        await stage.attach(A, D)
        await stage.write(A)
        await stage.equal(A, D)
        await stage[A].kill()
        await stage.fail_over(D, B, C)
        await stage.write(D)
        await stage.equal(D, B, C)
        await stage.hand_over(D, B, C)

    run(scene)


def test_a_clone_keeps_the_old_data_until_told_and_the_note_for_ever(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        await stage.write(A)
        await stage.caught_up(A, B, C)
        before = await stage.seen(C)
        async with stage.harness.serving(B):
            await stage[C].clone(B, quiet)  # A replica gives one, too.
        seen = await stage.seen(C)
        assert seen.state is ServerState.STOPPED
        assert seen.has_old_data
        assert seen.incarnation not in (None, before.incarnation)
        assert seen.sealed_epoch == before.sealed_epoch
        assert not seen.is_cut
        await stage[C].start(as_primary=True)
        await stage.attach(A, C)
        await stage.write(A)
        await stage.equal(A, B, C)
        for _ in range(2):
            await stage[C].forget_old_data()
            assert not (await stage.seen(C)).has_old_data

    run(scene)


def test_of_a_clone_that_was_given_up_the_old_data_stand(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        before = await stage.seen(C)
        async with stage.harness.serving(A):
            for after_s in (0.0, 0.05, 0.4):
                await cancelled(lambda: stage[C].clone(A, quiet), after_s)
        seen = await stage.until(C, lambda seen: seen.state is not ServerState.HUNG)
        if not seen.has_old_data:  # Else one was through.
            assert seen.incarnation == before.incarnation
            assert seen.sealed_epoch == before.sealed_epoch
        await stage.up(C)
        await stage.attach(A, C)
        await stage.write(A)
        await stage.equal(A, B, C)

    run(scene)


def test_a_clone_without_a_donor_changes_nothing(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        before = await stage.seen(C)
        for nobody in (C, NodeId("nobody")):
            with pytest.raises(Rejected):
                await stage[C].clone(nobody, quiet)
        with pytest.raises(Unavailable):
            await stage[C].clone(B, quiet)  # Its door is shut.
        async with stage.harness.serving(B):
            await stage[B].kill()
            with pytest.raises(Unavailable):
                await stage[C].clone(B, quiet)
        seen = await stage.seen(C)
        assert (seen.state, seen.incarnation) == (ServerState.RUNNING, before.incarnation)
        assert seen.replication == before.replication, "it followed all the while"
        await stage.write(A)
        await stage.equal(A, C)

    run(scene)
