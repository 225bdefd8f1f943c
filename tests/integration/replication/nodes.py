"""Nodes of a cluster for the tests: real logs, doors and receivers, on real sockets and disks."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.ports import free_addresses

from primacy.clock import SystemClock
from primacy.model import Address, Epoch, Incarnation, Member, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import VERSION, Entry, Kind, Point, epoch_entry
from primacy.replication.pull.door import OnReport, PullDoor
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import Hop, Report, last_point
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import Receiver, ReceiverState
from primacy.replication.pull.source import Identity, Reign
from primacy.telemetry import Event

SECRET = bytes(range(32))
CLUSTER = "shop"
DEADLINE_S = 20.0
LIMITS = PullLimits(
    heartbeat_s=0.05,
    silence_s=1.0,
    backoff_min_s=0.01,
    backoff_max_s=0.1,
    refused_s=0.1,
    stranger_s=1.0,
)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.005)


class Node:
    """One data node. `acks` has every acknowledgement that its door passed on."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        limits: PullLimits = LIMITS,
        file_bytes: int = 64 << 20,
    ) -> None:
        self.name = NodeId(name)
        self.incarnation = Incarnation(f"{name}-1")
        self.directory = directory / name
        self.limits = limits
        self.address = free_addresses(1)[0]
        self.log_limits = LogLimits(file_bytes=file_bytes)
        self.events: list[Event] = []
        self.acks: list[tuple[Member, Epoch, Report]] = []
        self.on_report: OnReport | None = None
        self.identity = Identity(
            cluster=CLUSTER, node=self.name, secret=SECRET, log_version=VERSION
        )
        self.log = self.open_log()
        self.door: PullDoor
        self.receiver: Receiver

    def open_log(self) -> Log:
        return Log.open(self.directory, limits=self.log_limits, events=self.events.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Node"]:
        async with AsyncExitStack() as parts:
            parts.callback(self.log.close)
            clock = SystemClock()
            self.door = await parts.enter_async_context(
                PullDoor(
                    self.identity,
                    self.log,
                    listen=self.address,
                    clock=clock,
                    on_report=self._reported,
                    events=self.events.append,
                    limits=self.limits,
                )
            )
            self.receiver = await parts.enter_async_context(
                Receiver(
                    self.log,
                    clock=clock,
                    chance=random.Random(7),
                    on_growth=lambda data, after, end: self.door.offer(data, after=after, end=end),
                    on_durable=lambda _point: None,
                    on_reign=lambda reign: self.door.serve(reign),
                    events=self.events.append,
                    limits=self.limits,
                )
            )
            yield self

    def _reported(self, member: Member, epoch: Epoch, report: Report) -> None:
        if report.acknowledges:
            self.acks.append((member, epoch, report))
        if self.on_report is not None:
            self.on_report(member, epoch, report)

    # ---- as a primary ------------------------------------------------------------------------

    def lead(self, epoch: int) -> None:
        """Begin an epoch and serve it."""
        self.door.serve(Reign(Epoch(epoch), (Hop(self.name),)))
        start = epoch_entry(self.name, schema_hash=0, commit_time_us=0)
        self.append_entries([start], epoch)

    def write(self, epoch: int, *payloads: bytes) -> Point:
        """Append, send, and sync, as a server does with a group of commits."""
        return self.append_entries([Entry(Kind.ROWS, each, 1, 2) for each in payloads], epoch)

    def append_entries(self, entries: list[Entry], epoch: int) -> Point:
        after = self.log.end.index
        data = self.log.append(entries, epoch=Epoch(epoch), source=self.name)
        self.door.offer(data, after=after, end=self.log.end)
        return self.log.sync()

    # ---- as a replica ------------------------------------------------------------------------

    async def follow(
        self,
        upstream: "Node",
        epoch: int,
        *,
        acknowledge: bool = True,
        address: Address | None = None,
        secret: bytes = SECRET,
    ) -> None:
        where = address or upstream.address
        await self.follow_at(upstream.name, where, epoch, acknowledge=acknowledge, secret=secret)

    async def follow_at(
        self,
        upstream: str,
        address: Address,
        epoch: int,
        *,
        acknowledge: bool = True,
        secret: bytes = SECRET,
    ) -> None:
        following = Following(
            cluster=self.identity.cluster,
            secret=secret,
            node=self.name,
            incarnation=self.incarnation,
            epoch=Epoch(epoch),
            upstream=NodeId(upstream),
            log_version=self.identity.log_version,
        )
        await self.receiver.follow(following, address, acknowledge=acknowledge)

    @property
    def state(self) -> ReceiverState:
        return self.receiver.status.state

    def said(self, name: str) -> list[Event]:
        return [each for each in self.events if each.name == name]

    def last_ack(self, node: "Node | str") -> int:
        """The index that `node` has acknowledged here."""
        name = node if isinstance(node, str) else node.name
        found = (each[2].received.index for each in reversed(self.acks) if each[0].node == name)
        return next(found, 0)


def logs_are_equal(*nodes: Node) -> bool:
    """Byte for byte, from the first record to the last that all keep."""
    begin = max(each.log.first.index for each in nodes)
    contents = [everything(each.log, begin) for each in nodes]
    return all(each == contents[0] for each in contents)


def everything(log: Log, after: int) -> bytes:
    pieces: list[bytes] = []
    while piece := log.read(after, bytes_max=1 << 20):
        pieces.append(piece)
        after = last_point(piece).index
    return b"".join(pieces)


class Wire:
    """Stands between a receiver and its source: cuts after so many bytes, or lets nothing pass."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.address = free_addresses(1)[0]
        self.cut_after: int | None = None
        """Bytes from the source; then both connections are reset."""
        self.flows = asyncio.Event()
        self.flows.set()
        self.pause_s = 0.0
        """Between two pieces of 64 KiB from the source."""
        self.cuts = 0
        self.passed = 0

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Wire"]:
        server = await asyncio.start_server(self._serve, self.address.host, self.address.port)
        try:
            yield self
        finally:
            self.flows.set()
            server.close()

    async def _serve(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection(self.target.host, self.target.port)
        both = [to_near, to_far]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(near, to_far, both, is_counted=False))
                tasks.create_task(self._pump(far, to_near, both, is_counted=True))
        except* OSError:
            pass  # One end is gone; the other one is told below.
        finally:
            for writer in both:
                writer.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: list[asyncio.StreamWriter],
        *,
        is_counted: bool,
    ) -> None:
        while data := await source.read(65536):
            await self.flows.wait()
            if is_counted and self.cut_after is not None:
                data, is_over = data[: self.cut_after], len(data) >= self.cut_after
                self.cut_after = None if is_over else self.cut_after - len(data)
                if is_over:
                    self.cuts += 1
                    sink.write(data)
                    await sink.drain()
                    break
            if is_counted and self.pause_s:
                await asyncio.sleep(self.pause_s)
            self.passed += len(data) if is_counted else 0
            sink.write(data)
            await sink.drain()
        for writer in both:
            writer.transport.abort()
