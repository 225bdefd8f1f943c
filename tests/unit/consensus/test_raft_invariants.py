"""The checker itself: what breaks a promise is named."""

import pytest

from primacy.consensus.invariants import INVARIANTS, RaftHistory, check_group
from primacy.consensus.machine import (
    Apply,
    Effect,
    Entry,
    HardState,
    Persist,
    ReadIndex,
    ReadReady,
    Send,
    SnapshotMeta,
)
from primacy.consensus.raft.messages import AppendReply, Message, VoteReply
from primacy.consensus.raft.node import Raft, Restored, Timing
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId, Term

A, B = NodeId("a"), NodeId("b")
ONE = Entry(Term(1), LogIndex(1), b"one")
OTHER = Entry(Term(1), LogIndex(1), b"other")
LATER = Entry(Term(1), LogIndex(2), b"later")


def member(*entries: Entry, node: NodeId = A) -> Raft:
    hard = HardState(term=Term(1), incarnations={A: "a-1", B: "b-1"})
    restored = Restored(hard, entries, SnapshotMeta(), f"{node}-1")
    return Raft(node, (A, B), Timing.for_lease(1.0), restored, lambda: 0.0, 0.0)


BROKEN: dict[str, list[Effect[Message]]] = {
    "durable-before-acknowledged": [
        Persist(1, entries=(LATER,)),
        Send(B, VoteReply(Term(1), "a-1", is_granted=True)),
    ],
    "one-vote-per-term": [
        Send(B, VoteReply(Term(0), "a-1", is_granted=True)),
        Send(NodeId("c"), VoteReply(Term(0), "a-1", is_granted=True)),
    ],
    "apply-in-order": [Apply((LATER,))],
    "state-machine-safety": [Apply((OTHER,))],
}


@pytest.mark.parametrize(("name", "effects"), BROKEN.items(), ids=BROKEN)
def test_a_step_that_breaks_a_promise_is_named(name: str, effects: list[Effect[Message]]) -> None:
    history = RaftHistory((A, B))
    other = member(ONE, node=B)
    history.started(other)
    history.observe(other, [Apply((ONE,))])
    subject = member(ONE)
    history.started(subject)
    with pytest.raises(InvariantBroken) as broken:
        history.observe(subject, effects)
    assert broken.value.name == name


def test_an_acknowledgement_of_what_no_disk_has_held_is_named() -> None:
    history = RaftHistory((A, B))
    history.started(member())
    reply: Effect[Message] = Send(B, AppendReply(Term(1), "a-1", LogIndex(1)))
    with pytest.raises(InvariantBroken, match="durable-before-acknowledged"):
        history.observe(member(ONE), [reply])


def test_a_write_that_was_never_answered_may_have_replaced_what_was() -> None:
    """The disk failed, and the write that cut the log at a newer leader's word was on it."""
    newer = Entry(Term(2), LogIndex(1), b"newer")
    for landed, is_broken in (((newer,), False), ((ONE, LATER), False), ((ONE,), True)):
        history = RaftHistory((A, B))
        subject = member(ONE, LATER)
        history.started(subject)
        history.observe(subject, [Persist(1, entries=(newer,))])
        if not is_broken:
            history.started(member(*landed))
            continue
        with pytest.raises(InvariantBroken, match="has it no more"):
            history.started(member(*landed))


def test_a_read_from_before_what_was_committed_is_named() -> None:
    history = RaftHistory((A, B))
    subject = member(ONE)
    history.started(subject)
    history.commit_index = 5
    history.observe(subject, [], ReadIndex(1))
    with pytest.raises(InvariantBroken, match="reads-are-current"):
        history.observe(subject, [ReadReady(1, LogIndex(4))])


def test_two_entries_of_one_index_and_term_are_named() -> None:
    with pytest.raises(InvariantBroken, match="log-matching"):
        check_group([member(ONE), member(OTHER, node=B)])


def test_every_invariant_has_a_name_of_its_own_and_a_source() -> None:
    assert len({invariant.name for invariant in INVARIANTS}) == len(INVARIANTS)
    assert all(invariant.source and invariant.statement for invariant in INVARIANTS)
