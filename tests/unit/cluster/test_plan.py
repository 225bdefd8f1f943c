"""The brain, one look at a time: from a view to the next step, as a table of situations."""

from dataclasses import replace

import pytest
from tests.unit.cluster.situations import (
    ACCEPTED,
    AHEAD,
    BOTH_SEALED,
    E1,
    E2,
    INC,
    POLICY,
    A,
    B,
    C,
    durability,
    primary,
    record,
    replica,
    seal,
    seen,
    status,
    store,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.policy import back_off_s
from primacy.cluster.view import LeaseView, PageView, Transition, View
from primacy.engines.api import Diverged, Observation, Replication, Sending, ServerState
from primacy.model import ORIGIN, Epoch, Incarnation, Member, Position, Revision
from primacy.replication.records import (
    BranchRecord,
    DurabilityRecord,
    Handover,
    Pause,
    SwitchoverRequest,
)

SITUATIONS: dict[str, tuple[View, type[do.Action] | None]] = {
    # no primary record
    "a replica that sees no primary record seals": (vacant(B), do.Seal),
    "one seal of two members is not enough for acks 1": (
        vacant(B, seals={B: seal(B)}),
        None,
    ),
    "all members sealed: the first by name claims": (vacant(B, **BOTH_SEALED), do.Claim),
    "equally advanced, later by name: it waits": (vacant(C, **BOTH_SEALED), None),
    "equally advanced, and the first one does not come: it claims": (
        replace(vacant(C, **BOTH_SEALED), store=store(vacant_for_s=2.0, **BOTH_SEALED)),
        do.Claim,
    ),
    "less advanced never claims": (
        replace(
            vacant(B),
            store=store(vacant_for_s=99.0, seals={B: seal(B), C: seal(C, received=AHEAD)}),
        ),
        None,
    ),
    "the most advanced claims": (
        vacant(C, seals={B: seal(B), C: seal(C, received=AHEAD)}),
        do.Claim,
    ),
    "a seal of another epoch does not count": (
        vacant(B, seals={B: seal(B), C: seal(C, epoch=E1)}),
        None,
    ),
    "a seal of another life does not count": (
        vacant(B, seals={B: seal(B), C: seal(C, life="wiped")}),
        None,
    ),
    "a sync set of one needs one seal": (
        vacant(B, durability=durability(E1, A, B), seals={B: seal(B)}),
        do.Claim,
    ),
    "a node outside the sync set never claims": (
        vacant(C, durability=durability(E1, A, B), seals={B: seal(B), C: seal(C)}),
        None,
    ),
    "the recorded primary lets live members go first": (
        vacant(A, silent_for_s={B: 0.1, C: 0.1}),
        None,
    ),
    "the recorded primary returns when too few members live": (
        vacant(A, silent_for_s={B: 0.1, C: 60.0}),
        do.Claim,
    ),
    "the recorded primary whose log was cut seals like anybody": (
        replace(vacant(A), engine=seen(A, is_cut=True)),
        do.Seal,
    ),
    "paused: nobody seals": (vacant(B, pause=Pause()), None),
    "a primary whose lease ended in the store gives up first": (
        replace(vacant(A), lease=LeaseView(lease=7, left_s=0.0, epoch=E1)),
        do.GiveUp,
    ),
    "an open page without a record is closed first": (
        replace(vacant(A), page=PageView(epoch=E1, state="open")),
        do.GiveUp,
    ),
    "bootstrap waits until every data node has spoken": (
        replace(
            vacant(A, durability=None, nodes={A: status(A, state="absent", received=ORIGIN)}),
            engine=Observation(state=ServerState.ABSENT),
        ),
        None,
    ),
    # the record names this node
    "a primary at rest changes nothing": (primary(), None),
    "own record stands and the page is armed: open": (
        primary(page=PageView(epoch=E1, state="armed")),
        do.Open,
    ),
    "the database exited: give up": (
        primary(
            engine=Observation(state=ServerState.STOPPED, incarnation=INC[A]),
            page=PageView(epoch=E1, state="closed", closed_epoch=E1),
        ),
        do.GiveUp,
    ),
    "a restarted agent adopts a running primary": (primary(lease=None), do.Adopt),
    "a member that stays unfit is cut off before it leaves": (
        primary(
            store=store(primary=record(), nodes={B: status(B), C: status(C)}, unfit_for_s={C: 5.0})
        ),
        do.Exclude,
    ),
    "cut off, a marker is written": (
        primary(
            store=store(primary=record(), unfit_for_s={C: 5.0}),
            engine=seen(A, is_read_only=False, sending=Sending(acks=1, excluded=frozenset({C}))),
        ),
        do.Mark,
    ),
    "the last able member never leaves": (
        primary(store=store(primary=record(), unfit_for_s={B: 5.0, C: 5.0})),
        None,
    ),
    "a caught-up node comes in": (
        primary(
            store=store(primary=record(), durability=durability(E1, A, B)),
        ),
        do.Mark,
    ),
    "a marker that nobody holds is waited for": (
        primary(
            store=store(primary=record(), durability=durability(E1, A, B)),
            transition=Transition(record=durability(), base_mod=Revision(5), marker_sequence=99),
        ),
        None,
    ),
    "a marker that is held is swapped": (
        primary(
            store=store(primary=record(), durability=durability(E1, A, B)),
            transition=Transition(record=durability(), base_mod=Revision(5), marker_sequence=10),
        ),
        do.Swap,
    ),
    "a swap that was sent binds, whatever else changed": (
        primary(
            store=store(primary=record(), unfit_for_s={B: 5.0}),
            transition=Transition(
                record=durability(E1, A, B),
                base_mod=Revision(5),
                marker_sequence=99,
                is_sent=True,
            ),
        ),
        do.Swap,
    ),
    "commits that wait although a member holds all of them: give up": (
        primary(
            blocked_for_s=5.0,
            engine=seen(A, is_read_only=False, sending=Sending(acks=1, waiting_commits=2)),
        ),
        do.GiveUp,
    ),
    "commits that wait where a member says again how far it is, once it has applied them: wait": (
        primary(
            blocked_for_s=5.0,
            engine=seen(
                A,
                is_read_only=False,
                received=AHEAD,
                sending=Sending(acks=1, waiting_commits=2, repeats_acks=True),
            ),
            store=store(primary=record(), nodes={B: status(B, received=AHEAD), C: status(C)}),
        ),
        None,
    ),
    "and the same where an acknowledgement comes once or never: give up": (
        primary(
            blocked_for_s=5.0,
            engine=seen(
                A,
                is_read_only=False,
                received=AHEAD,
                sending=Sending(acks=1, waiting_commits=2),
            ),
            store=store(primary=record(), nodes={B: status(B, received=AHEAD), C: status(C)}),
        ),
        do.GiveUp,
    ),
    "commits that wait for a member that lacks them: wait": (
        primary(
            blocked_for_s=5.0,
            engine=seen(
                A,
                is_read_only=False,
                received=AHEAD,
                sending=Sending(acks=1, waiting_commits=2),
            ),
        ),
        None,
    ),
    "a loss that need not be accepted is not": (
        primary(store=store(primary=record(), failover=ACCEPTED)),
        do.EndRequest,
    ),
    "a switchover that is feasible is begun": (
        primary(store=store(primary=record(), switchover=SwitchoverRequest(request_id="x"))),
        do.BeginHandover,
    ),
    "a switchover that has begun closes the doors": (
        primary(
            store=store(
                primary=record(), switchover=SwitchoverRequest(request_id="x", is_begun=True)
            )
        ),
        do.OfferHandover,
    ),
    "a switchover waits for a target that lags": (
        primary(
            engine=seen(
                A,
                is_read_only=False,
                received=Position(E1, 500),
                sending=Sending(acks=1),
            ),
            store=store(primary=record(), switchover=SwitchoverRequest(request_id="x", target=B)),
        ),
        None,
    ),
    "an offer that nobody takes is withdrawn": (
        primary(
            engine=seen(A, sending=Sending(acks=1)),
            store=store(
                primary=record(),
                handover=Handover(request_id="x", epoch=E1, target=B, last_sequence=10),
                handover_for_s=60.0,
            ),
        ),
        do.WithdrawHandover,
    ),
    "doors closed and no offer recorded: the request ends before they open": (
        primary(
            engine=seen(A, sending=Sending(acks=1)),
            store=store(primary=record(), switchover=SwitchoverRequest(request_id="x")),
        ),
        do.EndRequest,
    ),
    # the record names another
    "a replica at rest changes nothing": (replica(), None),
    "a replica that the record does not name stops acknowledging": (
        replica(store=store(primary=record(), durability=durability(E1, A, C))),
        do.Follow,
    ),
    "a replica follows the new primary without acknowledging by the old record": (
        replica(store=store(primary=record(C, E2), epoch=E2)),
        do.Follow,
    ),
    "the offered lead is claimed at its end of the log": (
        replica(
            lease=LeaseView(lease=9, left_s=2.0, epoch=Epoch(0)),
            store=store(
                primary=record(),
                handover=Handover(request_id="x", epoch=E1, target=B, last_sequence=10),
            ),
        ),
        do.Claim,
    ),
    "the offered lead is not claimed before that": (
        replica(
            lease=LeaseView(lease=9, left_s=2.0, epoch=Epoch(0)),
            store=store(
                primary=record(),
                handover=Handover(request_id="x", epoch=E1, target=B, last_sequence=11),
            ),
        ),
        None,
    ),
    "an old primary's logs are read before its server starts": (
        replica(
            A,
            store=store(
                primary=record(B, E2),
                epoch=E2,
                durability=durability(E2, B),
                branches={E2: BranchRecord(epoch=E2, node=B, first_sequence=11)},
            ),
            engine=seen(A, state=ServerState.STOPPED),
        ),
        do.SaveDiverged,
    ),
    "a server that would be cut stays down while the record names it": (
        replica(
            A,
            store=store(
                primary=record(B, E2),
                epoch=E2,
                branches={E2: BranchRecord(epoch=E2, node=B, first_sequence=11)},
            ),
            engine=seen(A, state=ServerState.STOPPED),
            diverged={E2: Diverged(count=3, path="/x")},
        ),
        None,
    ),
    "an old primary that still accepts writes is killed": (
        replica(A, store=store(primary=record(B, E2)), engine=seen(A, is_read_only=False)),
        do.Kill,
    ),
    "a member that was locked out and is not recorded switches off before it is let in": (
        replica(
            C,
            store=store(primary=record(), durability=durability(E1, A, B)),
            engine=seen(
                C,
                following_epoch=E1,
                replication=Replication(upstream=A, is_applying=True, acknowledges=True),
            ),
        ),
        do.Follow,
    ),
    "the only member comes back with another disk: its former life needs no cutting off": (
        primary(
            store=store(
                primary=record(),
                durability=DurabilityRecord(
                    epoch=E1,
                    primary=Member(A, INC[A]),
                    acks=1,
                    members=(Member(B, Incarnation("life-before")),),
                ),
                nodes={B: status(B, acknowledges=False)},
            )
        ),
        do.Mark,
    ),
    "no confirmed view: nothing is done": (replica(is_store_current=False), None),
}


@pytest.mark.parametrize(("view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, POLICY)
    assert (type(step.action) if step.action else None) is expected, step.reason
    assert step.reason


def test_a_claim_compares_every_seal_that_it_counted() -> None:
    action = plan(vacant(B, **BOTH_SEALED), POLICY).action
    assert isinstance(action, do.Claim)
    assert action.compared_seals == ((B, Revision(8)), (C, Revision(9)))


@pytest.mark.parametrize(
    ("failovers", "wait_s"), [(0, 0.0), (2, 0.0), (3, 5.0), (4, 10.0), (5, 20.0), (60, 60.0)]
)
def test_flapping_backs_off_and_never_stops_trying(failovers: int, wait_s: float) -> None:
    assert back_off_s(failovers, free_count=3) == wait_s
