"""Real routers on real sockets, over the store in memory and databases that are toys."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import uvloop

from primacy.clock import SystemClock
from primacy.coordination.api import (
    Delete,
    Lease,
    LeaseId,
    Put,
    RangeResult,
    StoreStatus,
    Txn,
    TxnResult,
    WatchBatch,
)
from primacy.coordination.memory import MemoryStore
from primacy.errors import Unavailable
from primacy.model import Address, Epoch, Incarnation, Member, NodeId, Position, Revision
from primacy.replication.records import (
    DURABILITY_KEY,
    NODES_PREFIX,
    PRIMARY_KEY,
    DurabilityRecord,
    NodeStatus,
    PrimaryRecord,
    encoded,
    node_key,
)
from primacy.routing.doors import Door, DoorLimits
from primacy.routing.mysql import error_packet
from primacy.routing.proxyprotocol import SIGNATURE, Header, decode
from primacy.routing.route import RoutePolicy
from primacy.routing.router import Router, RouterSettings
from primacy.telemetry import Event

WITHIN_S = 15.0
"""Deadline of every wait in these tests; none is expected to come near it."""

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
ANY = Address("127.0.0.1", 0)


class SeveredStore:
    """A store behind a line that can be cut: then calls fail and watches fall silent."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.is_cut = False
        self.read_count = 0

    async def range(
        self, key: str, *, is_prefix: bool = False, is_serializable: bool = False
    ) -> RangeResult:
        self._pass()
        self.read_count += 1
        return await self._store.range(key, is_prefix=is_prefix, is_serializable=is_serializable)

    def _pass(self) -> None:
        if self.is_cut:
            raise Unavailable("the line to the store is cut", hint="Mend it.")

    async def txn(self, txn: Txn) -> TxnResult:
        self._pass()
        return await self._store.txn(txn)

    async def grant(self, ttl_s: float) -> Lease:
        self._pass()
        return await self._store.grant(ttl_s)

    async def renew(self, lease: LeaseId) -> Lease:
        self._pass()
        return await self._store.renew(lease)

    async def revoke(self, lease: LeaseId) -> None:
        self._pass()
        await self._store.revoke(lease)

    def watch(
        self, key: str, *, is_prefix: bool = False, from_revision: Revision
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchBatch]]:
        return self._watch(key, is_prefix=is_prefix, from_revision=from_revision)

    @asynccontextmanager
    async def _watch(
        self, key: str, *, is_prefix: bool, from_revision: Revision
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        self._pass()
        following = self._store.watch(key, is_prefix=is_prefix, from_revision=from_revision)
        async with following as batches:
            yield self._while_whole(batches)

    async def _while_whole(self, batches: AsyncIterator[WatchBatch]) -> AsyncIterator[WatchBatch]:
        async for batch in batches:
            while self.is_cut:
                await asyncio.sleep(0.005)
            yield batch

    async def status(self) -> StoreStatus:
        return await self._store.status()


class Page:
    """What the deadline page would say."""

    def __init__(self) -> None:
        self.open_epoch: int | None = None

    def permits(self, epoch: int) -> bool:
        return epoch == self.open_epoch


@dataclass
class ToyDatabase:
    """Greets with its name, then echoes lines; `blast N` answers with N bytes."""

    name: str
    takes_header: bool = True
    address: Address = ANY
    headers: list[Header] = field(default_factory=list)
    received_bytes: int = 0
    accepted: int = 0
    transports: list[asyncio.WriteTransport] = field(default_factory=list)
    is_greeting: asyncio.Event = field(default_factory=asyncio.Event)
    is_reading: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.transports.append(writer.transport)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.is_greeting.wait()
        if self.takes_header:
            self.headers.append(await read_header(reader))
        writer.write(f"i am {self.name}\n".encode())
        await self.is_reading.wait()
        while line := await reader.readline():
            self.received_bytes += len(line)
            if line.startswith(b"blast "):
                left = int(line.split()[1])
                while left > 0:
                    chunk = b"x" * min(left, 65536)
                    writer.write(chunk)
                    await writer.drain()
                    left -= len(chunk)
            elif line.strip() == b"quit":
                break
            elif not line.startswith(b"silent"):
                writer.write(b"echo " + line)
                await writer.drain()
        if writer.is_closing():
            return
        writer.write(b"bye\n")
        await writer.drain()


async def read_header(reader: asyncio.StreamReader) -> Header:
    head = await reader.readexactly(16)
    assert head.startswith(SIGNATURE)
    body = await reader.readexactly(int.from_bytes(head[14:16], "big"))
    header = decode(head + body)
    assert header is not None
    return header


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def port(self) -> int:
        return int(self.writer.get_extra_info("sockname")[1])

    async def line(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.readline()

    async def ask(self, text: str) -> bytes:
        self.writer.write(text.encode() + b"\n")
        return await self.line()

    async def rest(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.read()


class World:
    """Three hosts on one: a router and a toy database each, and one store."""

    def __init__(self) -> None:
        self.store = MemoryStore(SystemClock())
        self.lines = {node: SeveredStore(self.store) for node in (A, B, C)}
        self.pages = {node: Page() for node in (A, B, C)}
        self.databases = {node: ToyDatabase(node) for node in (A, B, C)}
        self.routers: dict[NodeId, Router] = {}
        self.events: list[Event] = []
        self._peer_doors: dict[NodeId, Address] = {}
        self._stack = contextlib.AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []
        self._clients: list[Client] = []

    async def __aenter__(self) -> "World":
        for database in self.databases.values():
            database.is_greeting.set()
            database.is_reading.set()
            server = await asyncio.start_server(database.serve, "127.0.0.1", 0)
            self._stack.callback(server.close)
            database.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._running:
            task.cancel()
        for client in self._clients:
            client.writer.transport.abort()
        for database in self.databases.values():
            for transport in database.transports:
                transport.abort()
        await self._stack.aclose()
        await asyncio.sleep(0.01)  # Let the loop close the sockets that were aborted.

    async def start(self, *nodes: NodeId, **changes: object) -> None:
        """Start these routers. Those that start later are found through the shared map."""
        for node in nodes:
            settings = RouterSettings(
                node=node,
                databases={each: db.address for each, db in self.databases.items()},
                peer_doors=self._peer_doors,
                rw=ANY,
                ro=ANY,
                peer=ANY,
                policy=RoutePolicy(ttl_s=1.0),
                words=error_packet,
                hold_s=5.0,
                limits=DoorLimits(),
            )
            router = Router(
                replace(settings, **changes),  # type: ignore[arg-type]  # Named by each test.
                store=self.lines[node],
                clock=SystemClock(),
                permits=self.pages[node],
                events=self.events.append,
            )
            self._peer_doors.setdefault(node, ANY)
            assert self._tasks is not None
            self._running.append(self._tasks.create_task(router.run()))
            await asyncio.wait_for(router.listening.wait(), WITHIN_S)
            self._peer_doors[node] = router.addresses[Door.PEER]
            self.routers[node] = router

    async def lead(self, node: NodeId, epoch: int) -> None:
        """The primary record, the durability record and the page, as after an opening."""
        record = PrimaryRecord(node=node, incarnation=Incarnation("1"), epoch=Epoch(epoch))
        await self.put(PRIMARY_KEY, encoded(record))
        await self.open(node, epoch)

    async def open(self, node: NodeId, epoch: int) -> None:
        durability = DurabilityRecord(
            epoch=Epoch(epoch), primary=Member(node, Incarnation("1")), acks=0, members=()
        )
        await self.put(DURABILITY_KEY, encoded(durability))
        self.pages[node].open_epoch = epoch

    async def put(self, key: str, value: bytes) -> None:
        await self.store.txn(Txn(then=(Put(key, value),)))

    async def delete(self, key: str) -> None:
        await self.store.txn(Txn(then=(Delete(key),)))

    async def report(self, node: NodeId, *, sequence: int = 1, is_healthy: bool = True) -> None:
        status = NodeStatus(
            node=node,
            state="running",
            is_receiving=is_healthy,
            is_applying=is_healthy,
            applied=Position(Epoch(1), sequence),
        )
        await self.put(node_key(NODES_PREFIX, node), encoded(status))

    async def connect(self, node: NodeId, door: Door = Door.RW) -> Client:
        address = self.routers[node].addresses[door]
        client = Client(*await asyncio.open_connection(address.host, address.port))
        self._clients.append(client)
        return client

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    async def until(self, claim: Callable[[], bool], what: str) -> None:
        """Look until it holds. Fails with the name of what did not happen."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                while not claim():
                    await asyncio.sleep(0.002)
        assert claim(), what


Told = Callable[[Coroutine[object, object, None]], None]
"""Runs one story to its end."""


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def told(request: pytest.FixtureRequest) -> Told:
    """Runs one story on each kind of event loop."""

    def run(story: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(within(story))

    async def within(story: Coroutine[object, object, None]) -> None:
        async with asyncio.timeout(90):
            await story

    return run
