"""What the transactions write, where a plan cannot show it."""

from dataclasses import replace

from tests.unit.cluster.situations import (
    ACCEPTED,
    E1,
    E2,
    INC,
    A,
    B,
    C,
    durability,
    record,
    store,
)
from tests.unit.coordination.conftest import Log

from primacy.cluster.actions import Claim, Swap
from primacy.cluster.transactions import claim_txn, settle_txn, swap_txn
from primacy.cluster.view import StoreView
from primacy.cluster.viewing import Records
from primacy.coordination.api import Delete, LeaseId, Put, Range, Txn
from primacy.coordination.embedded.commands import Committed
from primacy.model import Revision
from primacy.replication.records import (
    DURABILITY_KEY,
    EPOCH_KEY,
    FAILOVER_KEY,
    PREFIX,
    PRIMARY_KEY,
    RequestOutcome,
    decoded,
    encoded,
)

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


def shrinking(view: StoreView) -> Txn:
    """The swap that would leave B alone in the sync set."""
    swap = Swap(record=durability(E1, A, B), base_mod=view.durability_mod, reason="")
    return swap_txn(view, swap)


def led_by_a() -> Log:
    """A store in which A leads epoch 1, and B and C may acknowledge."""
    log = Log()
    written = (
        Put(EPOCH_KEY, encoded(E1)),
        Put(PRIMARY_KEY, encoded(record())),
        Put(DURABILITY_KEY, encoded(durability(E1, A, B, C))),
    )
    log.txn(Txn(then=written))
    return log


def looked_at(log: Log) -> StoreView:
    found = log.kv.range(Range(PREFIX, is_prefix=True))
    records = Records(A, 0.0)
    records.load(found.items, found.revision, 0.0)
    return records.view(0.0, 0.0)


def is_done(log: Log, txn: Txn) -> bool:
    reply = log.txn(txn).reply
    assert isinstance(reply, Committed)
    return reply.result.is_success


def test_a_swap_of_a_former_agent_is_void_once_its_successor_has_settled() -> None:
    """The one that was sent may be applied at any time: by then C may have been let back in, and
    would acknowledge for a record that does not name it."""
    log = led_by_a()
    late = shrinking(looked_at(log))

    adopted = looked_at(log)
    assert adopted.durability is not None
    assert is_done(log, settle_txn(adopted, adopted.durability))
    assert looked_at(log).durability == durability(E1, A, B, C)

    assert not is_done(log, late)
    assert is_done(log, shrinking(looked_at(log)))


def test_a_successor_that_comes_second_looks_again() -> None:
    log = led_by_a()
    adopted = looked_at(log)
    assert adopted.durability is not None
    assert is_done(log, shrinking(adopted))
    assert not is_done(log, settle_txn(adopted, adopted.durability))
