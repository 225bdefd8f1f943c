"""A few rounds of `breaking.py`; more of them are run by hand."""

import random
from collections.abc import Callable

from tests.conformance.engine.breaking import Breaker
from tests.conformance.engine.conftest import Scene
from tests.conformance.engine.stage import Stage

ROUNDS = 5


def test_nothing_that_was_acknowledged_is_lost_whatever_dies_in_between(
    run: Callable[[Scene], None],
) -> None:
    async def scene(stage: Stage) -> None:
        await Breaker(stage, random.Random(6)).play(ROUNDS)

    run(scene)
