"""Nodes that are of no use for a while: a disk that is full, a server that does not start."""

from dataclasses import replace

import pytest
from tests.unit.cluster.situations import (
    BOTH_SEALED,
    E1,
    E2,
    POLICY,
    A,
    B,
    C,
    durability,
    primary,
    record,
    replica,
    status,
    store,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.plan_rejoin import HOPELESS_STARTS
from primacy.cluster.view import HOPELESS_SALVAGES, LeaseView, PageView, View
from primacy.engines.api import Diverged, ServerState
from primacy.model import NodeId, Position
from primacy.replication.records import BranchRecord, DurabilityRecord


def full(view: View, **more: object) -> View:
    return replace(view, engine=replace(view.engine, is_disk_full=True, **more))  # type: ignore[arg-type]  # Test shorthand.


def opening(node: NodeId) -> View:
    return replica(
        node,
        store=store(primary=record(node, E2)),
        lease=LeaseView(lease=9, left_s=2.0, epoch=E2),
        page=PageView(epoch=E2, state="armed"),
    )


SITUATIONS: dict[str, tuple[View, type[do.Action] | None]] = {
    "a primary that others can replace gives up": (full(primary()), do.GiveUp),
    "nobody could go on: it keeps the lead": (
        full(primary(store=store(primary=record(), unfit_for_s={B: 5.0, C: 5.0}))),
        None,
    ),
    "a winner gives up before it opens": (full(opening(B)), do.GiveUp),
    "a replica waits": (full(replica()), None),
    "a replica that hangs is not killed for it": (
        replace(full(replica(), state=ServerState.HUNG), state_for_s=99.0),
        None,
    ),
    "a stopped server stays down": (full(replica(A), state=ServerState.STOPPED), None),
    "without a primary it still seals": (full(vacant(B)), do.Seal),
    "and claims nothing, however advanced": (full(vacant(B, **BOTH_SEALED)), None),
    "nor returns as the recorded primary": (full(vacant(A, silent_for_s={B: 60.0})), None),
    "an equally advanced one claims in its place": (
        replace(vacant(C, **BOTH_SEALED), store=store(vacant_for_s=2.0, **BOTH_SEALED)),
        do.Claim,
    ),
    "what must end here ends all the same": (
        replace(full(vacant(A)), lease=LeaseView(lease=7, left_s=0.0, epoch=E1)),
        do.GiveUp,
    ),
}


@pytest.mark.parametrize(("view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, POLICY)
    assert (type(step.action) if step.action else None) is expected, step.reason


def test_it_says_so() -> None:
    for view in (full(primary()), full(replica()), full(vacant(B, **BOTH_SEALED))):
        assert "disk of this node is full" in plan(view, POLICY).reason


def test_a_member_whose_disk_is_full_is_no_fit_receiver() -> None:
    assert status(B).is_healthy_replica
    assert not status(B, is_disk_full=True).is_healthy_replica


def stopped(node: NodeId, record_of: DurabilityRecord, *, failed_starts: int) -> View:
    """An old primary whose logs were read; `b` leads epoch 2."""
    view = replica(
        node,
        store=store(
            primary=record(B, E2),
            epoch=E2,
            durability=record_of,
            branches={E2: BranchRecord(epoch=E2, node=B, first_sequence=11)},
            nodes={B: status(B, applied=Position(E2, 11), received=Position(E2, 11)), C: status(C)},
        ),
        diverged={E2: Diverged()},
        failures={"Start": failed_starts},
    )
    return replace(view, engine=replace(view.engine, state=ServerState.STOPPED))


@pytest.mark.parametrize(
    ("record_of", "failed_starts", "expected"),
    [
        (durability(E2, B, C), HOPELESS_STARTS - 1, do.Start),
        (durability(E2, B, C), HOPELESS_STARTS, do.Clone),
        (durability(E2, B, A), HOPELESS_STARTS, do.Start),
        (durability(E1, A, B, C), HOPELESS_STARTS, do.Start),
    ],
    ids=[
        "it is tried again",
        "it is given up",
        "the record counts on its data",
        "the record of this epoch does not stand yet",
    ],
)
def test_a_server_that_cannot_start(
    record_of: DurabilityRecord, failed_starts: int, expected: type[do.Action]
) -> None:
    step = plan(stopped(A, record_of, failed_starts=failed_starts), POLICY)
    assert type(step.action) is expected, step.reason


@pytest.mark.parametrize(
    ("record_of", "failed", "expected"),
    [
        (durability(E1, A, C), HOPELESS_SALVAGES - 1, do.Salvage),
        (durability(E1, A, C), HOPELESS_SALVAGES, do.Clone),
        (durability(E1, A, B, C), HOPELESS_SALVAGES, do.Salvage),
    ],
    ids=["it is tried again", "it is given up", "the record counts on it"],
)
def test_a_relay_log_that_cannot_be_applied(
    record_of: DurabilityRecord, failed: int, expected: type[do.Action]
) -> None:
    nodes = {A: status(A, is_read_only=False), B: status(B), C: status(C)}
    view = replica(
        store=store(primary=record(), durability=record_of, nodes=nodes),
        failures={"Salvage": failed},
    )
    view = replace(view, engine=replace(view.engine, needs_salvage=True))
    assert type(plan(view, POLICY).action) is expected
