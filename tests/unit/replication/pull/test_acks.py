"""Acknowledgements are counted exactly as rules 1 and 3 say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from primacy.errors import Conflict, InvariantBroken
from primacy.model import Epoch, Incarnation, Member, NodeId
from primacy.replication.pull.acks import AckOn, Acks, Requirement

NOW, BEFORE, LATER = Epoch(3), Epoch(2), Epoch(4)
B, C, D = (Member(NodeId(each), Incarnation(f"{each}-1")) for each in "bcd")
REBORN_B = Member(B.node, Incarnation("b-2"))


def needs(acks: int, ack_on: AckOn = AckOn.RECEIVED) -> Requirement:
    return Requirement(acks=acks, ack_on=ack_on)


def opened(requirement: Requirement, *, durable: int = 0) -> Acks[str]:
    acks: Acks[str] = Acks(NOW)
    acks.require(requirement)
    acks.open()
    acks.persisted(durable)
    return acks


def say(acks: Acks[str], member: Member, received: int, applied: int = 0) -> None:
    acks.report(member, acks.epoch, received=received, applied=applied)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (needs(0), 10),
        (needs(1), 9),
        (needs(2), 7),
        (needs(3), 4),
        (needs(4), 0),
        (needs(1, AckOn.APPLIED), 6),
        (needs(2, AckOn.APPLIED), 3),
    ],
    ids=lambda each: str(each.acks) if isinstance(each, Requirement) else None,
)
def test_k_of_those_that_acknowledge(requirement: Requirement, expected: int) -> None:
    acks = opened(requirement, durable=10)
    say(acks, B, 9, 3)
    say(acks, C, 4, 1)
    say(acks, D, 7, 6)
    assert acks.acknowledged == expected


def test_the_primary_itself_must_hold_it_durably() -> None:
    acks = opened(needs(1), durable=5)
    say(acks, B, 8)
    assert acks.acknowledged == 5
    acks.persisted(7)
    assert acks.acknowledged == 7


def test_words_to_another_reign_do_not_count() -> None:
    acks = opened(needs(1), durable=9)
    acks.report(B, BEFORE, received=9, applied=9)
    acks.report(B, LATER, received=9, applied=9)
    assert acks.acknowledged == 0


def test_whoever_is_forgotten_counts_from_its_next_word_on_only() -> None:
    acks = opened(needs(1), durable=9)
    say(acks, B, 8)
    acks.forget(B.node)
    acks.forget(C.node)
    acks.wait(7, "held by one who was told away")
    assert acks.released() == []
    say(acks, B, 8)
    assert acks.released() == ["held by one who was told away"]


def test_nothing_is_acknowledged_before_the_doors_open() -> None:
    acks: Acks[str] = Acks(NOW, held=4)
    acks.require(needs(1))
    acks.wait(4, "left waiting")
    say(acks, B, 5)
    acks.persisted(5)
    assert acks.held(needs(1)) == 5  # The epoch row may be seen to be held.
    assert (acks.acknowledged, acks.released()) == (0, [])
    acks.open()
    assert acks.released() == ["left waiting"]


def test_doors_do_not_open_before_somebody_said_what_a_commit_waits_for() -> None:
    acks: Acks[str] = Acks(NOW, held=4)
    with pytest.raises(Conflict, match="nobody has said"):
        acks.open()


def test_after_close_nothing_is_released_and_who_waited_is_named() -> None:
    acks = opened(needs(1), durable=9)
    acks.wait(1, "one")
    acks.wait(2, "two")
    assert acks.close() == ["one", "two"]
    say(acks, B, 9)
    assert acks.released() == []
    with pytest.raises(Conflict, match="cannot open again"):
        acks.open()
    with pytest.raises(Conflict, match="closed"):
        acks.wait(3, "three")


@pytest.mark.parametrize("after", [B, REBORN_B], ids=["a disk that lied", "another life"])
def test_nobody_is_answered_on_a_word_that_was_taken_back(after: Member) -> None:
    acks = opened(needs(1), durable=9)
    say(acks, B, 8)
    say(acks, after, 2)
    acks.wait(5, "came later")
    assert acks.released() == []
    say(acks, C, 8)
    assert acks.released() == ["came later"]


def test_waiters_are_released_in_order() -> None:
    acks = opened(needs(1), durable=9)
    for index in (3, 5, 5, 7):
        acks.wait(index, f"w{index}")
    assert (acks.waits_at, acks.waiting_count) == (3, 4)
    say(acks, B, 5)
    assert acks.released() == ["w3", "w5", "w5"]
    assert acks.released() == []
    assert acks.waits_at == 7
    acks.wait(9, "w9")
    with pytest.raises(InvariantBroken, match="waiters-in-order"):
        acks.wait(8, "between the first and the last")


def test_more_is_asked_for_at_once_and_less_only_where_nobody_waits() -> None:
    acks = opened(needs(1), durable=9)
    say(acks, B, 4)
    acks.wait(5, "waits")
    acks.require(needs(2))
    say(acks, B, 9)
    assert acks.released() == []
    for less in (needs(1), needs(0)):
        with pytest.raises(Conflict, match="1 commits wait for 2"):
            acks.require(less)
    assert acks.requirement == needs(2)
    acks.require(needs(1), may_release=True)
    assert acks.released() == ["waits"]
    acks.require(needs(0))
    assert acks.acknowledged == 9


@pytest.mark.parametrize(
    ("to", "known", "is_less"),
    [
        (needs(1), needs(2), True),
        (needs(2), needs(1), False),
        (needs(1), needs(1), False),
        (needs(1), needs(1, AckOn.APPLIED), True),
        (needs(2), needs(1, AckOn.APPLIED), True),
        (needs(1, AckOn.APPLIED), needs(1), False),
        (needs(0, AckOn.APPLIED), needs(1), True),
        (needs(0), needs(0, AckOn.APPLIED), False),
    ],
)
def test_what_is_less(to: Requirement, known: Requirement, *, is_less: bool) -> None:
    assert to.is_less_than(known) is is_less


# ---- properties -----------------------------------------------------------------------------

MEMBERS = [B, C, D, REBORN_B]
requirements = st.builds(needs, st.integers(min_value=0, max_value=3), st.sampled_from(AckOn))
reports = st.tuples(st.sampled_from(MEMBERS), st.integers(0, 9), st.integers(0, 9))
Said = dict[NodeId, tuple[Member, int, int]]


def holders(said: Said, need: Requirement, index: int) -> int:
    """How many members hold `index`, written the other way round than in the code."""
    received = need.ack_on is AckOn.RECEIVED
    return sum(
        1 for _, got, applied in said.values() if index <= (got if received else min(got, applied))
    )


@given(requirements, st.lists(reports), st.integers(0, 9))
def test_the_acknowledged_index_is_held_and_the_next_is_not(
    need: Requirement, told: list[tuple[Member, int, int]], durable: int
) -> None:
    acks = opened(need, durable=durable)
    said: Said = {}
    for member, received, applied in told:
        say(acks, member, received, applied)
        said[member.node] = (member, received, applied)
    index = acks.held(need)
    assert index <= durable
    assert index == 0 or holders(said, need, index) >= need.acks
    assert index == durable or holders(said, need, index + 1) < need.acks
    assert acks.acknowledged == index


class AcksMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: a commit is answered once, and only while the primary and
    enough of those that count hold it; and less is never asked for while it would answer one."""

    def __init__(self) -> None:
        super().__init__()
        self.need = needs(1)
        self.acks: Acks[int] = Acks(NOW)
        self.acks.require(self.need)
        self.said: Said = {}
        self.durable = 0
        self.last_wait = 1
        self.waiting: list[int] = []
        self.answered: list[int] = []
        self.is_open = False

    def collect(self) -> None:
        """Every answer is checked at the moment at which it is given; and none is held back."""
        for index in self.acks.released():
            assert self.is_open
            assert index <= self.durable
            assert holders(self.said, self.need, index) >= self.need.acks
            self.waiting.remove(index)
            self.answered.append(index)
        for index in self.waiting if self.is_open else []:
            is_short = holders(self.said, self.need, index) < self.need.acks
            assert index > self.durable or is_short

    @rule(member=st.sampled_from(MEMBERS), step=st.integers(0, 3), applied=st.integers(0, 20))
    def report(self, member: Member, step: int, applied: int) -> None:
        known, got, done = self.said.get(member.node, (member, 0, 0))
        base = (got, done) if known == member else (0, 0)
        received = min(base[0] + step, self.durable + 2)
        received = max(received, base[0])
        now = (member, received, max(base[1], min(applied, received)))
        self.said[member.node] = now
        self.acks.report(member, NOW, received=now[1], applied=now[2])
        self.acks.report(member, BEFORE, received=99, applied=99)
        self.collect()

    @rule(member=st.sampled_from(MEMBERS))
    def forget(self, member: Member) -> None:
        self.said.pop(member.node, None)
        self.acks.forget(member.node)
        self.collect()

    @rule(step=st.integers(1, 3))
    def persist(self, step: int) -> None:
        self.durable += step
        self.acks.persisted(self.durable)
        self.collect()

    @rule(step=st.integers(0, 2))
    def wait(self, step: int) -> None:
        self.last_wait += step
        self.waiting.append(self.last_wait)
        self.acks.wait(self.last_wait, self.last_wait)
        self.collect()

    @precondition(lambda self: not self.is_open)
    @rule()
    def open(self) -> None:
        self.is_open = True
        self.acks.open()
        self.collect()

    @rule(to=requirements, may_release=st.booleans())
    def require(self, to: Requirement, *, may_release: bool) -> None:
        try:
            self.acks.require(to, may_release=may_release)
        except Conflict:
            assert self.waiting
            assert not may_release
        else:
            self.need = to
        before = len(self.answered)
        self.collect()
        assert may_release or len(self.answered) == before

    @invariant()
    def answers_are_in_order(self) -> None:
        assert self.answered == sorted(self.answered)


TestAcksMachine = AcksMachine.TestCase
