"""A whole cluster of agents and SQLite servers: a dead primary that alone has what clients were
answered comes back, and is rewound or cloned by the brain."""

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.cluster.conftest import Live, run, tell_logs

import primacy
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Scene
from primacy.cli.demo_sqlite import SqliteDemo
from primacy.clock import SystemClock
from primacy.driver.aio import AsyncConnection
from primacy.model import NodeId

pytestmark = pytest.mark.integration

SETTINGS = """
[cluster]
name = "test"
engine = "sqlite"
lease_ttl_s = 3.0
failovers_before_back_off = 1000
[durability]
acks = 0
wait_s = 1.0
"""


@asynccontextmanager
async def cluster() -> AsyncIterator[Live]:
    root = Path(tempfile.mkdtemp(prefix="primacy-test-"))
    clock = SystemClock()
    nodes = LocalCluster(root, clock=clock, names=("a", "b", "c"), settings=SETTINGS)
    scene = Scene(nodes, clock=clock, say=lambda _who, _what: None)
    watching = asyncio.get_running_loop().create_task(scene.run())
    try:
        nodes.start_all()
        await scene.wait_until(lambda: not scene.ailments(), "a primary and two replicas", 60)
        yield Live(nodes, scene, SqliteDemo(nodes), root / "ledger", clock)
    except BaseException:
        tell_logs(nodes)
        raise
    finally:
        watching.cancel()
        await nodes.stop_all()
        shutil.rmtree(root, ignore_errors=True)


async def connected(live: Live, *nodes: NodeId) -> AsyncConnection:
    """To the primary among them; of one, to that whatever it is."""
    doors = [live.cluster.nodes[node].address("database_port") for node in nodes]
    options = "target=any" if len(nodes) == 1 else "connect_timeout_s=30"
    url = f"primacy://{','.join(map(str, doors))}/db?{options}"
    return await primacy.connect_async(url, isolation_level=None)


async def write(live: Live, *statements: str) -> str:
    """To the primary. Returns the token of the last."""
    connection = await connected(live, *live.scene.nodes)
    for each in statements:
        await connection.execute(each)
    await connection.close()
    return connection.token


async def rows(live: Live, node: NodeId, token: str) -> list[int]:
    """As the node shows them, once it has applied what the token names."""
    connection = await connected(live, node)
    connection.token = token
    found = [int(n) async for (n,) in await connection.execute("SELECT n FROM t ORDER BY n")]
    await connection.close()
    return found


async def part(live: Live, *lost: str) -> NodeId:
    """The replicas stand still while the primary goes on, and lose what is in their sockets."""
    old, replicas, epoch = live.primary, live.replicas, live.epoch
    shared = ("CREATE TABLE t (n INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    token = await write(live, *shared)
    for replica in replicas:
        assert await rows(live, replica, token) == [1]
    client = await connected(live, old)
    for replica in replicas:
        live.cluster.signal_part(replica, "database", signal.SIGSTOP)
    for each in lost:
        await client.execute(each)
    live.cluster.kill_host(old)
    await client.close()
    for replica in replicas:
        live.cluster.signal_part(replica, "database", signal.SIGKILL)
    await live.until(lambda: live.epoch > epoch and live.scene.primary is not None, "a new primary")
    await write(live, "INSERT INTO t VALUES (100)")
    live.cluster.start(old)
    await live.until(lambda: live.scene.view().nodes[old].diverged_count > 0, "the loss is counted")
    await live.healed()
    return old


@pytest.mark.parametrize(
    ("lost", "ended"),
    [
        (["INSERT INTO t VALUES (2), (3)", "DELETE FROM t WHERE n = 1"], "rewound"),
        (["INSERT INTO t VALUES (2)", "CREATE TABLE u (x)"], "cloned"),
    ],
)
def test_what_only_the_old_primary_had_is_told_and_all_nodes_are_equal(
    lost: list[str], ended: str
) -> None:
    async def story() -> None:
        async with cluster() as live:
            old = await part(live, *lost)
            listed = json.loads(live.command("diverged", "list", "--json").stdout)["diverged"]
            assert [(each["ended"], each["count"], each["node"]) for each in listed] == [
                (ended, len(lost), old)
            ]
            shown = live.command("diverged", "show", listed[0]["id"])
            assert "INSERT INTO" in shown.stdout
            token = await write(live, "INSERT INTO t VALUES (200)")
            for node in live.scene.nodes:
                assert await rows(live, node, token) == [1, 100, 200]

    run(story())
