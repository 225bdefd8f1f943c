"""Sealing while the primary says nothing: at once, and whatever it releases later was counted."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.integration.mariadb.conftest import A, B, C, Node, Trio, run

from primacy.engines.api import Observation
from primacy.model import Epoch

LONG_FAREWELL = "SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout = 3600"
"""The server looks every 2 s whether a thread that it stops has ended, and wakes it then: later
than the last cut, so that a `receiver-cut` is one."""
SEALED_WITHIN_S = 8.0
INSERT = "INSERT INTO shop.t VALUES (1, 1)"


@asynccontextmanager
async def frozen(node: Node) -> AsyncIterator[None]:
    node.signal_server(signal.SIGSTOP)
    try:
        yield
    finally:
        node.signal_server(signal.SIGCONT)


async def up(trio: Trio) -> None:
    await trio.up()
    for node in (B, C):
        await trio[node].sql(LONG_FAREWELL)


async def seal(*nodes: Node) -> list[Observation]:
    async with asyncio.timeout(SEALED_WITHIN_S):
        return [await node.engine.seal(Epoch(2)) for node in nodes]


async def until_receiver_is(node: Node, state: str) -> None:
    async with asyncio.timeout(SEALED_WITHIN_S):
        while (await node.sql("SHOW SLAVE STATUS"))[0]["Slave_IO_Running"] != state:
            await asyncio.sleep(0.01)


def test_a_seal_does_not_wait_for_a_frozen_primary(trio: Trio) -> None:
    """Neither while the receiver is connected to it, nor once it tries to connect again."""

    async def story() -> None:
        async with trio:
            await up(trio)
            async with frozen(trio[A]):
                await seal(trio[B])
                await until_receiver_is(trio[C], "Connecting")
                await seal(trio[C])
            for node in (B, C):
                assert "receiver-cut" in [event.name for event in trio[node].events]

    run(story())


def test_a_thawed_primary_cannot_release_a_commit_by_a_receiver_that_was_cut(trio: Trio) -> None:
    """Its side of the connections still stands when it wakes up, and then ends."""

    async def story() -> None:
        async with trio:
            await up(trio)
            async with frozen(trio[A]):
                sealed = await seal(trio[B], trio[C])
            writing = asyncio.create_task(trio[A].app(INSERT, within_s=30))
            seen = await trio[A].until(
                lambda seen: (
                    seen.sending.waiting_commits == 1
                    and not seen.sending.receivers
                    and seen.received.sequence > sealed[0].received.sequence
                )
            )
            assert seen.sending.acknowledging_count == 0
            assert sealed[0].received == sealed[1].received
            assert not writing.done()
            for node in (B, C):
                assert (await trio[node].engine.observe()).received == sealed[0].received
            await trio[A].engine.kill()
            await asyncio.wait([writing])
            assert writing.exception() is not None, "nobody was told that it is committed"

    run(story())


def test_what_an_acknowledgement_on_its_way_releases_is_counted_by_the_seals(trio: Trio) -> None:
    """It waits in the frozen primary's buffers, was sent by a member, and counts at the thaw."""

    async def story() -> None:
        async with trio:
            await up(trio)
            async with frozen(trio[B]), frozen(trio[C]):
                writing = asyncio.create_task(trio[A].app(INSERT, within_s=30))
                seen = await trio[A].until(lambda seen: seen.sending.waiting_commits == 1)
                trio[A].signal_server(signal.SIGSTOP)
            await trio[B].until(lambda observed: observed.received == seen.received)
            sealed = await seal(trio[B], trio[C])
            assert [each.received for each in sealed] == [seen.received, seen.received]
            trio[A].signal_server(signal.SIGCONT)
            await writing

    run(story())
