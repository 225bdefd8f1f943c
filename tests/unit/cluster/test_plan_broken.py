"""A replica whose applier broke is repaired, whatever happened to it since."""

from dataclasses import replace
from typing import Any  # Fields of a view or an observation.

import pytest
from tests.unit.cluster.situations import (
    E1,
    E2,
    POLICY,
    A,
    B,
    C,
    durability,
    record,
    replica,
    seen,
    status,
    store,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.view import View
from primacy.engines.api import Observation, Replication
from primacy.model import Position
from primacy.replication.records import Pause

LED_BY_A = status(A, received=Position(E2, 12), applied=Position(E2, 12), upstream=None)
UNSETTLED = store(primary=record(A, E2), epoch=E2, nodes={A: LED_BY_A})
SETTLED = replace(UNSETTLED, durability=durability(E2, A, C))


def stuck(**more: Any) -> Observation:
    """A replica whose applier stopped in epoch 1, and that did not follow since."""
    broken = Replication(upstream=A, error="1032: a row is missing")
    return seen(B, following_epoch=E1, replication=broken, **more)


SITUATIONS: dict[str, tuple[View, type[do.Action] | None]] = {
    "its relay log cannot be replayed, the primary is settled: cloned (simulator seed 7)": (
        replica(engine=stuck(needs_salvage=True), error_for_s=1.5, store=SETTLED),
        do.Clone,
    ),
    "it is salvaged first, as long as nothing is confirmed": (
        replica(engine=stuck(needs_salvage=True), error_for_s=0.5, store=SETTLED),
        do.Salvage,
    ),
    "it broke under an earlier primary: cloned (simulator seed 24)": (
        replica(engine=stuck(), error_for_s=1.5, store=SETTLED),
        do.Clone,
    ),
    "the new primary may wait for this very node: cloned after two leases": (
        replica(engine=stuck(), error_for_s=7.5, store=UNSETTLED),
        do.Clone,
    ),
    "and not before: it may hold what nobody else does": (
        replica(engine=stuck(needs_salvage=True), error_for_s=5.0, store=UNSETTLED),
        do.Salvage,
    ),
    "nothing is copied while a pause stands": (
        replica(
            engine=stuck(needs_salvage=True),
            error_for_s=9.0,
            store=replace(SETTLED, pause=Pause(reason="an upgrade")),
        ),
        do.Salvage,
    ),
}


@pytest.mark.parametrize(("view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_a_broken_replica_takes_this_step(view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, POLICY)
    assert (None if step.action is None else type(step.action)) is expected, step.reason
