"""What a server is not made for: a clear error each, nothing lost, and nobody else harmed.

A client that vanishes in mid-transaction, and one that speaks nonsense: `test_server.py`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from tests.integration.sqlite.serving import Served
from tests.integration.sqlite.test_roles import SECRET, count, member, trio, until
from tests.ports import LOOPBACK

import primacy
import primacy.driver as db
from primacy.cli.demo_disks import SmallDisk, why_no_disk
from primacy.clock import SystemClock
from primacy.driver import Connection
from primacy.errors import Rejected
from primacy.model import Address, Epoch, NodeId
from primacy.replication.log import inspecting
from primacy.replication.log.record import VERSION
from primacy.replication.pull.messages import Refusal
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import ReceiverState

pytestmark = pytest.mark.integration

WHY_NO_DISK = why_no_disk(bears_room=False)

MALFORMED = [
    "SELEC 1",
    "SELECT",
    "INSERT INTO t VALUES (1, 2",
    "INSERT INTO t VALUES (1), 2)",
    "SELECT 'unterminated",
    "SELECT \x00 1",
    "INSERT INTO nowhere VALUES (1)",
    "SELECT nobody(1)",
    "SELECT * FROM t WHERE a = ?1 AND a = :b",
    "INSERT INTO t VALUES (1); DROP TABLE t",
    "123",
    "(SELECT 1)",
    "🦆",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT " + "1," * 5_000 + "1",
    "SELECT '" + "x" * (2 << 20) + "'",
    "ATTACH 'other.db' AS other",
    "PRAGMA journal_mode = delete",
    "PRAGMA writable_schema = on",
    "DELETE FROM _primacy_position",
    "VACUUM",
    "WITH RECURSIVE n(i) AS (SELECT i FROM n) SELECT * FROM n",
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as served:
        yield served


def with_table(server: Served) -> Connection:
    connection = server.connect(isolation_level=None, timeout_s=20)
    connection.execute("CREATE TABLE t (a)")
    return connection


def rows(connection: Connection) -> list[object]:
    return [a for (a,) in connection.execute("SELECT a FROM t ORDER BY 1")]


# ---- SQL ---------------------------------------------------------------------------------------


def test_malformed_sql_is_refused_and_its_transaction_and_others_go_on(server: Served) -> None:
    with closing(with_table(server)) as mine, closing(server.connect(timeout_s=20)) as other:
        for sql in MALFORMED:
            with pytest.raises(db.Error):
                other.execute(sql).fetchall()
            other.rollback()
        end = inspecting.verify(Path(server.spec["directory"]) / "log").end
        mine.begin()
        mine.execute("INSERT INTO t VALUES ('kept')")
        for sql in MALFORMED:
            with pytest.raises((db.Error, db.Warning)) as refused:
                mine.execute(sql).fetchall()
            assert isinstance(refused.value, primacy.errors.Rejected), (sql, refused.value)
            assert len(str(refused.value)) < 2_000
        assert inspecting.verify(Path(server.spec["directory"]) / "log").end == end
        mine.commit()
        assert rows(mine) == rows(other) == ["kept"]


def test_what_is_too_large_for_a_record_is_refused_whole_and_others_go_on(server: Served) -> None:
    large = 7 << 20
    with (
        closing(with_table(server)) as mine,
        closing(server.connect(isolation_level=None)) as other,
    ):
        with pytest.raises(db.StatementRefused, match="exceeds the limit of"):
            mine.executemany("INSERT INTO t VALUES (zeroblob(?))", [(large,)] * 3)
        mine.begin()
        for _ in range(3):
            mine.execute("INSERT INTO t VALUES (zeroblob(?))", (large,))
        with pytest.raises(db.StatementRefused, match="exceeds the limit of"):
            mine.commit()
        with pytest.raises(db.DataError, match=r"too large|too big"):
            mine.execute("SELECT zeroblob(?), zeroblob(?), zeroblob(?)", (large,) * 3)
        other.execute("INSERT INTO t VALUES ('other')")
        assert rows(mine) == ["other"]


# ---- replicas that are not ours ----------------------------------------------------------------


def test_a_replica_of_another_cluster_or_without_the_secret_gets_nothing_and_harms_nobody(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="b")
            writer = await primacy.connect_async(nodes.url_of("a"), isolation_level=None)
            await writer.execute("CREATE TABLE t (a)")
            pull = nodes.servers["a"].spec.pull
            assert pull is not None
            ours = Following(
                cluster="shop",
                secret=SECRET,
                node=NodeId("c"),
                incarnation=member("c").incarnation,
                epoch=Epoch(1),
                upstream=NodeId("a"),
                log_version=VERSION,
            )
            strangers = {
                Refusal.CLUSTER: replace(ours, cluster="warehouse"),
                Refusal.SECRET: replace(ours, secret=b"x" * 32),
            }
            roles = nodes.servers["c"].roles
            for refusal, following in strangers.items():
                await roles.follow(following, Address(LOOPBACK, pull.port), acknowledge=True)
                replica = roles.replica
                assert replica is not None
                await until(lambda: replica.receiver.status.refusal is refusal)  # noqa: B023 - at once.
                assert replica.receiver.status.state is ReceiverState.REJECTED
                assert replica.receiver.status.reason
                await writer.execute("INSERT INTO t VALUES ('b acknowledges')")
                assert roles.log.end.index == 0
            door = nodes.servers["a"].roles.pull_door
            assert door is not None
            assert [each.node for each in door.receivers] == ["b"]
            await roles.follow(ours, Address(LOOPBACK, pull.port), acknowledge=True)
            await until(lambda: roles.log.durable.index == 4)
            await writer.close()

    asyncio.run(work())


# ---- files -------------------------------------------------------------------------------------


def test_a_log_of_a_newer_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        with_table(server).close()
        assert server.stop() == 0
        (path,) = (tmp_path / "data" / "log").glob("log-*.bin")
        newer = bytearray(path.read_bytes())
        newer[8:12] = (VERSION + 1).to_bytes(4, "little")
        path.write_bytes(newer)
        server.spawn()
        assert server.wait() == 2
        assert "version" in server.events.splitlines()[-1]
        assert "Traceback" not in server.events
        assert path.read_bytes() == bytes(newer)


@pytest.mark.parametrize("part", ["log", "database", "database's head"])
def test_a_file_that_was_damaged_while_the_server_was_down_is_told_of(
    tmp_path: Path, part: str
) -> None:
    with Served(tmp_path) as server:
        with closing(with_table(server)) as connection:
            for _ in range(50):
                connection.execute("INSERT INTO t VALUES (randomblob(2000))")
        assert server.stop() == 0
        with closing(apsw.Connection(str(tmp_path / "data" / "db.sqlite"))) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (log,) = (tmp_path / "data" / "log").glob("log-*.bin")
        path = log if part == "log" else tmp_path / "data" / "db.sqlite"
        data = bytearray(path.read_bytes())
        begin = 0 if part == "database's head" else len(data) // 2
        data[begin : begin + 5_000] = b"\xaa" * 5_000
        path.write_bytes(data)
        if part == "database":
            with closing(server.start().connect(isolation_level=None)) as connection:
                with pytest.raises(db.Error, match="malformed"):
                    connection.execute("SELECT sum(length(a)) FROM t").fetchall()
                with pytest.raises(db.Error, match="malformed"):
                    connection.execute("DELETE FROM t WHERE a = 1")
            assert server.wait() == 1  # So that a replica whose file is whole can lead.
            assert "the database file is damaged" in server.events.splitlines()[-1]
            return
        server.spawn()
        assert server.wait() == 2
        said = server.events.splitlines()[-1]
        assert path.name in said
        assert "lone" in said  # Clone it.
        assert "Traceback" not in server.events
        assert path.read_bytes() == bytes(data)


def test_a_file_that_somebody_writes_to_behind_a_primary_ends_it_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    with Served(tmp_path) as server:
        with closing(with_table(server)) as connection:
            connection.execute("INSERT INTO t VALUES ('ours')")
            changed_by_a_stranger(tmp_path / "data" / "db.sqlite")
            with pytest.raises(db.Error):
                server.connect(isolation_level=None, timeout_s=1).execute("DELETE FROM t")
        assert server.wait() == 1
        assert "somebody else wrote to" in server.events.splitlines()[-1]
        records = list(inspecting.records(tmp_path / "data" / "log"))
        assert len(records) == 3  # The epoch, the table, and the row that was answered.
        server.start()


def test_a_replica_whose_file_somebody_writes_to_is_out_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (a)")
            replica = nodes.servers["b"].roles.replica
            assert replica is not None
            await until(lambda: replica.applied.index == 2)
            changed_by_a_stranger(nodes.servers["b"].spec.database_path)
            await writer.execute("INSERT INTO t VALUES ('ours')")
            await until(lambda: replica.must_clone)
            assert "somebody else wrote to" in replica.trouble
            assert not replica.receiver.status.acknowledges
            await writer.execute("INSERT INTO t VALUES ('c acknowledges')")
            await writer.close()

    asyncio.run(work())


def test_a_database_that_is_ahead_of_its_log_does_not_follow(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="b")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            await count(nodes.url_of("b"), writer.token)
            await writer.close()
            roles = nodes.servers["b"].roles
            await roles.rest()
            roles.log.cut(1)  # Behind the server's back: it has applied record 2.
            with pytest.raises(Rejected, match="the database is at 1/2, its log ends at 1/1"):
                await nodes.follow("b", "a", 1)
            assert roles.must_clone

    asyncio.run(work())


def changed_by_a_stranger(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as other:
        other.execute("INSERT INTO t VALUES ('a stranger''s')")


# ---- a disk that fills -------------------------------------------------------------------------


@pytest.mark.skipif(WHY_NO_DISK != "", reason=f"no disk can be mounted: {WHY_NO_DISK}")
@pytest.mark.parametrize("reserve_bytes", [1 << 20, 0])
def test_a_disk_that_fills_stops_writes_loses_nothing_and_with_space_it_goes_on(
    tmp_path: Path, reserve_bytes: int
) -> None:
    """Without a reserve the log itself finds no space, or the COMMIT behind it does not: then the
    server ends, and replays when it is started again."""
    (tmp_path / "data").mkdir()
    disk = SmallDisk(tmp_path / "data", SystemClock())
    try:
        server = Served(tmp_path, limits={"reserve_bytes": reserve_bytes})
        with server, closing(with_table(server)) as connection:
            connection.execute("INSERT INTO t VALUES (0)")
            asyncio.run(disk.fill())
            acknowledged, refused = [0], 0
            for number in range(1, 2_000):
                try:
                    connection.execute(
                        "INSERT INTO t VALUES (?)",
                        (number,),
                    )
                except db.Unavailable:
                    refused += 1
                    if refused == 3:
                        break
                except db.OutcomeUnknown:
                    break
                else:
                    acknowledged.append(number)
            assert refused == 3 or reserve_bytes == 0
            if refused < 3:
                assert server.wait() == 1
            disk.free()
            if refused < 3:
                server.start()
            connection.execute("INSERT INTO t VALUES (-1)")
            found = rows(connection)
            assert set(acknowledged) <= set(found)
            assert found[0] == -1
            if reserve_bytes:
                assert found == [-1, *acknowledged]
                assert "sql-disk-full" in server.events
            assert inspecting.verify(tmp_path / "data" / "log").damage is None
    finally:
        disk.close(is_kept=False)
