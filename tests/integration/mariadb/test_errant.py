"""Somebody writes on a replica, past `read_only`: it is seen, counts for nothing, and is undone."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.integration.mariadb.conftest import A, B, C, Trio, run

from primacy.engines.api import Branch
from primacy.errors import Conflict
from primacy.model import Epoch

TABLE = "SELECT id, v FROM shop.t ORDER BY id"
FIRST = [Branch(epoch=Epoch(1), node=A, first_sequence=1)]


async def strayed(trio: Trio) -> None:
    """b holds rows 1 to 3, and two that nobody else has."""
    await trio.up()
    for number in range(1, 4):
        await trio[A].app(f"INSERT INTO shop.t VALUES ({number}, {number})")
    await trio.caught_up(A, B, C)
    await trio[B].sql("INSERT INTO shop.t VALUES (50, 50)")
    await trio[B].sql("UPDATE shop.t SET v = 99 WHERE id = 2")


def test_what_a_replica_wrote_by_itself_is_seen_at_once_saved_and_taken_back(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[A].engine.serve())
            await strayed(trio)
            seen = await trio[B].engine.observe()
            assert seen.is_errant
            assert seen.replication.is_diverged
            assert "written on this replica" in str(seen.replication.error)
            assert seen.applied == (await trio[A].engine.observe()).received
            for number in range(4, 9):
                await trio[A].app(f"INSERT INTO shop.t VALUES ({number}, {number})")
            await trio.caught_up(A, C)
            assert (await trio[B].engine.observe()).is_errant, "also once its applier has stopped"

            await trio[B].engine.kill()
            found = await trio[B].engine.save_diverged(FIRST)
            assert (found.count, found.own_count, found.is_errant) == (2, 0, True)
            assert found.tables == ("`shop`.`t`",)
            assert found.is_reversible
            readable = (Path(found.path).parent / "readable.sql").read_text()
            assert "as sent: INSERT INTO shop.t VALUES (50, 50)" in readable
            assert await trio[B].engine.save_diverged(FIRST) == found

            await trio[B].engine.start(as_primary=True)
            seen = await trio[B].engine.observe()
            assert seen.is_errant, "no start cuts what was committed"
            with pytest.raises(Conflict, match="written on this replica"):
                await trio[B].engine.follow(A, Epoch(1), acknowledge=False)
            await trio[B].engine.rewind(found, A, Epoch(1))
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio.caught_up(A, B, C)
            assert not (await trio[B].engine.observe()).is_errant
            assert await trio[B].sql(TABLE) == await trio[A].sql(TABLE)

            await trio[B].engine.kill()
            assert (await trio[B].engine.save_diverged(FIRST)).count == 0, "nothing is left of it"

    run(story())


def test_what_a_replica_wrote_by_itself_makes_it_no_more_advanced(trio: Trio) -> None:
    """b has written more than a; c holds what was acknowledged meanwhile, and must win."""

    async def story() -> None:
        async with trio:
            await strayed(trio)
            for number in range(60, 80):
                await trio[B].sql(f"INSERT INTO shop.t VALUES ({number}, 0)")
            for number in range(4, 9):
                await trio[A].app(f"INSERT INTO shop.t VALUES ({number}, {number})")
            await trio[A].engine.kill()
            of_b, of_c = [await trio[node].engine.seal(Epoch(2)) for node in (B, C)]
            assert of_b.is_errant
            assert not of_c.is_errant
            assert of_b.received <= of_c.received
            assert of_b.applied < of_c.received

    run(story())


def test_a_replica_that_alone_is_left_leads_with_what_was_written_on_it(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            await strayed(trio)
            await trio[A].engine.kill()
            await trio[C].engine.kill()
            await trio.lead(B, 2, acks=0)
            seen = await trio[B].engine.observe()
            assert not seen.is_errant, "it is history now"
            await trio[C].engine.start(as_primary=True)
            await trio[C].engine.follow(B, Epoch(2), acknowledge=False)
            await trio.caught_up(B, C)
            assert await trio[C].sql(TABLE) == await trio[B].sql(TABLE)
            assert await trio[C].number("SELECT v FROM shop.t WHERE id = 2") == 99

    run(story())


def test_a_replica_with_transactions_of_its_own_gives_no_clone(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[B].engine.serve())
            await strayed(trio)
            with pytest.raises(Exception, match="written on this replica"):
                await trio[C].engine.clone(B, lambda _: None)

    run(story())
