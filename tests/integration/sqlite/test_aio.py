"""The same driver, awaited."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.integration.sqlite.serving import Served

import primacy
import primacy.driver as db
from primacy.driver.aio import AsyncConnection

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as served:
        yield served


async def fresh(server: Served, **options: str | float) -> AsyncConnection:
    connection = await primacy.connect_async(server.url, isolation_level=None, **options)
    await connection.execute("DROP TABLE IF EXISTS t")
    await connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    return connection


def test_statements_cursors_transactions_and_batches(server: Served) -> None:
    async def work() -> None:
        connection = await fresh(server)
        await connection.executemany("INSERT INTO t (a) VALUES (?)", [(n,) for n in range(3000)])
        cursor = await connection.execute("SELECT a FROM t ORDER BY id")
        assert await cursor.fetchone() == (0,)
        assert await cursor.fetchmany(2) == [(1,), (2,)]
        assert [row[0] async for row in cursor] == list(range(3, 3000))
        await connection.begin()
        cursor = await connection.execute("DELETE FROM t")
        assert (cursor.rowcount, connection.in_transaction) == (3000, True)
        await connection.rollback()
        async with connection:
            await connection.batch([("DELETE FROM t WHERE id > ?", (1,)), ("SELECT 1", ())])
        cursor = await connection.execute("SELECT count(*) FROM t")
        assert await cursor.fetchall() == [(1,)]
        connection.row_factory = db.dict_row
        cursor = await connection.execute("SELECT id, a FROM t")
        assert await cursor.fetchall() == [{"id": 1, "a": 0}]
        with pytest.raises(db.StatementRefused, match="no such table"):
            await connection.execute("SELECT * FROM nowhere")
        await cursor.close()
        await connection.close()

    asyncio.run(work())


def test_many_clients_share_the_writer(server: Served) -> None:
    async def work() -> None:
        connection = await fresh(server)

        async def write(number: int) -> None:
            mine = await primacy.connect_async(server.url, isolation_level=None)
            for each in range(20):
                await mine.execute("INSERT INTO t (a) VALUES (?)", (number * 100 + each,))
            await mine.close()

        async with asyncio.TaskGroup() as tasks:
            for number in range(30):
                tasks.create_task(write(number))
        connection.token = ""
        cursor = await connection.execute("SELECT count(*), count(DISTINCT a) FROM t")
        assert await cursor.fetchone() == (600, 600)
        await connection.close()

    asyncio.run(work())


def test_a_cancelled_call_costs_its_connection_and_the_next_call_finds_another(
    server: Served,
) -> None:
    async def work() -> None:
        connection = await fresh(server)
        endless = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.execute(endless)
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)
        await connection.close()

    asyncio.run(work())


def test_two_tasks_on_one_connection_are_told_apart(server: Served) -> None:
    async def work() -> None:
        connection = await fresh(server)
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                await connection.execute("SELECT 1")
            except db.InterfaceError as error:
                outcomes.append(error.what)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
            tasks.create_task(ask())
        assert outcomes == ["another task waits on this connection"]
        await connection.close()

    asyncio.run(work())
