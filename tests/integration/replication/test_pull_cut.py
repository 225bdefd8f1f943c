"""A log that is cut under its door: sessions end, and nothing of the tail that went is sent."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.replication.nodes import Node, Wire, everything, logs_are_equal, until

from primacy.replication.log.record import Entry, Kind, decode
from primacy.replication.pull.receiving import ReceiverState

pytestmark = pytest.mark.integration


def test_a_cut_under_a_door_ends_its_sessions_and_nothing_old_is_sent_afterwards(
    tmp_path: Path,
) -> None:
    """By what was kept of the newest records in memory, by a read of the files, and by lag."""

    async def story() -> None:
        async with (
            Node("a", tmp_path).running() as a,
            Node("b", tmp_path).running() as b,
            Node("c", tmp_path).running() as c,
            Wire(a.address).up() as wire,
        ):
            a.lead(1)
            kept = a.write(1, b"kept")
            await b.follow(a, 1)
            await c.follow(a, 1, address=wire.address)
            await until(lambda: a.last_ack(b) == a.last_ack(c) == kept.index)
            wire.flows.clear()  # c gets nothing for now.
            gone = a.write(1, *(b"gone %d" % number for number in range(100)))
            await until(lambda: a.last_ack(b) == gone.index)
            await asyncio.to_thread(a.log.cut, kept.index)
            for number in range(20):
                a.write(1, b"new %d" % number)
            wire.flows.set()
            await until(lambda: c.log.durable.index >= kept.index and not_old(c))
            await until(lambda: b.state is ReceiverState.DIVERGED)
            parted = b.receiver.status.parted
            assert parted is not None
            assert parted.common == kept
            await b.receiver.stop()
            b.log.cut(kept.index)
            await b.follow(a, 1)
            await until(lambda: b.log.durable == a.log.end)
            assert logs_are_equal(a, b)
            assert a.log.holds["receiver b"] <= a.log.end.index

    def not_old(node: Node) -> bool:
        """It had a part of the old tail on its way, or has the new one."""
        return node.state in (ReceiverState.DIVERGED, ReceiverState.STREAMING)

    asyncio.run(story())


def test_who_comes_after_a_cut_gets_the_new_records_and_not_those_kept_in_memory(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            kept = a.write(1, b"kept")
            a.write(1, b"old 1")
            a.write(1, b"old 2")
            await asyncio.to_thread(a.log.cut, kept.index)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == kept.index)
            end = a.write(1, b"new 1")
            await until(lambda: a.last_ack(b) == end.index)
            payloads = [payload for _, payload in decode(everything(b.log, kept.index))]
            assert payloads == [b"new 1"]
            assert b.receiver.status.lag.transactions == 0

    asyncio.run(story())


def test_what_was_offered_before_a_cut_and_comes_after_it_is_nobodys(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == 1)
            entry = Entry(Kind.ROWS, b"on its way to the door", 1, 2)
            data = a.log.append([entry], epoch=a.log.end.epoch, source=a.name)
            end = a.log.end
            a.log.cut(1)
            a.door.offer(data, after=1, end=end)
            end = a.write(1, b"new")
            await until(lambda: a.last_ack(b) == end.index)
            assert logs_are_equal(a, b)

    asyncio.run(story())
