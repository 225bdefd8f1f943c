"""From the text of a log to what was lost: where histories part, what has a reverse, its words."""

from collections.abc import Sequence

import pytest

from primacy.engines.api import Branch
from primacy.engines.histories import parting
from primacy.engines.mariadb.gtid import Gtid, before
from primacy.engines.mariadb.logs import Reading
from primacy.engines.mariadb.observe import EpochRow
from primacy.engines.mariadb.readable import Readable
from primacy.engines.mariadb.rewinding import ROWS_MAX, TRANSACTIONS_MAX, obstacle, parts_of
from primacy.engines.mariadb.scanning import Change, Scan
from primacy.errors import Corrupt
from primacy.model import Epoch, NodeId

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def event(words: str) -> bytes:
    return (
        b"#261125 21:17:41 server id 30000001  end_log_pos 515 CRC32 0x265c98a3 \t" + words.encode()
    )


def transaction(sequence: int, *lines: bytes, flags: str = " trans") -> list[bytes]:
    return [
        event(f"GTID 0-30000001-{sequence}{flags}"),
        b"/*M!100001 SET @@session.gtid_seq_no=1*//*!*/;",
        b"START TRANSACTION",
        *lines,
        event("Xid = 68"),
        b"COMMIT/*!*/;",
    ]


def insert(table: str, *values: str) -> list[bytes]:
    return [
        event("Annotate_rows:"),
        f"#Q> INSERT INTO t VALUES ({', '.join(values)})".encode(),
        event(f"Table_map: {table} mapped to number 18"),
        event("Write_rows: table id 18 flags: STMT_END_F"),
        f"### INSERT INTO {table}".encode(),
        b"### SET",
        *[f"###   @{place}={text}".encode() for place, text in enumerate(values, 1)],
        b"# Number of rows: 1",
    ]


def update(table: str, was: Sequence[str], now: Sequence[str]) -> list[bytes]:
    return [
        event("Update_rows: table id 18 flags: STMT_END_F"),
        f"### UPDATE {table}".encode(),
        b"### WHERE",
        *[f"###   @{place}={text}".encode() for place, text in enumerate(was, 1)],
        b"### SET",
        *[f"###   @{place}={text}".encode() for place, text in enumerate(now, 1)],
    ]


def scanned(*lines: bytes) -> Scan:
    scan = Scan()
    for line in (*lines, b"DELIMITER ;"):
        scan.feed(line)
    return scan


def read(scan: Scan) -> Reading:
    return Reading(tuple(scan.changes), tuple(scan.epochs), columns=scan.columns)


BEATS = update("`primacy`.`heartbeat`", ["1", "4"], ["1", "5"])


def test_a_transaction_is_read_with_its_tables_and_rows() -> None:
    scan = scanned(
        *transaction(7, *insert("`shop`.`t`", "1", "'x'"), *insert("`shop`.`u`", "2")),
        *transaction(8, *BEATS),
    )
    assert scan.changes == [
        Change(Gtid(0, 30000001, 7), frozenset({"`shop`.`t`", "`shop`.`u`"}), 2),
        Change(Gtid(0, 30000001, 8), frozenset({"`primacy`.`heartbeat`"}), 1),
    ]
    assert scan.columns == {"`shop`.`t`": 2, "`shop`.`u`": 1, "`primacy`.`heartbeat`": 2}
    assert [each.is_own for each in scan.changes] == [False, True]
    assert obstacle(scan.changes, read(scan)) == ""


def test_a_transaction_without_its_end_is_not_reported() -> None:
    lines = transaction(7, *insert("`shop`.`t`", "1"))
    assert scanned(*lines[:-2]).changes == []


def test_an_epoch_row_is_read_and_a_changed_table_is_not_guessed() -> None:
    scan = scanned(*transaction(7, *insert("`primacy`.`epochs`", "3", "'b'", "7")))
    assert scan.epochs == [EpochRow(Epoch(3), B, 7)]
    with pytest.raises(Corrupt, match="epoch row"):
        scanned(*transaction(7, *insert("`primacy`.`epochs`", "x", "'b'", "7")))


ddl = [
    event("GTID 0-1-9 ddl"),
    event("Query\tthread_id=23\texec_time=0"),
    b"CREATE TABLE x (a INT)",
]

NOT_REVERSIBLE = {
    "definitions": (ddl, "DDL"),
    "a statement among rows": (
        transaction(9, event("Query\tthread_id=23\texec_time=0"), *insert("`shop`.`t`", "1")),
        "kind Query",
    ),
    "a table outside of transactions": (
        transaction(9, *insert("`shop`.`t`", "1"), flags=""),
        "outside of transactions",
    ),
    "a transaction that shows no row": (transaction(9), "no row"),
    "images of different width": (
        transaction(9, *insert("`shop`.`t`", "1", "2"), *insert("`shop`.`t`", "1")),
        "not all columns",
    ),
    "an image with a gap": (
        transaction(
            9,
            event("Write_rows: table id 18"),
            b"### INSERT INTO `shop`.`t`",
            b"### SET",
            b"###   @1=1",
            b"###   @3=1",
        ),
        "not all columns",
    ),
}


@pytest.mark.parametrize(("lines", "why"), NOT_REVERSIBLE.values(), ids=NOT_REVERSIBLE)
def test_what_has_no_reverse_is_said_with_its_reason(lines: list[bytes], why: str) -> None:
    scan = scanned(*lines)
    assert len(scan.changes) == 1
    assert why in obstacle(scan.changes, read(scan))


def test_only_few_transactions_and_rows_are_reversed() -> None:
    tables, reading = frozenset({"`s`.`t`"}), Reading(columns={"`s`.`t`": 1})
    many = [Change(Gtid(0, 1, n), tables, 1) for n in range(TRANSACTIONS_MAX + 1)]
    assert "at most 1000" in obstacle(many, reading)
    assert obstacle(many[:-1], reading) == ""
    assert "rows" in obstacle([Change(Gtid(0, 1, 1), tables, ROWS_MAX + 1)], reading)
    assert "end" in obstacle(many[:1], Reading(is_whole=False, columns=reading.columns))


# ---- where the histories part


def branch(epoch: int, node: NodeId, first_sequence: int) -> Branch:
    return Branch(epoch=Epoch(epoch), node=node, first_sequence=first_sequence)


TWO_AND_THREE = [branch(2, B, 101), branch(3, C, 301)]

PARTINGS = {
    "at the epoch after the own one, not at the newest": (TWO_AND_THREE, [], 400, 101),
    "after an epoch whose row stands here": (TWO_AND_THREE, [branch(2, B, 101)], 400, 301),
    "nowhere: the newest row stands here": (TWO_AND_THREE, [branch(3, C, 301)], 400, None),
    "nowhere: the log ends before": (TWO_AND_THREE, [], 100, None),
    "an epoch that nobody took over is passed by": (
        [branch(2, B, 101), branch(3, C, 106)],
        [branch(3, C, 106)],
        120,
        None,
    ),
    "the same place written by another": (TWO_AND_THREE, [branch(2, A, 101)], 120, 101),
    "nothing is known of later epochs": ([], [], 120, None),
}


@pytest.mark.parametrize(("branches", "held", "end", "at"), PARTINGS.values(), ids=PARTINGS)
def test_histories_part(
    branches: list[Branch], held: list[Branch], end: int, at: int | None
) -> None:
    found = parting(branches, held, end)
    assert (found.first_sequence if found else None) == at


def test_the_place_before_a_sequence_and_the_parts_of_a_name() -> None:
    assert before(101) == "0-1-100"
    assert before(1) == ""
    assert parts_of("`shop`.`odd``name`") == ("shop", "odd`name")


# ---- for people


def test_it_reads_as_statements_and_rows() -> None:
    told = Readable()
    text = b"".join(
        line
        for each in [
            b"# at 4",
            *transaction(7, *insert("`shop`.`t`", "1", "'x'")),
            event("GTID 0-1-9 ddl"),
            b"/*M!100001 SET @@session.gtid_seq_no=9*//*!*/;",
            event("Query\tthread_id=23\texec_time=0"),
            b"SET TIMESTAMP=1700000000/*!*/;",
            b"CREATE TABLE x (a INT)",
            b"/*!*/;",
            b"# at 99",
        ]
        for line in told.feed(each)
    ).decode()
    assert "transaction 0-30000001-7, 2026-11-25 21:17:41, server 30000001" in text
    assert "--   as sent: INSERT INTO t VALUES (1, 'x')" in text
    assert "INSERT INTO `shop`.`t`\nSET\n  @1=1\n  @2='x'" in text
    assert "CREATE TABLE x (a INT)" in text
    assert "TIMESTAMP=" not in text
    assert text.count("docs/guides/diverged.md") == 1
