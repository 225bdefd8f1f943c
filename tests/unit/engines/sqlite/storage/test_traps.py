"""Each way in which SQLite changes rows behind one's back: the replica has them too."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from tests.unit.engines.sqlite.storage.pair import Pair, contents_of

from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.engines.sqlite.storage.failures import GroupLost
from primacy.engines.sqlite.storage.images import Counters, Ddl, Images, Rows, Statement, Update
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import NotFound, Rejected

TRAPS = {
    "a table without a primary key": ["CREATE TABLE t(a)", "INSERT INTO t VALUES(1), (1), (2)",
        "DELETE FROM t WHERE rowid = 1", "UPDATE t SET a = 3 WHERE rowid = 2"],
    "NULL in a primary key": ["CREATE TABLE t(a TEXT PRIMARY KEY)",
        "INSERT INTO t VALUES(NULL), (NULL)", "DELETE FROM t WHERE rowid = 1"],
    "a rowid that is chosen": ["CREATE TABLE t(a)", "INSERT INTO t(rowid, a) VALUES(77, 1)",
        "UPDATE t SET rowid = -5"],
    "columns with the names of the rowid": ["CREATE TABLE t(rowid, oid)",
        "INSERT INTO t VALUES(1, 2)", "UPDATE t SET rowid = 9"],
    "renumbering": ["CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)",
        "INSERT INTO t VALUES(1, 'x'), (2, 'y')", "UPDATE t SET a = a + 100"],
    "REPLACE deletes another row": ["CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)",
        "INSERT INTO t VALUES(1, 'x'), (2, 'y')", "REPLACE INTO t VALUES(1, 'y')"],
    "an upsert": ["CREATE TABLE t(a PRIMARY KEY, b)", "INSERT INTO t VALUES(1, 1)",
        "INSERT INTO t VALUES(1, 5) ON CONFLICT(a) DO UPDATE SET b = b + excluded.b"],
    "an ignored row moves the counter": [
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)",
        "INSERT INTO t(b) VALUES(1)", "INSERT OR IGNORE INTO t(b) VALUES(1)"],
    "a counter set by hand": ["CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO t VALUES(NULL)", "UPDATE sqlite_sequence SET seq = 50",
        "INSERT INTO t VALUES(NULL)",
        "DELETE FROM sqlite_sequence"],
    "a trigger": ["CREATE TABLE t(a)", "CREATE TABLE u(b)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO u VALUES(new.a); END",
        "INSERT INTO t VALUES(4)"],
    "a cascade": ["CREATE TABLE t(a INTEGER PRIMARY KEY)",
        "CREATE TABLE u(b REFERENCES t ON DELETE CASCADE)", "INSERT INTO t VALUES(1)",
        "INSERT INTO u VALUES(1), (1)", "DELETE FROM t"],
    "DROP TABLE takes the children's rows along": ["CREATE TABLE t(a INTEGER PRIMARY KEY)",
        "CREATE TABLE u(b REFERENCES t ON DELETE CASCADE)", "INSERT INTO t VALUES(1)",
        "INSERT INTO u VALUES(1), (NULL)", "DROP TABLE t"],
    "DELETE without WHERE": ["CREATE TABLE t(a)", "INSERT INTO t VALUES(1), (2)", "DELETE FROM t"],
    "WITHOUT ROWID": ["CREATE TABLE t(a, b, c, PRIMARY KEY(b, a)) WITHOUT ROWID",
        "INSERT INTO t VALUES(1, 2, 3), (1, 3, 4)", "UPDATE t SET b = b + 10", "UPDATE t SET c = 9",
        "DELETE FROM t WHERE b = 12"],
    "an INTEGER PRIMARY KEY that is not the rowid": [
        "CREATE TABLE t(a INTEGER PRIMARY KEY DESC)", "INSERT INTO t VALUES(9), (4)",
        "UPDATE t SET a = 5 WHERE a = 4"],
    "a stored generated column": ["CREATE TABLE t(a, b AS (a + 1) STORED)",
        "INSERT INTO t VALUES(1)", "UPDATE t SET a = 7", "DELETE FROM t"],
    "a virtual generated column": ["CREATE TABLE t(a, b AS (a + 1))",
        "INSERT INTO t VALUES(1), (2)", "UPDATE t SET a = 7 WHERE b = 2",
        "DELETE FROM t WHERE a = 2"],
    "the same number as another type": ["CREATE TABLE t(a, r REAL)", "INSERT INTO t VALUES(1, 1)",
        "UPDATE t SET a = 1.0", "UPDATE t SET a = '1'", "UPDATE t SET a = x'31'"],
    "a column added to old rows": ["CREATE TABLE t(a)", "INSERT INTO t VALUES(1)",
        "ALTER TABLE t ADD COLUMN b DEFAULT 7", "UPDATE t SET a = 2", "DELETE FROM t"],
    "a table from a query": ["CREATE TABLE t(a)", "INSERT INTO t VALUES(1), (2)",
        "CREATE TABLE u AS SELECT a, random() AS r FROM t"],
    "header pragmas": ["PRAGMA user_version = 5", "PRAGMA application_id = 77"],
    "statistics": ["CREATE TABLE t(a)", "CREATE INDEX i ON t(a)", "INSERT INTO t VALUES(1)",
        "ANALYZE", "REINDEX", "ANALYZE t", "DROP TABLE t"],
    "full-text search": ["CREATE VIRTUAL TABLE t USING fts5(a)", "INSERT INTO t VALUES('one two')",
        "UPDATE t SET a = 'three'", "INSERT INTO t(t) VALUES('optimize')", "DELETE FROM t",
        "INSERT INTO t VALUES('x')", "ALTER TABLE t RENAME TO u", "DROP TABLE u"],
    "full-text search, version 4": ["CREATE VIRTUAL TABLE t USING fts4(a)",
        "INSERT INTO t VALUES('one two')", "UPDATE t SET a = 'three'", "DELETE FROM t"],
    "an R-tree": ["CREATE VIRTUAL TABLE t USING rtree(i, a, b)", "INSERT INTO t VALUES(1, 2, 3)",
        "UPDATE t SET b = 9", "DELETE FROM t"],
    "a conflict clause of the table": ["CREATE TABLE t(a UNIQUE ON CONFLICT REPLACE, b)",
        "INSERT INTO t VALUES(1, 1)", "INSERT INTO t VALUES(1, 2)"],
    "time and chance in defaults": [
        "CREATE TABLE t(a, b DEFAULT CURRENT_TIMESTAMP, c DEFAULT (random()))",
        "INSERT INTO t(a) VALUES(1), (2)", "UPDATE t SET a = randomblob(4)",
        "UPDATE t SET b = julianday('now')", "UPDATE t SET b = strftime('%f') || typeof(a)"],
    "names that must be quoted": ['CREATE TABLE "a ""b"("select" INTEGER PRIMARY KEY, "x y")',
        'INSERT INTO "a ""b" VALUES(1, 2)', 'UPDATE "a ""b" SET "x y" = 3', 'DELETE FROM "a ""b"'],
}  # fmt: skip


@pytest.mark.parametrize("images", Images)
@pytest.mark.parametrize("logging", Logging)
@pytest.mark.parametrize("statements", TRAPS.values(), ids=TRAPS)
def test_a_replica_has_the_same(
    tmp_path: Path, statements: list[str], logging: Logging, images: Images
) -> None:
    settings = StorageSettings(logging=logging, images=images, mixed_rows_min=2)
    pair = Pair(tmp_path, settings)
    for sql in statements:
        pair.run(sql)
        pair.assert_equal()
    pair.close()


@pytest.mark.parametrize("statements", TRAPS.values(), ids=TRAPS)
def test_a_replica_has_the_same_of_one_transaction(pair: Pair, statements: list[str]) -> None:
    pair.together(*statements)
    pair.assert_equal()


def test_a_failed_statement_leaves_nothing_in_the_log(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a UNIQUE)")
    pair.run("INSERT INTO t VALUES(3)")
    for conflict in ("", "OR FAIL "):
        failing = f"INSERT {conflict}INTO t VALUES(1), (2), (3)"
        with pytest.raises(apsw.ConstraintError):
            pair.run(failing)
    pair.begin()
    with pair.writer.transaction():
        pair.writer.execute("INSERT INTO t VALUES(4)")
        with pytest.raises(apsw.ConstraintError):
            pair.writer.execute("INSERT OR FAIL INTO t VALUES(1), (2), (3)")
        pair.writer.execute("INSERT INTO t VALUES(5)")
    pair.note_change()
    pair.end_group()
    (step,) = pair.last_steps()
    assert isinstance(step, Rows)
    assert len(step.rows) == 2
    pair.assert_equal()


def test_a_transaction_that_is_given_up_leaves_the_others_of_its_group(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    pair.begin()
    pair.writer.run("INSERT INTO t VALUES(1)")
    pair.note_change()
    given_up = pair.writer.transaction()
    given_up.__enter__()
    pair.writer.execute("INSERT INTO t VALUES(2)")
    pair.writer.execute("CREATE TABLE u(a)")
    given_up.__exit__(TimeoutError, TimeoutError(), None)
    assert pair.writer.change() is None
    pair.writer.run("INSERT INTO t VALUES(3)")
    pair.note_change()
    pair.end_group()
    assert contents_of(pair.paths[0])["t"] == ["(1, 1)", "(2, 3)"]
    pair.assert_equal()


def test_savepoints_nest_and_take_back(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    pair.together(
        "INSERT INTO t VALUES(1)",
        "SAVEPOINT one",
        "INSERT INTO t VALUES(2)",
        'SAVEPOINT "odd ""name"',
        "CREATE TABLE u(b)",
        "INSERT INTO u VALUES(3)",
        'ROLLBACK TO "odd ""name"',
        "INSERT INTO t VALUES(4)",
        "ROLLBACK TO ONE",
        "INSERT INTO t VALUES(5)",
        "RELEASE one",
        "INSERT INTO t VALUES(6)",
    )
    assert contents_of(pair.paths[1])["t"] == ["(1, 1)", "(2, 5)", "(3, 6)"]
    pair.assert_equal()
    pair.begin()
    with pytest.raises(NotFound, match="no savepoint one"), pair.writer.transaction():
        pair.writer.execute("ROLLBACK TO one")
    pair.writer.rollback()


def test_a_request_is_undone_as_a_whole_whatever_savepoints_it_names(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a UNIQUE)")

    def request(writer: Writer, *statements: str) -> None:
        with writer.request():
            for each in statements:
                writer.execute(each)

    def failing(writer: Writer) -> None:
        own = ("SAVEPOINT request", "INSERT INTO t VALUES(4)", "RELEASE request", "SAVEPOINT s")
        with pytest.raises(apsw.ConstraintError):
            request(writer, "INSERT INTO t VALUES(3)", *own, "INSERT INTO t VALUES(1)")

    def reaching_out(writer: Writer) -> None:
        for deed in ("RELEASE request", "ROLLBACK TO request"):
            with pytest.raises(Rejected, match="older than this request"):
                request(writer, "INSERT INTO t VALUES(5)", deed)

    def leaving_one_open(writer: Writer) -> None:
        request(writer, "INSERT INTO t VALUES(6)", "SAVEPOINT inner", "INSERT INTO t VALUES(7)")
        request(writer, "INSERT INTO t VALUES(8)")

    pair.together(
        "INSERT INTO t VALUES(1)",
        "SAVEPOINT request",
        "INSERT INTO t VALUES(2)",
        failing,
        reaching_out,
        leaving_one_open,
        "ROLLBACK TO inner",
        "RELEASE inner",
        "ROLLBACK TO request",
        "RELEASE request",
        "INSERT INTO t VALUES(9)",
        leaving_one_open,
    )
    values = [1, 9, 6, 7, 8]
    assert contents_of(pair.paths[1])["t"] == [f"({n}, {a})" for n, a in enumerate(values, 1)]
    pair.assert_equal()


def test_a_blob_written_in_part_is_logged(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    pair.run("INSERT INTO t VALUES(1, zeroblob(10))")
    pair.together(
        lambda writer: writer.write_blob("t", "b", 1, 3, b"abc"),
        lambda writer: writer.write_blob("t", "b", 1, 5, b"z"),
    )
    pair.assert_equal()
    (step,) = pair.last_steps()
    assert isinstance(step, Rows)
    assert [row.values for row in step.rows if isinstance(row, Update)][1] == (
        b"\0\0\0abz\0\0\0\0",
    )
    pair.begin()
    with pytest.raises(Rejected, match="written in part"), pair.writer.transaction():
        pair.writer.write_blob("_primacy_position", "chain", 1, 0, b"x")
    pair.writer.rollback()


def test_text_that_is_no_utf8_is_refused_and_undone(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    with pytest.raises(Rejected, match="not UTF-8"):
        pair.run("INSERT INTO t VALUES(1), (CAST(x'ff' AS TEXT))")
    pair.run("INSERT INTO t VALUES(2)")
    pair.run("CREATE TABLE v(a, b AS (1))")
    with pytest.raises(Rejected, match="not UTF-8"):
        pair.run("INSERT INTO v VALUES(x'ff' || '')")
    pair.assert_equal()
    assert contents_of(pair.paths[0])["t"] == ["(1, 2)"]


def test_rows_of_a_virtual_table_belong_to_the_transaction_that_wrote_them(pair: Pair) -> None:
    """FTS5 keeps them back until a savepoint opens or the group commits."""
    pair.run("CREATE VIRTUAL TABLE t USING fts5(a)")
    pair.begin()
    pair.writer.run("INSERT INTO t VALUES('one')")
    pair.note_change()
    pair.writer.run("INSERT INTO t VALUES('two')")
    change = pair.writer.change()
    assert change is not None
    assert b"t_data" in change.payload
    pair.writer.rollback()


def test_a_deferred_key_is_checked_when_its_own_transaction_ends(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    pair.run("CREATE TABLE u(b REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    pair.together("INSERT INTO u VALUES(1)", "INSERT INTO t VALUES(1)")
    pair.begin()
    with pytest.raises(Rejected, match="FOREIGN KEY constraint failed"):
        pair.writer.run("INSERT INTO u VALUES(2)")
    pair.writer.run("INSERT INTO t VALUES(3)")
    pair.note_change()
    pair.end_group()
    pair.assert_equal()


def test_what_counts_is_logged_and_nothing_else(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)")
    pair.run("INSERT INTO t(b) VALUES(1)")
    assert [type(step) for step in pair.last_steps()] == [Rows, Counters]
    count = len(pair.records)
    pair.run("SELECT * FROM t")
    pair.run("UPDATE t SET b = 1")
    pair.run("CREATE TABLE IF NOT EXISTS t(a)")
    assert len(pair.records) == count
    pair.run("DROP TABLE IF EXISTS t")
    assert [type(step) for step in pair.last_steps()] == [Ddl]


def test_time_is_the_writers_clock_and_stands_still(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a DEFAULT CURRENT_TIMESTAMP, b DEFAULT (unixepoch('subsec')))")
    pair.run("INSERT INTO t SELECT datetime('now'), unixepoch('subsec') FROM (VALUES(1), (2))")
    pair.run("INSERT INTO t DEFAULT VALUES")
    (first, second, third) = pair.run("SELECT * FROM t").rows
    assert first == second
    assert first[0] == third[0] == "2001-01-01 00:00:00"
    assert first[1] != third[1]


def test_the_form_follows_the_mode(tmp_path: Path) -> None:
    forms: dict[Logging, list[type]] = {}
    for logging in Logging:
        directory = tmp_path / logging.value
        directory.mkdir()
        pair = Pair(directory, StorageSettings(logging=logging, mixed_rows_min=3))
        pair.run("CREATE TABLE t(a, b)")
        found: list[type] = []
        for sql in (
            "INSERT INTO t VALUES(1, random()), (2, 2), (3, 3)",
            "UPDATE t SET b = a + 1, a = abs(a)",
            "UPDATE t SET b = 0 WHERE a = 1",
            "INSERT INTO t SELECT a, b FROM t ORDER BY a LIMIT 3",
            "UPDATE t SET b = random()",
            "UPDATE t SET b = changes()",
            "UPDATE t SET b = datetime('now', 'localtime')",
        ):
            pair.run(sql)
            found += [type(step) for step in pair.last_steps()]
        pair.assert_equal()
        pair.close()
        forms[logging] = found
    assert forms[Logging.ROW] == [Rows] * 7
    assert forms[Logging.STATEMENT] == [Statement] * 3 + [Rows] * 4
    assert forms[Logging.MIXED] == [Statement] * 2 + [Rows] * 5


MANY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 900000) SELECT i FROM n"
)


@contextmanager
def interrupted(writer: Writer) -> Iterator[None]:
    """Again and again, from another thread, until the block has ended."""
    is_over = threading.Event()

    def nag() -> None:
        while not is_over.wait(0.002):
            writer.interrupt()

    thread = threading.Thread(target=nag)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def until_it_runs(work: Callable[[], object]) -> None:
    """What is interrupted while it is still looked at has undone nothing."""
    while True:
        try:
            work()
        except apsw.InterruptError:
            continue
        return


@pytest.mark.parametrize("way", ["run", "execute"])
def test_a_group_that_sqlite_undid_is_lost_and_can_be_run_again(pair: Pair, way: str) -> None:
    pair.run("CREATE TABLE t(a)")
    pair.begin()
    pair.writer.run("INSERT INTO t VALUES('before')")
    pair.writer.change()
    if way == "execute":
        pair.writer.transaction().__enter__()
    with interrupted(pair.writer), pytest.raises(GroupLost, match="all transactions"):
        until_it_runs(lambda: getattr(pair.writer, way)(f"INSERT INTO t {MANY}"))
    assert not pair.writer.is_in_group
    pair.writer.rollback()
    pair.run("INSERT INTO t VALUES('again')")
    pair.assert_equal()
    assert contents_of(pair.paths[0])["t"] == ["(1, 'again')"]


def test_a_query_that_is_interrupted_costs_the_group_nothing(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a)")
    pair.begin()
    pair.writer.run("INSERT INTO t VALUES('before')")
    pair.note_change()
    with interrupted(pair.writer), pytest.raises(apsw.InterruptError):
        pair.writer.run(f"SELECT sum(i) FROM ({MANY.replace('900000', '90000000')})")
    pair.end_group()
    pair.assert_equal()
    assert contents_of(pair.paths[0])["t"] == ["(1, 'before')"]


def test_a_single_row_that_fails_leaves_the_others(pair: Pair) -> None:
    """The shortest way of all has no savepoint."""
    pair.run("CREATE TABLE t(a UNIQUE, b UNIQUE CHECK (b > 0))")
    insert = "INSERT INTO t VALUES(?, ?)"
    pair.begin()
    for row in ((1, 1), (1, 2), (2, 1), (3, -1), (4, 4)):
        try:
            pair.writer.run(insert, row)
        except apsw.ConstraintError:
            assert pair.writer.change() is None
        pair.note_change()
    with pytest.raises(apsw.BindingsError):
        pair.writer.run(insert, (1,))
    pair.end_group()
    assert contents_of(pair.paths[1])["t"] == ["(1, 1, 1)", "(2, 4, 4)"]
    pair.assert_equal()


def test_plans_are_the_same_on_both_sides_whatever_was_undone(pair: Pair) -> None:
    """Statistics in memory outlive an ANALYZE that was given up, until they are read again. The
    statement is repeated, for the VIRTUAL column; which table is visited first numbers its rows."""
    pair.run("CREATE TABLE large(k, n)")
    pair.run("CREATE TABLE little(k)")
    pair.run("CREATE TABLE t(a, v AS (a))")
    for sql in ("CREATE INDEX one ON large(k)", "CREATE INDEX two ON little(k)", "ANALYZE"):
        pair.run(sql)
    pair.run(f"INSERT INTO large SELECT (i * 7) % 10, i FROM ({MANY.replace('900000', '300')})")
    pair.run("INSERT INTO little VALUES(3), (1), (2)")
    pair.begin()
    given_up = pair.writer.transaction()
    given_up.__enter__()
    pair.writer.execute("ANALYZE")
    given_up.__exit__(TimeoutError, TimeoutError(), None)
    pair.end_group()
    pair.run("INSERT INTO t SELECT n FROM large JOIN little ON large.k = little.k")
    assert isinstance(pair.last_steps()[0], Statement)
    pair.assert_equal()


def test_a_deferred_key_is_not_left_to_a_statement(tmp_path: Path) -> None:
    """Repeated, it would count a violation that the rows behind it do not count as healed."""
    pair = Pair(tmp_path, StorageSettings(logging=Logging.STATEMENT))
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    pair.run("CREATE TABLE u(b REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    pair.together("INSERT INTO u VALUES(1)", "INSERT INTO t SELECT 1")
    pair.assert_equal()
    pair.close()


def test_the_last_rowid_is_that_of_the_transaction(tmp_path: Path) -> None:
    """Of nobody else's; and a repeated statement finds what stood before it as rows."""
    pair = Pair(tmp_path, StorageSettings(logging=Logging.STATEMENT))
    pair.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    pair.run("INSERT INTO t VALUES(40, 0)")
    assert pair.run("SELECT last_insert_rowid()").rows == [(0,)]
    pair.together("INSERT INTO t SELECT 50, 1", "INSERT INTO t VALUES(60, last_insert_rowid())")
    assert [type(step) for step in pair.last_steps()] == [Rows, Statement]
    pair.run("INSERT INTO t VALUES(70, last_insert_rowid())")
    pair.assert_equal()
    assert contents_of(pair.paths[1])["t"][2:] == ["(60, 60, 50)", "(70, 70, 0)"]
    pair.close()


def test_a_column_that_computes_text_from_bytes_costs_the_group_nothing(pair: Pair) -> None:
    pair.run("CREATE TABLE t(a, b AS (a || '') STORED)")
    pair.begin()
    pair.writer.run("INSERT INTO t(a) VALUES(?)", ("fine",))
    pair.note_change()
    with pytest.raises(Rejected, match="not UTF-8"):
        pair.writer.run("INSERT INTO t(a) VALUES(?)", (b"\xff",))
    pair.end_group()
    pair.assert_equal()
