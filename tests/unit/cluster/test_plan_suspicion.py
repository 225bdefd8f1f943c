"""What a suspicion may change in a plan: how long somebody is waited for, and nothing else."""

from dataclasses import replace

import pytest
from tests.unit.cluster.situations import (
    BOTH_SEALED,
    E1,
    POLICY,
    A,
    B,
    C,
    durability,
    primary,
    record,
    replica,
    seal,
    store,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.suspicion import CERTAIN_PHI
from primacy.cluster.view import LeaseView, View
from primacy.model import Epoch
from primacy.replication.records import Pause

GONE = CERTAIN_PHI
EARLY = LeaseView(lease=9, left_s=2.0, epoch=Epoch(0))

SITUATIONS: dict[str, tuple[View, type[do.Action] | None]] = {
    "a silent member that is slow stays in the sync set": (
        primary(store=store(primary=record(), silent_for_s={B: 4.0}, suspicion={B: 2.0})),
        None,
    ),
    "a silent member that has certainly gone leaves it sooner": (
        primary(store=store(primary=record(), silent_for_s={B: 2.0}, suspicion={B: GONE})),
        do.Exclude,
    ),
    "a silent member leaves it in the end, whatever is known": (
        primary(store=store(primary=record(), silent_for_s={B: 6.0})),
        do.Exclude,
    ),
    "the recorded primary waits for a member that is slow": (
        vacant(A, silent_for_s={B: 0.1, C: 4.0}, suspicion={C: 2.0}),
        None,
    ),
    "the recorded primary does not wait for a member that has certainly gone": (
        vacant(A, silent_for_s={B: 0.1, C: 2.0}, suspicion={C: GONE}),
        do.Claim,
    ),
    "equally advanced, and the first one has certainly gone: no waiting": (
        vacant(C, **BOTH_SEALED, silent_for_s={B: 2.0}, suspicion={B: GONE}),
        do.Claim,
    ),
    "less advanced never claims, whoever has gone": (
        vacant(
            B,
            seals={B: seal(B)},
            silent_for_s={A: 60.0, C: 60.0},
            suspicion={A: GONE, C: GONE},
        ),
        None,
    ),
    "the primary has certainly gone: a lease is held early": (
        replica(store=store(primary=record(), silent_for_s={A: 2.0}, suspicion={A: GONE})),
        do.HoldLease,
    ),
    "held early, it is kept while the primary's stands": (
        replica(
            lease=EARLY,
            store=store(primary=record(), silent_for_s={A: 2.0}, suspicion={A: GONE}),
        ),
        None,
    ),
    "the primary is heard again: the lease is dropped": (
        replica(lease=EARLY, store=store(primary=record(), silent_for_s={A: 0.1})),
        do.DropLease,
    ),
    "a node outside the sync set holds no lease early": (
        replica(
            C,
            store=store(
                primary=record(),
                durability=durability(E1, A, B),
                silent_for_s={A: 2.0},
                suspicion={A: GONE},
            ),
            engine=replace(
                replica(C).engine,
                replication=replace(replica(C).engine.replication, acknowledges=False),
            ),
        ),
        None,
    ),
    "paused: no lease is held for an election that will not be": (
        replica(
            store=store(primary=record(), pause=Pause(), silent_for_s={A: 2.0}, suspicion={A: GONE})
        ),
        None,
    ),
}


@pytest.mark.parametrize(("view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, POLICY)
    assert (type(step.action) if step.action else None) is expected, step.reason
