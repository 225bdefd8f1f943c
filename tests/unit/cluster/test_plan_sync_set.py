"""Changes of the sync set: what must be true before each step, as a table of situations."""

from dataclasses import replace
from typing import Any  # A table row overrides any field of the view.

import pytest
from tests.unit.cluster.situations import (
    AT,
    E1,
    INC,
    POLICY,
    A,
    B,
    C,
    durability,
    primary,
    record,
    seen,
    status,
    store,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.policy import Policy
from primacy.cluster.view import PageView, Transition, View
from primacy.cluster.viewing import Sight
from primacy.engines.api import Observation, Sending, ServerState
from primacy.model import Member, NodeId, Revision
from primacy.replication.records import DurabilityRecord

DEGRADING = replace(POLICY, on_timeout="degrade", timeout_s=1.0)
ASYNCHRONOUS = replace(POLICY, acks=0)


def degraded(*members: NodeId) -> DurabilityRecord:
    named = tuple(Member(node, INC[node]) for node in members)
    return DurabilityRecord(
        epoch=E1, primary=Member(A, INC[A]), acks=0, members=named, is_degraded=True
    )


LOSSY = DurabilityRecord(epoch=E1, primary=Member(A, INC[A]), acks=0, members=(), is_lossy=True)


def leading(
    *,
    acks: int = 1,
    stands: DurabilityRecord | None = None,
    transition: Transition | None = None,
    blocked_for_s: float = 0.0,
    unexpected_for_s: float = 0.0,
    sending: dict[str, Any] | None = None,  # Any: fields of Sending.
    **more: Any,  # Any: fields of the store view.
) -> View:
    """A leads with open doors; `sending` and the store are overridden by field."""
    fields: dict[str, Any] = {  # As above.
        "receivers": frozenset({B, C}),
        "acknowledging_count": 2,
    } | (sending or {})
    return primary(
        engine=seen(A, is_read_only=False, sending=Sending(acks=acks, **fields)),
        store=store(primary=record(), durability=stands or durability(), **more),
        transition=transition,
        blocked_for_s=blocked_for_s,
        unexpected_for_s=unexpected_for_s,
    )


QUIET = {B: status(B, acknowledges=False), C: status(C, acknowledges=False)}
C_OUT = {"excluded": frozenset({C}), "acknowledging_count": 1}

SITUATIONS: dict[str, tuple[View, Policy, type[do.Action] | None]] = {
    # who goes out is surely cut off
    "locked and still attached is not cut off": (
        leading(unfit_for_s={C: 5.0}, sending=C_OUT),
        POLICY,
        do.Exclude,
    ),
    "locked and gone: the marker is written": (
        leading(unfit_for_s={C: 5.0}, sending={**C_OUT, "receivers": frozenset({B})}),
        POLICY,
        do.Mark,
    ),
    "a node that would acknowledge as soon as it is let in stays out": (
        leading(
            stands=durability(E1, A, B),
            sending={**C_OUT, "receivers": frozenset({B})},
            nodes={B: status(B), C: status(C, is_receiving=False, acknowledges=True)},
        ),
        POLICY,
        None,
    ),
    # degrade
    "blocked beyond patience: whoever could acknowledge is cut off first": (
        leading(
            blocked_for_s=2.0,
            unfit_for_s={B: 5.0, C: 5.0},
            sending={"waiting_commits": 1},
        ),
        DEGRADING,
        do.Exclude,
    ),
    "then the marker": (
        leading(
            blocked_for_s=2.0,
            unfit_for_s={B: 5.0, C: 5.0},
            sending={
                "waiting_commits": 1,
                "excluded": frozenset({B, C}),
                "receivers": frozenset(),
                "acknowledging_count": 0,
            },
        ),
        DEGRADING,
        do.Mark,
    ),
    "then the record; nothing is released before it stands": (
        leading(
            blocked_for_s=2.0,
            unfit_for_s={B: 5.0, C: 5.0},
            sending={
                "waiting_commits": 1,
                "excluded": frozenset({B, C}),
                "receivers": frozenset(),
                "acknowledging_count": 0,
            },
            transition=Transition(record=degraded(), base_mod=Revision(5), marker_sequence=10),
        ),
        DEGRADING,
        do.Swap,
    ),
    "the degradation is recorded: waiting commits are released": (
        leading(
            stands=degraded(),
            unfit_for_s={B: 5.0, C: 5.0},
            sending={
                "waiting_commits": 1,
                "excluded": frozenset({B, C}),
                "receivers": frozenset(),
                "acknowledging_count": 0,
            },
        ),
        DEGRADING,
        do.SetAcks,
    ),
    # and the way back
    "degraded, and a replica is back: it comes in while nothing waits for it": (
        leading(acks=0, stands=degraded(), nodes=QUIET, sending={"acknowledging_count": 0}),
        DEGRADING,
        do.Mark,
    ),
    "recorded and not acknowledging yet: k is not raised": (
        leading(acks=0, stands=degraded(B, C), nodes=QUIET, sending={"acknowledging_count": 0}),
        DEGRADING,
        None,
    ),
    "recorded and acknowledging: commits wait for it before the record asks": (
        leading(acks=0, stands=degraded(B, C)),
        DEGRADING,
        do.SetAcks,
    ),
    "then the marker, and the record with k": (
        leading(acks=1, stands=degraded(B, C)),
        DEGRADING,
        do.Mark,
    ),
    "k is not raised while an unrecorded node might acknowledge": (
        leading(
            acks=0,
            stands=degraded(B),
            nodes={B: status(B), C: status(C, state="hung", is_receiving=False)},
            sending={"acknowledging_count": 1},
        ),
        DEGRADING,
        do.Exclude,
    ),
    "a member that fails on the way back leaves, and commits are released": (
        leading(acks=1, stands=degraded(), nodes=QUIET, unfit_for_s={B: 9.0, C: 9.0}),
        DEGRADING,
        do.SetAcks,
    ),
    # another policy on a running cluster
    "the policy now says acks = 0: members are cut off first": (
        leading(),
        ASYNCHRONOUS,
        do.Exclude,
    ),
    "degraded, and the policy now says acks = 0: the record becomes lossy": (
        leading(acks=0, stands=degraded(), sending={"acknowledging_count": 0}, nodes=QUIET),
        ASYNCHRONOUS,
        do.Mark,
    ),
    "lossy by policy is at rest": (
        leading(acks=0, stands=LOSSY, sending={"acknowledging_count": 0}, nodes=QUIET),
        ASYNCHRONOUS,
        None,
    ),
    "lossy, and the policy now says acks = 1: members come in": (
        leading(acks=0, stands=LOSSY, sending={"acknowledging_count": 0}, nodes=QUIET),
        POLICY,
        do.Mark,
    ),
    # who acknowledges unasked
    "an unrecorded node that says it acknowledges is cut at once": (
        leading(stands=durability(E1, A, B), nodes={B: status(B), C: status(C)}),
        POLICY,
        do.Exclude,
    ),
    "one client too many, in one look: wait": (
        leading(
            sending={"acknowledging_count": 3, "strangers": frozenset({"app"})},
            unexpected_for_s=0.1,
        ),
        POLICY,
        None,
    ),
    "one client too many, and a stranger is attached: it is cut": (
        leading(
            sending={"acknowledging_count": 3, "strangers": frozenset({"app"})},
            unexpected_for_s=0.5,
        ),
        POLICY,
        do.CutStrangers,
    ),
    "a stranger that only reads is left alone": (
        leading(sending={"strangers": frozenset({"app"})}, unexpected_for_s=9.0),
        POLICY,
        None,
    ),
    "a member with an old connection is no stranger": (
        leading(
            sending={
                "acknowledging_count": 3,
                "connections": {B: 2, C: 1},
                "strangers": frozenset({"app"}),
            },
            unexpected_for_s=9.0,
        ),
        POLICY,
        None,
    ),
    "a stranger behind a member that has not begun is found in time": (
        leading(
            nodes={B: status(B), C: status(C, acknowledges=False)},
            sending={"acknowledging_count": 2, "strangers": frozenset({"app"})},
            unexpected_for_s=2.5,
        ),
        POLICY,
        do.CutStrangers,
    ),
}


@pytest.mark.parametrize(("view", "policy", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(view: View, policy: Policy, expected: type[do.Action] | None) -> None:
    step = plan(view, policy)
    assert (type(step.action) if step.action else None) is expected, step.reason
    assert step.reason


def test_the_way_back_from_a_degradation_has_two_records() -> None:
    first = plan(
        leading(acks=0, stands=degraded(), nodes=QUIET, sending={"acknowledging_count": 0}),
        DEGRADING,
    ).action
    assert isinstance(first, do.Mark)
    assert first.record == degraded(B, C)
    second = plan(leading(acks=1, stands=degraded(B, C)), DEGRADING).action
    assert isinstance(second, do.Mark)
    assert second.record == durability()


def test_commits_are_released_only_by_a_record_that_allows_it() -> None:
    gone = {"receivers": frozenset(), "acknowledging_count": 0, "excluded": frozenset({B, C})}
    view = leading(stands=degraded(), unfit_for_s={B: 5.0, C: 5.0}, sending=gone)
    action = plan(view, DEGRADING).action
    assert isinstance(action, do.SetAcks)
    assert (action.acks, action.may_release) == (0, True)


def test_a_sent_change_comes_before_everything_else_also_before_the_doors_open() -> None:
    view = leading(
        acks=1,
        stands=degraded(),
        transition=Transition(
            record=durability(), base_mod=Revision(5), marker_sequence=10, is_sent=True
        ),
    )
    for page in (PageView(epoch=E1, state="open"), PageView(epoch=E1, state="armed")):
        action = plan(replace(view, page=page), DEGRADING).action
        assert isinstance(action, do.Swap), page
        assert action.record == durability()


def test_doors_open_under_a_degraded_record_without_waiting_for_anybody() -> None:
    view = replace(
        leading(acks=1, stands=degraded(), nodes={}, sending={"acknowledging_count": 0}),
        page=PageView(epoch=E1, state="armed"),
        engine=seen(A, sending=Sending(acks=1)),
    )
    action = plan(view, DEGRADING).action
    assert isinstance(action, do.SetAcks)
    assert (action.acks, action.may_release) == (0, True)
    ready = replace(view, engine=seen(A, sending=Sending(acks=0)))
    assert isinstance(plan(ready, DEGRADING).action, do.Open)


def test_a_surplus_of_acknowledging_clients_is_timed_from_its_first_look() -> None:
    sight = Sight(A, 0.0)
    engine = Observation(
        state=ServerState.RUNNING,
        incarnation=INC[A],
        received=AT,
        sending=Sending(acks=1, receivers=frozenset({B, C}), acknowledging_count=3),
    )
    stands = store(primary=record())

    def looked(now_s: float) -> View:
        sight.observe(engine, now_s)
        return sight.view(
            stands, now_s, lease=None, page=PageView(), is_store_current=True, wall_s=0.0
        )

    assert looked(10.0).unexpected_for_s == 0.0
    assert looked(10.5).unexpected_for_s == 0.5
    sight.note_cut(("app",), 10.6)
    assert looked(11.0).unexpected_clients == ("app",)
    assert looked(9000.0).unexpected_clients == ()
