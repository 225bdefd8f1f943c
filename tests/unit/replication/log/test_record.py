"""Records: what is encoded is decoded, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.replication.log.given import A, B, rows, start

from primacy.errors import Conflict, Corrupt, InvariantBroken, Rejected
from primacy.model import Epoch, NodeId, Position
from primacy.replication.log.received import judged
from primacy.replication.log.record import (
    HEADER_BYTES,
    ORIGIN_POINT,
    RECORD_BYTES_MAX,
    Entry,
    Kind,
    Point,
    check_entries,
    decode,
    encode,
    epoch_entry,
    epoch_start,
    header_at,
    source_id,
)
from primacy.replication.log.spans import Span

ONE = Epoch(1)
LONG = NodeId("a-name-of-more-than-sixteen")

entries = st.lists(
    st.builds(
        Entry,
        kind=st.sampled_from([Kind.ROWS, Kind.STATEMENT, Kind.DDL, Kind.MARKER]),
        payload=st.binary(max_size=200),
        schema_hash=st.integers(0, (1 << 64) - 1),
        commit_time_us=st.integers(-(1 << 62), 1 << 62),
    ),
    max_size=8,
)


def reign(made: list[Entry], *, node: NodeId = A, epoch: int = 1) -> tuple[bytes, Point]:
    return encode(
        [*start(node), *made], after=ORIGIN_POINT, epoch=Epoch(epoch), source=source_id(node)
    )


@given(entries)
def test_what_is_encoded_is_decoded(made: list[Entry]) -> None:
    data, end = reign(made)
    found = list(decode(data))
    assert [
        Entry(header.kind, payload, header.schema_hash, header.commit_time_us)
        for header, payload in found[1:]
    ] == made
    assert [header.index for header, _ in found] == list(range(1, len(made) + 2))
    assert found[-1][0].point == end
    assert all(header.payload_bytes == len(payload) for header, payload in found)
    assert judged(data, after=ORIGIN_POINT, spans=[]) == (end, [Span(ONE, A, 1)])


def test_every_bit_of_a_record_counts() -> None:
    data, _ = reign(rows(3))
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            with pytest.raises(Corrupt):
                judged(bytes(damaged), after=ORIGIN_POINT, spans=[])


def test_half_a_record_is_no_record() -> None:
    data, _ = reign(rows(3))
    whole = len(list(decode(data)))
    ends = [0]
    for header, _ in decode(data):
        ends.append(ends[-1] + header.length)
    for size in range(len(data)):
        if size in ends:
            assert len(list(decode(data[:size]))) == ends.index(size) < whole
        else:
            with pytest.raises(Corrupt, match="no whole record"):
                list(decode(data[:size]))


@given(entries, st.data())
def test_any_change_of_the_past_changes_the_chain(made: list[Entry], data: st.DataObject) -> None:
    """Two logs that meet in one point are one history."""
    _, end = reign(made)
    other = list(made)
    place = data.draw(st.integers(0, len(made)))
    other[place:place] = rows(data.draw(st.integers(0, 9)))
    dropped = data.draw(st.integers(0, len(made)))
    del other[dropped]
    _, other_end = reign(other)
    assert (other == made) == (end.chain == other_end.chain)


def test_a_fork_is_found_at_the_first_record_behind_it() -> None:
    _, end = reign(rows(1, 2))
    _, forked = reign(rows(1, 3))
    more, _ = encode(rows(4), after=end, epoch=ONE, source=source_id(A))
    spans = [Span(ONE, A, 1)]
    assert judged(more, after=end, spans=spans)[0].index == 4
    assert (forked.epoch, forked.index) == (end.epoch, end.index)
    with pytest.raises(Conflict, match="another history"):
        judged(more, after=forked, spans=spans)


def test_a_gap_a_repetition_and_an_older_epoch_do_not_follow() -> None:
    data, end = reign(rows(1))
    spans = [Span(ONE, A, 1)]
    with pytest.raises(Conflict, match="1/1 does not follow 1/2"):
        judged(data, after=end, spans=spans)
    later, _ = encode(rows(2), after=Point(ONE, 7, end.chain), epoch=ONE, source=source_id(A))
    with pytest.raises(Conflict, match="1/8 does not follow 1/2"):
        judged(later, after=end, spans=spans)
    stale, _ = encode(rows(2), after=end, epoch=ONE, source=source_id(A))
    with pytest.raises(Conflict, match="1/3 does not follow 2/2"):
        judged(stale, after=Point(Epoch(2), 2, end.chain), spans=spans)


def test_an_epoch_begins_with_its_record_and_has_one_primary() -> None:
    _, end = reign(rows(1))
    spans = [Span(ONE, A, 1)]
    without, _ = encode(rows(2), after=end, epoch=Epoch(2), source=source_id(B))
    with pytest.raises(Conflict, match="begins with its EPOCH record"):
        judged(without, after=end, spans=spans)
    second, _ = encode(start(A), after=end, epoch=ONE, source=source_id(A))
    with pytest.raises(Conflict, match="begins with its EPOCH record, and has one"):
        judged(second, after=end, spans=spans)
    foreign, _ = encode(rows(2), after=end, epoch=ONE, source=source_id(B))
    with pytest.raises(Conflict, match="not by the primary of its epoch"):
        judged(foreign, after=end, spans=spans)
    heads, _ = encode([Entry(Kind.GTID_LIST, b"", 0, 0)], after=end, epoch=ONE, source=source_id(A))
    with pytest.raises(Conflict, match="GTID_LIST"):
        judged(heads, after=end, spans=spans)


def test_what_the_own_primary_appends_is_held_to_the_same() -> None:
    end = Point(ONE, 5, 1)
    check_entries([*start(B), *rows(1)], after=end, epoch=Epoch(2))
    check_entries(rows(1, 2), after=end, epoch=ONE)
    for entries_, epoch in (
        (rows(1), 2),
        (start(A), 1),
        ([*start(B), *start(B)], 2),
        ([Entry(Kind.GTID_LIST, b"", 0, 0)], 1),
        (rows(1), 0),
    ):
        with pytest.raises(InvariantBroken):
            check_entries(entries_, after=end if epoch else ORIGIN_POINT, epoch=Epoch(epoch))


def test_a_transaction_beyond_the_limit_is_refused() -> None:
    fits = RECORD_BYTES_MAX - HEADER_BYTES
    data, _ = encode(rows(fits), after=ORIGIN_POINT, epoch=ONE, source=source_id(A))
    assert len(data) == RECORD_BYTES_MAX
    with pytest.raises(Rejected, match="exceeds the limit"):
        encode(rows(fits + 1), after=ORIGIN_POINT, epoch=ONE, source=source_id(A))


def test_what_a_newer_primacy_wrote_is_refused_and_said_so() -> None:
    data, _ = reign([])
    for place, value in ((16, 2), (17, 200), (18, 1)):  # Version, kind, flags.
        newer = bytearray(data)
        newer[place] = value
        with pytest.raises(Rejected, match="Upgrade this node"):
            header_at(bytes(newer))


def test_a_long_name_is_shortened_in_records_and_whole_in_the_epochs_first() -> None:
    assert source_id(A) == b"a" + bytes(15)
    assert source_id(NodeId("x" * 16)) == b"x" * 16
    data, _ = reign([], node=LONG)
    ((header, payload),) = decode(data)
    assert len(header.source) == 16
    assert header.source[:8] == b"a-name-o"
    assert header.source != source_id(NodeId(LONG + "s"))
    assert epoch_start(payload).node == LONG


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\xa3abc", b"\x81\xa4node\x01"])
def test_an_epoch_record_that_names_nobody_is_refused(payload: bytes) -> None:
    with pytest.raises(Corrupt, match="does not name its node"):
        epoch_start(payload)


def test_an_epoch_record_of_a_later_release_may_say_more() -> None:
    entry = epoch_entry(A, schema_hash=0, commit_time_us=0)
    more = b"\x82" + entry.payload[1:] + b"\xa5extra\x01"
    assert epoch_start(more).node == A


def test_a_point_is_compared_as_a_position_first() -> None:
    assert Point(Epoch(2), 1, 0) > Point(ONE, 9, 9)
    assert Point(ONE, 9, 9).position == Position(ONE, 9)
    assert str(Point(ONE, 9, 255)) == "1/9#00000000000000ff"
