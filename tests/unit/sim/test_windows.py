"""Histories that are checked while they are made: windows, lost answers, and what a break says."""

from collections import Counter

import pytest

from primacy.coordination.api import (
    Delete,
    Done,
    KeyValue,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    unchanged,
)
from primacy.errors import InvariantBroken
from primacy.model import Revision
from primacy.sim.store_model import StoreRequest
from primacy.sim.windows import Call, Histories


class Story:
    """Histories whose clock is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.seen: Counter[str] = Counter()
        self.histories = Histories(lambda: self.now_s, self._sometimes)

    def _sometimes(self, name: str) -> None:
        self.seen[name] += 1

    def call(self, request: StoreRequest, *, client: str = "a", group: str = "g") -> Call:
        self.now_s += 1.0
        return self.histories.call(group, client, request)

    def wrote(self, call: Call, revision: int, *, is_success: bool = True) -> None:
        self.now_s += 1.0
        results = (Done(1),) if is_success else ()
        answer = TxnResult(is_success=is_success, revision=Revision(revision), results=results)
        self.histories.answer(call, answer)

    def read(self, call: Call, revision: int, *items: KeyValue) -> None:
        self.now_s += 1.0
        self.histories.answer(call, RangeResult(items, Revision(revision)))


@pytest.fixture
def story() -> Story:
    return Story()


def put(value: str, key: str = "k") -> Txn:
    return Txn(then=(Put(key, value.encode()),))


def item(value: str, create: int, mod: int, version: int) -> KeyValue:
    return KeyValue("k", value.encode(), Revision(create), Revision(mod), version)


def test_a_window_goes_on_from_where_the_last_one_ended(story: Story) -> None:
    story.wrote(story.call(put("1")), 5)
    story.read(story.call(Range("k")), 7, item("1", 5, 5, 1))
    assert story.seen["window of a store history"] == 2
    with pytest.raises(InvariantBroken, match="linearizable-store"):
        story.read(story.call(Range("k")), 8)


def test_operations_at_a_time_are_one_window(story: Story) -> None:
    write, read = story.call(put("1")), story.call(Range("k"), client="b")
    story.read(read, 4)
    assert story.seen["window of a store history"] == 0
    story.wrote(write, 5)
    assert story.seen["window with operations at a time"] == 1


def test_groups_wait_for_their_own_operations_alone(story: Story) -> None:
    story.call(put("1"), group="other")
    story.wrote(story.call(put("1")), 5)
    assert story.seen["window of a store history"] == 1


def test_a_refused_write_that_is_there_is_a_break(story: Story) -> None:
    story.histories.refuse(story.call(put("ghost")))
    with pytest.raises(InvariantBroken, match="ghost"):
        story.read(story.call(Range("k")), 5, item("ghost", 5, 5, 1))


def test_a_lost_write_may_come_at_any_time_and_once(story: Story) -> None:
    story.histories.lose(story.call(put("late")))
    story.read(story.call(Range("k")), 4)
    story.wrote(story.call(put("1")), 5)
    story.read(story.call(Range("k")), 9, item("late", 5, 8, 2))
    story.wrote(story.call(put("2")), 10)
    with pytest.raises(InvariantBroken, match="'late'"):
        story.read(story.call(Range("k")), 12, item("late", 5, 11, 4))


def test_a_lost_read_is_forgotten(story: Story) -> None:
    story.histories.lose(story.call(Range("k")))
    assert story.histories.group("g").opens == []


def test_what_is_under_way_at_the_end_is_lost_and_the_last_window_checked(story: Story) -> None:
    story.call(put("never answered"))
    story.read(story.call(Range("k"), client="b"), 5, item("nobody's", 5, 5, 1))
    with pytest.raises(InvariantBroken, match="nobody's"):
        story.histories.close()


def test_a_swap_that_said_no_and_did_it_is_a_break(story: Story) -> None:
    story.wrote(story.call(put("1")), 5)
    swap = Txn((unchanged("k", Revision(5)),), (Put("k", b"2"),))
    story.wrote(story.call(swap), 6)
    story.read(story.call(Range("k")), 6, item("2", 5, 6, 2))
    story.wrote(story.call(put("3")), 7)
    again = Txn((unchanged("k", Revision(7)),), (Put("k", b"4"),))
    with pytest.raises(InvariantBroken, match="comparison failed"):
        story.wrote(story.call(again), 8, is_success=False)


def test_a_break_shows_the_state_before_and_only_the_operations_that_matter(story: Story) -> None:
    story.wrote(story.call(put("1")), 5)
    story.histories.lose(story.call(Txn(then=(Delete("k"),)), client="lost"))
    other = story.call(put("2"), client="other")
    for _ in range(3):
        story.read(story.call(Range("k"), client="fine"), 5, item("1", 5, 5, 1))
    story.read(story.call(Range("k"), client="wrong"), 6, item("0", 5, 6, 2))
    with pytest.raises(InvariantBroken) as caught:
        story.wrote(other, 6)
    lines = str(caught.value).splitlines()
    assert lines[0] == "linearizable-store: no order explains 1 operation on g"
    assert "before: k = '1' (version 1, revision 5)" in lines[1]
    assert "open:   lost" in lines[2]
    assert "delete k -> no answer" in lines[2]
    assert "or not: other" in lines[3]
    assert "wrong:  wrong" in lines[4]
    assert "read k -> k = '0' (5/6/2) at revision 6" in lines[4]
    assert len(lines) == 5
