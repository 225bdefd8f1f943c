"""GTID sets against plain sets of transactions, and what is refused."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.errors import Rejected
from primacy.model import Epoch, NodeId
from primacy.replication.gtid import (
    NUMBER_MAX,
    TEXT_CHARS_MAX,
    DomainPosition,
    Gtid,
    GtidSet,
    node_and_epoch,
    parse_mariadb,
    print_mariadb,
    set_of_mariadb,
    source_of,
)

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
SOURCES = ["a@1", "b@3", "b@12", UUID, "0", "17"]

intervals = st.tuples(st.integers(1, 30), st.integers(0, 6)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)
written = st.dictionaries(st.sampled_from(SOURCES), st.lists(intervals, max_size=5))
Model = set[tuple[str, int]]


def model(written_intervals: dict[str, list[tuple[int, int]]]) -> Model:
    return {
        (source, number)
        for source, each in written_intervals.items()
        for first, last in each
        for number in range(first, last + 1)
    }


def modelled(gtids: GtidSet) -> Model:
    return {(each.source, each.number) for each in gtids}


def text_of(written_intervals: dict[str, list[tuple[int, int]]]) -> str:
    """As somebody may write it: any order, overlaps, blanks."""
    return " ,\n".join(
        ":".join([source, *(f"{first} - {last}" for first, last in each)])
        for source, each in written_intervals.items()
        if each
    )


@given(written, written)
def test_sets_behave_as_sets_of_transactions(
    left: dict[str, list[tuple[int, int]]], right: dict[str, list[tuple[int, int]]]
) -> None:
    a, b = GtidSet.of(left), GtidSet.of(right)
    plain_a, plain_b = model(left), model(right)
    assert modelled(a) == plain_a
    assert modelled(a | b) == plain_a | plain_b
    assert modelled(a - b) == plain_a - plain_b
    assert modelled(a & b) == plain_a & plain_b
    assert (a <= b) == (plain_a <= plain_b)
    assert (a == b) == (plain_a == plain_b)
    assert a.count == len(plain_a)
    assert bool(a) == bool(plain_a)
    for source in SOURCES:
        for number in range(0, 40, 3):
            assert (Gtid(source, number) in a) == ((source, number) in plain_a)


@given(written)
def test_a_set_has_one_form_and_reads_what_it_prints(
    given_intervals: dict[str, list[tuple[int, int]]],
) -> None:
    made = GtidSet.of(given_intervals)
    assert GtidSet.parse(str(made)) == made == GtidSet.parse(text_of(given_intervals))
    assert hash(GtidSet.parse(str(made))) == hash(made)
    for _, each in made.parts:
        assert list(each) == sorted(each)
        assert all(last + 1 < first for (_, last), (first, _) in pairwise(each))


@given(written, written)
def test_equal_sets_print_the_same_however_they_came_about(
    left: dict[str, list[tuple[int, int]]], right: dict[str, list[tuple[int, int]]]
) -> None:
    a, b = GtidSet.of(left), GtidSet.of(right)
    assert str(a | b) == str(b | a) == str((a - b) | (b - a) | (a & b))


PRINTED = {
    "": "",
    "  \n": "",
    "b@3:101-250,a@1:1-100": "a@1:1-100,b@3:101-250",
    "b@12:1,b@3:1": "b@3:1,b@12:1",  # By epoch, as numbers.
    "a@1:7:1-5:6": "a@1:1-7",
    "a@1:3-3": "a@1:3",
    f"{UUID.upper()}:1-5:7": f"{UUID}:1-5:7",
    f"{UUID}:1-5,\n{UUID}:11-18": f"{UUID}:1-5:11-18",  # As MySQL breaks and repeats it.
    "007:1,7:2": "7:1-2",
    f"a@1:{NUMBER_MAX}": f"a@1:{NUMBER_MAX}",
}


@pytest.mark.parametrize("text", PRINTED)
def test_what_is_read_prints_in_the_one_form(text: str) -> None:
    assert str(GtidSet.parse(text)) == PRINTED[text]


REFUSED = {
    "a@1": (1, "a colon"),
    "a@1:": (5, "a number or an interval"),
    "a@1:1-5,": (9, "expected a source"),
    ",a@1:1": (1, "expected a source"),
    "a@1:1,,b@1:1": (7, "expected a source"),
    "a@1:1, b@0:1": (8, "expected a source"),
    "a@1:1-5:x": (9, "a number or an interval"),
    "a@1:5-1": (5, "not reversed"),
    "a@1:0-4": (5, "begins at 1"),
    "a@1:-4": (5, "a number or an interval"),
    f"a@1:{NUMBER_MAX + 1}": (5, "ends by"),
    f"a@1:1-{'9' * 500}": (5, "at most"),
    f"{UUID}:tag:1-5": (38, "a number or an interval"),
    f"{UUID}0:1": (1, "expected a source"),
    "0-1-5": (1, "expected a source"),
    "a@1:\u0661": (5, "a number or an interval"),  # A digit, and not one of ours.
    "A@1:1": (1, "expected a source"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_column_and_the_rule(text: str) -> None:
    column, rule = REFUSED[text]
    with pytest.raises(Rejected, match=rf"column {column}\b") as refused:
        GtidSet.parse(text)
    assert rule in refused.value.hint
    assert len(str(refused.value)) < 300


def test_a_text_without_end_is_refused_before_it_is_read() -> None:
    with pytest.raises(Rejected, match="exceeds the limit"):
        GtidSet.parse("a" * (TEXT_CHARS_MAX + 1))


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for read in (GtidSet.parse, parse_mariadb):
        with suppress(Rejected):
            read(text)


def test_a_mariadb_position_covers_all_of_its_domain_whoever_wrote_it() -> None:
    position = parse_mariadb(" 5-2-7, 0-1-42 ")
    assert position == (DomainPosition(0, 1, 42), DomainPosition(5, 2, 7))
    assert print_mariadb(position) == "0-1-42,5-2-7"
    older = set_of_mariadb(parse_mariadb("0-9-40"))  # Another server wrote it: still covered.
    assert older <= set_of_mariadb(position)
    assert not set_of_mariadb(position) <= older
    assert (set_of_mariadb(position) - older) == GtidSet.of({"0": [(41, 42)], "5": [(1, 7)]})
    assert parse_mariadb("") == ()


MARIADB_REFUSED = {
    "0-1": (1, "domain-server-sequence"),
    "0-1-5,": (7, "domain-server-sequence"),
    "0-1-5,0-2-6": (7, "twice"),
    "0-1-0": (1, "a sequence is 1"),
    "4294967296-1-1": (1, "below 2^32"),
    f"0-1-{NUMBER_MAX + 1}": (1, "a sequence is 1"),
}


@pytest.mark.parametrize("text", MARIADB_REFUSED)
def test_a_malformed_mariadb_position_is_refused(text: str) -> None:
    column, rule = MARIADB_REFUSED[text]
    with pytest.raises(Rejected, match=rf"column {column}\b") as refused:
        parse_mariadb(text)
    assert rule in refused.value.hint


def test_a_source_names_node_and_epoch_both_ways() -> None:
    assert source_of(NodeId("db-1"), Epoch(31)) == "db-1@31"
    assert node_and_epoch("db-1@31") == ("db-1", 31)
    for other in (UUID, "0", "b@", "b@0", "@3"):
        with pytest.raises(Rejected, match="is not node@epoch"):
            node_and_epoch(other)
