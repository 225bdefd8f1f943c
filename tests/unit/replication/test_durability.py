"""The promotion rule as arithmetic: whoever may be promoted holds every acknowledged write."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.durability import (
    is_heir,
    judge_lossy,
    judge_sealed,
    judge_unknown_record,
    may_return,
    seals_needed,
)
from primacy.replication.records import DurabilityRecord, SealNote

NODES = [NodeId(name) for name in "abcdef"]
LIFE = Incarnation("1")


def record_of(members: list[NodeId], acks: int) -> DurabilityRecord:
    return DurabilityRecord(
        epoch=Epoch(1),
        primary=Member(NodeId("p"), LIFE),
        acks=acks,
        members=tuple(Member(node, LIFE) for node in members),
    )


def seal(node: NodeId, sequence: int, epoch: int = 2) -> SealNote:
    at = Position(Epoch(1), sequence)
    return SealNote(node=node, incarnation=LIFE, epoch=Epoch(epoch), received=at, applied=at)


@given(st.data())
def test_whoever_is_promoted_holds_every_acknowledged_write(data: st.DataObject) -> None:
    members = NODES[: data.draw(st.integers(1, 6))]
    acks = data.draw(st.integers(1, len(members)))
    received = {node: data.draw(st.integers(0, 8)) for node in members}
    acknowledged = sorted(received.values(), reverse=True)[acks - 1]
    sealed = [seal(node, received[node]) for node in data.draw(st.sets(st.sampled_from(members)))]
    for own in sealed:
        verdict = judge_sealed(record_of(members, acks), own, sealed, priority={})
        if verdict.is_allowed:
            assert own.received.sequence >= acknowledged
            assert len(verdict.counted) >= seals_needed(len(members), acks)


@given(st.integers(1, 6), st.integers(1, 6))
def test_enough_seals_always_allow_exactly_the_most_advanced(count: int, acks: int) -> None:
    members = NODES[:count]
    acks = min(acks, count)
    sealed = [seal(node, index) for index, node in enumerate(members)]
    allowed = [
        own.node
        for own in sealed
        if judge_sealed(record_of(members, acks), own, sealed, priority={}).is_allowed
    ]
    assert allowed == [members[-1]]


def test_priority_settles_a_tie_and_the_other_is_told_that_it_is_one() -> None:
    a, b = NodeId("a"), NodeId("b")
    sealed = [seal(a, 5), seal(b, 5)]
    record = record_of([a, b], 1)
    first = judge_sealed(record, sealed[1], sealed, priority={b: 1})
    second = judge_sealed(record, sealed[0], sealed, priority={b: 1})
    assert (first.is_allowed, first.is_tie) == (True, False)
    assert (second.is_allowed, second.is_tie) == (True, True)


def test_a_node_that_is_given_up_need_not_be_sealed() -> None:
    a, b = NodeId("a"), NodeId("b")
    record, own = record_of([a, b], 1), seal(a, 5)
    assert not judge_sealed(record, own, [own], priority={}).is_allowed
    verdict = judge_sealed(record, own, [own], priority={}, accepted_loss=[b])
    assert verdict.is_allowed
    assert verdict.is_lossy


def test_with_the_whole_sync_set_given_up_any_sealed_node_may_go() -> None:
    own = seal(NodeId("c"), 3)
    record = record_of([NodeId("b")], 1)
    verdict = judge_sealed(record, own, [own], priority={}, accepted_loss=[NodeId("b")])
    assert verdict.is_allowed
    assert verdict.is_lossy


def test_without_a_record_every_data_node_must_be_sealed() -> None:
    a, b = NodeId("a"), NodeId("b")
    sealed = [seal(a, 5), seal(b, 7)]
    assert not judge_unknown_record(sealed[1], sealed[1:], [a, b], priority={}).is_allowed
    assert judge_unknown_record(sealed[1], sealed, [a, b], priority={}).is_allowed
    assert not judge_unknown_record(sealed[0], sealed, [a, b], priority={}).is_allowed


def test_without_a_record_equally_advanced_nodes_are_a_tie() -> None:
    """Else nobody goes where the first by name is never promoted (seed 5067: a dead end)."""
    a, b = NodeId("a"), NodeId("b")
    sealed = [seal(a, 5), seal(b, 5)]
    first = judge_unknown_record(sealed[0], sealed, [a, b], priority={})
    second = judge_unknown_record(sealed[1], sealed, [a, b], priority={})
    assert (first.is_allowed, first.is_tie, first.goes_first) == (True, False, a)
    assert (second.is_allowed, second.is_tie, second.goes_first) == (True, True, a)


def test_a_lossy_promotion_takes_the_most_advanced_and_says_what_it_is() -> None:
    sealed = [seal(NodeId("a"), 5), seal(NodeId("b"), 7)]
    assert not judge_lossy(sealed[0], sealed, priority={}).is_allowed
    assert judge_lossy(sealed[1], sealed, priority={}).is_lossy


def test_the_recorded_primary_returns_unless_it_was_cut_or_wiped() -> None:
    record = record_of([NodeId("a")], 1)
    assert may_return(record, NodeId("p"), LIFE, is_cut=False).is_allowed
    assert not may_return(record, NodeId("p"), LIFE, is_cut=True).is_allowed
    assert not may_return(record, NodeId("p"), Incarnation("2"), is_cut=False).is_allowed
    assert not may_return(record, NodeId("a"), LIFE, is_cut=False).is_allowed


def test_the_heir_is_the_winner_in_this_life_unless_it_was_cut() -> None:
    record = msgspec.structs.replace(
        record_of([NodeId("a")], 1), heirs=(Member(NodeId("a"), LIFE),)
    )
    own = seal(NodeId("a"), 5)
    assert is_heir(record, own)
    assert not is_heir(record, msgspec.structs.replace(own, is_cut=True))
    assert not is_heir(record, msgspec.structs.replace(own, incarnation=Incarnation("2")))
    assert not is_heir(record, seal(NodeId("b"), 5))
    assert not is_heir(record_of([NodeId("a")], 1), own)


def test_a_lossy_promotion_says_what_allowed_it_also_in_a_tie() -> None:
    a, b = NodeId("a"), NodeId("b")
    sealed = [seal(a, 5), seal(b, 5)]
    why = "epoch 1 was degraded, and degrade_failover = lossy"
    for own in sealed:
        verdict = judge_lossy(own, sealed, priority={}, why=why)
        assert verdict.is_allowed
        assert verdict.may_lose == why
        assert verdict.reason.startswith(why)


def test_of_equals_the_one_that_somebody_wrote_on_goes_last() -> None:
    """Its priority does not help; more received does: that may have been acknowledged."""
    b, c = NodeId("b"), NodeId("c")
    record = record_of([b, c], 1)
    written_on, clean = msgspec.structs.replace(seal(b, 5), is_errant=True), seal(c, 5)
    verdict = judge_sealed(record, written_on, [written_on, clean], priority={b: 9})
    assert (verdict.is_tie, verdict.goes_first) == (True, c)
    verdict = judge_sealed(record, clean, [written_on, clean], priority={b: 9})
    assert (verdict.is_allowed, verdict.is_tie) == (True, False)
    ahead = msgspec.structs.replace(seal(b, 6), is_errant=True)
    assert judge_sealed(record, ahead, [ahead, clean], priority={}).is_allowed
    assert not judge_sealed(record, clean, [ahead, clean], priority={}).is_allowed
