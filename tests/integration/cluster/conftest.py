"""Whole clusters on this machine: real agents, guards, routers, servers, signals and writers."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from primacy.cli.demo_database import DemoDatabase
from primacy.cli.demo_ledger import read_ledger
from primacy.cli.demo_mariadb import MariaDbDemo
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Scene
from primacy.cli.demo_writers import LedgerLine
from primacy.clock import SystemClock
from primacy.model import NodeId

READY_WITHIN_S = 120.0
HAPPENS_WITHIN_S = 90.0
LOG_LINES_TOLD = 80
LOG_COLUMNS_TOLD = 300

SETTINGS = """
[cluster]
name = "test"
engine = "mariadb"
lease_ttl_s = 3.0
failovers_before_back_off = 1000
[mariadb]
innodb_buffer_pool_mb = 32
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.mariadb)
            if shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
                item.add_marker(pytest.mark.skip(reason="mariadb-server is not installed"))


@dataclass(slots=True)
class Live:
    """One running cluster with clients that never stop trying."""

    cluster: LocalCluster
    scene: Scene
    database: DemoDatabase
    ledger: Path
    clock: SystemClock

    @property
    def primary(self) -> NodeId:
        found = self.scene.primary
        assert found is not None, self.scene.ailments()
        return found

    @property
    def replicas(self) -> list[NodeId]:
        return [node for node in self.scene.nodes if node != self.primary]

    @property
    def epoch(self) -> int:
        return self.scene.view().epoch

    @property
    def password(self) -> str:
        """Of MariaDB's clients."""
        assert isinstance(self.database, MariaDbDemo)
        return self.database.password

    def acknowledged(self) -> list[LedgerLine]:
        return read_ledger(self.ledger)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        await self.scene.wait_until(holds, what, HAPPENS_WITHIN_S)

    async def healed(self) -> None:
        await self.until(lambda: not self.scene.ailments(), "everything is healthy")

    async def written_after(self, wall_s: float) -> None:
        """A write through a router that was sent after `wall_s` has been acknowledged."""
        await self.until(
            lambda: any(line.sent_s > wall_s and line.door == "rw" for line in self.acknowledged()),
            "a later write is acknowledged",
        )

    async def nothing_lost(self) -> None:
        await self.written_after(self.clock.wall_s())
        lines = self.acknowledged()
        held = await asyncio.to_thread(self.database.rows, self.primary)
        assert [line for line in lines if line.row not in held] == []

    def sql(self, node: NodeId, statement: str) -> str:
        """As the database's root, over its own socket."""
        socket = self.cluster.nodes[node].state_dir / "run" / "db.sock"
        done = subprocess.run(
            ["mariadb", "-uroot", f"--socket={socket}", "--batch", "--execute", statement],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout + done.stderr

    def command(
        self, *arguments: str, within_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """`primacy ...` against this cluster."""
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "primacy.cli.main",
                *arguments,
                "--config",
                str(self.cluster.config_path),
            ],
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )


@asynccontextmanager
async def live_cluster(
    settings: str = SETTINGS,
    *,
    has_writers: bool = True,
    witnesses: tuple[str, ...] = (),
    cluster_of: type[LocalCluster] = LocalCluster,
) -> AsyncIterator[Live]:
    """Ready, with writers at work; every process is gone when it ends."""
    root = Path(tempfile.mkdtemp(prefix="primacy-test-"))
    root.chmod(0o755)  # The server runs as another user.
    clock = SystemClock()
    cluster = cluster_of(
        root, clock=clock, names=("a", "b", "c"), settings=settings, witnesses=witnesses
    )
    scene = Scene(cluster, clock=clock, say=lambda _who, _what: None)
    database = MariaDbDemo(cluster)
    writers: subprocess.Popen[bytes] | None = None
    watching = asyncio.get_running_loop().create_task(scene.run())
    try:
        cluster.start_all()
        await scene.wait_until(
            lambda: not scene.ailments(), "a primary and two replicas", READY_WITHIN_S
        )
        live = Live(cluster, scene, database, root / "ledger", clock)
        await asyncio.to_thread(database.prepare, live.primary)
        if has_writers:
            spec = root / "writers.json"
            spec.write_bytes(msgspec.json.encode(database.writers()))
            writers = subprocess.Popen(
                [sys.executable, "-m", "primacy.cli.demo_writers", str(spec)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            await live.written_after(0.0)
        yield live
    except BaseException:
        tell_logs(cluster)
        raise
    finally:
        watching.cancel()
        if writers is not None:
            writers.kill()
            writers.communicate()
        await cluster.stop_all()
        shutil.rmtree(root, ignore_errors=True)


def tell_logs(cluster: LocalCluster) -> None:
    """What the agents said last: pytest shows it where a test fails."""
    for node in cluster.nodes.values():
        sys.stderr.write(f"---- {node.name}: {node.log}\n")
        for line in node.log.read_text(errors="replace").splitlines()[-LOG_LINES_TOLD:]:
            sys.stderr.write(f"{line[:LOG_COLUMNS_TOLD]}\n")


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(300):
            await story

    asyncio.run(bounded())
