"""The way back of a node that has what the new history has not: save, cut, rewind, clone."""

from dataclasses import replace
from typing import Any  # A table row overrides any field of the view.

import msgspec
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
from primacy.cluster.members import is_donor
from primacy.cluster.plan import plan
from primacy.cluster.policy import Policy
from primacy.cluster.view import LeaseView, View
from primacy.engines.api import Diverged, Observation, Replication, ServerState
from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.records import BranchRecord, DurabilityRecord, NodeStatus, Pause

D, E = NodeId("d"), NodeId("e")
FOUR = Policy(data_nodes=(A, B, C, D))
FOUND = Diverged(ident="a-2-12", epoch=E2, count=3, path="/x", parts_at=11)
BRANCHES = {
    E1: BranchRecord(epoch=E1, node=A, first_sequence=1),
    E2: BranchRecord(epoch=E2, node=B, first_sequence=11),
}
OWN = replace(FOUND, is_errant=True)
REFUSED = Replication(upstream=B, error="this log is no prefix of b's", is_diverged=True)


def members(*names: NodeId, acks: int = 1) -> DurabilityRecord:
    return DurabilityRecord(
        epoch=E2,
        primary=Member(B, Incarnation("life-b")),
        acks=acks,
        members=tuple(Member(name, Incarnation(f"life-{name}")) for name in names),
    )


def well(node: NodeId, **more: Any) -> NodeStatus:  # Any: fields of the record.
    """A healthy replica of b in epoch 2."""
    base = status(
        A, following_epoch=E2, upstream=B, received=Position(E2, 12), applied=Position(E2, 12)
    )
    own = {"node": node, "incarnation": Incarnation(f"life-{node}")}
    return msgspec.structs.replace(base, **(own | more))


def leading() -> NodeStatus:
    return well(B, upstream=None, following_epoch=Epoch(0), is_receiving=False)


OF_VIEW = ("lease", "error_for_s")


def back(engine: Observation, found: Diverged | None = None, **more: Any) -> View:  # Any: as above.
    """a led epoch 1; b leads epoch 2."""
    fields: dict[str, Any] = {  # As above.
        "primary": record(B, E2),
        "epoch": E2,
        "durability": members(C, D),
        "branches": BRANCHES,
        "nodes": {B: leading(), C: well(C), D: well(D)},
    } | {name: more[name] for name in more if name not in OF_VIEW}
    return replace(
        replica(A, store=store(**fields), engine=engine),
        diverged={} if found is None else {E2: found},
        state_for_s=60.0,
        **{name: more[name] for name in more if name in OF_VIEW},
    )


STOPPED = seen(A, state=ServerState.STOPPED)
RUNNING = seen(A, following_epoch=E2, replication=REFUSED)
WRITTEN_ON = replace(RUNNING, is_errant=True, needs_salvage=True)
ABSENT = Observation(state=ServerState.ABSENT)
TWO_ARE_LEFT: dict[str, Any] = {  # Any: fields of the store view.
    "durability": members(C),
    "nodes": {B: leading(), C: well(C)},
}
NAMED = members(A, C)

SITUATIONS: dict[str, tuple[View, type[do.Action] | None]] = {
    "its logs are read before its server starts": (back(STOPPED), do.SaveDiverged),
    "nothing found: it starts and keeps all": (back(STOPPED, Diverged()), do.Start),
    "something found: it starts and is cut": (back(STOPPED, FOUND), do.Start),
    "still no prefix, and every event has a reverse: rewound": (back(RUNNING, FOUND), do.Rewind),
    "still no prefix, and one has none": (
        back(RUNNING, replace(FOUND, obstacle="DDL"), **TWO_ARE_LEFT),
        do.Clone,
    ),
    "still no prefix, and its logs were not read": (back(RUNNING), do.Kill),
    "paused: nothing is taken back": (back(RUNNING, FOUND, pause=Pause()), None),
    "torn by a rewind that did not end: cloned, running": (
        back(replace(RUNNING, is_torn=True), FOUND, **TWO_ARE_LEFT),
        do.Clone,
    ),
    "and stopped": (back(replace(STOPPED, is_torn=True), **TWO_ARE_LEFT), do.Clone),
    "somebody wrote on this replica: its logs are read before anything is applied": (
        back(WRITTEN_ON),
        do.Kill,
    ),
    "what was found before it was written on says nothing": (back(WRITTEN_ON, Diverged()), do.Kill),
    "saved: it starts, for nothing of it can be cut": (back(STOPPED, OWN), do.Start),
    "saved, and the sync set does without it: taken back": (back(WRITTEN_ON, OWN), do.Rewind),
    "saved, and one has no reverse": (
        back(WRITTEN_ON, replace(OWN, obstacle="DDL"), **TWO_ARE_LEFT),
        do.Clone,
    ),
    "saved, and the record still counts on its log": (
        back(WRITTEN_ON, OWN, durability=NAMED, error_for_s=1.0),
        None,
    ),
    "for so long that it is replaced, which ends the life that the record names": (
        back(WRITTEN_ON, OWN, durability=NAMED, error_for_s=60.0, nodes=TWO_ARE_LEFT["nodes"]),
        do.Clone,
    ),
    "written on, and paused: nothing is touched": (back(WRITTEN_ON, pause=Pause()), None),
    "written on, with a lease held early: it takes over nothing": (
        back(WRITTEN_ON, lease=LeaseView(lease=7, left_s=2.0, epoch=Epoch(0))),
        do.DropLease,
    ),
    "no data: a replica must leave the set first": (back(ABSENT), None),
    "no data, and no replica can be spared": (back(ABSENT, **TWO_ARE_LEFT), do.Clone),
}


@pytest.mark.parametrize(("view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, FOUR)
    assert (type(step.action) if step.action else None) is expected, step.reason
    assert step.reason


def test_all_that_is_known_of_epochs_is_compared_oldest_first() -> None:
    action = plan(back(STOPPED), FOUR).action
    assert isinstance(action, do.SaveDiverged)
    assert action.branches == (BRANCHES[E1], BRANCHES[E2])


def is_cut_by(view: View) -> bool:
    action = plan(view, FOUR).action
    assert isinstance(action, do.Start)
    return not action.as_primary


def test_only_a_log_that_is_no_part_of_the_new_history_is_cut() -> None:
    assert is_cut_by(back(STOPPED, FOUND))
    assert not is_cut_by(back(STOPPED, Diverged()))
    assert is_cut_by(back(STOPPED, Diverged(is_certain=False)))
    assert not is_cut_by(back(STOPPED, OWN))


BROKEN = {B: leading(), C: well(C), D: well(D, is_applying=False)}
GIVING = {B: leading(), C: well(C), D: well(D), E: well(E, donor=C)}

DONORS: dict[str, tuple[View, NodeId | None, NodeId | None]] = {
    "a member that can be spared is asked for, and waited for": (back(ABSENT), C, None),
    "one outside the set goes first": (back(ABSENT, durability=members(C)), D, D),
    "the last member is not asked": (back(ABSENT, **TWO_ARE_LEFT), B, B),
    "the other members must be well": (back(ABSENT, nodes=BROKEN), B, B),
    "one that gives a copy already is not asked": (
        back(ABSENT, nodes=GIVING, durability=members(D, E)),
        D,
        None,
    ),
    "one member is asked already: the last is not (seed 1718)": (back(ABSENT, nodes=GIVING), B, B),
    "nobody need acknowledge: any replica": (back(ABSENT, durability=members(acks=0)), C, C),
    "the sync set does not stand yet": (back(ABSENT, durability=durability(E1, A)), B, B),
}


@pytest.mark.parametrize(("view", "asked", "donor"), DONORS.values(), ids=DONORS)
def test_from_whom_a_copy_comes(view: View, asked: NodeId, donor: NodeId | None) -> None:
    step = plan(view, FOUR)
    assert step.donor == asked, step.reason
    assert (step.action.donor if isinstance(step.action, do.Clone) else None) == donor


def test_a_donor_stays_out_while_the_other_is_there_to_copy() -> None:
    asking = {B: status(B), C: status(C), D: well(D, donor=B)}
    view = replica(A, store=store(primary=record(), nodes=asking))
    assert is_donor(view, FOUR, B)
    assert not is_donor(view, FOUR, C)
    gone = replica(A, store=store(primary=record(), nodes=asking, silent_for_s={D: 60.0}))
    assert not is_donor(gone, POLICY, B)
