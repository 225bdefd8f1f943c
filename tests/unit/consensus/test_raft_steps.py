"""Raft, one step at a time: the semantics that are easy to get wrong, each by name."""

import msgspec
import pytest

from primacy.consensus.machine import (
    Apply,
    Effect,
    Entry,
    Event,
    HardState,
    Install,
    Persist,
    Persisted,
    Propose,
    ReadIndex,
    ReadReady,
    Received,
    Refused,
    Send,
    SnapshotMeta,
    SnapshotReceived,
    SnapshotSaved,
    Tick,
    TransferLeadership,
)
from primacy.consensus.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Hello,
    HelloReply,
    Message,
    PreVoteReply,
    PreVoteRequest,
    Refusal,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from primacy.consensus.raft.node import Limits, Raft, Restored, State, Timing
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId, Term

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
LIVES = {A: "a-1", B: "b-1", C: "c-1"}
TIMING = Timing(heartbeat_s=1.0, election_timeout_min_s=4.0, election_timeout_max_s=6.0)


def entries(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    return tuple(
        Entry(Term(term), LogIndex(index), b"%d-%d" % (term, index))
        for index, term in enumerate(terms, first)
    )


def member(*terms: int, term: int = 1, voters: tuple[NodeId, ...] = (A, B, C)) -> Raft:
    """Node a, restarted with a log of these terms."""
    hard = HardState(term=Term(term), incarnations=LIVES)
    restored = Restored(hard, entries(*terms), SnapshotMeta(), "a-1")
    limits = Limits(uncommitted_bytes_max=100, trailing_entries=2)
    return Raft(A, voters, TIMING, restored, lambda: 0.5, 0.0, limits=limits)


def leader(*terms: int) -> Raft:
    """Node a, leading term 2, its no-op durable here and nowhere else."""
    raft = member(*terms)
    raft.step(5.0, Tick())
    hear(raft, B, PreVoteReply(Term(1), "b-1", Term(2), is_granted=True), at_s=5.0)
    raft.step(5.0, Persisted(1))
    hear(raft, B, VoteReply(Term(2), "b-1", is_granted=True), at_s=5.0)
    raft.step(5.0, Persisted(2))
    assert raft.state is State.LEADER
    return raft


def hear(
    raft: Raft, sender: NodeId, message: Message, *, at_s: float = 1.0
) -> list[Effect[Message]]:
    return raft.step(at_s, Received(sender, message))


def sent(effects: list[Effect[Message]]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def append(*batch: Entry, prev: tuple[int, int] = (0, 0), commit: int = 0, term: int = 1) -> Append:
    return Append(Term(term), "b-1", LogIndex(prev[0]), Term(prev[1]), batch, LogIndex(commit))


def test_the_acknowledgement_of_an_append_leaves_only_after_its_write() -> None:
    raft = member()
    effects = hear(raft, B, append(*entries(1, 1)))
    assert sent(effects) == []
    assert sent(raft.step(1.0, Persisted(1))) == [AppendReply(Term(1), "a-1", LogIndex(2))]


def test_a_vote_leaves_only_after_its_write() -> None:
    raft = member()
    effects = hear(raft, B, VoteRequest(Term(2), "b-1", LogIndex(0), Term(0), is_transfer=False))
    [write] = [effect for effect in effects if isinstance(effect, Persist)]
    assert write.hard is not None
    assert (write.hard.term, write.hard.voted_for) == (2, B)
    assert sent(effects) == []
    assert sent(raft.step(1.0, Persisted(1))) == [VoteReply(Term(2), "a-1", is_granted=True)]


def test_it_votes_once_in_a_term() -> None:
    raft = member()
    hear(raft, B, VoteRequest(Term(2), "b-1", LogIndex(0), Term(0), is_transfer=False))
    raft.step(1.0, Persisted(1))
    effects = hear(raft, C, VoteRequest(Term(2), "c-1", LogIndex(9), Term(1), is_transfer=False))
    assert sent(effects) == [VoteReply(Term(2), "a-1", is_granted=False)]


@pytest.mark.parametrize("is_transfer", [False, True])
def test_a_vote_is_refused_while_the_leader_is_heard_unless_it_hands_over(
    *, is_transfer: bool
) -> None:
    raft = member()
    hear(raft, B, Heartbeat(Term(1), "b-1", LogIndex(0), 1))
    request = VoteRequest(Term(2), "c-1", LogIndex(0), Term(0), is_transfer)
    hear(raft, C, request, at_s=2.0)
    assert raft.term == (2 if is_transfer else 1)


def test_a_candidate_with_a_shorter_log_gets_no_vote_but_its_term_is_taken() -> None:
    raft = member(1, 1)
    request = VoteRequest(Term(5), "b-1", LogIndex(1), Term(1), is_transfer=False)
    effects = hear(raft, B, request)
    assert raft.term == 5
    assert not any(isinstance(each, VoteReply) and each.is_granted for each in sent(effects))


def test_a_pre_vote_changes_nobodys_term() -> None:
    raft = member()
    effects = hear(raft, B, PreVoteRequest(Term(7), "b-1", LogIndex(3), Term(1)))
    assert sent(effects) == [PreVoteReply(Term(1), "a-1", Term(8), is_granted=True)]
    assert raft.term == 1


def test_a_pre_candidate_that_is_behind_learns_the_term_from_a_refusal() -> None:
    raft = member()
    raft.step(6.0, Tick())
    hear(raft, B, PreVoteReply(Term(9), "b-1", Term(2), is_granted=False), at_s=6.0)
    assert (raft.term, raft.state) == (9, State.FOLLOWER)


def test_the_own_vote_counts_only_after_its_write() -> None:
    raft = member()
    raft.step(5.0, Tick())
    hear(raft, B, PreVoteReply(Term(1), "b-1", Term(2), is_granted=True), at_s=5.0)
    hear(raft, B, VoteReply(Term(2), "b-1", is_granted=True), at_s=5.0)
    states = [raft.state]
    raft.step(5.0, Persisted(1))
    states.append(raft.state)
    assert states == [State.CANDIDATE, State.LEADER]


def test_a_delayed_duplicate_never_truncates() -> None:
    raft = member()
    hear(raft, B, append(*entries(1, 1, 1)))
    effects = hear(raft, B, append(*entries(1)))
    assert raft.last_index == 3
    assert not any(isinstance(effect, Persist) for effect in effects)


def test_a_conflict_truncates_and_an_earlier_write_does_not_make_the_new_entry_stable() -> None:
    raft = member(1)
    hear(raft, B, append(*entries(1, 1, first=2), prev=(1, 1)))
    hear(raft, B, append(*entries(3, first=2), prev=(1, 1), term=3))
    assert raft.last_index == 2
    raft.step(1.0, Persisted(1))
    assert raft.stable_index == 1
    raft.step(1.0, Persisted(2))
    assert raft.stable_index == 2


def test_an_entry_that_went_and_came_back_is_stable_only_by_its_last_write() -> None:
    raft = member(1)
    hear(raft, B, append(*entries(1, first=2), prev=(1, 1)))
    hear(raft, B, append(*entries(2, first=2), prev=(1, 1), term=2))
    hear(raft, B, append(*entries(1, first=2), prev=(1, 1), term=3))
    raft.step(1.0, Persisted(1))
    assert raft.stable_index == 1
    raft.step(1.0, Persisted(3))
    assert raft.stable_index == 2


def test_a_committed_entry_is_never_truncated() -> None:
    raft = member(1, 1)
    hear(raft, B, append(prev=(2, 1), commit=2))
    with pytest.raises(InvariantBroken, match="committed-is-kept"):
        hear(raft, B, append(*entries(2, first=2), prev=(1, 1), term=2))


def test_a_commit_index_reaches_only_as_far_as_the_append_that_carries_it() -> None:
    raft = member(1, 1, 1)
    hear(raft, B, append(*entries(1, first=2), prev=(1, 1), commit=3))
    assert raft.commit_index == 2


def test_a_heartbeat_carries_no_commit_index_beyond_the_match() -> None:
    raft = leader()
    hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(1)), at_s=5.0)
    assert raft.commit_index == 1
    told = {
        effect.to: effect.message.commit_index
        for effect in raft.step(6.0, Tick())
        if isinstance(effect, Send) and isinstance(effect.message, Heartbeat)
    }
    assert told == {B: 1, C: 0}


def test_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    raft = leader(1, 1)
    hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(2)), at_s=5.0)
    assert raft.commit_index == 0
    hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(3)), at_s=5.0)
    assert raft.commit_index == 3


def test_a_leader_counts_itself_only_after_its_write() -> None:
    raft = leader()
    hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(1)), at_s=5.0)
    raft.step(5.0, Propose((b"x",), 1))
    assert raft.commit_index == 1
    raft.step(5.0, Persisted(3))
    assert raft.commit_index == 1
    hear(raft, C, AppendReply(Term(2), "c-1", LogIndex(2)), at_s=5.0)
    assert raft.commit_index == 2


def test_a_majority_of_followers_commits_without_the_leaders_disk_but_nothing_is_applied() -> None:
    raft = leader()
    raft.step(5.0, Propose((b"x",), 1))
    hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(2)), at_s=5.0)
    hear(raft, C, AppendReply(Term(2), "c-1", LogIndex(2)), at_s=5.0)
    assert (raft.commit_index, raft.applied_index) == (2, 1)
    effects = raft.step(5.0, Persisted(3))
    assert [effect for effect in effects if isinstance(effect, Apply)] != []


def test_followers_hear_of_a_commit_at_once() -> None:
    raft = leader()
    hear(raft, C, AppendReply(Term(2), "c-1", LogIndex(1)), at_s=5.0)
    effects = hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(1)), at_s=5.0)
    raft.step(5.0, Propose((b"x",), 1))
    raft.step(5.0, Persisted(3))
    effects = hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(2)), at_s=5.0)
    notices = [each for each in sent(effects) if isinstance(each, Append)]
    assert [(each.commit_index, each.is_notice) for each in notices] == [(2, True), (2, True)]


def test_a_rejection_steps_back_over_a_whole_term() -> None:
    raft = leader(1, 1, 1, 1)
    rejected = AppendRejected(Term(2), "b-1", LogIndex(4), LogIndex(1), Term(1))
    [again] = sent(hear(raft, B, rejected, at_s=5.0))
    assert isinstance(again, Append)
    assert (again.prev_index, len(again.entries)) == (1, 4)


def test_a_follower_hints_at_where_the_logs_may_agree() -> None:
    raft = member(1, 2, 2, 2, term=2)
    effects = hear(raft, B, append(prev=(4, 1), term=3))
    raft.step(1.0, Persisted(1))
    assert raft.last_index == 4
    replies = sent(effects) or sent(hear(raft, B, append(prev=(4, 1), term=3)))
    assert replies == [AppendRejected(Term(3), "a-1", LogIndex(4), LogIndex(1), Term(1))]


def test_a_read_waits_for_the_no_op_and_for_a_round_that_began_after_it() -> None:
    raft = leader()
    assert raft.step(5.0, ReadIndex(7)) == []
    effects = hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(1)), at_s=5.0)
    [round_number] = {each.round for each in sent(effects) if isinstance(each, Heartbeat)}
    old = hear(raft, B, HeartbeatReply(Term(2), "b-1", round_number - 1), at_s=5.0)
    assert not any(isinstance(effect, ReadReady) for effect in old)
    effects = hear(raft, B, HeartbeatReply(Term(2), "b-1", round_number), at_s=5.0)
    assert ReadReady(7, LogIndex(1)) in effects


@pytest.mark.parametrize(
    "event",
    [
        ReadIndex(1),
        Received(B, HeartbeatReply(Term(2), "b-1", 1)),
        Propose((b"x",), 1),
        Persisted(2),
        Tick(),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_leader_that_was_paused_stands_back_before_it_does_anything(
    event: Event[Message],
) -> None:
    raft = leader()
    effects = raft.step(60.0, event)
    assert raft.state is State.FOLLOWER
    assert not any(isinstance(effect, ReadReady | Apply) for effect in effects)


def test_proposals_are_refused_above_the_bound_on_uncommitted_bytes() -> None:
    raft = leader()
    raft.step(5.0, Propose((b"x" * 99,), 1))
    effects = raft.step(5.0, Propose((b"yy",), 2))
    assert [each.request_id for each in effects if isinstance(each, Refused)] == [2]


def test_a_transfer_waits_for_the_target_and_is_given_up_after_one_election_timeout() -> None:
    raft = leader()
    raft.step(5.0, TransferLeadership(B))
    assert any(isinstance(each, Refused) for each in raft.step(5.0, Propose((b"x",), 1)))
    effects = hear(raft, B, AppendReply(Term(2), "b-1", LogIndex(1)), at_s=5.0)
    assert TimeoutNow(Term(2), "a-1") in sent(effects)
    hear(raft, B, HeartbeatReply(Term(2), "b-1", 0), at_s=10.9)
    raft.step(11.0, Tick())
    assert not any(isinstance(each, Refused) for each in raft.step(11.0, Propose((b"x",), 2)))


def test_a_snapshot_that_the_log_already_reaches_through_only_moves_the_commit_index() -> None:
    raft = member(1, 1, 1)
    meta = SnapshotMeta(index=LogIndex(2), term=Term(1))
    effects = raft.step(1.0, SnapshotReceived(B, Term(1), meta))
    assert not any(isinstance(effect, Install) for effect in effects)
    assert (raft.last_index, raft.applied_index) == (3, 2)


def test_a_snapshot_beyond_the_log_is_installed_and_acknowledged_after_its_write() -> None:
    raft = member(1)
    meta = SnapshotMeta(index=LogIndex(9), term=Term(1))
    effects = raft.step(1.0, SnapshotReceived(B, Term(1), meta))
    assert Install(meta) in effects
    assert sent(effects) == []
    assert sent(raft.step(1.0, Persisted(1))) == [AppendReply(Term(1), "a-1", LogIndex(9))]


def test_compaction_keeps_a_tail_for_slow_followers() -> None:
    raft = member(1, 1, 1, 1, 1)
    hear(raft, B, append(prev=(5, 1), commit=5))
    raft.step(1.0, SnapshotSaved(SnapshotMeta(index=LogIndex(5), term=Term(1))))
    assert raft.log.base_index == 3


def test_a_lone_voter_commits_only_after_its_own_write() -> None:
    raft = member(voters=(A,))
    raft.step(0.0, Tick())
    raft.step(0.0, Persisted(1))
    assert (raft.state, raft.commit_index) == (State.LEADER, 0)
    raft.step(0.0, Persisted(2))
    assert raft.commit_index == 1


def test_a_message_from_another_life_is_refused_and_not_processed() -> None:
    raft = member()
    effects = hear(raft, B, VoteRequest(Term(9), "b-2", LogIndex(9), Term(8), is_transfer=True))
    [refusal] = sent(effects)
    assert isinstance(refusal, Refusal)
    assert refusal.refused_incarnation == "b-2"
    assert raft.term == 1


def test_an_excluded_member_neither_votes_nor_campaigns_nor_acknowledges() -> None:
    raft = member()
    hear(raft, B, Refusal(Term(1), "b-1", "a-1", "another life"))
    hear(raft, C, append(*entries(1)))
    effects = hear(raft, C, VoteRequest(Term(9), "c-1", LogIndex(9), Term(8), is_transfer=True))
    effects += raft.step(1000.0, Tick())
    assert (effects, raft.term, raft.last_index) == ([], 1, 0)


def test_a_blank_member_takes_part_only_once_every_other_voter_has_answered() -> None:
    raft = Raft(
        A, (A, B, C), TIMING, Restored(HardState(), (), SnapshotMeta(), "a-1"), lambda: 0.5, 0.0
    )
    assert sent(raft.step(0.0, Tick())) == [Hello(Term(0), "a-1")] * 2
    hear(raft, B, HelloReply(Term(0), "b-1", "a-1"))
    raft.step(1.0, Persisted(1))
    request = VoteRequest(Term(1), "b-1", LogIndex(0), Term(0), is_transfer=False)
    assert hear(raft, B, request) == []
    assert sent(raft.step(4.0, Tick())) == [Hello(Term(0), "a-1")]  # Only c has not answered.
    hear(raft, C, HelloReply(Term(0), "c-1", "a-1"))
    raft.step(4.0, Persisted(2))
    hear(raft, B, request)
    assert raft.voted_for == B


def test_every_message_survives_the_wire() -> None:
    message = append(*entries(1, 2), prev=(3, 1))
    decoder = msgspec.msgpack.Decoder(Message)
    assert decoder.decode(msgspec.msgpack.encode(message)) == message
