"""A disk without space: it is said while it is so, whoever asks, and no longer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.harness import A, B, C, D
from tests.conformance.engine.stage import Stage

from primacy.cli.demo_disks import SmallDisk, why_no_disk
from primacy.clock import SystemClock
from primacy.engines.api import ServerState

Run = Callable[[Scene], None]

WHY_NOT = why_no_disk(bears_room=False)
pytestmark = pytest.mark.skipif(WHY_NOT != "", reason=f"no disk can be mounted: {WHY_NOT}")


@contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    place.mkdir(mode=0o755)
    disk = SmallDisk(place, SystemClock())
    try:
        yield disk
    finally:
        disk.close(is_kept=False)


def test_a_full_disk_is_seen_loses_nothing_and_is_forgotten_with_space(run: Run) -> None:
    async def scene(stage: Stage) -> None:
        await stage.ready()
        with small_disk(stage.harness.root(D)) as disk:
            await stage.harness.make(D)
            assert not (await stage.seen(D)).is_disk_full
            await stage[D].start(as_primary=False)
            await stage.attach(A, D)
            await stage.caught_up(A, D)
            await disk.fill()
            seen = await stage.until(D, lambda seen: seen.is_disk_full)
            assert seen.state in (ServerState.RUNNING, ServerState.STOPPED, ServerState.HUNG)
            for _ in range(3):
                await stage.write(A)  # The others acknowledge; nobody waits for this one.
            disk.free()
            await stage.until(D, lambda seen: not seen.is_disk_full)
            if (await stage.seen(D)).state is not ServerState.RUNNING:
                await stage[D].kill()
                await stage[D].start(as_primary=True)
            await stage.attach(A, D)
            await stage.equal(A, B, C, D)
            await stage[D].kill()

    run(scene)
