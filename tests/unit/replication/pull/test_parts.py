"""The small parts: lag, the search for a common point, recent pieces, proofs, frames in parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.replication.pull.lab import MemoryLog

from primacy.errors import Corrupt
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.log.record import ORIGIN_POINT, Point
from primacy.replication.pull.comparing import Search
from primacy.replication.pull.lag import LEVEL, Growth, Lag
from primacy.replication.pull.messages import (
    Challenge,
    Hello,
    from_receiver,
    from_source,
    message_frame,
    receiver_proof,
    source_proof,
)
from primacy.replication.pull.recent import Recent
from primacy.wire import FrameDecoder

HELLO = Hello(
    protocol=1,
    log_version=1,
    cluster="shop",
    node=NodeId("b"),
    incarnation=Incarnation("b-1"),
    nonce="11",
    epoch=Epoch(1),
    point=ORIGIN_POINT,
)


def test_lag_is_the_age_of_the_oldest_record_that_is_missing() -> None:
    growth = Growth(10, now_s=100.0)
    growth.grew(11, 50, now_s=101.0)
    growth.grew(13, 70, now_s=102.0)
    growth.grew(13, 70, now_s=105.0)  # Told twice: nothing has grown.
    assert growth.total_bytes == 120
    assert growth.lag(13, 0, 110.0) == LEVEL
    assert growth.lag(12, 35, 110.0) == Lag(1, 35, 8.0)
    assert growth.lag(11, 70, 110.0) == Lag(2, 70, 8.0)
    assert growth.lag(10, 120, 110.0) == Lag(3, 120, 9.0)
    assert growth.lag(4, 900, 110.0) == Lag(9, 900, 9.0)  # At least: it was there before.


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_the_last_common_point_is_found_with_few_questions(
    low: int, length: int, common: int
) -> None:
    high = low + length
    own = {index: Point(Epoch(1), index, index) for index in range(low, high + 1)}
    other = {
        index: point if index <= common else Point(Epoch(1), index, index + 1)
        for index, point in own.items()
    }
    search, questions = Search(low, high), 0
    while asked := search.ask():
        questions += 1
        assert search.learn(
            {index: own[index] for index in asked}, {index: other[index] for index in asked}
        )
    assert questions <= 3
    assert search.common == (own[min(common, high)] if common >= low else None)


def test_a_log_that_moves_while_it_is_compared_is_noticed() -> None:
    points = MemoryLog.of("9@1").points
    search = Search(0, 9)
    asked = search.ask()
    assert not search.learn({index: points[index] for index in asked}, dict.fromkeys(asked))


def test_recent_pieces_are_bounded_and_the_oldest_go_first() -> None:
    recent = Recent(250)
    for after in range(5):
        recent.add(b"x" * 100, after=after, end=after + 1)
    assert recent.after(2) is None
    piece = recent.after(3)
    assert piece is not None
    assert (piece.end, piece.size_bytes) == (4, 100)
    assert FrameDecoder().feed(piece.frame) == [b"\x01" + b"x" * 100]
    recent.clear()
    assert recent.after(3) is None


def test_a_proof_is_for_one_role_one_greeting_and_one_nonce() -> None:
    secret, node = b"s" * 32, NodeId("a")
    first = source_proof(secret, HELLO, node, "22")
    challenge = Challenge(node=node, nonce="22", proof=first)
    different = {
        first,
        source_proof(b"t" * 32, HELLO, node, "22"),
        source_proof(secret, HELLO, node, "23"),
        source_proof(secret, HELLO, NodeId("c"), "22"),
        receiver_proof(secret, HELLO, challenge),
        receiver_proof(b"t" * 32, HELLO, challenge),
    }
    assert len(different) == 6
    assert receiver_proof(secret, HELLO, challenge) == receiver_proof(secret, HELLO, challenge)


def test_what_is_no_message_of_the_other_end_is_corrupt() -> None:
    [payload] = FrameDecoder().feed(message_frame(HELLO))
    assert from_receiver(payload) == HELLO
    for noise in (b"", b"\x00", b"\x01records", b"\x00\xc1", payload[:-3]):
        with pytest.raises(Corrupt):
            from_receiver(noise)
    with pytest.raises(Corrupt, match="not a message"):
        from_source(payload)  # A receiver's message, from a source.
