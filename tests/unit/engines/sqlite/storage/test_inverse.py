"""A tail of transactions is taken back row by row, or refused whole; and it can be read as SQL."""

import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from tests.unit.engines.sqlite.storage.pair import Pair, contents_of
from tests.unit.engines.sqlite.storage.random_sql import START, RandomClients

from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.failures import MissingRow, NotInvertible
from primacy.engines.sqlite.storage.images import Images
from primacy.engines.sqlite.storage.readable import literal, sql_of
from primacy.errors import Conflict
from primacy.replication.log.record import Kind

TAILS = {
    "rows": ["INSERT INTO t VALUES(5, 'z', 1)", "UPDATE t SET b = b || '!'", "DELETE FROM t"],
    "keys that move": ["UPDATE k SET a = a + 10", "UPDATE k SET a = -a, b = 0"],
    "another row is replaced": ["REPLACE INTO t VALUES(9, 'x', 3)"],
    "WITHOUT ROWID": ["UPDATE w SET b = 7", "UPDATE w SET a = 8", "DELETE FROM w"],
    "no key": ["INSERT INTO n VALUES(1)",
        "UPDATE n SET rowid = 50 WHERE a = 1", "DELETE FROM n WHERE rowid = 1"],
    "counters": ["INSERT INTO k(b) VALUES(1), (2)", "DELETE FROM k",
        "UPDATE sqlite_sequence SET seq = 2"],
    "cascades": ["DELETE FROM t WHERE a = 1"],
    "full-text search": ["INSERT INTO f VALUES('more words')", "DELETE FROM f WHERE rowid = 1"],
}  # fmt: skip


def filled(pair: Pair) -> Pair:
    for sql in (
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)",
        "CREATE TABLE w(a, b, PRIMARY KEY(a)) WITHOUT ROWID",
        "CREATE TABLE n(a)",
        "CREATE TABLE k(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
        "CREATE TABLE child(a REFERENCES t ON DELETE CASCADE)",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "INSERT INTO t VALUES(1, 'x', NULL), (2, 'y', 2.5)",
        "INSERT INTO w VALUES(1, 2)",
        "INSERT INTO n VALUES('p'), ('q')",
        "INSERT INTO k(b) VALUES(9)",
        "INSERT INTO child VALUES(1), (1), (2)",
        "INSERT INTO f VALUES('some words')",
    ):
        pair.run(sql)
    return pair


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_tail_is_taken_back(pair: Pair, tail: list[str]) -> None:
    filled(pair)
    before, point, kept = contents_of(pair.paths[1]), pair.point, len(pair.records)
    for sql in tail:
        pair.run(sql)
    assert contents_of(pair.paths[1]) != before
    pair.applier.rewind(pair.records[kept:], to=point)
    assert contents_of(pair.paths[1]) == before
    assert pair.applier.position == point
    pair.applier.apply(pair.records[kept:])
    pair.assert_equal()


def test_all_tails_at_once_and_a_record_without_data(pair: Pair) -> None:
    filled(pair)
    before, point, kept = contents_of(pair.paths[1]), pair.point, len(pair.records)
    pair.together(*[sql for tail in list(TAILS.values())[:3] for sql in tail])
    pair.run("UPDATE n SET a = 0")
    pair.applier.rewind(pair.records[kept:], to=point)
    assert contents_of(pair.paths[1]) == before


@pytest.mark.parametrize("seed", range(12))
def test_random_tails_are_taken_back(pair: Pair, seed: int) -> None:
    for sql in START:
        pair.run(sql)
    clients = RandomClients(pair, random.Random(seed))
    taken_back = 0
    for _ in range(12):
        clients.group()
        before, point, kept = contents_of(pair.paths[1]), pair.point, len(pair.records)
        for _ in range(3):
            clients.group()
        tail = pair.records[kept:]
        if not tail or any(header.kind is not Kind.ROWS for header, _ in tail):
            continue
        taken_back += 1
        pair.applier.rewind(tail, to=point)
        assert contents_of(pair.paths[1]) == before
        pair.applier.apply(tail)
    pair.assert_equal()
    assert taken_back > 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [("CREATE TABLE x(a)", "change of the schema"), ("UPDATE v SET a = 2", "without its rows")],
)
def test_what_has_no_inverse_is_refused_whole(pair: Pair, sql: str, said: str) -> None:
    filled(pair)
    pair.run("CREATE TABLE v(a, b AS (a))")
    pair.run("INSERT INTO v VALUES(1)")
    point, kept = pair.point, len(pair.records)
    pair.run(sql)
    pair.run("INSERT INTO n VALUES(3)")
    before = contents_of(pair.paths[1])
    with pytest.raises(NotInvertible, match=said):
        pair.applier.rewind(pair.records[kept:], to=point)
    assert contents_of(pair.paths[1]) == before
    assert pair.applier.position == pair.point


def test_minimal_images_have_no_inverse(tmp_path: Path) -> None:
    pair = filled(Pair(tmp_path, StorageSettings(images=Images.MINIMAL)))
    for sql in ("UPDATE n SET a = 5 WHERE rowid = 1", "DELETE FROM n WHERE rowid = 1"):
        point, kept = pair.point, len(pair.records)
        pair.run(sql)
        with pytest.raises(NotInvertible, match="no old image of row 1 of n"):
            pair.applier.rewind(pair.records[kept:], to=point)
    point, kept = pair.point, len(pair.records)
    pair.run("INSERT INTO n VALUES(7)")
    pair.applier.rewind(pair.records[kept:], to=point)
    assert "7" not in str(contents_of(pair.paths[1])["n"])
    pair.close()


def test_a_file_that_is_not_as_the_tail_left_it_stays_as_it_is(pair: Pair) -> None:
    filled(pair)
    point, kept = pair.point, len(pair.records)
    pair.run("INSERT INTO n VALUES(3)")
    pair.damage("DELETE FROM n WHERE a = 3")
    before = contents_of(pair.paths[1])
    with pytest.raises(MissingRow, match="row 3 of n"):
        pair.applier.rewind(pair.records[kept:], to=point)
    assert contents_of(pair.paths[1]) == before


def test_other_records_than_the_tail_are_refused(pair: Pair) -> None:
    filled(pair)
    pair.run("INSERT INTO n VALUES(3)")
    for records in ([], pair.records[-3:-1], pair.records[-2:]):
        with pytest.raises(Conflict, match="are not the tail"):
            pair.applier.rewind(records, to=pair.records[-2][0].point)


def read(pair: Pair, sql: str) -> list[str]:
    pair.run(sql)
    return list(sql_of(pair.records[-1][1]))


def test_a_change_reads_as_sql(pair: Pair) -> None:
    filled(pair)
    pair.run("CREATE TABLE v(a, b AS (a), s)")
    said = {
        "INSERT INTO t VALUES(7, 'it''s', x'00ff')":
            ["""INSERT INTO "t"("a", "b", "c") VALUES(7, 'it''s', x'00ff');"""],
        "INSERT INTO n VALUES(1e999)": ["""INSERT INTO "n"(rowid, "a") VALUES(3, 9e999);"""],
        "UPDATE n SET a = 'two\nlines' WHERE rowid = 3":
            ["""UPDATE "n" SET "a" = 'two\nlines' WHERE rowid = 3; -- was a 9e999"""],
        "UPDATE n SET a = NULL WHERE rowid = 3":
            ["""UPDATE "n" SET "a" = NULL WHERE rowid = 3; -- was a 'two\\nlines'"""],
        "DELETE FROM w": ["""DELETE FROM "w" WHERE "a" = 1; -- was 1, 2"""],
        "INSERT INTO k(b) VALUES(1)": ["""INSERT INTO "k"("a", "b") VALUES(2, 1);""",
            "-- counter of AUTOINCREMENT: k 2, was k 1"],
        "CREATE TABLE x(a) -- why": ["CREATE TABLE x(a) -- why\n;"],
        "INSERT INTO v(a) VALUES(1)":
            ["-- at 0 ms since 1970, seed 0, rows 1", "INSERT INTO v(a) VALUES(1)\n;"],
    }  # fmt: skip
    for sql, lines in said.items():
        assert read(pair, sql) == lines, sql


def test_what_reads_as_sql_can_be_run(pair: Pair, tmp_path: Path) -> None:
    """On a database of the same schema, up to what was never in a row: triggers are off."""
    filled(pair)
    with closing(apsw.Connection(str(tmp_path / "copy.db"))) as copy:
        for _, payload in pair.records:
            for line in sql_of(payload):
                if "VIRTUAL" not in line and '"f_' not in line:
                    copy.execute(line)
        for table in ("t", "w", "n", "k", "child"):
            rows = copy.execute(f"SELECT * FROM {table}").fetchall()
            with closing(apsw.Connection(str(pair.paths[0]))) as primary:
                assert rows == primary.execute(f"SELECT * FROM {table}").fetchall()


@pytest.mark.parametrize(
    "value",
    [None, 0, -(2**63), 1.5, 1e300, float("inf"), float("-inf"), "", "'", "a\0b", b"", b"\0"],
)
def test_a_literal_is_the_value(value: int | float | str | bytes | None) -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        assert connection.execute(f"SELECT {literal(value)}").get == value
