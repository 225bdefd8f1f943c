"""What the machines do too early, too late, too often: moments, limits, and what is out of turn."""

import pytest
from tests.unit.replication.pull.lab import A, B, Lab, MemoryLog

from primacy.model import Epoch, Incarnation, Member
from primacy.replication.pull import receiver as at_receiver
from primacy.replication.pull import source as at_source
from primacy.replication.pull.messages import AskPoints, Points, Proof, Report
from primacy.replication.pull.receiver import HasParted, Lost
from primacy.replication.pull.source import SourceState


def lab_of(given: str, *commands: str) -> Lab:
    lab = Lab()
    for command in (f"given {given}", "connect", *commands):
        name, *words = command.split()
        list(getattr(lab, name)(*words))
    return lab


def streaming() -> Lab:
    lab = lab_of("source=5@1 receiver=3@1", "settle", "store", "settle")
    assert lab.source.is_streaming
    return lab


def test_each_end_wants_to_be_woken_when_something_is_due_and_not_before() -> None:
    lab = lab_of("source=5@1 receiver=3@1")
    assert (lab.source.wake_at_s, lab.receiver.wake_at_s) == (5.0, 4.0)
    lab = streaming()
    assert (lab.source.wake_at_s, lab.receiver.wake_at_s) == (1.0, 1.0)
    assert lab.source.step(0.9, at_source.Ticked()) == ()
    assert lab.receiver.step(0.9, at_receiver.Ticked()) == ()
    assert lab.source.step(1.0, at_source.Ticked()) == [at_source.SendBeat()]
    [told] = lab.receiver.step(1.0, at_receiver.Ticked())
    assert isinstance(told, at_receiver.Tell)
    assert (lab.source.wake_at_s, lab.receiver.wake_at_s) == (2.0, 2.0)
    assert lab.source.step(1.0, at_source.Ticked()) == ()
    assert lab.receiver.step(1.0, at_receiver.Ticked()) == ()


def test_a_part_of_a_record_is_a_word_once_records_come_and_not_before() -> None:
    lab = streaming()
    assert lab.receiver.step(3.9, at_receiver.Arriving()) == ()
    assert not isinstance(lab.receiver.step(7.8, at_receiver.Ticked())[0], at_receiver.Ended)
    [ended] = lab.receiver.step(7.9, at_receiver.Ticked())
    assert ended == at_receiver.Ended(Lost("the source was silent for 4.0 s"))
    stranger = lab_of("source=5@1 receiver=3@1")
    assert stranger.receiver.step(3.9, at_receiver.Arriving()) == ()
    [ended] = stranger.receiver.step(4.0, at_receiver.Ticked())
    assert ended == at_receiver.Ended(Lost("the source was silent for 4.0 s"))


def test_what_is_over_is_never_woken() -> None:
    lab = streaming()
    assert lab.source.end("the door closes") == [at_source.Close("the door closes")]
    assert lab.source.end("again") == ()
    lab.receiver.stop()
    assert lab.source.wake_at_s == lab.receiver.wake_at_s == float("inf")


def test_while_logs_are_compared_silence_ends_the_session_and_nothing_else_is_said() -> None:
    lab = lab_of("source=90@1 receiver=40@1,9@1x", "settle")
    assert isinstance(lab.ending, HasParted)
    assert lab.source.state is SourceState.COMPARING
    assert lab.source.wake_at_s == 4.0
    assert lab.source.step(3.9, at_source.Ticked()) == ()
    [closed] = lab.source.step(4.0, at_source.Ticked())
    assert isinstance(closed, at_source.Close)
    assert not closed.is_told


def test_while_it_is_compared_a_receiver_reports_nothing() -> None:
    lab = lab_of("source=90@1 receiver=40@1,9@1x", "deliver a", "deliver b", "deliver a")
    list(lab.deliver("b"))
    assert lab.receiver.wake_at_s == 4.0
    assert lab.receiver.step(2.0, at_receiver.Ticked()) == ()
    assert lab.receiver.step(2.0, at_receiver.Applied(lab.logs[B].end)) == ()
    [ended] = lab.receiver.step(4.0, at_receiver.Ticked())
    assert ended == at_receiver.Ended(Lost("the source was silent for 4.0 s"))


def test_logs_that_keep_one_index_in_common_are_compared_at_it() -> None:
    lab = Lab()
    lab.logs = {A: MemoryLog.of("5@1,2@1"), B: MemoryLog.of("5@1,2@1x")}
    lab.logs[A].first_index = lab.logs[B].first_index = 7
    list(lab.connect())
    list(lab.settle())
    assert lab.ending == HasParted(None, lab.logs[B].end, lab.logs[A].end)


@pytest.mark.parametrize("count", [0, 65])
def test_points_are_asked_for_in_bounds(count: int) -> None:
    lab = lab_of("source=90@1 receiver=40@1,9@1x", "settle")
    asked = AskPoints(indexes=tuple(range(count)))
    [closed] = lab.source.step(0.0, at_source.Said(asked))
    assert closed == at_source.Close(f"it asked for {count} points")


def test_points_that_nobody_asked_for_end_the_session() -> None:
    lab = lab_of("source=90@1 receiver=40@1,9@1x", "deliver a", "deliver b", "deliver a")
    list(lab.deliver("b"))
    asked = len(lab.to_source[-1].indexes)  # type: ignore[union-attr]  # It is an AskPoints.
    answer = Points(points=(None,) * (asked - 1))
    [ended] = lab.receiver.step(0.0, at_receiver.Heard(answer))
    assert ended == at_receiver.Ended(Lost("points came that nobody asked for"))


def test_a_node_is_known_once_it_has_proven_who_it_is() -> None:
    lab = lab_of("source=5@1 receiver=3@1", "deliver a")
    assert lab.source.member is None
    list(lab.settle())
    assert lab.source.member == Member(B, Incarnation("b-1"))


def test_one_batch_is_asked_for_at_a_time() -> None:
    lab = streaming()
    source = lab.source
    assert source.step(0.0, at_source.Grew(9)) == [at_source.Fetch(5, 300)]
    assert source.step(0.0, at_source.Grew(12)) == ()
    assert source.step(0.0, at_source.Fetched(8, 300)) == [at_source.Fetch(8, 300)]
    assert source.step(0.0, at_source.Fetched(12, 400)) == ()


def test_a_batch_that_was_purged_before_it_was_read_ends_the_session_with_a_word() -> None:
    lab = streaming()
    lab.source.step(0.0, at_source.Grew(9))
    gone, closed = lab.source.step(0.0, at_source.FetchedNothing(lab.logs[A].points[4]))
    assert isinstance(gone, at_source.Say)
    assert isinstance(closed, at_source.Close)
    assert closed.is_told


def test_records_and_looks_out_of_turn_end_the_session() -> None:
    lab = lab_of("source=5@1 receiver=3@1")
    [ended] = lab.receiver.step(0.0, at_receiver.Came())
    assert ended == at_receiver.Ended(Lost("records came before the source was known"))
    [closed] = lab.source.step(0.0, at_source.Said(Proof(proof="")))
    assert closed == at_source.Close("Proof does not belong where nobody has said who it is")
    other = streaming()
    log = other.logs[A]
    [closed] = other.source.step(0.0, at_source.Looked(log.first, log.end, ()))
    assert closed == at_source.Close("the log was looked at out of turn")


def test_what_comes_after_the_end_is_not_answered() -> None:
    lab = streaming()
    lab.source.end("over")
    lab.receiver.stop()
    report = Report(
        received=lab.logs[B].end, applied=lab.logs[B].end, size_bytes=200, acknowledges=True
    )
    assert lab.source.step(0.0, at_source.Said(report)) == ()
    assert lab.receiver.step(0.0, at_receiver.Stored(lab.logs[B].end, 200)) == ()
    assert lab.following.epoch == Epoch(1)
