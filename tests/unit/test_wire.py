import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.errors import Corrupt, Rejected
from primacy.wire import FrameDecoder, encode_frame


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_payloads_come_out_whole_however_the_bytes_are_cut(
    payloads: list[bytes], sizes: list[int]
) -> None:
    stream = b"".join(encode_frame(payload) for payload in payloads)
    decoder = FrameDecoder()
    found: list[bytes] = []
    place = turn = 0
    while place < len(stream):
        size = sizes[turn % len(sizes)]
        found += decoder.feed(stream[place : place + size])
        place, turn = place + size, turn + 1
    assert found == payloads
    assert decoder.buffered_bytes == 0


def test_one_flipped_bit_anywhere_never_yields_the_wrong_payload() -> None:
    frame = encode_frame(b"forty-two bytes of which each is important")
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(Corrupt):
            # A length that grew waits for more: the frames that follow then fail the checksum.
            assert FrameDecoder().feed(bytes(damaged)) == []


def test_a_wrong_version_is_refused_and_says_what_to_do() -> None:
    frame = bytearray(encode_frame(b"x"))
    frame[4] = 9
    with pytest.raises(Corrupt, match=r"version 9.*Run the same release"):
        FrameDecoder().feed(bytes(frame))


def test_a_frame_above_the_limit_is_refused_before_it_is_received() -> None:
    with pytest.raises(Corrupt, match="limit is 10"):
        FrameDecoder(size_max=10).feed(encode_frame(b"eleven bytes")[:9])


def test_a_payload_above_the_limit_is_not_sent() -> None:
    with pytest.raises(Rejected, match="smaller parts"):
        encode_frame(b"123456", size_max=5)
