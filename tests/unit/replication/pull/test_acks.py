"""Acknowledgements are counted exactly as rules 1 to 3 say."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from primacy.errors import Conflict, InvariantBroken
from primacy.model import Epoch, Incarnation, Member, NodeId
from primacy.replication.pull.acks import AckOn, Acks, Requirement
from primacy.replication.records import DurabilityRecord

NOW, BEFORE, LATER = Epoch(3), Epoch(2), Epoch(4)
B, C, D = (Member(NodeId(each), Incarnation(f"{each}-1")) for each in "bcd")
REBORN_B = Member(B.node, Incarnation("b-2"))


def needs(acks: int, *members: Member, ack_on: AckOn = AckOn.RECEIVED) -> Requirement:
    return Requirement(acks=acks, members=frozenset(members), ack_on=ack_on)


def opened(requirement: Requirement, *, durable: int = 0) -> Acks[str]:
    acks: Acks[str] = Acks(NOW, requirement)
    acks.open()
    acks.persisted(durable)
    return acks


def say(acks: Acks[str], member: Member, received: int, applied: int = 0) -> None:
    acks.report(member, acks.epoch, received=received, applied=applied)


def test_a_requirement_is_what_the_record_says() -> None:
    record = DurabilityRecord(
        epoch=NOW, primary=Member(NodeId("a"), Incarnation("a-1")), acks=1, members=(B, C)
    )
    assert Requirement.of(record, AckOn.APPLIED) == needs(1, B, C, ack_on=AckOn.APPLIED)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (needs(0), 10),
        (needs(1, B, C, D), 9),
        (needs(2, B, C, D), 7),
        (needs(3, B, C, D), 4),
        (needs(1, B, C, D, ack_on=AckOn.APPLIED), 6),
        (needs(2, B, C, D, ack_on=AckOn.APPLIED), 3),
        (needs(1, C), 4),
        (needs(2, C), 0),
    ],
    ids=lambda each: str(each.acks) if isinstance(each, Requirement) else None,
)
def test_k_of_the_named_members(requirement: Requirement, expected: int) -> None:
    acks = opened(requirement, durable=10)
    say(acks, B, 9, 3)
    say(acks, C, 4, 1)
    say(acks, D, 7, 6)
    assert acks.acknowledged == expected


def test_the_primary_itself_must_hold_it_durably() -> None:
    acks = opened(needs(1, B), durable=5)
    say(acks, B, 8)
    assert acks.acknowledged == 5
    acks.persisted(7)
    assert acks.acknowledged == 7


def test_another_incarnation_and_another_node_do_not_count() -> None:
    acks = opened(needs(1, B), durable=9)
    say(acks, REBORN_B, 9)
    say(acks, C, 9)
    assert acks.acknowledged == 0
    assert acks.blocked_on(1) == ("b",)
    say(acks, B, 6)
    assert acks.acknowledged == 6
    assert acks.blocked_on(6) == ()


def test_words_to_another_reign_do_not_count() -> None:
    acks = opened(needs(1, B), durable=9)
    acks.report(B, BEFORE, received=9, applied=9)
    acks.report(B, LATER, received=9, applied=9)
    assert acks.acknowledged == 0


def test_nothing_is_acknowledged_before_the_doors_open() -> None:
    acks: Acks[str] = Acks(NOW, needs(1, B), held=4)
    acks.wait(4, "left waiting")
    say(acks, B, 5)
    acks.persisted(5)
    assert acks.held(acks.in_force[0]) == 5  # The epoch row may be seen to be held.
    assert (acks.acknowledged, acks.released()) == (0, [])
    acks.open()
    assert acks.released() == ["left waiting"]


def test_after_close_nothing_is_released_and_who_waited_is_named() -> None:
    acks = opened(needs(1, B), durable=9)
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
    acks = opened(needs(1, B, C), durable=9)
    say(acks, B, 8)
    say(acks, after, 2)
    acks.wait(5, "came later")
    assert acks.released() == []
    acks.begin(needs(1, C))
    with pytest.raises(InvariantBroken, match="marker-above-acknowledged"):
        acks.mark(7)  # Others may have been answered meanwhile, up to 8.
    acks.give_up()
    say(acks, C, 8)
    assert acks.released() == ["came later"]


def test_waiters_are_released_in_order() -> None:
    acks = opened(needs(1, B), durable=9)
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


def test_a_commit_is_blocked_on_those_only_who_could_still_help() -> None:
    one, two = needs(1, B, C), needs(2, B, C)
    for requirement, blocked in ((one, ()), (two, ("c",))):
        acks = opened(requirement, durable=9)
        say(acks, B, 6)
        say(acks, C, 2)
        assert acks.blocked_on(6) == blocked
        assert acks.blocked_on(7) == ("b", "c")


def test_during_a_change_both_records_bind() -> None:
    acks = opened(needs(1, B), durable=20)
    say(acks, B, 10)
    acks.begin(needs(1, C))
    say(acks, B, 15)
    assert acks.acknowledged == 0  # C has said nothing yet.
    say(acks, C, 12)
    assert acks.acknowledged == 12
    acks.mark(14)
    assert not acks.is_marker_held
    with pytest.raises(InvariantBroken, match="marker-before-swap"):
        acks.send_swap()
    say(acks, C, 14)
    acks.send_swap()
    say(acks, C, 20)
    assert acks.acknowledged == 15  # Still both: the store may hold the old record.
    acks.settle()
    assert acks.acknowledged == 20
    assert acks.in_force == (needs(1, C),)


def test_a_change_is_given_up_only_before_its_swap_is_sent() -> None:
    acks = opened(needs(1, B), durable=20)
    acks.begin(needs(1, C))
    say(acks, B, 9)
    assert acks.blocked_on(9) == ("c",)
    acks.give_up()
    assert acks.acknowledged == 9
    acks.begin(needs(0))
    acks.mark(10)
    acks.send_swap()
    with pytest.raises(Conflict, match="both records bind"):
        acks.give_up()
    with pytest.raises(Conflict, match="under way"):
        acks.begin(needs(1, C))
    assert acks.acknowledged == 9  # A degradation, too, waits for the store.
    acks.settle()
    assert acks.acknowledged == 20


def test_a_marker_stands_above_all_that_the_old_record_alone_acknowledged() -> None:
    acks = opened(needs(1, B), durable=20)
    say(acks, B, 10)
    acks.begin(needs(1, C))
    with pytest.raises(InvariantBroken, match="marker-above-acknowledged"):
        acks.mark(9)
    acks.mark(10)


def test_each_step_of_a_change_needs_the_one_before() -> None:
    acks = opened(needs(1, B), durable=20)
    with pytest.raises(Conflict, match="no change"):
        acks.mark(1)
    with pytest.raises(Conflict, match="no change"):
        acks.settle()
    with pytest.raises(Conflict, match="no change"):
        acks.give_up()
    with pytest.raises(InvariantBroken, match="marker-before-swap"):
        acks.send_swap()
    acks.begin(needs(1, C))
    with pytest.raises(InvariantBroken, match="swap-before-settle"):
        acks.settle()


# ---- properties -----------------------------------------------------------------------------

MEMBERS = [B, C, D, REBORN_B]
requirements = st.builds(
    lambda acks, members, ack_on: needs(acks, *members, ack_on=ack_on),
    st.integers(min_value=0, max_value=3),
    st.sets(st.sampled_from(MEMBERS)),
    st.sampled_from(AckOn),
)
reports = st.tuples(st.sampled_from(MEMBERS), st.integers(0, 9), st.integers(0, 9))


def holders(said: dict[NodeId, tuple[Member, int, int]], need: Requirement, index: int) -> int:
    """How many members hold `index`, written the other way round than in the code."""
    received = need.ack_on is AckOn.RECEIVED
    return sum(
        1
        for member, got, applied in said.values()
        if member in need.members and index <= (got if received else min(got, applied))
    )


@given(requirements, st.lists(reports), st.integers(0, 9))
def test_the_acknowledged_index_is_held_and_the_next_is_not(
    need: Requirement, told: list[tuple[Member, int, int]], durable: int
) -> None:
    acks = opened(need, durable=durable)
    said: dict[NodeId, tuple[Member, int, int]] = {}
    for member, received, applied in told:
        say(acks, member, received, applied)
        said[member.node] = (member, received, applied)
    index = acks.held(need)
    assert index <= durable
    assert index == 0 or holders(said, need, index) >= need.acks
    assert index == durable or holders(said, need, index + 1) < need.acks
    assert acks.acknowledged == index


@dataclass
class World:
    """What really holds: the store's record, who may still count, who was answered."""

    record: Requirement
    possible: list[Requirement] = field(default_factory=list)
    """Every record that the store may hold at this moment."""


class AcksMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: an answered commit satisfies every record that the store
    may hold, so that whoever is promoted by any of them has it."""

    def __init__(self) -> None:
        super().__init__()
        first = needs(1, B, C)
        self.acks: Acks[int] = Acks(NOW, first)
        self.world = World(first, [first])
        self.said: dict[NodeId, tuple[Member, int, int]] = {}
        self.durable = 0
        self.last_wait = 1
        self.answered: list[int] = []
        self.to: Requirement | None = None
        self.marker = 0
        self.is_sent = False

    def collect(self) -> None:
        """Every answer is checked at the moment at which it is given."""
        for index in self.acks.released():
            assert index <= self.durable
            for record in self.world.possible:
                assert holders(self.said, record, index) >= record.acks
            self.answered.append(index)

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

    @rule(step=st.integers(1, 3))
    def persist(self, step: int) -> None:
        self.durable += step
        self.acks.persisted(self.durable)
        self.collect()

    @rule(step=st.integers(0, 2))
    def wait(self, step: int) -> None:
        self.last_wait += step
        self.acks.wait(self.last_wait, self.last_wait)
        self.collect()

    @rule()
    def open(self) -> None:
        self.acks.open()
        self.collect()

    @precondition(lambda self: self.to is None)
    @rule(to=requirements)
    def begin(self, to: Requirement) -> None:
        self.to = to
        self.acks.begin(to)
        self.marker = self.durable
        self.acks.mark(self.marker)
        self.collect()

    @precondition(lambda self: self.to is not None and not self.is_sent)
    @rule()
    def swap_or_give_up(self) -> None:
        assert self.to is not None
        if self.acks.is_marker_held:
            self.acks.send_swap()
            self.is_sent = True
            for index in self.answered:  # The later ones were answered under both.
                assert index > self.marker or holders(self.said, self.to, index) >= self.to.acks
            self.world.possible = [self.world.record, self.to]
        else:
            self.acks.give_up()
            self.to = None
        self.collect()

    @precondition(lambda self: self.is_sent)
    @rule()
    def settle(self) -> None:
        assert self.to is not None
        self.world = World(self.to, [self.to])
        self.to, self.is_sent = None, False
        self.acks.settle()
        self.collect()

    @invariant()
    def answers_are_in_order(self) -> None:
        assert self.answered == sorted(self.answered)


TestAcksMachine = AcksMachine.TestCase
