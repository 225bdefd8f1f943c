"""A primary's commits wait for its replicas: real logs, disks, sockets, and a writer's thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.replication.nodes import Node, logs_are_equal, until

from primacy.engines.sqlite.server.leading import Leading
from primacy.errors import Conflict
from primacy.model import Epoch, Member
from primacy.replication.log.record import Entry, Kind, Point, epoch_entry
from primacy.replication.pull.acks import AckOn, Requirement
from primacy.replication.pull.messages import Hop, Report
from primacy.replication.pull.source import Reign

pytestmark = pytest.mark.integration

EPOCH = Epoch(1)


class Primary:
    """A node that leads. Its log is appended to by threads only, as the server's is."""

    def __init__(self, node: Node, requirement: Requirement) -> None:
        self.node = node
        self.leading = Leading(EPOCH, durable=node.log.durable.index, door=node.door)
        self.leading.require(requirement, may_release=False)
        self.acks = self.leading.acks
        node.on_report = self.leading.report
        node.door.serve(Reign(EPOCH, (Hop(node.name),)))

    async def append(self, *entries: Entry) -> Point:
        def work() -> Point:
            log = self.node.log
            after = log.end.index
            data = log.append(entries, epoch=EPOCH, source=self.node.name)
            self.leading.appended(data, after, log.end)
            durable = log.sync()
            self.leading.persisted(durable)
            return durable

        return await asyncio.to_thread(work)

    async def write(self, payload: bytes) -> Point:
        return await self.append(Entry(Kind.ROWS, payload, 1, 2))

    async def begin(self) -> Point:
        return await self.append(epoch_entry(self.node.name, schema_hash=0, commit_time_us=0))

    async def acknowledged(self, point: Point) -> None:
        await asyncio.to_thread(self.leading.acknowledged, point)


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
            primary = Primary(a, Requirement(acks=2))
            row = await primary.begin()
            await b.follow(a, EPOCH)
            waiting = asyncio.ensure_future(primary.acknowledged(row))
            await until(lambda: primary.acks.held(Requirement(acks=1)) == row.index)
            assert primary.acks.held(Requirement(acks=2)) == 0
            await c.follow(a, EPOCH)
            await until(lambda: primary.acks.held(Requirement(acks=2)) == row.index)
            assert not waiting.done()  # The record of this epoch does not stand yet.
            primary.leading.open()
            await waiting
            for number in range(50):
                end = await primary.write(b"%d" % number)
                await primary.acknowledged(end)
                assert min(each.log.durable for each in (a, b, c)) >= end
            assert logs_are_equal(a, b, c)

    asyncio.run(story())


def test_applied_counts_where_the_policy_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, _):
            primary = Primary(a, Requirement(acks=1, ack_on=AckOn.APPLIED))
            await b.follow(a, EPOCH)
            row = await primary.begin()
            primary.leading.open()
            await until(lambda: primary.acks.held(Requirement(acks=1)) == row.index)
            waiting = asyncio.ensure_future(primary.acknowledged(row))
            await until(lambda: primary.acks.waits_at == row.index)
            assert primary.acks.acknowledged == 0
            b.receiver.applied(row)
            await waiting

    asyncio.run(story())


def test_an_excluded_or_silent_node_counts_no_longer_and_is_back_once_it_is_let_in(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, c):
            primary = Primary(a, Requirement(acks=2))
            await b.follow(a, EPOCH)
            await c.follow(a, EPOCH)
            row = await primary.begin()
            await until(lambda: primary.acks.held(Requirement(acks=2)) == row.index)
            primary.leading.exclude(b.name)
            assert primary.acks.held(Requirement(acks=2)) == 0
            primary.leading.open()
            end = await primary.write(b"held by c, and by b no longer")
            waiting = asyncio.ensure_future(primary.acknowledged(end))
            await until(lambda: primary.acks.held(Requirement(acks=1)) == end.index)
            assert not waiting.done()
            primary.leading.admit(b.name)
            await waiting
            c.receiver.acknowledge(wanted=False)
            await until(lambda: primary.acks.held(Requirement(acks=2)) == 0)
            assert primary.acks.held(Requirement(acks=1)) == end.index
            end = await primary.write(b"c has it and does not say so")
            waiting = asyncio.ensure_future(primary.acknowledged(end))
            await until(lambda: c.log.durable == end)
            await until(lambda: primary.acks.waits_at == end.index)
            with pytest.raises(Conflict, match="1 commits wait for 2"):
                primary.leading.require(Requirement(acks=1), may_release=False)
            primary.leading.require(Requirement(acks=1), may_release=True)
            await waiting

    asyncio.run(story())


def test_where_nothing_is_asked_for_no_commit_waits_for_the_loop(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, _, __):
            primary = Primary(a, Requirement(acks=0))
            row = await primary.begin()
            primary.leading.open()
            primary.leading.acknowledged(row)  # In the loop's own thread: it would wait for ever.
            await until(lambda: primary.acks.acknowledged == row.index)

    asyncio.run(story())


def test_a_reign_that_ends_says_so_and_releases_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with three(tmp_path) as (a, b, _):
            primary = Primary(a, Requirement(acks=1))
            await primary.begin()
            primary.leading.open()
            end = await primary.write(b"nobody has it")
            waiting = asyncio.ensure_future(primary.acknowledged(end))
            await until(lambda: primary.acks.waits_at == end.index)
            a.door.withdraw()
            primary.leading.close("the test ends it")
            with pytest.raises(Conflict, match="the test ends it"):
                await waiting
            with pytest.raises(Conflict, match="closed"):
                await primary.acknowledged(end)
            assert a.door.receivers == []
            report = Report(received=end, applied=end, size_bytes=0, acknowledges=True)
            primary.leading.report(Member(b.name, b.incarnation), EPOCH, report)
            assert primary.acks.released() == []

    asyncio.run(story())
