"""A node whose applier stopped before what it received: it seals and says so, and leads nothing."""

from dataclasses import replace

from tests.unit.cluster.situations import (
    AT,
    BOTH_SEALED,
    E1,
    E2,
    POLICY,
    A,
    B,
    C,
    seal,
    seen,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.transactions import seal_note
from primacy.engines.api import Replication
from primacy.model import Member, Position, Revision
from primacy.replication.records import DurabilityRecord, SealNote

AHEAD = Position(E1, 12)
BROKEN = seen(B, received=AHEAD, applied=AT, replication=Replication(error="1030: stopped"))
LOSSY = DurabilityRecord(
    epoch=E1, primary=Member(A, seal(A).incarnation), acks=0, members=(), is_lossy=True
)


def broken_seal() -> SealNote:
    return seal_note(B, E2, BROKEN)


def test_its_seal_says_so_and_it_does_not_claim() -> None:
    assert broken_seal().is_broken
    seals = {**BOTH_SEALED, "seals": {B: broken_seal(), C: seal(C)}}
    step = plan(replace(vacant(B, **seals), engine=BROKEN), POLICY)
    assert step.action is None
    assert "cannot lead" in step.reason


def test_a_relay_log_that_could_not_be_applied_is_tried_again() -> None:
    """It has said how far it goes: the others can go on meanwhile."""
    seals = {**BOTH_SEALED, "seals": {B: broken_seal(), C: seal(C)}}
    stuck = replace(BROKEN, needs_salvage=True)
    action = plan(replace(vacant(B, **seals), engine=stuck), POLICY).action
    assert isinstance(action, do.Salvage)


def test_once_its_applier_goes_on_it_says_that_and_may_claim() -> None:
    seals = {**BOTH_SEALED, "seals": {B: broken_seal(), C: seal(C)}}
    mended = seen(B, received=AHEAD, applied=AHEAD)
    assert isinstance(plan(replace(vacant(B, **seals), engine=mended), POLICY).action, do.Seal)
    sound = {**BOTH_SEALED, "seals": {B: seal(B, received=AHEAD), C: seal(C)}}
    assert isinstance(plan(replace(vacant(B, **sound), engine=mended), POLICY).action, do.Claim)


def test_where_a_loss_is_allowed_it_is_passed_by() -> None:
    fields = {
        "durability": LOSSY,
        "seals": {B: broken_seal(), C: seal(C)},
        "seal_mods": {B: Revision(8), C: Revision(9)},
    }
    view = vacant(C, **fields)
    waited = replace(view, store=replace(view.store, vacant_for_s=60.0))
    action = plan(waited, POLICY).action
    assert isinstance(action, do.Claim)
    assert action.compared_seals == ((C, Revision(9)),)


def test_where_it_alone_may_hold_a_write_nobody_passes_it_by() -> None:
    seals = {**BOTH_SEALED, "seals": {B: broken_seal(), C: seal(C)}}
    view = vacant(C, **seals)
    waited = replace(view, store=replace(view.store, vacant_for_s=60.0))
    assert plan(waited, POLICY).action is None
