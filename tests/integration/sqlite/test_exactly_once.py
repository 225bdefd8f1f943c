"""Exactly once: a counter that sixteen clients add to through failovers of a whole cluster."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.sqlite.counting import FAULTS, Counted, Doubled, Tally, count

from primacy.model import NodeId

pytestmark = pytest.mark.integration

FAILOVERS = len(FAULTS)
"""Each way to lose a primary once; `make soak-sqlite` goes through twenty."""
WITHIN_S = 240


def test_each_call_takes_effect_once_through_failovers(tmp_path: Path) -> None:
    async def bounded() -> Counted:
        async with asyncio.timeout(WITHIN_S):
            return await count(tmp_path, failovers=FAILOVERS, seed=1)

    counted = asyncio.run(bounded())
    assert set(counted.counters.values()) == {counted.calls}, counted.told()
    assert counted.epochs >= FAILOVERS
    assert counted.settled_elsewhere > 0, f"no key went over a failover: {counted.told()}"
    assert [fault for fault, _ in counted.outages] == list(FAULTS)


def test_the_tally_finds_a_write_that_was_lost_and_one_that_was_doubled() -> None:
    tally = Tally()
    tally.take(2, made_at=0, sent_at=0)
    tally.take(1, made_at=0, sent_at=2, is_elsewhere=True)  # It was there before it was sent.
    assert (tally.settled, tally.settled_elsewhere) == (1, 1)
    with pytest.raises(Doubled, match="two calls"):
        tally.take(2, made_at=0, sent_at=0)
    with pytest.raises(Doubled, match="made after 4"):
        tally.take(3, made_at=4, sent_at=4)
    for are_all_answered, counter in ((True, 3), (False, 2)):
        counted = Counted(
            calls=2,
            are_all_answered=are_all_answered,
            counters={NodeId("a"): 2, NodeId("b"): counter},
            epochs=1,
            repeats=1,
            settled=1,
            settled_elsewhere=1,
            outages=(),
        )
        with pytest.raises(Doubled, match="2 calls were answered"):
            counted.check()
