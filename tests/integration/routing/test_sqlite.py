"""The driver through real routers to real SQLite servers under their guards. The store is in memory
and the test plays the agents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.integration.sqlite.trio import NODES, A, B, C, Trio, run
from tests.ports import LOOPBACK

import primacy
import primacy.driver as db
from primacy.clock import SystemClock
from primacy.coordination.api import Delete, Put, Txn
from primacy.coordination.memory import MemoryStore
from primacy.driver.aio import AsyncConnection
from primacy.engines.sqlite.protocol import Greeting, from_server
from primacy.model import Address, Epoch, Incarnation, Member, NodeId
from primacy.replication.records import (
    DURABILITY_KEY,
    NODES_PREFIX,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    DurabilityRecord,
    NodeStatus,
    PrimaryRecord,
    SwitchoverRequest,
    encoded,
    node_key,
)
from primacy.routing.doors import Door, DoorLimits
from primacy.routing.latepage import LatePage
from primacy.routing.route import RoutePolicy
from primacy.routing.router import Router, RouterSettings
from primacy.routing.sqlprotocol import failure_frame
from primacy.telemetry import Event
from primacy.wire import FrameDecoder

pytestmark = pytest.mark.integration

ANY = Address(LOOPBACK, 0)
LIFE = Incarnation("1")


@dataclass
class Front:
    """A router before each server."""

    trio: Trio
    store: MemoryStore
    tasks: asyncio.TaskGroup
    routers: dict[NodeId, Router] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    peer_doors: dict[NodeId, Address] = field(default_factory=dict)
    running: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, **changes: object) -> None:
        self.peer_doors.update(dict.fromkeys(NODES, ANY))
        for node in NODES:
            settings = RouterSettings(
                node=node,
                databases=dict(self.trio[node].settings.doors),
                peer_doors=self.peer_doors,
                rw=ANY,
                ro=ANY,
                peer=ANY,
                policy=RoutePolicy(ttl_s=2.0, lag_max_transactions=10),
                words=failure_frame,
            )
            router = Router(
                replace(settings, **changes),  # type: ignore[arg-type]  # Named by each test.
                store=self.store,
                clock=SystemClock(),
                permits=LatePage(self.trio[node].settings.page),
                events=self.events.append,
            )
            self.running.append(self.tasks.create_task(router.run()))
            await asyncio.wait_for(router.listening.wait(), 10)
            self.peer_doors[node] = router.addresses[Door.PEER]
            self.routers[node] = router

    async def connect(self, door: Door, *nodes: NodeId, options: str = "") -> AsyncConnection:
        hosts = ",".join(str(self.routers[node].addresses[door]) for node in nodes or NODES)
        return await primacy.connect_async(f"primacy://{hosts}/db?{options}", isolation_level=None)

    async def record(self, node: NodeId, epoch: int) -> None:
        """The agent's two records, after its doors have opened."""
        primary = PrimaryRecord(node=node, incarnation=LIFE, epoch=Epoch(epoch))
        durability = DurabilityRecord(
            epoch=Epoch(epoch), primary=Member(node, LIFE), acks=1, members=()
        )
        await self.put(PRIMARY_KEY, encoded(primary))
        await self.put(DURABILITY_KEY, encoded(durability))

    async def report(self, *nodes: NodeId) -> None:
        """Each node's status as it is."""
        for node in nodes:
            seen = await self.trio[node].engine.observe()
            status = NodeStatus(
                node=node,
                state="running",
                is_receiving=seen.replication.is_receiving,
                is_applying=seen.replication.is_applying,
                applied=seen.applied,
            )
            await self.put(node_key(NODES_PREFIX, node), encoded(status))

    async def put(self, key: str, value: bytes) -> None:
        await self.store.txn(Txn(then=(Put(key, value),)))

    async def delete(self, key: str) -> None:
        await self.store.txn(Txn(then=(Delete(key),)))

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


@asynccontextmanager
async def front(folder: Path, *, is_up: bool = True, **changes: object) -> AsyncIterator[Front]:
    """`is_up`: a leads epoch 1, with a table and its records."""
    async with Trio(folder) as trio, asyncio.TaskGroup() as tasks:
        made = Front(trio, MemoryStore(SystemClock()), tasks)
        try:
            if is_up:
                await trio.up()
                await made.record(A, 1)
                await made.report(B, C)
            await made.start(**changes)
            yield made
        finally:
            for task in made.running:
                task.cancel()


async def count(connection: AsyncConnection) -> int:
    row = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
    assert row is not None
    return int(row[0])


def test_writes_reach_the_primary_and_reads_a_replica_that_has_them(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path) as given:
            for node in NODES:
                writer = await given.connect(Door.RW, node)
                assert writer.server == A
                await writer.execute("INSERT INTO t DEFAULT VALUES")
                reader = await given.connect(Door.RO, node, options="target=replica")
                assert reader.server in (B, C)
                assert node is A or reader.server == node
                reader.token = writer.token
                assert await count(reader) == NODES.index(node) + 1
                with pytest.raises(db.Error, match="not the primary"):
                    await reader.execute("INSERT INTO t DEFAULT VALUES")
                await writer.close()
                await reader.close()

    run(story())


def test_while_there_is_no_primary_a_client_is_held_and_then_told_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path, is_up=False, hold_s=0.3) as given:
            with pytest.raises(
                db.Unavailable, match=r"no database for 0\.3 s: there is no primary"
            ):
                await given.connect(Door.RW, A, options="connect_timeout_s=1.5")
            assert given.named("router-refused")

    run(story())


def test_past_its_limit_a_router_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path, limits=DoorLimits(connections_max=1)) as given:
            kept = await given.connect(Door.RW, A)
            with pytest.raises(db.Unavailable, match="1 connections are open at this router"):
                await given.connect(Door.RW, A, options="connect_timeout_s=1")
            assert await count(kept) == 0
            await kept.close()

    run(story())


def test_the_server_sees_who_the_client_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path) as given:
            door = given.routers[C].addresses[Door.RW]
            reader, writer = await asyncio.open_connection(door.host, door.port)
            decoder = FrameDecoder()
            found: list[bytes] = []
            while not found:
                found += decoder.feed(await reader.read(65536))
            assert isinstance(from_server(found[0]), Greeting)
            own = writer.get_extra_info("sockname")
            writer.write(b"no frame of any protocol at all")
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
            log = given.trio[A].settings.layout.guard / "server.out"
            assert f"client={own[0]}:{own[1]}" in log.read_text()

    run(story())


def test_a_counter_ends_at_the_number_of_calls_across_a_failover(tmp_path: Path) -> None:
    calls = 60

    async def story() -> None:
        async with front(tmp_path) as given:
            setup = await given.connect(Door.RW)
            await setup.execute("INSERT INTO t VALUES (1000)")
            await setup.execute("CREATE TABLE c (n INTEGER)")
            await setup.execute("INSERT INTO c VALUES (0)")
            fallen = asyncio.Event()

            async def call() -> None:
                connection = await given.connect(Door.RW)
                for number in range(calls):
                    if number == calls // 3:
                        fallen.set()
                    key = db.idempotency_key()
                    await connection.execute("UPDATE c SET n = n + 1", idempotency_key=key)
                await connection.close()

            async with asyncio.TaskGroup() as tasks:
                callers = [tasks.create_task(call()) for _ in range(4)]
                await fallen.wait()
                await given.trio[A].engine.kill()
                await given.delete(PRIMARY_KEY)
                await given.trio.lead(B, 2, C)
                await given.record(B, 2)
                await given.report(C)
            assert all(caller.done() for caller in callers)
            row = await (await setup.execute("SELECT n FROM c")).fetchone()
            assert row == (4 * calls,)
            assert setup.server == B
            await setup.close()

    run(story())


def test_an_answer_after_the_deadline_passes_no_router(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path) as given:
            near, far = await given.connect(Door.RW, A), await given.connect(Door.RW, B)
            guardian = given.trio[A].engine.guardian
            assert guardian is not None
            await guardian.close(Epoch(1), keep_deadline=True)
            for connection in (near, far):
                with pytest.raises(db.OutcomeUnknown):
                    await connection.execute("INSERT INTO t DEFAULT VALUES")
                await connection.close()

    run(story())


def test_a_switchover_holds_new_clients_and_old_ones_write_on_behind_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path) as given:
            old = await given.connect(Door.RW)
            await old.execute("INSERT INTO t VALUES (1)")
            request = SwitchoverRequest(request_id="1", target=B, is_begun=True)
            await given.put(SWITCHOVER_KEY, encoded(request))
            while not given.routers[A].view.is_switching:
                await asyncio.sleep(0.005)
            async with asyncio.TaskGroup() as tasks:
                held = tasks.create_task(given.connect(Door.RW))
                while not any("switchover" in str(each) for each in given.named("router-held")):
                    await asyncio.sleep(0.005)
                end = await given.trio[A].engine.close_doors()
                await given.trio[B].until(lambda seen: seen.received.sequence >= end)
                await given.trio[A].engine.demote()
                await given.trio.lead(B, 2, A, C)
                await given.delete(SWITCHOVER_KEY)
                await given.record(B, 2)
            assert held.result().server == B
            await old.execute("INSERT INTO t VALUES (2)", idempotency_key=db.idempotency_key())
            assert old.server == B
            assert await count(held.result()) == 2
            await held.result().close()
            await old.close()

    run(story())


def test_a_replica_behind_the_bound_gets_no_readers(tmp_path: Path) -> None:
    async def story() -> None:
        async with front(tmp_path) as given:
            await given.report(A, B, C)
            behind = await given.trio[C].engine.observe()
            writer = await given.connect(Door.RW)
            for _ in range(12):
                await writer.execute("INSERT INTO t DEFAULT VALUES")
            await given.trio.caught_up(A, B)
            await given.report(A, B)
            status = NodeStatus(
                node=C, state="running", is_receiving=True, is_applying=True, applied=behind.applied
            )
            await given.put(node_key(NODES_PREFIX, C), encoded(status))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    while given.routers[C].view.nodes[A].status.applied <= behind.applied:
                        await asyncio.sleep(0.005)
            reader = await given.connect(Door.RO, C, options="target=replica")
            assert reader.server == B
            await reader.close()
            await writer.close()

    run(story())
