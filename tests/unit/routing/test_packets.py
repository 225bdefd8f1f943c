"""The byte formats that a router writes by itself."""

import contextlib
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.engines.sqlite.protocol import ANSWER_BYTES_MAX, Branch, Failure, from_server
from primacy.errors import Rejected
from primacy.model import Epoch
from primacy.routing.mysql import MESSAGE_BYTES_MAX, error_packet
from primacy.routing.proxyprotocol import Ends, Forwarded, decode, encode
from primacy.routing.route import Intent
from primacy.routing.sqlprotocol import failure_frame
from primacy.routing.words import Refusal
from primacy.wire import FrameDecoder

ports = st.integers(0, 65535)
v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(str).filter(lambda text: IPv6Address(text).ipv4_mapped is None)
ends = st.one_of(
    st.builds(Ends, st.tuples(v4, ports), st.tuples(v4, ports)),
    st.builds(Ends, st.tuples(v6, ports), st.tuples(v6, ports)),
)
forwarded = st.none() | st.builds(
    Forwarded, st.sampled_from(Intent), st.integers(0, 2**63).map(Epoch)
)


@given(ends, forwarded, st.binary(max_size=40))
def test_a_header_comes_back_as_it_was_whatever_follows_it(
    ends: Ends, forwarded: Forwarded | None, rest: bytes
) -> None:
    raw = encode(ends, forwarded)
    header = decode(raw + rest)
    assert header is not None
    assert (header.ends, header.forwarded, header.byte_count) == (ends, forwarded, len(raw))


@given(ends, forwarded, st.data())
def test_a_header_that_is_cut_anywhere_is_not_complete(
    ends: Ends, forwarded: Forwarded | None, data: st.DataObject
) -> None:
    raw = encode(ends, forwarded)
    assert decode(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None


@given(st.binary(min_size=1, max_size=700))
def test_no_input_does_more_than_be_refused(raw: bytes) -> None:
    for data in (raw, encode(Ends(("1.2.3.4", 5), ("6.7.8.9", 10)))[:12] + raw):
        with contextlib.suppress(Rejected):
            decode(data)


def test_the_header_is_what_the_specification_says() -> None:
    raw = encode(Ends(("10.1.2.3", 0x1234), ("10.4.5.6", 3307)))
    assert raw.hex() == "0d0a0d0a000d0a515549540a" + "21" + "11" + "000c" + (
        "0a010203" + "0a040506" + "1234" + "0ceb"
    )


def test_an_ipv4_client_of_a_dual_stack_door_is_an_ipv4_client() -> None:
    header = decode(encode(Ends(("::ffff:10.0.0.1", 1), ("::ffff:10.0.0.2", 2))))
    assert header is not None
    assert header.ends == Ends(("10.0.0.1", 1), ("10.0.0.2", 2))


@pytest.mark.parametrize("text", ["why", "w\u00e9" * 400])
def test_the_error_packet_has_a_true_length_and_whole_characters(text: str) -> None:
    packet = error_packet(Refusal.NO_DATABASE, text)
    assert int.from_bytes(packet[:3], "little") == len(packet) - 4
    assert packet[3:5] == b"\x00\xff"
    assert text.startswith(packet[13:].decode())
    assert len(packet) <= MESSAGE_BYTES_MAX + 13


@pytest.mark.parametrize("refusal", Refusal)
@pytest.mark.parametrize("text", ["why", "w\u00e9" * 1000])
def test_the_failure_is_one_that_a_driver_reads_and_tries_again_after(
    refusal: Refusal, text: str
) -> None:
    decoder = FrameDecoder(size_max=ANSWER_BYTES_MAX)
    (payload,) = decoder.feed(failure_frame(refusal, text))
    failure = from_server(payload)
    assert isinstance(failure, Failure)
    assert (failure.number, failure.branch) == (0, Branch.UNAVAILABLE)
    assert text.startswith(failure.what)
    assert failure.what
    assert failure.hint
    assert decoder.buffered_bytes == 0
