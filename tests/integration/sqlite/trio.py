"""Three engines with real servers under their guards, and what tests ask of them."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import LOOPBACK, free_addresses

import primacy
import primacy.driver as db
from primacy.clock import SystemClock
from primacy.driver.aio import AsyncConnection
from primacy.engines.api import Branch, Observation
from primacy.engines.sqlite.engine import SqliteEngine
from primacy.engines.sqlite.settings import SqliteSettings, Timing
from primacy.model import Epoch, NodeId
from primacy.telemetry import Event

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
NODES = (A, B, C)
SECRET = b"a secret for tests only, 32 bytes"
WITHIN_S = 60.0
LEASE_S = 3600.0
"""Of the deadline page: no test outlives it."""


@dataclass
class Node:
    """One engine."""

    settings: SqliteSettings
    events: list[Event] = field(default_factory=list)
    engine: SqliteEngine = field(init=False)

    def __post_init__(self) -> None:
        self.restart_agent()

    def restart_agent(self) -> None:
        """A new engine object over the same files, as after a crash of the agent."""
        self.engine = SqliteEngine(self.settings, SystemClock(), self.events.append)

    @property
    def url(self) -> str:
        door = self.settings.doors[self.settings.node]
        return f"primacy://{LOOPBACK}:{door.port}/db"

    @property
    def pid(self) -> int:
        return int(self.settings.layout.pid_file.read_text())

    def signal_server(self, number: int) -> None:
        os.kill(self.pid, number)

    async def until(
        self, is_so: Callable[[Observation], bool], *, within_s: float = 20.0
    ) -> Observation:
        """Observe until the claim holds."""
        seen = await self.engine.observe()
        try:
            async with asyncio.timeout(within_s):
                while not is_so(seen):
                    await asyncio.sleep(0.01)
                    seen = await self.engine.observe()
        except TimeoutError:
            raise AssertionError(f"not so after {within_s} s: {seen}") from None
        return seen

    async def connect(self, options: str = "") -> AsyncConnection:
        return await primacy.connect_async(f"{self.url}?{options}", isolation_level=None)

    async def write(self, sql: str, *parameters: object, within_s: float = 10.0) -> str:
        """By the driver, answered. Returns the token."""
        connection = await self.connect(f"timeout_s={within_s}&connect_timeout_s={within_s}")
        try:
            await connection.execute(sql, parameters)
            return connection.token
        finally:
            await connection.close()

    async def tried(self, sql: str, *, within_s: float) -> db.Error | None:
        try:
            await self.write(sql, within_s=within_s)
        except db.Error as error:
            return error
        return None

    async def count(self, *, token: str = "") -> int:
        """Rows of `t`, as this node shows them to whoever has seen the token."""
        connection = await self.connect("target=any")
        try:
            connection.token = token
            (found,) = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
            return int(found)
        finally:
            await connection.close()


class Trio:
    """The nodes a, b and c; inside the context everything that was started is ended."""

    def __init__(self, root: Path, names: Sequence[NodeId] = NODES) -> None:
        doors, pull, clone = (
            dict(zip(names, free_addresses(len(names)), strict=True)) for _ in range(3)
        )
        self.branches: list[Branch] = []
        """Of the epochs that were begun, as the store has them."""
        self.nodes = {
            node: Node(
                SqliteSettings(
                    cluster="test",
                    node=node,
                    doors=doors,
                    pull_doors=pull,
                    clone_doors=clone,
                    state_dir=root / node,
                    cluster_secret=SECRET,
                    timing=Timing(health_s=1.0, drain_s=10.0, close_doors_s=1.0, stop_s=10.0),
                )
            )
            for node in names
        }

    def __getitem__(self, node: NodeId) -> Node:
        return self.nodes[node]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            await node.engine.kill()
            node.settings.page.unlink(missing_ok=True)

    async def start(self, *nodes: NodeId) -> None:
        async with asyncio.TaskGroup() as tasks:
            for node in nodes or NODES:
                tasks.create_task(self._start(self[node].engine))

    async def _start(self, engine: SqliteEngine) -> None:
        await engine.initialise()
        await engine.start(as_primary=True)

    async def lead(self, primary: NodeId, epoch: int, *replicas: NodeId, acks: int = 1) -> int:
        """Seal all, begin the epoch, let the replicas follow, open the doors."""
        for node in (primary, *replicas):
            await self[node].engine.seal(Epoch(epoch))
        return await self.open(primary, epoch, *replicas, acks=acks)

    async def open(self, primary: NodeId, epoch: int, *replicas: NodeId, acks: int = 1) -> int:
        """From the claim to the open doors."""
        leader = self[primary].engine
        guardian = leader.guardian
        assert guardian is not None
        await guardian.arm(Epoch(epoch), SystemClock().boottime_s() + LEASE_S)
        await leader.drain()
        first = await leader.begin_epoch(Epoch(epoch), primary)
        await leader.set_acks(acks, may_release=True)
        for node in replicas:
            await self[node].engine.follow(primary, Epoch(epoch), acknowledge=acks > 0)
            await self[node].until(lambda seen: seen.received.sequence >= first)
        await leader.open_doors()
        await guardian.open(Epoch(epoch))
        self.branches.append(Branch(epoch=Epoch(epoch), node=primary, first_sequence=first))
        return first

    async def up(self, *, acks: int = 1) -> None:
        """a leads epoch 1, b and c follow; there is a table."""
        await self.start()
        await self.lead(A, 1, B, C, acks=acks)
        await self[A].write("CREATE TABLE t (id INTEGER PRIMARY KEY)")

    async def caught_up(self, source: NodeId, *replicas: NodeId) -> None:
        end = (await self[source].engine.observe()).received
        for node in replicas:
            await self[node].until(lambda seen: seen.applied >= end)


def run(story: Awaitable[None]) -> None:
    """One test in one event loop, with an end."""

    async def bounded() -> None:
        async with asyncio.timeout(WITHIN_S):
            await story

    asyncio.run(bounded())
