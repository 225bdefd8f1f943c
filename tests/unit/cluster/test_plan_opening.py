"""The opening of an epoch: who is kept from acknowledging before the own record stands."""

from dataclasses import replace

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.policy import Policy
from primacy.cluster.view import HOPELESS_SALVAGES, LeaseView, PageView, StoreView, View
from primacy.engines.api import Diverged, Observation, Replication, Sending, ServerState
from primacy.model import Epoch, Incarnation, Member, NodeId, Position, Revision
from primacy.replication.records import (
    BranchRecord,
    DurabilityRecord,
    NodeStatus,
    PrimaryRecord,
)

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
E1, E2 = Epoch(1), Epoch(2)
ROW = Position(E2, 11)
POLICY = Policy(data_nodes=(A, B, C))


def life(node: NodeId) -> Incarnation:
    return Incarnation(f"{node}1")


def follower(node: NodeId, epoch: Epoch, *, acknowledges: bool = False) -> NodeStatus:
    return NodeStatus(
        node=node,
        incarnation=life(node),
        state="running",
        received=ROW if epoch == E2 else Position(E1, 10),
        applied=Position(E1, 10),
        following_epoch=epoch,
        upstream=A,
        is_receiving=True,
        is_applying=True,
        acknowledges=acknowledges,
    )


def opening(*, told: NodeStatus, untold: NodeStatus, excluded: frozenset[NodeId]) -> View:
    """A has won epoch 2 again after its own epoch 1, and its row stands; B holds the row."""
    old = DurabilityRecord(
        epoch=E1, primary=Member(A, life(A)), acks=1, members=(Member(C, life(C)),)
    )
    return View(
        node=A,
        store=StoreView(
            epoch=E2,
            primary=PrimaryRecord(node=A, incarnation=life(A), epoch=E2),
            primary_lease=7,
            durability=old,
            durability_mod=Revision(5),
            branches={E2: BranchRecord(epoch=E2, node=A, first_sequence=11)},
            nodes={B: told, C: untold},
        ),
        engine=Observation(
            state=ServerState.RUNNING,
            incarnation=life(A),
            received=ROW,
            applied=ROW,
            sending=Sending(acks=1, excluded=excluded),
        ),
        lease=LeaseView(lease=7, left_s=2.0, epoch=E2),
        page=PageView(epoch=E2, state="armed"),
    )


def test_a_replica_that_was_never_told_of_the_epoch_is_cut_off_before_the_record_stands() -> None:
    # Simulator seeds 65, 90 and 113: C's agent was down, its server attached by itself.
    view = opening(
        told=follower(B, E2),
        untold=follower(C, E1, acknowledges=True),
        excluded=frozenset(),
    )
    step = plan(view, POLICY)
    assert isinstance(step.action, do.Exclude)
    assert step.action.node == C
    after = opening(
        told=follower(B, E2),
        untold=follower(C, E1, acknowledges=True),
        excluded=frozenset({C}),
    )
    swap = plan(after, POLICY).action
    assert isinstance(swap, do.Swap)
    assert [member.node for member in swap.record.members] == [B]


def test_a_silent_follower_of_the_epoch_need_not_be_cut_off() -> None:
    behind = follower(C, E2)
    view = opening(
        told=follower(B, E2),
        untold=NodeStatus(
            node=C,
            incarnation=life(C),
            state="running",
            following_epoch=behind.following_epoch,
            upstream=A,
            is_receiving=True,
            is_applying=True,
        ),
        excluded=frozenset(),
    )
    assert isinstance(plan(view, POLICY).action, do.Swap)


def test_an_exclusion_of_an_earlier_epoch_ends_while_the_doors_are_still_closed() -> None:
    view = opening(told=follower(B, E2), untold=follower(C, E1), excluded=frozenset({B, C}))
    step = plan(view, POLICY)
    assert isinstance(step.action, do.Admit)
    assert step.action.node == B


def stopped_with_a_tail(node: NodeId, stopped_for_s: float) -> View:
    """A leads epoch 2 without a record of its own yet; this node's server is down and diverged."""
    base = opening(told=follower(B, E1), untold=follower(C, E1), excluded=frozenset())
    return replace(
        base,
        node=node,
        engine=Observation(
            state=ServerState.STOPPED, incarnation=life(node), received=Position(E1, 12)
        ),
        lease=None,
        page=PageView(),
        diverged={E2: Diverged(count=2, path="saved.sql")},
        state_for_s=stopped_for_s,
    )


def test_a_node_outside_the_old_record_is_cut_at_once_to_hold_the_new_row() -> None:
    # Simulator seeds 5, 69 and 77: every possible holder waited for the record, and it for them.
    step = plan(stopped_with_a_tail(B, 0.1), POLICY)
    assert isinstance(step.action, do.Start)
    assert not step.action.as_primary


def test_a_node_that_the_old_record_names_leaves_it_to_others_for_a_while_only() -> None:
    assert plan(stopped_with_a_tail(C, 0.1), POLICY).action is None
    assert isinstance(plan(stopped_with_a_tail(C, 60.0), POLICY).action, do.Start)


def test_a_winner_that_cannot_apply_what_it_received_gives_the_record_up() -> None:
    # Found by changing the policy under faults: seed 14 of tests/sim/policies.py, acks 0 and 1.
    base = opening(told=follower(B, E1), untold=follower(C, E1), excluded=frozenset())
    broken = replace(
        base.engine,
        applied=Position(E1, 8),
        replication=Replication(error="1030: the applier stopped"),
    )
    assert isinstance(plan(replace(base, engine=broken), POLICY).action, do.Drain)
    step = plan(replace(base, engine=broken, error_for_s=2.0), POLICY)
    assert isinstance(step.action, do.GiveUp), step.reason


def test_a_winner_whose_relay_log_cannot_be_replayed_leaves_the_lead_to_an_heir() -> None:
    """Found by seed 126: the recorded primary had followed a winner, and its applier had broken."""
    base = opening(told=follower(B, E1), untold=follower(C, E1), excluded=frozenset())
    stuck = replace(base, engine=replace(base.engine, needs_salvage=True))
    for failures, action in ((HOPELESS_SALVAGES - 1, do.Salvage), (HOPELESS_SALVAGES, do.GiveUp)):
        step = plan(replace(stuck, failures={"Salvage": failures}), POLICY)
        assert isinstance(step.action, action), step.reason
