"""A copy that is not what the log says stops the applier, loudly, and stays as it was."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest
from msgspec import structs
from tests.unit.engines.sqlite.storage.pair import Pair, contents_of

from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.engines.sqlite.storage.failures import (
    ApplyFailed,
    ChangedByOthers,
    MissingRow,
    RowDiffers,
    RowExists,
    SchemaMismatch,
    StatementDiffers,
)
from primacy.errors import Conflict, Corrupt, Unavailable
from primacy.replication.log.record import Kind

DAMAGE: dict[str, tuple[str, str, type[ApplyFailed], str]] = {
    "a row is missing": (
        "DELETE FROM t WHERE a = 2", "UPDATE t SET b = 'n' WHERE a = 2",
        MissingRow, "row 2 of t in record 1/5 is not here"),
    "a row to delete is missing": (
        "DELETE FROM t WHERE a = 2", "DELETE FROM t", MissingRow, "row 2 of t"),
    "a row differs": (
        "UPDATE t SET b = 'other' WHERE a = 2", "UPDATE t SET b = 'n' WHERE a = 2",
        RowDiffers, "row 2 of t in record 1/5 has other values"),
    "a row to delete differs": (
        "UPDATE t SET c = 5 WHERE a = 1", "DELETE FROM t WHERE a = 1", RowDiffers, "row 1 of t"),
    "a row is there already": (
        "INSERT INTO t(a) VALUES(3)", "INSERT INTO t(a) VALUES(3)", RowExists, "row 3 of t"),
    "another row has its key": (
        "INSERT INTO t(a, b) VALUES(9, 'z')", "INSERT INTO t(b) VALUES('z')", RowExists, "t.b"),
    "another schema": (
        "CREATE INDEX i ON t(c)", "INSERT INTO t(c) VALUES(1)", SchemaMismatch, "this file has"),
    "another schema before DDL": (
        "CREATE INDEX i ON t(c)", "CREATE TABLE u(a)", SchemaMismatch, "this file has"),
    "DDL that fails here": (
        "CREATE TABLE u(a)", "CREATE TABLE u(a)", ApplyFailed, "already exists"),
    "a statement changes other rows": (
        "UPDATE v SET a = 9", "UPDATE v SET a = a + 1", StatementDiffers, "digest"),
    "a statement finds no row": (
        "DELETE FROM v", "UPDATE v SET a = a + 1", StatementDiffers, "changed 0 rows"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "sql", "error", "said"), DAMAGE.values(), ids=DAMAGE)
def test_stops(pair: Pair, damage: str, sql: str, error: type[ApplyFailed], said: str) -> None:
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)")
    pair.run("CREATE TABLE v(a, b AS (a) UNIQUE)")
    pair.run("INSERT INTO t(b) VALUES('x'), ('y')")
    pair.run("INSERT INTO v VALUES(1)")
    pair.damage(damage)
    before, position = contents_of(pair.paths[1]), pair.applier.position
    pair.begin()
    pair.writer.run(sql)
    pair.note_change()
    pair.end_group(is_applied=False)
    for _ in range(2):
        with pytest.raises(error, match=said):
            pair.applier.apply(pair.records)
        assert contents_of(pair.paths[1]) == before
        assert pair.applier.position == position


def test_a_group_is_applied_whole_or_not_at_all(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    for number in (1, 2, 3):
        pair.begin()
        pair.writer.run("INSERT INTO t VALUES(?)", (number,))
        pair.note_change()
        pair.end_group(is_applied=False)
    pair.damage("INSERT INTO t VALUES(3)")
    with pytest.raises(RowExists, match="row 3 of t in record 1/4"):
        pair.applier.apply(pair.records)
    assert contents_of(pair.paths[1])["t"] == ["(3, 3)"]
    pair.applier.apply(pair.records[:3])
    assert pair.applier.position == pair.records[2][0].point


STRANGERS = {
    "a row": ["INSERT INTO t VALUES(99)"],
    "a large row": ["INSERT INTO t VALUES(zeroblob(100000))"],
    "a table": ["CREATE TABLE u(a)"],
    "statistics": ["ANALYZE"],
    "a row behind a checkpoint": ["PRAGMA wal_checkpoint(RESTART)", "INSERT INTO t VALUES(99)"],
    "a row in an empty WAL": ["PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES(99)"],
    "the position itself": ["UPDATE _primacy_position SET place = place + 1"],
}


@pytest.mark.parametrize("deeds", STRANGERS.values(), ids=STRANGERS)
def test_a_file_that_somebody_else_writes_to_is_of_no_use(pair: Pair, deeds: list[str]) -> None:
    """Even where no row of the log meets what was written."""
    pair.run("CREATE TABLE t(a)")
    pair.run("INSERT INTO t VALUES(1)")
    with closing(apsw.Connection(str(pair.paths[1]))) as other:
        for deed in deeds:
            other.execute(deed).fetchall()
    before = contents_of(pair.paths[1])
    pair.begin()
    pair.writer.run("INSERT INTO t VALUES(2)")
    pair.note_change()
    pair.end_group(is_applied=False)
    for _ in range(2):
        with pytest.raises(ChangedByOthers, match=r"somebody else wrote to .*, past the log"):
            pair.applier.apply(pair.records)
        assert contents_of(pair.paths[1]) == before


HARMLESS = ["SELECT * FROM t", "PRAGMA integrity_check", "PRAGMA wal_checkpoint(PASSIVE)",
            "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)"]  # fmt: skip


@pytest.mark.parametrize("deed", HARMLESS)
def test_who_reads_or_moves_the_wal_into_the_file_is_no_stranger(pair: Pair, deed: str) -> None:
    pair.run("CREATE TABLE t(a)")
    for number in range(3):
        for path in pair.paths:
            with closing(apsw.Connection(str(path))) as other:
                other.execute(deed).fetchall()
        pair.run(f"INSERT INTO t VALUES({number})")
    with closing(Applier(pair.paths[0], pair.settings)):  # As a start does, and a copy.
        pair.run("INSERT INTO t VALUES(9)")
    pair.assert_equal()


def test_a_writer_whose_file_somebody_else_writes_to_writes_nothing_more(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    reached = pair.writer.position
    with closing(apsw.Connection(str(pair.paths[0]))) as other:
        other.execute("INSERT INTO t VALUES(99)")
    with pytest.raises(ChangedByOthers, match="Only primacy may write to that file"):
        pair.begin()
    with pytest.raises(Unavailable):
        pair.begin()
    with closing(Applier(pair.paths[0], pair.settings)) as again:
        assert again.position == reached


def test_passes_over_what_it_has_and_refuses_a_gap(pair: Pair) -> None:
    for sql in ("CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)"):
        pair.run(sql)
    pair.applier.apply(pair.records)
    pair.assert_equal()
    pair.begin()
    pair.writer.run("INSERT INTO t VALUES(3)")
    pair.note_change()
    pair.writer.run("INSERT INTO t VALUES(4)")
    pair.note_change()
    pair.end_group(is_applied=False)
    with pytest.raises(Conflict, match="1/5 does not follow record 3"):
        pair.applier.apply(pair.records[4:])
    pair.applier.apply(pair.records[2:])
    pair.assert_equal()


def test_its_position_survives_a_restart(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    pair.applier.close()
    pair.applier = Applier(pair.paths[1], pair.settings)
    assert pair.applier.position == pair.point
    assert pair.applier.schema_hash == pair.writer.schema_hash
    pair.run("INSERT INTO t VALUES(1)")
    pair.assert_equal()


def test_a_record_without_data_moves_the_position_alone(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    header = pair.records[0][0]
    marker = structs.replace(header, index=2, kind=Kind.MARKER, schema_hash=0, chain=1 << 63)
    pair.applier.apply([(marker, b"")])
    assert pair.applier.position == marker.point
    reopened = Applier(pair.paths[1], pair.settings)
    assert reopened.position == marker.point
    reopened.close()


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x91\x92\x09\x00", b"\x91\x93\x00\x90\x91\x94\x00\x05"]
)
def test_a_payload_that_is_none_is_corrupt(pair: Pair, payload: bytes) -> None:
    pair.run("CREATE TABLE t(a)")
    header = structs.replace(pair.records[0][0], index=2)
    with pytest.raises(Corrupt, match=f"a change of {len(payload)} bytes"):
        pair.applier.apply([(header, payload)])


def test_a_table_that_is_not_here_is_a_mismatch(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    pair.run("INSERT INTO t VALUES(1)")
    header, payload = pair.records[1]
    renamed = payload.replace(b"\xa1t", b"\xa1z")
    with pytest.raises(SchemaMismatch, match="names table z"):
        pair.applier.apply([(structs.replace(header, index=3), renamed)])


def test_triggers_and_keys_act_once_in_whatever_form(tmp_path: Path) -> None:
    """Rows carry what they did; a repeated statement does it again, between rows that do not."""
    pair = Pair(tmp_path, StorageSettings(logging=Logging.STATEMENT))
    for sql in (
        "CREATE TABLE t(a INTEGER PRIMARY KEY)",
        "CREATE TABLE u(b REFERENCES t ON DELETE CASCADE)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO u VALUES(new.a); END",
        "INSERT INTO t VALUES(1), (2)",
        "INSERT INTO t VALUES(total_changes())",
        "INSERT INTO t VALUES(80)",
        "DELETE FROM t WHERE a < 3",
    ):
        pair.run(sql)
        pair.assert_equal()
    pair.close()
