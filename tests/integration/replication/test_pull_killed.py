"""Processes that are killed in the middle of a batch, with real logs between them."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.integration.replication.nodes import DEADLINE_S, Node, logs_are_equal, until
from tests.ports import LOOPBACK

from primacy.model import Address
from primacy.replication.pull.receiving import ReceiverState

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("killed.py")
KILLS = 8


@asynccontextmanager
async def process(*words: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Started, and said `ready`; killed at the end, whatever happens."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        *map(str, words),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            assert await child.stdout.readline() == b"ready\n"
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGKILL)
        await child.wait()


def test_a_receiver_that_is_killed_in_mid_batch_keeps_all_that_it_acknowledged(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        chance = random.Random(2)
        async with Node("a", tmp_path).running() as a:
            a.lead(1)
            for _ in range(KILLS):
                async with process("receiver", tmp_path, a.address.port, 1):
                    goal = a.last_ack("b") + chance.randrange(1, 400)
                    while a.last_ack("b") < goal:
                        a.write(1, *(chance.randbytes(chance.randrange(3000)) for _ in range(20)))
                        await asyncio.sleep(0)
                        await until(lambda: a.log.end.index < a.last_ack("b") + 2000)
                acknowledged = a.last_ack("b")
                b = Node("b", tmp_path)
                assert b.log.end.index >= acknowledged
                assert a.log.point(b.log.end.index) == b.log.end
                b.log.close()
            async with Node("b", tmp_path).running() as b:
                await b.follow(a, 1)
                await until(lambda: b.log.durable == a.log.end)
                assert logs_are_equal(a, b)

    asyncio.run(story())


def test_a_source_that_is_killed_in_mid_batch_leaves_prefixes_only(tmp_path: Path) -> None:
    """It comes back each time with a new epoch, as rule 5(a) lets it; nobody else has written."""

    async def story() -> None:
        chance = random.Random(4)
        async with Node("b", tmp_path).running() as b:
            for epoch in range(1, KILLS + 1):
                before = b.log.end.index
                async with process("source", tmp_path, 0, epoch) as child:
                    port = int(await line_of(child))
                    await b.follow_at("a", Address(LOOPBACK, port), epoch)
                    goal = before + chance.randrange(1, 2000)
                    await until(partial(goes_to, b, goal))
                await until(lambda: b.state is ReceiverState.CONNECTING)
                await b.receiver.stop()
                a = Node("a", tmp_path)  # Its page cache has survived: nothing was lost.
                assert a.log.end.index >= b.log.end.index
                assert a.log.point(b.log.end.index) == b.log.end
                a.log.close()

    asyncio.run(story())


def goes_to(node: Node, index: int) -> bool:
    return node.log.durable.index >= index


async def line_of(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        return (await child.stdout.readline()).decode()
