"""What a client may not do, and that nothing of it is left."""

import random
from pathlib import Path

import apsw
import pytest
from tests.unit.engines.sqlite.storage.pair import Pair, contents_of

from primacy.clock import SystemClock
from primacy.engines.sqlite.storage.connection import StorageSettings, open_reader
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import Rejected

REFUSED = {
    "ATTACH 'other.db' AS other": "not replicated",
    "DETACH main": "not replicated",
    "CREATE TEMP TABLE x(a)": "temporary",
    "CREATE TEMPORARY VIEW x AS SELECT 1": "temporary",
    "CREATE TABLE temp.x(a)": "temporary",
    "CREATE VIRTUAL TABLE x USING dbstat": "module dbstat",
    "PRAGMA writable_schema = 1": "writable_schema is not allowed",
    "PRAGMA foreign_keys = 0": "one server alone",
    "PRAGMA journal_mode = delete": "one server alone",
    "PRAGMA defer_foreign_keys = 1": "not allowed",
    "PRAGMA optimize": "not allowed",
    "BEGIN": "transaction already",
    "COMMIT": "not SQL here",
    "ROLLBACK": "not SQL here",
    "END": "not SQL here",
    "VACUUM": "runs alone",
    "VACUUM INTO 'copy.db'": "runs alone",
    "SELECT * FROM _primacy_position": "belong to primacy",
    "UPDATE _primacy_position SET place = 0": "belong to primacy",
    "DROP TABLE _primacy_position": "belong to primacy",
    "CREATE TABLE _PRIMACY_x(a)": "belong to primacy",
    "ALTER TABLE t RENAME TO _primacy_x": "belong to primacy",
    "CREATE TRIGGER x AFTER INSERT ON _primacy_position BEGIN SELECT 1; END": "belong to primacy",
    "SAVEPOINT _primacy_t": "belong to primacy",
    "INSERT INTO sqlite_sequence VALUES('t', 1)": "can be set",
    "INSERT INTO sqlite_stat1 VALUES('t', NULL, '1')": "belong to ANALYZE",
    "DROP TABLE sqlite_stat1": "belong to ANALYZE",
    "CREATE TABLE x(rowid, _rowid_, oid)": "have no name",
    "INSERT OR ROLLBACK INTO t VALUES(1, 1)": "would roll back more",
    "INSERT INTO r VALUES(1)": "would roll back more",
    "INSERT INTO u VALUES(2)": "would roll back more",
    "UPDATE v SET a = total_changes()": "VIRTUAL.*total_changes",
    "INSERT INTO v(a) SELECT a FROM t LIMIT 1": "LIMIT without ORDER BY",
    "": "no statement",
    " -- nothing": "no statement",
    "INSERT INTO t VALUES(8, 8); DELETE FROM t": "more than one",
}

START = (
    "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
    "INSERT INTO t VALUES(1, 1)",
    "ANALYZE",
    "CREATE TABLE r(a UNIQUE ON CONFLICT ROLLBACK)",
    "CREATE TABLE u(a)",
    "CREATE TRIGGER g BEFORE INSERT ON u BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
    "CREATE TABLE v(a, b AS (a))",
)


@pytest.fixture
def filled(pair: Pair) -> Pair:
    for sql in START:
        pair.run(sql)
    return pair


@pytest.mark.parametrize("sql", REFUSED)
def test_is_refused_and_harms_nobody(filled: Pair, sql: str) -> None:
    before = contents_of(filled.paths[0])
    for way in (filled.writer.run, filled.writer.execute):
        filled.begin()
        filled.writer.run("INSERT INTO t(b) VALUES(5)")
        if way == filled.writer.execute:
            with filled.writer.transaction(), pytest.raises(Rejected, match=REFUSED[sql]):
                way(sql)
        else:
            with pytest.raises(Rejected, match=REFUSED[sql]):
                way(sql)
        assert filled.writer.is_in_group
        filled.writer.rollback()
    assert contents_of(filled.paths[0]) == before


ALLOWED = (
    "PRAGMA table_info(t)",
    "SELECT name FROM pragma_table_list ORDER BY 1",
    "PRAGMA foreign_keys",
    "PRAGMA integrity_check",
    "EXPLAIN DELETE FROM t",
    "EXPLAIN QUERY PLAN SELECT * FROM t",
    "SELECT sql FROM sqlite_schema",
    "WITH x AS (SELECT 1) SELECT * FROM x;",
    "SELECT 'x' -- a remark; and more",
    "INSERT OR ABORT INTO t VALUES(3, 'ROLLBACK FAIL')",
)


@pytest.mark.parametrize("sql", ALLOWED)
def test_is_allowed(filled: Pair, sql: str) -> None:
    assert filled.run(sql).columns or sql.startswith("INSERT")


def test_a_statement_of_primacy_itself_is_not_lent_to_a_client(filled: Pair) -> None:
    """Both are one text, and SQLite keeps prepared statements by their text."""
    filled.together(lambda writer: writer.execute_own("CREATE TABLE _primacy_x(a PRIMARY KEY)"))
    sql = "INSERT INTO _primacy_x VALUES(?)"
    filled.together(lambda writer: writer.execute_own(sql, (1,)))
    filled.begin()
    with pytest.raises(Rejected, match="belong to primacy"):
        filled.writer.run(sql, (2,))
    filled.writer.rollback()
    filled.assert_equal()
    assert contents_of(filled.paths[1])["_primacy_x"] == ["(1, 1)"]


def test_own_tables_do_not_count_in_the_schema_hash(filled: Pair) -> None:
    before = filled.writer.schema_hash
    filled.together(lambda writer: writer.execute_own("CREATE TABLE _primacy_x(a)"))
    assert filled.writer.schema_hash == before == filled.applier.schema_hash


def test_an_answer_has_a_limit(filled: Pair) -> None:
    many = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i+1 FROM n LIMIT 50) SELECT * FROM n"
    filled.begin()
    with pytest.raises(Rejected, match="more than 10 rows"):
        filled.writer.run(many, rows_max=10)
    with pytest.raises(Rejected, match="more than 10 rows"):
        filled.writer.run(f"INSERT INTO t(b) {many} RETURNING a", rows_max=10)
    assert len(filled.writer.run(many, rows_max=50).rows) == 50
    filled.writer.rollback()


def test_a_transaction_that_no_record_can_hold_is_undone(filled: Pair) -> None:
    with pytest.raises(Rejected, match="exceeds the limit"):
        filled.together(*["INSERT INTO t(b) VALUES(zeroblob(7000000))"] * 3)
    filled.writer.rollback()
    with pytest.raises(apsw.TooBigError):
        filled.run("INSERT INTO t(b) VALUES(randomblob(90000000))")
    assert contents_of(filled.paths[0])["t"] == ["(1, 1, 1)"]


def test_a_parameter_without_a_form_in_the_log_is_refused(filled: Pair) -> None:
    with pytest.raises((Rejected, TypeError)):
        filled.run("INSERT INTO v(a) VALUES(?)", (object(),))  # type: ignore[arg-type]  # Wrong.
    filled.run("INSERT INTO v(a) VALUES(:x)", {"x": bytearray(b"x")})  # type: ignore[dict-item]  # Wide.
    filled.run("INSERT INTO v(a) VALUES(?)", (True,))
    filled.assert_equal()


def test_vacuum_is_refused_where_it_could_renumber_rows(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    pair.run("INSERT INTO t VALUES(5)")
    pair.writer.vacuum()
    pair.run("INSERT INTO t VALUES(6)")
    pair.assert_equal()
    pair.run("CREATE TABLE u(a)")
    with pytest.raises(Rejected, match="renumber the rows of u"):
        pair.writer.vacuum()


def test_calls_in_a_wrong_order_are_refused(pair: Pair) -> None:
    with pytest.raises(Rejected, match="no group is open"):
        pair.writer.run("SELECT 1")
    pair.begin()
    with pytest.raises(Rejected, match="no transaction is open"):
        pair.writer.execute("CREATE TABLE t(a)")
    with pytest.raises(Rejected, match="needs a transaction"):
        pair.writer.run("SAVEPOINT x")
    with pair.writer.transaction(), pytest.raises(Rejected, match="open already"):
        pair.writer.run("SELECT 1")
    pair.writer.rollback()


def test_a_reader_reads_and_does_nothing_else(filled: Pair) -> None:
    reader = open_reader(filled.paths[0], StorageSettings())
    assert list(reader.execute("SELECT b FROM t")) == [(1,)]
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("DELETE FROM t")
    with pytest.raises(apsw.AuthError):
        reader.execute("SELECT * FROM _primacy_position")
    reader.close()


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.run("CREATE TABLE t(a)")
    pair.run("INSERT INTO t VALUES(1)")
    pair.close()
    writer = Writer(
        tmp_path / "primary.db", StorageSettings(), clock=SystemClock(), seeds=random.Random(1)
    )
    assert writer.position == pair.point
    writer.close()
