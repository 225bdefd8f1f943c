"""Three members of a store on loopback, each of which can be stopped and started again."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.ports import free_addresses

from primacy.clock import SystemClock
from primacy.consensus.raft.timing import Timing
from primacy.coordination.embedded.client import StoreClient
from primacy.coordination.embedded.member import MemberLimits
from primacy.coordination.embedded.server import StoreServer, StoreSettings
from primacy.model import NodeId
from primacy.telemetry import Event

TIMING = Timing(heartbeat_s=0.05, election_timeout_min_s=0.3, election_timeout_max_s=0.6)
CLOCK = SystemClock()


class Cluster:
    """`run` it as a context; then `start` and `stop` members by name."""

    def __init__(self, directory: Path, *, snapshot_entries: int = 10_000) -> None:
        self.nodes = [NodeId(name) for name in "abc"]
        self.limits = MemberLimits(snapshot_entries=snapshot_entries)
        self.directory = directory
        self.peers = dict(zip(self.nodes, free_addresses(3), strict=True))
        self.doors = dict(zip(self.nodes, free_addresses(3), strict=True))
        self.events: list[tuple[NodeId, Event]] = []
        self.followed: dict[NodeId, NodeId] = {}
        """Whom each member was last heard to follow."""
        self.servers: dict[NodeId, StoreServer] = {}
        self._running: dict[NodeId, asyncio.Task[None]] = {}
        self._tasks = asyncio.TaskGroup()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        async with self._tasks:
            for node in self.nodes:
                await self.start(node)
            yield self
            for node in tuple(self._running):
                await self.stop(node)

    async def start(self, node: NodeId) -> None:
        settings = StoreSettings(
            cluster="integration",
            node=node,
            members=self.peers,
            door=self.doors[node],
            directory=self.directory / node,
            timing=TIMING,
            limits=self.limits,
            ttl_min_s=0.2,
        )
        server = StoreServer(
            settings,
            clock=CLOCK,
            chance=random.Random(node),
            events=lambda event: self.events.append((node, event)),
            on_leader=lambda leader: self.followed.update({node: leader}),
        )
        self.servers[node] = server
        self._running[node] = self._tasks.create_task(server.run())
        await server.is_open.wait()

    async def stop(self, node: NodeId) -> None:
        task = self._running.pop(node)
        task.cancel()
        await asyncio.wait([task])

    async def leader(self) -> NodeId:
        while True:
            for node in self._running:
                member = self.servers[node].member
                if member is not None and member.is_ready_leader:
                    return node
            await asyncio.sleep(0.01)

    def client(self, *nodes: NodeId, within_s: float = 20.0) -> StoreClient:
        doors = {node: self.doors[node] for node in nodes or self.nodes}
        return StoreClient(doors, CLOCK, random.Random(1), within_s=within_s)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture
def small_log(tmp_path: Path) -> Cluster:
    """A cluster that takes a snapshot every 100 entries."""
    return Cluster(tmp_path, snapshot_entries=100)
