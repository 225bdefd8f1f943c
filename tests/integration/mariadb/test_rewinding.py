"""An old primary's own transactions: saved to be read and replayed, taken back, or in the way."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.integration.mariadb.conftest import A, B, C, Trio, run

from primacy.engines.api import Branch, Diverged
from primacy.errors import Conflict
from primacy.model import Epoch

TABLE = "SELECT id, v FROM shop.t ORDER BY id"


async def parted(trio: Trio, *lost: str) -> Diverged:
    """a leads without acknowledgements; b and c miss what it writes last, and go on without it.
    The very last may not be committed in the tables when it is killed: a start then cuts that."""
    await trio.up(acks=0)
    for number in range(1, 6):
        await trio[A].app(f"INSERT INTO shop.t VALUES ({number}, {number})")
    await trio.caught_up(A, B, C)
    for node in (B, C):
        await trio[node].engine.seal(Epoch(2))
    for statement in lost:
        await trio[A].sql(statement)
    await trio[A].engine.kill()
    first = await trio.lead(B, 2, C, acks=0)
    await trio[B].app("INSERT INTO shop.t VALUES (100, 100)")
    branches = [
        Branch(epoch=Epoch(1), node=A, first_sequence=1),
        Branch(epoch=Epoch(2), node=B, first_sequence=first),
    ]
    found = await trio[A].engine.save_diverged(branches)
    await trio[A].engine.start(as_primary=False)
    with pytest.raises(Conflict, match="no prefix"):
        await trio[A].engine.follow(B, Epoch(2), acknowledge=False)
    return found


LOST = (
    "INSERT INTO shop.t VALUES (7, 7)",
    "UPDATE shop.t SET v = v + 100 WHERE id <= 3",
    "DELETE FROM shop.t WHERE id = 5",
    "UPDATE primacy.heartbeat SET n = n + 1",
)


def test_few_row_changes_are_taken_back_and_the_node_follows_again(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[B].engine.serve())
            found = await parted(trio, *LOST)
            assert (found.count, found.own_count, found.obstacle) == (4, 1, "")
            assert found.is_reversible
            assert found.tables == ("`shop`.`t`",)
            saved = Path(found.path)
            assert "BINLOG '" in saved.read_text()
            readable = (saved.parent / "readable.sql").read_text()
            assert "as sent: DELETE FROM shop.t WHERE id = 5" in readable
            assert "UPDATE `shop`.`t`" in readable
            assert saved.parent.stat().st_mode & 0o077 == 0
            writing = asyncio.Event()

            async def write() -> None:
                number = 200
                while not writing.is_set():
                    number += 1
                    await trio[B].app(f"INSERT INTO shop.t VALUES ({number}, 1)")

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(write())  # The primary goes on while it is compared with.
                await trio[A].engine.rewind(found, B, Epoch(2))
                writing.set()
            seen = await trio[A].engine.observe()
            assert seen.is_cut
            assert not seen.is_torn
            await trio[A].engine.follow(B, Epoch(2), acknowledge=True)
            await trio.caught_up(B, A, C)
            rows_ = await trio[B].sql(TABLE)
            assert await trio[A].sql(TABLE) == rows_
            assert [row["id"] for row in rows_[:5]] == [1, 2, 3, 4, 5]

    run(story())


def test_a_change_of_definitions_has_no_reverse(trio: Trio) -> None:
    async def story() -> None:
        async with trio:
            found = await parted(trio, "ALTER TABLE shop.t ADD COLUMN w INT", LOST[-1])
            assert found.count == 2
            assert not found.is_reversible
            assert "DDL" in found.obstacle
            assert "ALTER TABLE shop.t" in (Path(found.path).parent / "readable.sql").read_text()
            with pytest.raises(Conflict, match="DDL"):
                await trio[A].engine.rewind(found, B, Epoch(2))
            assert not (await trio[A].engine.observe()).is_torn, "nothing was begun"

    run(story())


def test_foreign_keys_that_change_other_tables_are_in_the_way(trio: Trio) -> None:
    """Their changes are not in the log: a reverse of it would not bring them back."""

    async def story() -> None:
        async with trio:
            found = await parted(trio, "DELETE FROM shop.t WHERE id = 1", LOST[-1])
            child = (
                "SET STATEMENT sql_log_bin = 0 FOR CREATE TABLE shop.u (id BIGINT, FOREIGN KEY (id)"
                " REFERENCES shop.t (id) ON DELETE CASCADE) ENGINE=InnoDB"
            )
            await trio[A].sql(child)
            with pytest.raises(Conflict, match="foreign keys"):
                await trio[A].engine.rewind(found, B, Epoch(2))

    run(story())


def test_a_rewind_that_does_not_match_the_primary_leaves_a_node_that_must_be_cloned(
    trio: Trio,
) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[B].engine.serve())
            found = await parted(trio, *LOST)
            await trio[A].sql(
                "SET STATEMENT sql_log_bin = 0 FOR UPDATE shop.t SET v = 9 WHERE id = 4"
            )
            with pytest.raises(Conflict, match="differ"):
                await trio[A].engine.rewind(found, B, Epoch(2))
            assert (await trio[A].engine.observe()).is_torn
            with pytest.raises(Conflict, match="rewind"):
                await trio[A].engine.follow(B, Epoch(2), acknowledge=False)
            with pytest.raises(Conflict, match="rewind"):
                await trio[A].engine.seal(Epoch(3))
            await trio[A].engine.clone(B, lambda _: None)
            await trio[A].engine.start(as_primary=False)
            assert not (await trio[A].engine.observe()).is_torn
            await trio[A].engine.follow(B, Epoch(2), acknowledge=False)
            await trio.caught_up(B, A)
            assert await trio[A].sql(TABLE) == await trio[B].sql(TABLE)

    run(story())


def test_an_old_primary_that_missed_two_epochs_parts_at_the_first(trio: Trio) -> None:
    """Its log ends before the newest epoch begins, and is no part of that history all the same."""

    async def story() -> None:
        async with trio:
            await trio.up(acks=0)
            await trio.caught_up(A, B, C)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            await trio[A].app("INSERT INTO shop.t VALUES (1, 1)")
            await trio[A].engine.kill()
            second = await trio.lead(B, 2, C, acks=0)
            for number in range(10, 20):
                await trio[B].app(f"INSERT INTO shop.t VALUES ({number}, 1)")
            await trio.caught_up(B, C)
            await trio[B].engine.close_doors()
            await trio[B].engine.demote()
            third = await trio.lead(C, 3, B, acks=0)
            found = await trio[A].engine.save_diverged(
                [
                    Branch(epoch=Epoch(1), node=A, first_sequence=1),
                    Branch(epoch=Epoch(2), node=B, first_sequence=second),
                    Branch(epoch=Epoch(3), node=C, first_sequence=third),
                ]
            )
            assert (found.count, found.epoch, found.parts_at) == (1, Epoch(2), second)

    run(story())


def spoil(data: Path, *, but_the_last: int) -> None:
    """Whoever reads these files now fails."""
    for path in sorted(data.glob("binlog.0*"))[:-but_the_last]:
        path.write_bytes(b"no binary log" * 1000)


def test_files_before_what_is_known_to_be_shared_are_not_read(trio: Trio) -> None:
    """Neither of an old primary with a tail of its own, nor of a replica that only stopped."""

    async def story() -> None:
        async with trio:
            await trio.up(acks=0)
            for number in range(1, 4):
                await trio[A].app(f"INSERT INTO shop.t VALUES ({number}, {number})")
                for node in (A, B):
                    await trio.caught_up(A, node)
                    await trio[node].sql("FLUSH BINARY LOGS")
            await trio.caught_up(A, B, C)
            await trio[A].app("INSERT INTO shop.t VALUES (4, 4)")
            await trio.caught_up(A, B, C)
            for node in (B, C):
                await trio[node].engine.seal(Epoch(2))
            await trio[A].app("INSERT INTO shop.t VALUES (7, 7)")
            await trio[A].sql("FLUSH BINARY LOGS")
            await trio[A].app("INSERT INTO shop.t VALUES (8, 8)")
            await trio[A].engine.kill()
            second = await trio.lead(B, 2, C, acks=0)
            branches = [
                Branch(epoch=Epoch(1), node=A, first_sequence=1),
                Branch(epoch=Epoch(2), node=B, first_sequence=second),
            ]
            spoil(trio[A].settings.layout.data, but_the_last=2)
            found = await trio[A].engine.save_diverged(branches)
            assert (found.count, found.parts_at, found.is_certain) == (2, second, True)
            assert "VALUES (7, 7)" in (Path(found.path).parent / "readable.sql").read_text()

            await trio[B].app("INSERT INTO shop.t VALUES (5, 5)")
            await trio[B].engine.observe()
            await trio[B].engine.kill()
            spoil(trio[B].settings.layout.data, but_the_last=1)
            assert await trio[B].engine.save_diverged(branches) == Diverged()

    run(story())


def test_a_replica_gives_a_clone_that_stands_where_it_stood(trio: Trio) -> None:
    async def story() -> None:
        async with trio, AsyncExitStack() as doors:
            await doors.enter_async_context(trio[C].engine.serve())
            await trio.up()
            await trio[A].app("INSERT INTO shop.t VALUES (1, 1)")
            await trio.caught_up(A, B, C)
            before = (await trio[B].engine.observe()).incarnation
            await trio[B].engine.clone(C, lambda _: None)
            await trio[B].engine.start(as_primary=False)
            await trio[A].app("INSERT INTO shop.t VALUES (2, 2)")
            await trio[B].engine.follow(A, Epoch(1), acknowledge=True)
            await trio.caught_up(A, B)
            assert (await trio[B].engine.observe()).incarnation != before
            assert await trio[B].sql(TABLE) == await trio[A].sql(TABLE)

    run(story())
