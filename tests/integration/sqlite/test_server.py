"""A real server process: crashes, time limits, clients that vanish or speak nonsense."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.sqlite.serving import Raw, Served

import primacy.driver as db
from primacy.driver import Connection
from primacy.engines.sqlite.protocol import (
    LOGIN_BYTES_MAX,
    PROTOCOL_VERSION,
    Access,
    Branch,
    Done,
    Failure,
    Greeting,
    Login,
    Run,
    Statement,
    Welcome,
)
from primacy.engines.sqlite.scram import verifier_of
from primacy.runtime.page import PageWriter
from primacy.runtime.processes import own_name

pytestmark = pytest.mark.integration

WAIT_S = 10.0
BOOM = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, limits={"transaction_idle_s": 0.5, "transaction_total_s": 1.5}) as served:
        yield served


@pytest.fixture
def connection(server: Served) -> Iterator[Connection]:
    made = server.connect(isolation_level=None, timeout_s=20)
    made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    yield made
    made.close()


# ---- crashes ----------------------------------------------------------------------------------


def test_every_acknowledged_write_is_there_after_kills_and_each_key_took_effect_once(
    tmp_path: Path,
) -> None:
    with Served(tmp_path) as server:
        with closing(server.connect(isolation_level=None)) as setup:
            setup.execute("CREATE TABLE plain (n INTEGER PRIMARY KEY)")
            setup.execute("CREATE TABLE counter (c)")
            setup.execute("INSERT INTO counter VALUES (0)")
        is_over = threading.Event()
        numbers = itertools.count(1)
        acknowledged: list[int] = []
        increments: list[int] = []

        def write_plainly() -> None:
            connection = server.connect(isolation_level=None, timeout_s=30)
            while not is_over.is_set():
                number = next(numbers)
                try:
                    connection.execute("INSERT INTO plain VALUES (?)", (number,))
                except (db.OutcomeUnknown, db.Unavailable):
                    continue
                acknowledged.append(number)
            connection.close()

        def increment() -> None:
            connection = server.connect(isolation_level=None, timeout_s=30)
            while not is_over.is_set():
                connection.execute(
                    "UPDATE counter SET c = c + 1", idempotency_key=db.idempotency_key()
                )
                increments.append(1)
            connection.close()

        threads = [threading.Thread(target=work) for work in [write_plainly] * 3 + [increment] * 3]
        for thread in threads:
            thread.start()
        for _ in range(4):
            so_far = len(acknowledged) + len(increments)
            until(lambda: len(acknowledged) + len(increments) > so_far + 100)  # noqa: B023 - at once.
            server.kill()
            server.start()
        is_over.set()
        for thread in threads:
            thread.join()
        with closing(server.connect()) as check:
            found = {row[0] for row in check.execute("SELECT n FROM plain")}
            (count,) = check.execute("SELECT c FROM counter").fetchone()
            (health,) = check.execute("PRAGMA integrity_check").fetchone()
        assert set(acknowledged) <= found
        assert count == len(increments)
        assert health == "ok"


def test_a_server_that_is_asked_to_stop_exits_well_and_serves_its_data_again(
    server: Served, connection: Connection
) -> None:
    connection.execute("INSERT INTO t (a) VALUES ('x')")
    assert server.stop() == 0
    server.start()
    assert connection.execute("SELECT a FROM t").fetchall() == [("x",)]


# ---- transactions -----------------------------------------------------------------------------


def test_an_idle_transaction_is_rolled_back_and_others_go_on(
    server: Served, connection: Connection
) -> None:
    connection.begin()
    connection.execute("INSERT INTO t (a) VALUES ('idle')")
    other = server.connect(isolation_level=None, timeout_s=10)
    other.execute("INSERT INTO t (a) VALUES ('other')")  # Waits for the writer.
    with pytest.raises(db.Conflict, match="rolled back"):
        connection.execute("INSERT INTO t (a) VALUES ('late')")
    assert not connection.in_transaction
    assert connection.execute("SELECT a FROM t").fetchall() == [("other",)]
    other.close()


def test_a_transaction_that_never_ends_is_ended(server: Served, connection: Connection) -> None:
    connection.begin()

    def write_on() -> None:
        for number in itertools.count():
            connection.execute("INSERT INTO t (a) VALUES (?)", (str(number),))
            time.sleep(0.05)

    with pytest.raises(db.Conflict, match="rolled back"):
        write_on()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_client_that_vanishes_in_mid_transaction_leaves_nothing(
    server: Served, connection: Connection
) -> None:
    gone = server.connect()
    gone.execute("INSERT INTO t (a) VALUES ('gone')")
    gone._runner.close()  # noqa: SLF001 - the socket, without a word.
    started_s = time.monotonic()
    connection.execute("INSERT INTO t (a) VALUES ('next')")
    assert connection.execute("SELECT a FROM t").fetchall() == [("next",)]
    assert time.monotonic() - started_s < WAIT_S


def test_a_request_that_waits_too_long_for_the_writer_is_not_begun(
    server: Served, connection: Connection
) -> None:
    connection.begin()
    with Raw(server.port) as raw:
        raw.receive()
        raw.send(Login(PROTOCOL_VERSION, "", "", b""))
        raw.receive()
        raw.send(Run(1, [Statement("INSERT INTO t (a) VALUES ('late')", [[]])], within_ms=50))
        answer = raw.receive()
    assert isinstance(answer, Failure)
    assert (answer.branch, "was not begun" in answer.what) == (Branch.UNAVAILABLE, True)
    connection.rollback()


def test_a_deferred_key_that_is_violated_at_the_end_undoes_the_transaction(
    server: Served, connection: Connection
) -> None:
    connection.execute("CREATE TABLE p (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)")
    connection.begin()
    connection.execute("INSERT INTO c VALUES (1)")
    with pytest.raises(db.Error, match="FOREIGN KEY"):
        connection.commit()
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM c").fetchone() == (0,)


def test_a_batch_is_all_or_nothing(server: Served, connection: Connection) -> None:
    insert = "INSERT INTO t VALUES (?, ?)"
    with pytest.raises(db.IntegrityError):
        connection.batch([(insert, (1, "x")), (insert, (2, "y")), (insert, (1, "again"))])
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    connection.batch([(insert, (1, "x")), (insert, (2, "y"))])
    connection.begin()
    with pytest.raises(db.IntegrityError):
        connection.batch([(insert, (3, "z")), (insert, (1, "again"))])
    connection.execute(insert, (4, "kept"))
    connection.commit()
    assert connection.execute("SELECT id FROM t").fetchall() == [(1,), (2,), (4,)]


# ---- reads ------------------------------------------------------------------------------------


def test_a_batch_in_a_transaction_is_undone_and_no_savepoint_of_the_client(
    server: Served, connection: Connection
) -> None:
    insert = "INSERT INTO u VALUES (?)"
    connection.execute("CREATE TABLE u (n UNIQUE)")
    connection.execute("BEGIN")
    connection.execute("SAVEPOINT request")
    connection.execute(insert, (1,))
    with pytest.raises(db.IntegrityError):
        connection.batch([(insert, (2,)), (insert, (1,))])
    connection.execute("ROLLBACK TO request")
    connection.batch([(insert, (4,)), (insert, (5,))])
    connection.execute("RELEASE request")
    connection.execute("COMMIT")
    assert connection.execute("SELECT n FROM u").fetchall() == [(4,), (5,)]


def test_a_result_of_many_pages_is_one_snapshot(server: Served, connection: Connection) -> None:
    connection.executemany("INSERT INTO t (a) VALUES (?)", [("x" * 300,)] * 5000)
    cursor = connection.execute("SELECT id, a FROM t")
    first = cursor.fetchone()
    other = server.connect(isolation_level=None)
    other.execute("DELETE FROM t")
    assert [first, *cursor] == [(number, "x" * 300) for number in range(1, 5001)]
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    other.close()


def test_a_cursor_lives_on_while_its_connection_does_other_things(
    server: Served, connection: Connection
) -> None:
    connection.executemany("INSERT INTO t (a) VALUES (?)", [("x" * 300,)] * 3000)
    seen = 0
    for number, _ in connection.execute("SELECT id, a FROM t"):
        if number % 500 == 0:
            connection.execute("UPDATE t SET a = 'seen' WHERE id = ?", (number,))
        seen += 1
    assert seen == 3000
    assert connection.execute("SELECT count(*) FROM t WHERE a = 'seen'").fetchone() == (6,)


def test_a_read_only_transaction_sees_one_state_and_changes_nothing(
    server: Served, connection: Connection
) -> None:
    reader = server.connect(isolation_level=None)
    reader.begin(read_only=True)
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    connection.execute("INSERT INTO t (a) VALUES ('x')")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with pytest.raises(db.Error, match="reads only"):
        reader.execute("INSERT INTO t (a) VALUES ('y')")
    reader.commit()
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
    reader.close()


def test_a_read_waits_for_the_token_that_it_carries(server: Served, connection: Connection) -> None:
    connection.execute("INSERT INTO t (a) VALUES ('x')")
    other = server.connect(timeout_s=0.3)
    other.token = connection.token
    assert other.execute("SELECT count(*) FROM t").fetchone() == (1,)
    other.token = "a@1:1000000"
    with pytest.raises(db.Unavailable, match="not applied"):
        other.execute("SELECT 1")
    stranger = server.connect()
    stranger.token = "z@7:1"
    with pytest.raises(db.Conflict, match="not in this history"):
        stranger.execute("SELECT 1")
    other.close()
    stranger.close()


def test_a_query_that_runs_for_ever_can_be_interrupted(
    server: Served, connection: Connection
) -> None:
    threading.Timer(0.3, connection.interrupt).start()
    with pytest.raises(db.Unavailable, match="interrupt"):
        connection.execute(BOOM)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_that_holds_the_writer_for_too_long_is_interrupted(tmp_path: Path) -> None:
    with Served(tmp_path, limits={"statement_s": 0.3}) as server:
        connection = server.connect(isolation_level=None)
        connection.execute("CREATE TABLE t (a)")
        with pytest.raises(db.Unavailable):
            connection.execute(f"INSERT INTO t {BOOM}")
        connection.execute("INSERT INTO t VALUES (1)")
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
        connection.close()


def test_a_statement_is_interrupted_though_its_client_is_gone(tmp_path: Path) -> None:
    with Served(tmp_path, limits={"statement_s": 0.3}) as server:
        connection = server.connect(isolation_level=None)
        connection.execute("CREATE TABLE t (a)")
        with Raw(server.port) as gone:
            gone.receive()
            gone.send(Login(PROTOCOL_VERSION, "", "", b""))
            gone.receive()
            gone.send(Run(1, [Statement("SELECT 1", [[]])], begin=Access.WRITE))
            assert isinstance(gone.receive(), Done)  # It holds the writer.
            gone.send(Run(2, [Statement(f"INSERT INTO t {BOOM}", [[]])]))
        connection.execute("INSERT INTO t VALUES (1)")
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
        connection.close()


# ---- exactly once -----------------------------------------------------------------------------


def test_a_repeated_call_with_a_key_takes_effect_once_and_answers_the_same(
    server: Served, connection: Connection
) -> None:
    key = db.idempotency_key("order-1")
    insert = "INSERT INTO t (a) VALUES (?) RETURNING id, a"
    first = connection.execute(insert, ("x",), idempotency_key=key).fetchall()
    other = server.connect(isolation_level=None)
    assert other.execute(insert, ("x",), idempotency_key=key).fetchall() == first == [(1, "x")]
    with pytest.raises(db.Conflict, match="another request"):
        other.execute(insert, ("y",), idempotency_key=key)
    ahead = db.idempotency_key(created_at_s=time.time() + 3600)
    with pytest.raises(db.Error, match="in the future"):
        other.execute(insert, ("z",), idempotency_key=ahead)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    other.close()


def test_a_failed_call_keeps_no_answer(server: Served, connection: Connection) -> None:
    key = db.idempotency_key()
    insert = "INSERT INTO t VALUES (1, 'x')"
    connection.execute(insert)
    with pytest.raises(db.IntegrityError):
        connection.execute(insert, idempotency_key=key)
    connection.execute("DELETE FROM t")
    connection.execute(insert, idempotency_key=key)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_a_key_that_has_expired_is_never_executed_again(tmp_path: Path) -> None:
    with Served(tmp_path, limits={"requests_keep_s": 60.0}) as server:
        connection = server.connect(isolation_level=None)
        connection.execute("CREATE TABLE t (a)")
        old = db.idempotency_key(created_at_s=time.time() - 120)
        insert = "INSERT INTO t VALUES (1)"
        connection.execute(insert, idempotency_key=old)
        connection.execute(insert, idempotency_key=db.idempotency_key())
        for _ in range(2):
            with pytest.raises(db.OutcomeUnknown, match="older than the answers that are kept"):
                connection.execute(insert, idempotency_key=old)
            server.kill()
            server.start()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
        with pytest.raises(db.Error, match="belong to primacy"):
            connection.execute("DELETE FROM _primacy_requests")
        connection.close()


# ---- the door ---------------------------------------------------------------------------------


def test_users_log_in_with_their_password_and_nobody_else(tmp_path: Path) -> None:
    verifier = verifier_of("s3cret", salt=os.urandom(16))
    (tmp_path / "users").write_text(f"app {verifier}\n")
    with Served(tmp_path, users_path=str(tmp_path / "users")) as server:
        connection = server.connect(user="app", password="s3cret")
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.close()
        for user, password in (("app", "wrong"), ("nobody", "s3cret")):
            with pytest.raises(db.Error, match="wrong user or password"):
                server.connect(user=user, password=password, connect_timeout_s=3)
        with pytest.raises(db.Error, match="none was named"):
            server.connect(connect_timeout_s=3)
        with Raw(server.port) as raw:
            assert isinstance(raw.receive(), Greeting)
            raw.send(Run(1, [Statement("SELECT 1", [[]])]))
            refused = raw.receive()
            assert isinstance(refused, Failure)
            assert "before the login" in refused.what
            assert raw.receive() is None


def test_another_database_is_refused(server: Served) -> None:
    with pytest.raises(db.Error, match="no database 'other'"):
        server.connect(database="other", connect_timeout_s=3)


NONSENSE = {
    "not a frame": b"GET / HTTP/1.1\r\n\r\n",
    "a frame of nothing": b"\x00\x00\x00\x00\x01\x00\x00\x00\x00",
    "a frame that is too large": b"\xff\xff\xff\x7f\x01\x00\x00\x00\x00",
    "a broken PROXY header": b"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + bytes(12),
    "a long first message": b"\x00\x20\x00\x00\x01" + bytes(LOGIN_BYTES_MAX + 10),
}


@pytest.mark.parametrize("sent", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_ends_its_own_connection_in_words(
    sent: bytes, server: Served, connection: Connection
) -> None:
    with Raw(server.port) as raw:
        assert isinstance(raw.receive(), Greeting)
        raw.send(sent)
        refused = raw.receive()
        assert isinstance(refused, Failure)
        assert refused.number == 0
        assert raw.receive() is None
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_silence_before_the_login_ends(tmp_path: Path) -> None:
    with Served(tmp_path, limits={"login_s": 0.2}) as server, Raw(server.port) as raw:
        assert isinstance(raw.receive(), Greeting)
        refused = raw.receive()
        assert isinstance(refused, Failure)
        assert "no login" in refused.what


def test_a_router_may_say_who_the_client_is(server: Served) -> None:
    header = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([10, 0, 0, 7, 10, 0, 0, 1])
    with Raw(server.port) as raw:
        raw.send(header + b"\x12\x34\x0c\xea")
        assert isinstance(raw.receive(), Greeting)
        raw.send(Login(PROTOCOL_VERSION, "", "", b""))
        assert raw.receive() == Welcome(b"")
        raw.send(Run(1, [Statement("SELECT 1", [[]])]))
        answer = raw.receive()
        assert isinstance(answer, Done)
        assert answer.rows == [(1,)]


def test_more_clients_than_the_limit_are_told_so(tmp_path: Path) -> None:
    with Served(tmp_path, limits={"connections_max": 2}) as server:
        held = [server.connect(), server.connect()]
        with pytest.raises(db.Unavailable, match="which is the limit"):
            server.connect(connect_timeout_s=0.5)
        held.pop().close()
        server.connect(connect_timeout_s=5).close()
        held.pop().close()


def test_a_row_that_is_too_large_is_refused_and_harms_nobody(
    server: Served, connection: Connection
) -> None:
    with pytest.raises(db.DataError):
        connection.execute("INSERT INTO t (a) VALUES (?)", ("x" * (9 << 20),))
    with pytest.raises(db.DataError):
        connection.execute("SELECT zeroblob(1000000000)")
    connection.execute("INSERT INTO t (a) VALUES (?)", ("x" * (1 << 20),))
    assert connection.execute("SELECT length(a) FROM t").fetchone() == (1 << 20,)


# ---- what stops writes ------------------------------------------------------------------------


def test_a_disk_that_is_about_full_stops_writes_and_not_reads(tmp_path: Path) -> None:
    with Served(tmp_path) as server, closing(server.connect(isolation_level=None)) as setup:
        setup.execute("CREATE TABLE t (a)")
    with Served(tmp_path, limits={"reserve_bytes": 1 << 62}) as server:
        connection = server.connect(isolation_level=None)
        for _ in range(5):
            with pytest.raises(db.Unavailable, match="its disk has"):
                connection.execute("INSERT INTO t VALUES (1)")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert server.events.count("sql-disk-full") == 1  # Said once, and to every client.
        connection.close()


def test_a_server_that_is_no_primary_says_so_and_who_is(tmp_path: Path) -> None:
    with Served(tmp_path, epoch=0, leader="127.0.0.1:1") as server:
        with pytest.raises(db.Unavailable, match=r"a is not the primary, 127\.0\.0\.1:1 leads"):
            server.connect(connect_timeout_s=0.3)
        reader = server.connect("?target=any", isolation_level=None)
        assert reader.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(db.Unavailable):
            reader.execute("CREATE TABLE t (a)")
        reader.close()


def test_nothing_is_answered_past_the_deadline_page(tmp_path: Path) -> None:
    path = tmp_path / "page"
    far_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 600 * 10**9
    with PageWriter(path, guard=own_name()) as page:
        page.arm(1, far_ns, now_ns=1)
        page.open(1, now_ns=1)
        with Served(tmp_path, page_path=str(path)) as server:
            connection = server.connect(isolation_level=None, timeout_s=2)
            connection.execute("CREATE TABLE t (a)")
            connection.execute("INSERT INTO t VALUES (1)")
            page.close(1)
            with pytest.raises((db.OutcomeUnknown, db.Unavailable)):
                connection.execute("INSERT INTO t VALUES (2)")
            with pytest.raises(db.Unavailable):
                connection.execute("SELECT * FROM t")
            connection.close()


def test_a_database_that_was_replaced_behind_its_log_is_not_served(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        connection = server.connect(isolation_level=None)
        connection.execute("CREATE TABLE t (a)")
        connection.close()
        assert server.stop() == 0
        for each in (tmp_path / "data" / "log").iterdir():
            each.unlink()
        with pytest.raises(AssertionError, match="Clone this node again"):
            server.start()
