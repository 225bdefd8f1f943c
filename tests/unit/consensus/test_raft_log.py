"""The log alone: matching, truncation, compaction, and what a disk gives back."""

import pytest

from primacy.consensus.machine import Entry, SnapshotMeta
from primacy.consensus.quorum import heard_by_majority_s, majority_of, reached_by_majority
from primacy.consensus.raft.log import Log
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, Term


def entries(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(Term(term), LogIndex(at), b"xx") for at, term in enumerate(terms, first))


def meta(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(index=LogIndex(index), term=Term(term))


RESTORED: dict[str, tuple[SnapshotMeta, tuple[Entry, ...], tuple[int, int]]] = {
    "nothing": (meta(0, 0), (), (0, 0)),
    "entries only": (meta(0, 0), entries(1, 1), (0, 2)),
    "entries go on from the snapshot": (meta(3, 1), entries(1, 2, first=4), (3, 5)),
    "entries reach through the snapshot": (meta(3, 1), entries(1, 1, 2, first=2), (2, 4)),
    "entries end before the snapshot": (meta(9, 2), entries(1, 1), (9, 9)),
    "entries contradict the snapshot": (meta(2, 2), entries(1, 1, 1), (2, 2)),
}


@pytest.mark.parametrize(("snapshot", "held", "expected"), RESTORED.values(), ids=RESTORED)
def test_restores(
    snapshot: SnapshotMeta, held: tuple[Entry, ...], expected: tuple[int, int]
) -> None:
    log = Log(snapshot, held)
    assert (log.base_index, log.last_index) == expected


def test_a_gap_behind_the_snapshot_is_not_accepted() -> None:
    with pytest.raises(InvariantBroken, match="log-is-dense"):
        Log(meta(2, 1), entries(1, first=4))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((6, 3), (6, 3)),
        ((6, 2), (5, 2)),
        ((9, 1), (3, 1)),
        ((4, 3), (4, 2)),
        ((2, 1), (2, 1)),
        ((6, 0), (0, 0)),
    ],
)
def test_finds_the_last_place_where_another_log_can_agree(
    asked: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert Log(meta(0, 0), entries(1, 1, 1, 2, 2, 3)).last_not_above(*asked) == expected


def test_a_batch_stops_at_either_bound_but_holds_at_least_one() -> None:
    log = Log(meta(0, 0), entries(1, 1, 1, 1))
    assert len(log.batch(1, entries_max=3, bytes_max=100)) == 3
    assert len(log.batch(1, entries_max=9, bytes_max=4)) == 2
    assert len(log.batch(1, entries_max=9, bytes_max=1)) == 1
    assert log.batch(5, entries_max=9, bytes_max=1) == ()


def test_what_was_compacted_cannot_be_truncated() -> None:
    log = Log(meta(0, 0), entries(1, 1, 1))
    log.compact_to(2)
    assert (log.base_index, log.term_at(2), log.term_at(1)) == (2, 1, None)
    with pytest.raises(InvariantBroken, match="committed-is-kept"):
        log.truncate_from(2)


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_two_majorities_always_share_a_member(voters: int, needed: int) -> None:
    assert majority_of(voters) == needed
    reached = [9] * needed + [1] * (voters - needed)
    assert reached_by_majority(reached) == 9
    assert reached_by_majority([9] * (needed - 1) + [1] * (voters - needed + 1)) == 1
    assert heard_by_majority_s(map(float, reached)) == 9.0
