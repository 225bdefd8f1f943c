"""Rule 5(c): a winner that died before it recorded its own D may lead again by itself."""

from dataclasses import replace

import msgspec
from tests.unit.cluster.situations import (
    E1,
    E2,
    INC,
    POLICY,
    B,
    C,
    durability,
    seal,
    seen,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.transactions import claim_txn
from primacy.coordination.api import LeaseId, Put
from primacy.model import Epoch, Member, Position, Revision
from primacy.replication.records import DURABILITY_KEY, DurabilityRecord, decoded

E3 = Epoch(3)
OF_B = msgspec.structs.replace(durability(), heirs=(Member(B, INC[B]),))
"""D of epoch 1; B won epoch 2, and C has been copied from it since: another life than D names."""


def view_of(node: str, record: DurabilityRecord, **more: object) -> do.Plan:
    own, copied = seal(B, E3), seal(C, E3, life="copied")
    view = vacant(
        B if node == "b" else C,
        epoch=E2,
        durability=record,
        seals={B: own, C: copied},
        seal_mods={B: Revision(8), C: Revision(9)},
        **more,
    )
    return plan(view, POLICY)


def test_the_heir_claims_with_its_own_seal_alone() -> None:
    action = view_of("b", OF_B).action
    assert isinstance(action, do.Claim)
    assert (action.epoch, action.compared_seals) == (E3, ((B, Revision(8)),))


def test_without_an_heir_an_acknowledged_write_may_be_on_the_life_that_is_gone() -> None:
    step = view_of("b", durability())
    assert step.action is None
    assert "1 of 2 needed seals" in step.reason


def test_an_heir_whose_log_was_cut_since_has_no_right() -> None:
    cut = msgspec.structs.replace(seal(B, E3), is_cut=True)
    view = vacant(B, epoch=E2, durability=OF_B, seals={B: cut, C: seal(C, E3, life="copied")})
    assert plan(replace(view, engine=seen(B, is_cut=True)), POLICY).action is None


def test_a_claim_names_its_winner_as_heir_and_changes_nothing_else_of_the_record() -> None:
    view = vacant(B, durability=durability())
    claim = do.Claim(epoch=E2, kind="failover", reason="")
    txn = claim_txn(view.store, claim, B, INC[B], LeaseId(3))
    put = next(op for op in txn.then if isinstance(op, Put) and op.key == DURABILITY_KEY)
    assert decoded(DurabilityRecord, put.value) == OF_B


def test_no_heir_is_named_without_a_record_nor_by_a_claim_that_may_lose() -> None:
    """Whoever was given up may be back, with more, before this winner opens."""
    view = vacant(B, durability=durability())
    claim = do.Claim(epoch=E2, kind="failover", reason="")
    accepting = replace(claim, accepted_loss=(C,))
    lossy = msgspec.structs.replace(durability(), acks=0, members=(), is_lossy=True)
    for record, made in ((None, claim), (lossy, claim), (durability(), accepting)):
        txn = claim_txn(replace(view.store, durability=record), made, B, INC[B], LeaseId(3))
        assert not any(isinstance(op, Put) and op.key == DURABILITY_KEY for op in txn.then)


def test_one_that_is_behind_its_own_seal_does_not_come_by_a_shorter_log() -> None:
    """The right is its seal's for this very epoch, and a seal is never below what was published."""
    stale = vacant(B, epoch=E2, durability=OF_B, seals={B: seal(B, E2)})
    short = replace(stale, engine=seen(B, received=Position(E1, 3), applied=Position(E1, 3)))
    assert isinstance(plan(short, POLICY).action, do.Seal)
