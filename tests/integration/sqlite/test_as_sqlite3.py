"""The driver answers as Python's sqlite3 does, on the same statements."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.integration.sqlite.serving import Served

import primacy.driver as db
from primacy.driver import Connection

pytestmark = pytest.mark.integration

SETUP = """
    CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b);
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (p INTEGER NOT NULL REFERENCES parent (id), c CHECK (c > 0));
    CREATE VIEW v AS SELECT a, b FROM t;
    INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2.5), (3, NULL, x'00ff');
"""

Work = Callable[[Any], object]  # Any: either kind of connection.


def rows_of(sql: str, parameters: Any = ()) -> Work:  # Any: as the APIs take them.
    def work(connection: Any) -> object:
        cursor = connection.execute(sql, parameters)
        names = [each[0] for each in cursor.description] if cursor.description else None
        return names, cursor.fetchall(), cursor.rowcount

    return work


def changed_by(sql: str, parameters: Any = ()) -> Work:  # Any: as the APIs take them.
    def work(connection: Any) -> object:
        cursor = connection.execute(sql, parameters)
        is_insert = sql.startswith(("INSERT", "REPLACE"))
        lastrowid = cursor.lastrowid if is_insert else None  # sqlite3's is of an earlier one then.
        return cursor.fetchall(), cursor.rowcount, lastrowid, connection.in_transaction

    return work


def many(sql: str, rows: Any) -> Work:  # Any: as the APIs take them.
    def work(connection: Any) -> object:
        cursor = connection.executemany(sql, rows)
        return cursor.rowcount, cursor.lastrowid, connection.in_transaction

    return work


def steps(*works: Work) -> Work:
    return lambda connection: [tried(work, connection) for work in works]


def savepoints(connection: Any) -> object:  # Any: either kind.
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t (a) VALUES ('outer')")
    connection.execute("SAVEPOINT s")
    connection.execute("INSERT INTO t (a) VALUES ('inner')")
    connection.execute("ROLLBACK TO s")
    connection.execute("RELEASE s")
    connection.commit()
    return connection.execute("SELECT a FROM t ORDER BY id").fetchall()


def with_block(connection: Any) -> object:  # Any: either kind.
    with connection:
        connection.execute("INSERT INTO t (a) VALUES ('kept')")
    try:
        with connection:
            connection.execute("INSERT INTO t (a) VALUES ('undone')")
            raise KeyError
    except KeyError:
        pass
    return connection.execute("SELECT a FROM t ORDER BY id").fetchall()


def fetches(connection: Any) -> object:  # Any: either kind.
    cursor = connection.cursor()
    cursor.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2500) SELECT i FROM n"
    )
    cursor.arraysize = 3
    found = [cursor.fetchone(), cursor.fetchmany(), cursor.fetchmany(2), next(cursor)]
    rest = cursor.fetchall()
    return found, len(rest), rest[-1], cursor.fetchone(), cursor.fetchmany(), cursor.fetchall()


def two_cursors(connection: Any) -> object:  # Any: either kind.
    one, other = connection.cursor(), connection.cursor()
    one.execute("SELECT id FROM t ORDER BY id")
    other.execute("SELECT a FROM t ORDER BY id")
    return one.fetchone(), other.fetchone(), one.fetchone(), other.fetchone()


def closed_cursor(connection: Any) -> object:  # Any: either kind.
    cursor = connection.execute("SELECT 1")
    cursor.close()
    cursor.close()
    return cursor.fetchone()


def rows_by_name(connection: Any) -> object:  # Any: either kind.
    connection.row_factory = sqlite3.Row if isinstance(connection, sqlite3.Connection) else db.Row
    row = connection.execute("SELECT id AS Number, a FROM t WHERE id = 1").fetchone()
    return row["number"], row[1], row.keys(), tuple(row)


def level_none(connection: Any) -> object:  # Any: either kind.
    connection.execute("INSERT INTO t (a) VALUES ('before')")
    connection.isolation_level = None
    connection.execute("INSERT INTO t (a) VALUES ('after')")
    state = connection.in_transaction
    connection.rollback()
    return state, connection.execute("SELECT count(*) FROM t").fetchone()


def script(connection: Any) -> object:  # Any: either kind.
    connection.executescript("""
        CREATE TABLE s (x);
        CREATE TRIGGER r AFTER INSERT ON s BEGIN INSERT INTO t (a) VALUES (new.x); END;
        BEGIN; INSERT INTO s VALUES ('by; trigger'); COMMIT;
    """)
    return connection.execute("SELECT a FROM t ORDER BY id DESC LIMIT 1").fetchall()


CASES: dict[str, Work] = {
    "all types": rows_of("SELECT NULL, 1, -9223372036854775808, 2.5, 'x', x'01', 1e300"),
    "bound types": rows_of("SELECT ?, ?, ?, ?, ?", (None, True, 2**62, "\N{SNOWMAN}", b"\0")),
    "named": rows_of("SELECT :a, :b, :a", {"a": 1, "b": "x", "unused": 3}),
    "no rows": rows_of("SELECT id, a FROM t WHERE id = 99"),
    "names of columns": rows_of("SELECT id, a AS Other, 1 + 1, count(*) FROM t"),
    "a view": rows_of("SELECT * FROM v ORDER BY a"),
    "values": rows_of("VALUES (1, 2), (3, 4)"),
    "with": rows_of("WITH x AS (SELECT id FROM t) SELECT * FROM x ORDER BY id"),
    "pragma": rows_of("PRAGMA table_info(t)"),
    "explain": lambda c: len(c.execute("EXPLAIN SELECT 1").fetchall()) > 0,
    "a comment alone": rows_of("-- nothing"),
    "nothing": rows_of(""),
    "text with a null character": rows_of("SELECT ?", ("a\0b",)),
    "insert": changed_by("INSERT INTO t (a, b) VALUES (?, ?)", ("x", None)),
    "insert of several": changed_by("INSERT INTO t (a) VALUES ('x'), ('y')"),
    "replace": changed_by("REPLACE INTO t (id, a) VALUES (2, 'zwei')"),
    "upsert": changed_by(
        "INSERT INTO t (a, b) VALUES ('one', 5) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
    ),
    "update": changed_by("UPDATE t SET b = 0 WHERE id < 3"),
    "update of nothing": changed_by("UPDATE t SET b = 0 WHERE id = 99"),
    "delete": changed_by("DELETE FROM t"),
    "create": changed_by("CREATE TABLE u (x)"),
    "many": many("INSERT INTO t (a) VALUES (?)", [("x",), ("y",), ("z",)]),
    "many by name": many("UPDATE t SET b = :b WHERE id = :i", [{"b": 1, "i": 1}, {"b": 1, "i": 9}]),
    "many of none": lambda c: c.executemany("INSERT INTO t (a) VALUES (?)", []).rowcount,
    "many from a generator": lambda c: (
        c.executemany("INSERT INTO t (a) VALUES (?)", ((str(i),) for i in range(5))).rowcount
    ),
    "many queries": many("SELECT ?", [(1,)]),
    "many with one that fails": steps(
        many("INSERT INTO t (a) VALUES (?)", [("x",), ("one",)]), lambda c: c.in_transaction
    ),
    "a unique key twice": steps(
        changed_by("INSERT INTO t (a) VALUES ('one')"), lambda c: c.in_transaction
    ),
    "not null": changed_by("INSERT INTO child VALUES (NULL, 1)"),
    "check": changed_by("INSERT INTO child VALUES (1, 0)"),
    "a primary key of another type": changed_by("INSERT INTO t (id) VALUES ('x')"),
    "syntax": rows_of("SELEC 1"),
    "no such table": rows_of("SELECT * FROM nowhere"),
    "no such column": rows_of("SELECT nothing FROM t"),
    "too few parameters": rows_of("SELECT ?, ?", (1,)),
    "too many parameters": rows_of("SELECT ?", (1, 2)),
    "a name that is missing": rows_of("SELECT :a, :b", {"a": 1}),
    "a dict for question marks": rows_of("SELECT ?", {"a": 1}),
    "a type that is none": rows_of("SELECT ?", (object(),)),
    "parameters that are none": rows_of("SELECT ?", 7),
    "a string as parameters": rows_of("SELECT ?", 7),
    "an integer too large": rows_of("SELECT ?", (2**63,)),
    "savepoints": savepoints,
    "with blocks": with_block,
    "fetches": fetches,
    "two cursors": two_cursors,
    "a closed cursor": closed_cursor,
    "rows by name": rows_by_name,
    "isolation_level None": level_none,
    "a script": script,
    "rollback": steps(
        changed_by("INSERT INTO t (a) VALUES ('x')"),
        lambda c: c.rollback(),
        lambda c: c.rollback(),
        rows_of("SELECT count(*) FROM t"),
    ),
    "commit without a transaction": lambda c: c.commit(),
    "own changes are seen before the commit": steps(
        changed_by("INSERT INTO t (a) VALUES ('x')"), rows_of("SELECT count(*) FROM t")
    ),
    "returning": rows_of("INSERT INTO t (a) VALUES ('x'), ('y') RETURNING id, a"),
    "total changes": steps(
        changed_by("UPDATE t SET b = 1"),
        many("DELETE FROM t WHERE id = ?", [(1,), (9,)]),
        lambda c: c.total_changes,
    ),
}

DIFFERENT_CLASS = {
    "an integer too large": (OverflowError, db.DataError),
}
"""Where a Python error becomes one of the database API's."""


def tried(work: Work, connection: Any) -> object:  # Any: either kind.
    """What it answers, or which error it raises: the name of the database API's class."""
    try:
        return work(connection)
    except (sqlite3.Error, db.Error) as error:
        kinds = {
            "Error",
            "InterfaceError",
            "DatabaseError",
            "DataError",
            "OperationalError",
            "IntegrityError",
            "InternalError",
            "ProgrammingError",
            "NotSupportedError",
        }
        return next(each.__name__ for each in type(error).__mro__ if each.__name__ in kinds)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def ours(server: Served) -> Iterator[Connection]:
    connection = server.connect(timeout_s=10)
    connection.isolation_level = None
    for kind, name in connection.execute(
        "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_primacy%' ORDER BY rootpage DESC"
    ).fetchall():
        connection.execute(f'DROP {kind} "{name}"')
    connection.executescript(SETUP)
    connection.isolation_level = ""
    yield connection
    connection.close()


@pytest.fixture
def theirs() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(SETUP)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", CASES)
def test_the_same_statements_have_the_same_answers(
    name: str, ours: Connection, theirs: sqlite3.Connection
) -> None:
    work = CASES[name]
    if name in DIFFERENT_CLASS:
        their_kind, our_kind = DIFFERENT_CLASS[name]
        with pytest.raises(their_kind):
            work(theirs)
        with pytest.raises(our_kind):
            work(ours)
        return
    assert tried(work, ours) == tried(work, theirs)


def test_an_error_names_sqlites_code_as_sqlite3_does(
    ours: Connection, theirs: sqlite3.Connection
) -> None:
    sql = "INSERT INTO t (a) VALUES ('one')"
    with pytest.raises(sqlite3.IntegrityError) as their:
        theirs.execute(sql)
    with pytest.raises(db.IntegrityError) as our:
        ours.execute(sql)
    assert our.value.sqlite_errorcode == their.value.sqlite_errorcode
    assert our.value.sqlite_errorname == their.value.sqlite_errorname
    assert str(their.value) == our.value.what
