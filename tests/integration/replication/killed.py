"""A node in a process of its own, to be killed: `killed.py PART DIRECTORY PORT EPOCH`."""

import asyncio
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.integration.replication.nodes import Node
from tests.ports import LOOPBACK

from primacy.model import Address


async def receive(node: Node, port: int, epoch: int) -> None:
    await node.follow_at("a", Address(LOOPBACK, port), epoch)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def write_for_ever(node: Node, epoch: int) -> None:
    chance = random.Random(epoch)
    node.lead(epoch)
    sys.stdout.write(f"ready\n{node.address.port}\n")
    sys.stdout.flush()
    while True:
        node.write(epoch, *(chance.randbytes(chance.randrange(3000)) for _ in range(20)))
        await asyncio.sleep(0)


async def main(part: str, directory: Path, port: int, epoch: int) -> None:
    async with Node("b" if part == "receiver" else "a", directory).running() as node:
        await (receive(node, port, epoch) if part == "receiver" else write_for_ever(node, epoch))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
