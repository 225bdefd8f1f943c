"""Where the operator wants the primary: weights, never_promote, the preferred site."""

from dataclasses import replace

import pytest
from tests.unit.cluster.situations import (
    AHEAD,
    BOTH_SEALED,
    E1,
    POLICY,
    A,
    B,
    C,
    durability,
    primary,
    record,
    seal,
    status,
    store,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.policy import Policy
from primacy.cluster.transactions import ask_switchover_txn
from primacy.cluster.view import View
from primacy.coordination.api import absent
from primacy.model import NodeId, Revision
from primacy.replication.records import SWITCHOVER_KEY, Pause

HEAVY_C = replace(POLICY, priority={C: 5})
C_SITE = replace(POLICY, preferred=frozenset({C}), priority={B: 1000})
BACK_TO_B = replace(POLICY, preferred=frozenset({B}), return_to_preferred=True)
NEVER_C = replace(POLICY, never_promote=frozenset({C}))
B_NEVER_C = replace(NEVER_C, data_nodes=(A, C))
CALM = {"durability_for_s": 61.0, "switchover_for_s": 61.0}
"""Nothing has moved for longer than the policy asks."""

UNRECORDED = vacant(
    B,
    durability=None,
    nodes={A: status(A), B: status(B), C: status(C)},
    seals={A: seal(A), B: seal(B), C: seal(C)},
)
"""All data nodes have sealed at the same position, and the store has no durability record."""

Row = tuple[Policy, View, type[do.Action] | None]

SITUATIONS: dict[str, Row] = {
    "equally advanced: the heavier goes first": (HEAVY_C, vacant(C, **BOTH_SEALED), do.Claim),
    "equally advanced: the lighter waits": (HEAVY_C, vacant(B, **BOTH_SEALED), None),
    "the preferred site outweighs every priority": (C_SITE, vacant(C, **BOTH_SEALED), do.Claim),
    "no weight outweighs data": (
        HEAVY_C,
        vacant(C, seals={B: seal(B, received=AHEAD), C: seal(C)}),
        None,
    ),
    "calm for a minute: back to the preferred site": (
        BACK_TO_B,
        primary(store=store(primary=record(), **CALM)),
        do.AskSwitchover,
    ),
    "the sync set has just changed: not yet": (
        BACK_TO_B,
        primary(store=store(primary=record(), **CALM | {"durability_for_s": 9.0})),
        None,
    ),
    "a switchover has just ended, done or not: not yet": (
        BACK_TO_B,
        primary(store=store(primary=record(), **CALM | {"switchover_for_s": 9.0})),
        None,
    ),
    "only if it was asked for": (
        replace(BACK_TO_B, return_to_preferred=False),
        primary(store=store(primary=record(), **CALM)),
        None,
    ),
    "not during a pause": (
        BACK_TO_B,
        primary(store=store(primary=record(), pause=Pause(), **CALM)),
        None,
    ),
    "not to a node outside the sync set": (
        BACK_TO_B,
        primary(
            store=store(
                primary=record(),
                durability=durability(E1, A, C),
                nodes={B: status(B, is_applying=False), C: status(C)},
                **CALM,
            )
        ),
        None,
    ),
    "the primary is where it belongs": (
        replace(BACK_TO_B, preferred=frozenset({A, B})),
        primary(store=store(primary=record(), **CALM)),
        None,
    ),
    "what only a node that is never promoted holds bars all others": (
        NEVER_C,
        vacant(B, seals={B: seal(B), C: seal(C, received=AHEAD)}),
        None,
    ),
    "the record is unknown, all are equal, and the first by name is never promoted": (
        replace(POLICY, never_promote=frozenset({A})),
        replace(UNRECORDED, store=replace(UNRECORDED.store, vacant_for_s=9.0)),
        do.Claim,
    ),
    "the record is unknown, all are equal: the first by name has its time": (
        POLICY,
        UNRECORDED,
        None,
    ),
    "so it leaves the sync set where others can acknowledge": (
        NEVER_C,
        primary(),
        do.Exclude,
    ),
    "and does not come in": (
        NEVER_C,
        primary(store=store(primary=record(), durability=durability(E1, A, B))),
        None,
    ),
    "it stays where nobody else could acknowledge": (
        B_NEVER_C,
        primary(
            store=store(primary=record(), durability=durability(E1, A, C), nodes={C: status(C)})
        ),
        None,
    ),
}


@pytest.mark.parametrize(("policy", "view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(policy: Policy, view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, policy)
    assert (type(step.action) if step.action else None) is expected, step.reason


def test_who_leaves_is_the_one_that_is_never_promoted() -> None:
    action = plan(primary(), NEVER_C).action
    assert isinstance(action, do.Exclude)
    assert action.node == C


def test_a_return_is_asked_for_as_an_operator_would() -> None:
    view = primary(store=store(primary=record(), revision=Revision(77), **CALM))
    action = plan(view, BACK_TO_B).action
    assert isinstance(action, do.AskSwitchover)
    assert (action.target, action.request_id) == (B, "return-77")
    assert absent(SWITCHOVER_KEY) in ask_switchover_txn(view.store, action, 1.0).compares


@pytest.mark.parametrize(
    ("acks", "counted"), [(0, (A, B)), (1, (A, B)), (2, (A, B, C))], ids=["none", "one", "both"]
)
def test_whose_acknowledgement_counts(acks: int, counted: tuple[NodeId, ...]) -> None:
    assert replace(NEVER_C, acks=acks).ack_nodes == counted
