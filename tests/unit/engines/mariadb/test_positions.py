"""GTIDs, epochs, and where two logs part. Pure."""

import pytest

from primacy.engines.mariadb.following import History, parting
from primacy.engines.mariadb.gtid import Gtid, last_of, parse, parse_list, sequence_of
from primacy.engines.mariadb.observe import EpochRow
from primacy.errors import Corrupt
from primacy.model import Epoch, NodeId, Position

E1 = EpochRow(Epoch(1), NodeId("a"), 1)
E2 = EpochRow(Epoch(2), NodeId("b"), 10)
E3 = EpochRow(Epoch(3), NodeId("a"), 20)
THEIRS = History((E1, E2, E3), end=25)


@pytest.mark.parametrize(
    ("text", "sequence"),
    [("", 0), (None, 0), ("0-1-42", 42), ("5-1-9,0-2-7", 7), ("5-1-9", 0), ("0-1-3,0-2-8", 8)],
)
def test_the_sequence_is_that_of_our_domain(text: str | None, sequence: int) -> None:
    assert sequence_of(text) == sequence


def test_a_gtid_reads_back_as_it_was_written() -> None:
    assert parse(str(Gtid(0, 3, 17))) == Gtid(0, 3, 17)
    assert parse_list("0-1-1, 2-3-4") == [Gtid(0, 1, 1), Gtid(2, 3, 4)]
    assert last_of("") is None


@pytest.mark.parametrize("text", ["x", "0-1", "0-1-2-3", "0-1-two", "0--1", "'; DROP"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Corrupt):
        parse(text)


@pytest.mark.parametrize(
    ("own_epochs", "own", "is_prefix"),
    {
        "the empty log": ((), Position(Epoch(0), 0), True),
        "the middle of an old epoch": ((E1,), Position(Epoch(1), 5), True),
        "the very end of an old epoch": ((E1,), Position(Epoch(1), 9), True),
        "one beyond the end of an old epoch": ((E1,), Position(Epoch(1), 10), False),
        "as long as theirs, of an old epoch": ((E1,), Position(Epoch(1), 25), False),
        "their last epoch": ((E1, E2, E3), Position(Epoch(3), 25), True),
        "ahead of them in their last epoch": ((E1, E2, E3), Position(Epoch(3), 26), False),
        "an epoch that they do not know": (
            (E1, EpochRow(Epoch(2), NodeId("c"), 10)),
            Position(Epoch(2), 12),
            False,
        ),
        "an epoch that began elsewhere": (
            (E1, EpochRow(Epoch(2), NodeId("b"), 9)),
            Position(Epoch(2), 12),
            False,
        ),
        "a log that skipped an epoch that it received": (
            (E1, E2),
            Position(Epoch(2), 19),
            True,
        ),
    }.values(),
)
def test_a_log_is_a_prefix_or_it_parts(
    own_epochs: tuple[EpochRow, ...], own: Position, *, is_prefix: bool
) -> None:
    assert (parting(own_epochs, own, THEIRS) is None) is is_prefix
