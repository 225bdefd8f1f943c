"""What the transactions write, where a plan cannot show it."""

from dataclasses import replace

from tests.unit.cluster.test_plan import ACCEPTED, E1, E2, INC, A, B, durability, store

from primacy.cluster.actions import Claim, Swap
from primacy.cluster.transactions import claim_txn, swap_txn
from primacy.coordination.api import Delete, LeaseId, Put, Txn
from primacy.model import Revision
from primacy.replication.records import FAILOVER_KEY, RequestOutcome, decoded

SEEN = store(primary=None, failover=ACCEPTED, failover_mod=Revision(9))


def ends_acceptance(txn: Txn) -> bool:
    return Delete(FAILOVER_KEY) in txn.then


def test_a_claim_does_not_use_up_an_accepted_loss() -> None:
    """Its winner may die before it opens; the next one then needs the acceptance too."""
    claim = Claim(epoch=E2, kind="failover", accepted_loss=(A,), reason="")
    assert not ends_acceptance(claim_txn(SEEN, claim, B, INC[B], LeaseId(3)))


def test_the_first_record_of_a_later_epoch_ends_an_accepted_loss_and_tells_the_operator() -> None:
    record = durability(E2, B, A)
    txn = swap_txn(SEEN, Swap(record=record, base_mod=Revision(5), reason=""))
    assert ends_acceptance(txn)
    told = [op for op in txn.then if isinstance(op, Put) and op.key == "cluster/outcomes/r"]
    assert decoded(RequestOutcome, told[0].value).is_done


def test_one_that_this_node_has_not_seen_yet_ends_all_the_same() -> None:
    record = durability(E2, B, A)
    unaware = replace(SEEN, failover=None)
    assert ends_acceptance(swap_txn(unaware, Swap(record=record, base_mod=Revision(5), reason="")))


def test_a_change_of_the_sync_set_ends_no_request() -> None:
    record = durability(E1, A, B)
    assert not ends_acceptance(swap_txn(SEEN, Swap(record=record, base_mod=Revision(5), reason="")))
