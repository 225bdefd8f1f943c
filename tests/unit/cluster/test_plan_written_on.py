"""A replica that somebody wrote on seals as one that holds no more than before, and leads last."""

from dataclasses import replace

from tests.unit.cluster.situations import (
    BOTH_SEALED,
    E2,
    POLICY,
    B,
    C,
    seal,
    seen,
    vacant,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.transactions import seal_note
from primacy.cluster.view import View
from primacy.engines.api import Replication
from primacy.model import Revision

WRITTEN_ON = seen(B, is_errant=True, replication=Replication(error="written", is_diverged=True))
OWN_SEAL = seal_note(B, E2, WRITTEN_ON)


def written_on(vacant_for_s: float) -> View:
    view = vacant(B, seals={B: OWN_SEAL, C: seal(C)}, seal_mods={B: Revision(8), C: Revision(9)})
    store = replace(view.store, vacant_for_s=vacant_for_s)
    return replace(view, store=store, engine=WRITTEN_ON)


def test_it_leaves_the_lead_to_another_that_holds_as_much_and_not_for_ever() -> None:
    assert OWN_SEAL.is_errant
    assert not OWN_SEAL.is_broken
    assert plan(written_on(POLICY.tie_wait_s + 0.1), POLICY).action is None
    late = plan(written_on(2 * POLICY.lease_ttl_s + 0.1), POLICY)
    assert isinstance(late.action, do.Claim), "the other had its time; nobody is to wait for ever"


def test_the_other_need_not_wait_although_its_name_comes_later() -> None:
    view = vacant(C, seals={B: OWN_SEAL, C: seal(C)}, seal_mods={B: Revision(8), C: Revision(9)})
    assert isinstance(plan(view, POLICY).action, do.Claim)


def test_written_on_after_its_seal_it_says_so_first() -> None:
    view = replace(vacant(B, **BOTH_SEALED), engine=WRITTEN_ON)
    assert isinstance(plan(view, POLICY).action, do.Seal)
