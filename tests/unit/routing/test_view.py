"""The view never goes back in time, whichever of watch and read is behind."""

from primacy.coordination.api import Change, KeyValue, RangeResult, WatchBatch
from primacy.model import Epoch, Incarnation, NodeId, Revision
from primacy.replication.records import (
    EPOCH_KEY,
    NODES_PREFIX,
    PRIMARY_KEY,
    NodeStatus,
    PrimaryRecord,
    encoded,
)
from primacy.routing.view import RouterView, confirmed, followed, listed


def item(key: str, value: bytes, mod: int) -> KeyValue:
    return KeyValue(key, value, Revision(mod), Revision(mod), 1)


def primary(node: str, epoch: int, mod: int) -> KeyValue:
    record = PrimaryRecord(node=NodeId(node), incarnation=Incarnation("1"), epoch=Epoch(epoch))
    return item(PRIMARY_KEY, encoded(record), mod)


def test_a_watch_that_is_behind_a_read_does_not_bring_an_old_primary_back() -> None:
    start = listed(RouterView(), RangeResult((), Revision(1)), sent_at_s=1.0, now_s=1.0)
    ahead = confirmed(start, RangeResult((), Revision(9)), sent_at_s=2.0)
    late = WatchBatch(Revision(5), (Change(PRIMARY_KEY, primary("a", 1, 5)),))
    assert followed(ahead, late, now_s=2.1).primary is None
    current = WatchBatch(Revision(10), (Change(PRIMARY_KEY, primary("b", 2, 10)),))
    after = followed(ahead, current, now_s=2.2)
    assert after.primary is not None
    assert after.primary.node == "b"


def test_a_read_that_is_behind_the_watch_confirms_and_changes_nothing() -> None:
    batch = WatchBatch(Revision(7), (Change(PRIMARY_KEY, primary("b", 2, 7)),))
    ahead = followed(RouterView(), batch, now_s=1.0)
    after = confirmed(ahead, RangeResult((primary("a", 1, 3),), Revision(6)), sent_at_s=1.5)
    assert after.primary == ahead.primary
    assert after.confirmed_at_s == 1.5


def test_only_reads_confirm_and_by_the_time_at_which_they_were_sent() -> None:
    first = listed(RouterView(), RangeResult((), Revision(1)), sent_at_s=1.0, now_s=9.0)
    assert first.confirmed_at_s == 1.0
    assert followed(first, WatchBatch(Revision(2), ()), now_s=5.0).confirmed_at_s == 1.0
    late = confirmed(first, RangeResult((), Revision(2)), sent_at_s=0.5)
    assert late.confirmed_at_s == 1.0


def test_a_record_that_cannot_be_read_is_reported_and_counts_as_none() -> None:
    found = RangeResult(
        (
            item(EPOCH_KEY, encoded(Epoch(3)), 2),
            item(f"{NODES_PREFIX}a", b"\xc1", 3),
            item(f"{NODES_PREFIX}b", encoded(NodeStatus(node=NodeId("b"))), 3),
            item(PRIMARY_KEY, b"\x01", 3),
        ),
        Revision(3),
    )
    after = listed(RouterView(), found, sent_at_s=1.0, now_s=1.0)
    assert after.primary is None
    assert set(after.unreadable) == {PRIMARY_KEY, f"{NODES_PREFIX}a"}
    assert set(after.nodes) == {"b"}
    assert after.epoch == 3
