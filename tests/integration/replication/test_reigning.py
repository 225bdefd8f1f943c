"""A primary's commits wait for its replicas: real logs, disks, sockets, and a writer's thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.replication.nodes import Node, logs_are_equal, until

from primacy.errors import OutcomeUnknown
from primacy.model import Epoch, Incarnation, Member
from primacy.replication.log.record import Entry, Kind, Point, epoch_entry
from primacy.replication.pull.acks import AckOn, Requirement
from primacy.replication.pull.messages import Report
from primacy.replication.pull.reigning import Reigning

pytestmark = pytest.mark.integration

EPOCH = Epoch(1)


def needs(acks: int, *nodes: Node, ack_on: AckOn = AckOn.RECEIVED) -> Requirement:
    members = frozenset(Member(each.name, each.incarnation) for each in nodes)
    return Requirement(acks=acks, members=members, ack_on=ack_on)


class Primary:
    """A node with a reign. Its log is appended to by threads only, as a server does."""

    def __init__(self, node: Node, requirement: Requirement) -> None:
        self.node = node
        self.reign = Reigning(node.name, EPOCH, node.log, node.door, requirement)
        node.on_report = self.reign.on_report

    async def append(self, *entries: Entry) -> Point:
        def work() -> Point:
            self.node.log.append(entries, epoch=EPOCH, source=self.node.name)
            return self.node.log.sync()

        return await asyncio.to_thread(work)

    async def write(self, payload: bytes) -> Point:
        return await self.append(Entry(Kind.ROWS, payload, 1, 2))

    async def begin(self) -> Point:
        self.reign.begin()
        return await self.append(epoch_entry(self.node.name, schema_hash=0, commit_time_us=0))


@asynccontextmanager
async def three(directory: Path) -> AsyncIterator[tuple[Node, Node, Node]]:
    async with (
        Node("a", directory).running() as a,
        Node("b", directory).running() as b,
        Node("c", directory).running() as c,
    ):
        yield a, b, c


def test_an_opening_and_commits_wait_for_the_policy(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, c):
            primary = Primary(a, needs(2, b, c))
            reign, row = primary.reign, await primary.begin()
            await b.follow(a, EPOCH)
            waiting = asyncio.ensure_future(reign.acknowledged(row))
            await until(lambda: reign.acks.blocked_on(row.index) == ("c",))
            await c.follow(a, EPOCH)
            await reign.held(row.index, needs(2, b, c))
            assert not waiting.done()  # The record of this epoch does not stand yet.
            reign.open()
            await waiting
            for number in range(50):
                end = await primary.write(b"%d" % number)
                await reign.acknowledged(end)
                assert min(each.log.durable for each in (a, b, c)) >= end
            assert logs_are_equal(a, b, c)
            reign.end()

    asyncio.run(story())


def test_applied_counts_where_the_policy_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, _):
            primary = Primary(a, needs(1, b, ack_on=AckOn.APPLIED))
            await b.follow(a, EPOCH)
            row = await primary.begin()
            primary.reign.open()
            await until(lambda: b.log.durable == row)
            await primary.reign.held(row.index, needs(1, b))
            waiting = asyncio.ensure_future(primary.reign.acknowledged(row))
            assert primary.reign.acks.acknowledged == 0
            b.receiver.applied(row)
            await waiting

    asyncio.run(story())


def test_a_member_goes_out_and_another_comes_in_while_commits_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, c):
            primary = Primary(a, needs(1, b))
            reign = primary.reign
            await b.follow(a, EPOCH)
            await c.follow(a, EPOCH)
            row = await primary.begin()
            await reign.held(row.index, needs(1, b))
            reign.open()
            await b.receiver.stop()
            end = await primary.write(b"blocked on b")
            waiting = asyncio.ensure_future(reign.acknowledged(end))
            await until(lambda: a.log.durable == c.log.durable)
            assert not waiting.done()
            assert reign.acks.blocked_on(end.index) == ("b",)
            reign.acks.begin(needs(1, c))
            a.door.exclude(b.name)
            reign.acks.mark(a.log.end.index)
            await reign.held(a.log.end.index, needs(1, c))
            reign.acks.send_swap()
            assert not waiting.done()  # The store may hold the old record.
            reign.acks.settle()
            reign.step()
            await waiting

    asyncio.run(story())


def test_when_a_reign_ends_whoever_waits_knows_that_nobody_knows(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, _):
            named = needs(1, b)
            primary = Primary(a, named)
            reign = primary.reign
            await b.follow(a, EPOCH)
            await primary.begin()
            reign.open()
            await until(lambda: a.door.receivers)
            b.incarnation = Incarnation("b-2")  # Another life: it does not count.
            await b.receiver.stop()
            await b.follow(a, EPOCH)
            end = await primary.write(b"nobody who counts has it")
            waiting = asyncio.ensure_future(reign.acknowledged(end))
            await until(lambda: b.log.durable == end)
            reign.end()
            with pytest.raises(OutcomeUnknown, match="ended before"):
                await waiting
            with pytest.raises(OutcomeUnknown):
                await reign.acknowledged(end)
            with pytest.raises(OutcomeUnknown):
                await reign.held(end.index, named)
            assert a.door.receivers == []
            report = Report(received=end, applied=end, size_bytes=0, acknowledges=True)
            reign.on_report(Member(b.name, Incarnation("b-1")), EPOCH, report)
            assert reign.acks.released() == []

    asyncio.run(story())
