"""A slow reader costs a fixed amount of memory, in both directions."""

import asyncio
import tracemalloc
from typing import cast

import pytest
from tests.integration.routing.conftest import Told, World

from primacy.model import NodeId

pytestmark = pytest.mark.integration

A, B = NodeId("a"), NodeId("b")
BIG_BYTES = 50_000_000
MEMORY_MAX_BYTES = 8_000_000
"""Two routers with a few buffers of 256 KiB each, the toy's and the test's own."""


def test_fifty_megabytes_to_a_client_that_does_not_read_stay_with_the_database(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            client = await world.connect(B)
            assert await client.line() == b"i am a\n"
            reading = cast(asyncio.Transport, client.writer.transport)
            reading.pause_reading()
            tracemalloc.start()
            client.writer.write(b"blast %d\n" % BIG_BYTES)
            toy = world.databases[A].transports[-1]
            await world.until(lambda: toy.get_write_buffer_size() > 0, "the database is held up")
            for _ in range(50):
                await asyncio.sleep(0.002)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < MEMORY_MAX_BYTES
            reading.resume_reading()
            left = BIG_BYTES
            while left:
                left -= len(await client.reader.readexactly(min(left, 60_000)))
            assert await client.ask("done") == b"echo done\n"

    told(story())


def test_a_database_that_does_not_read_holds_its_client_up(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            world.databases[A].is_reading.clear()
            client = await world.connect(B)
            assert await client.line() == b"i am a\n"
            line = b"silent" + b"x" * 50_000 + b"\n"
            sent = 0
            tracemalloc.start()
            async with asyncio.timeout(20):
                while client.writer.transport.get_write_buffer_size() < 1_000_000:
                    client.writer.write(line)
                    sent += len(line)
                    await asyncio.sleep(0)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < MEMORY_MAX_BYTES
            world.databases[A].is_reading.set()
            await world.until(lambda: world.databases[A].received_bytes == sent, "all arrives")

    told(story())
