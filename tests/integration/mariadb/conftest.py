"""Three real servers under their guards, each in a directory of its own."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tests.ports import free_addresses

from primacy.clock import SystemClock
from primacy.engines.api import Observation
from primacy.engines.mariadb.accounts import MAINTENANCE, Login, login
from primacy.engines.mariadb.connection import Row, Session, Target, rows
from primacy.engines.mariadb.directory import Directory
from primacy.engines.mariadb.engine import MariaDbEngine
from primacy.engines.mariadb.settings import MariaDbSettings, Timing
from primacy.model import Address, Epoch, NodeId
from primacy.telemetry import Event

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
NODES = (A, B, C)
TIMING = Timing(health_s=2.0, drain_s=10.0, stop_s=10.0)
SMALL_LOG = {"innodb_log_file_size": "8M"}
"""The default is written, copied and removed by every test."""
SECRET = b"a secret for tests only, 32 bytes"
WITHIN_S = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.mariadb)
            if shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
                item.add_marker(pytest.mark.skip(reason="mariadbd is not installed"))


@dataclass
class Node:
    """One server and what tests ask of it."""

    settings: MariaDbSettings
    events: list[Event] = field(default_factory=list)
    engine: MariaDbEngine = field(init=False)

    def __post_init__(self) -> None:
        self.restart_agent()

    def restart_agent(self) -> None:
        """A new engine object over the same files, as after a crash of the agent."""
        self.engine = MariaDbEngine(self.settings, SystemClock(), self.events.append)

    def session(self, who: Login | None = None) -> Session:
        """A connection of its own: over TCP for an application, else as the maintenance account."""
        where: Path | Address = self.settings.layout.socket
        if who is not None:
            where = self.settings.peers[self.settings.node]
        target = Target(
            login=who or login(SECRET, MAINTENANCE), where=where, connect_s=5.0, read_s=WITHIN_S
        )
        return Session("test", target)

    async def sql(self, statement: str, *, within_s: float = 10.0) -> list[Row]:
        return await _ask(self.session(), statement, within_s)

    async def app(self, statement: str, *, within_s: float = 10.0) -> list[Row]:
        return await _ask(self.session(Login("app", "app")), statement, within_s)

    async def number(self, statement: str) -> int:
        return int(str(next(iter((await self.sql(statement))[0].values()))))

    async def until(
        self, is_so: Callable[[Observation], bool], *, within_s: float = 20.0
    ) -> Observation:
        """Observe until the claim holds."""
        seen = await self.engine.observe()
        async with asyncio.timeout(within_s):
            while not is_so(seen):
                await asyncio.sleep(0.01)
                seen = await self.engine.observe()
        return seen

    def signal_server(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        return int(self.settings.layout.pid_file.read_text())


async def _ask(session: Session, statement: str, within_s: float) -> list[Row]:
    try:
        return await session.run(lambda c: rows(c, statement), within_s=within_s)
    finally:
        session.reset()


class Trio:
    """The nodes a, b and c; inside the context everything that was started is ended."""

    def __init__(
        self,
        root: Path,
        template: Path,
        names: Sequence[NodeId] = NODES,
        timing: Timing = TIMING,
    ) -> None:
        self._template = template
        peers = dict(zip(names, free_addresses(len(names)), strict=True))
        doors = dict(zip(names, free_addresses(len(names)), strict=True))
        self.nodes = {
            node: Node(
                MariaDbSettings(
                    cluster="test",
                    node=node,
                    server_id=names.index(node) + 1,
                    peers=peers,
                    clone_doors=doors,
                    state_dir=root / node,
                    bind_host="127.0.0.1",
                    port=peers[node].port,
                    cluster_secret=SECRET,
                    buffer_pool_bytes=24 << 20,
                    further=SMALL_LOG,
                    timing=timing,
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

    def make(self, node: NodeId) -> None:
        """As `initialise` does it, from a copy that was made once for all tests."""
        directory = Directory(self.nodes[node].settings)
        directory.prepare()
        directory.clear_incoming().rmdir()
        incoming = self.nodes[node].settings.layout.incoming
        subprocess.run(["cp", "-a", "--sparse=always", self._template, incoming], check=True)
        directory.adopt_incoming()

    async def start(self, *nodes: NodeId) -> None:
        for node in nodes or NODES:
            self.make(node)
            await self[node].engine.start(as_primary=False)

    async def lead(self, primary: NodeId, epoch: int, *replicas: NodeId, acks: int = 1) -> int:
        """Seal all, begin the epoch, let the replicas follow, open the doors."""
        for node in (primary, *replicas):
            await self[node].engine.seal(Epoch(epoch))
        await self[primary].engine.drain()
        first = await self[primary].engine.begin_epoch(Epoch(epoch), primary)
        for node in replicas:
            await self[node].engine.follow(primary, Epoch(epoch), acknowledge=acks > 0)
        await self[primary].engine.set_acks(acks)
        await self[primary].engine.open_doors()
        return first

    async def up(self, *, acks: int = 1) -> None:
        """a leads epoch 1, b and c follow; an application has a table."""
        await self.start()
        await self.lead(A, 1, B, C, acks=acks)
        await self[A].sql("CREATE USER app@'%' IDENTIFIED BY 'app'")
        await self[A].sql("CREATE DATABASE shop")
        await self[A].sql("GRANT SELECT, INSERT, UPDATE, DELETE, LOCK TABLES ON shop.* TO app@'%'")
        await self[A].sql("CREATE TABLE shop.t (id BIGINT PRIMARY KEY, v INT) ENGINE=InnoDB")
        await self.caught_up(A, B, C)

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


async def make_template(node: Node) -> None:
    """Data as `initialise` makes them, and as the first start changes them."""
    await node.engine.initialise()
    await node.engine.start(as_primary=False)
    await node.engine.stop()


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """The server runs as another user: it must be able to pass through. Not under pytest's own
    folder, whose parent every pytest that starts closes to others again."""
    with tempfile.TemporaryDirectory(prefix="primacy-mariadb-") as found:
        Path(found).chmod(0o755)
        yield Path(found)


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A data directory as `initialise` makes it. Its accounts do not depend on the node."""
    with folder_for_all() as root:
        run(make_template(Trio(root, root)[A]))
        yield root / A / "data"


@pytest.fixture
def trio(template: Path) -> Iterator[Trio]:
    with folder_for_all() as root:
        yield Trio(root, template)
