"""A cluster of the SQLite engine as an operator has it: `init`, `run` on each node, the commands.
The agents run as after `pip install primacy` alone: no driver for MariaDB, no HTTP packages."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_ports

import primacy
import primacy.driver as db
from primacy.cli.kits.sqlite import SqliteKit, sqlite_settings
from primacy.config import Config, load
from primacy.model import NodeId

pytestmark = pytest.mark.integration

NODES = tuple(NodeId(name) for name in "abc")
WITHIN_S = 60.0

EXTRAS = ("pymysql", "prometheus_client", "starlette", "uvicorn")
ALONE = (
    f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r}));"
    " from primacy.cli.main import main; main()"
)


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "primacy.toml"
        self._agents: dict[NodeId, subprocess.Popen[bytes]] = {}
        nodes = [word for name in NODES for word in ("--node", f"{name}=127.0.0.1")]
        made = self.run("init", "--name", "shop", "--engine", "sqlite", "--user", "app", *nodes)
        assert made.returncode == 0, made.stderr
        self._give_free_ports()
        self.config: Config = load(self.path)

    def _give_free_ports(self) -> None:
        text = self.path.read_text()
        keys = load(self.path).ports("a")
        ports = iter(free_ports(len(NODES) * len(keys)))
        head = text.partition("[nodes.a]")[0]
        for name in NODES:
            own = "".join(f"{key} = {next(ports)}\n" for key in keys)
            head += f'[nodes.{name}]\nhost = "127.0.0.1"\n{own}'
        self.path.write_text(head)

    def start(self, node: NodeId) -> None:
        log = (self.folder / f"{node}.log").open("ab")
        line = [sys.executable, "-c", ALONE, "run", "--node", node]
        self._agents[node] = subprocess.Popen(
            [*line, "--config", str(self.path)], stdout=log, stderr=log, start_new_session=True
        )
        log.close()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "primacy.cli.main", *arguments, "--config", str(self.path)],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    def status(self) -> dict[str, Any]:  # Any: JSON, as it comes.
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def pid(self, node: NodeId, part: str) -> int:
        return int((self.config.state_dir(node) / "run" / f"{part}.pid").read_text().split()[0])

    def sql(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        password = str(self.folder / "app.password")
        return self.run("sql", "--user", "app", "--password-file", password, *arguments)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < deadline_s, f"{what}: {self.told()}"
            time.sleep(0.1)

    def told(self) -> str:
        logs = [(self.folder / f"{node}.log").read_text()[-3000:] for node in NODES]
        return "\n".join([self.run("status").stdout, *logs])

    def is_well(self) -> bool:
        return not self.status()["problems"]

    def end(self) -> None:
        for node, agent in self._agents.items():
            agent.kill()
            agent.wait()
            for part in ("router", "db"):
                try:
                    os.kill(self.pid(node, part), signal.SIGKILL)
                except (OSError, ValueError):
                    continue  # It does not run.
            sqlite_settings(self.config, node).page.unlink(missing_ok=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        for node in NODES:
            made.start(node)
        made.until(made.is_well, "the cluster is well")
        yield made
    finally:
        made.end()


def test_a_cluster_without_mariadb_serves_fails_over_and_tells(cluster: Cluster) -> None:
    before = cluster.status()["primary"]
    made = cluster.sql("-c", "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    assert made.returncode == 0, made.stderr
    cluster.sql("-c", "INSERT INTO t (a) VALUES ('before')")

    os.kill(cluster.pid(before, "db"), signal.SIGKILL)
    written = cluster.sql("-c", "INSERT INTO t (a) VALUES ('after')")
    assert written.returncode == 0, written.stderr
    assert cluster.status()["epoch"] == 2
    cluster.until(cluster.is_well, "the old primary is back")

    read = cluster.sql("--read", "--json", "-c", "SELECT a FROM t ORDER BY id")
    assert [json.loads(line) for line in read.stdout.splitlines()] == [
        {"a": "before"},
        {"a": "after"},
    ]
    assert cluster.run("durability", "set", "--acks", "all").returncode == 0
    assert cluster.sql("-c", "INSERT INTO t (a) VALUES ('on all')").returncode == 0
    assert cluster.status()["durability"]["acks"] == 2
    _check_what_is_told(cluster)
    _check_that_a_login_is_needed(cluster)


def _check_what_is_told(cluster: Cluster) -> None:
    after = cluster.status()
    replicas = [each for each in after["nodes"] if each["role"] == "replica"]
    assert [each["behind_bytes"] for each in replicas] == [0, 0]
    assert all(each["position"] for each in after["nodes"])
    state_dir = str(cluster.config.state_dir(after["primary"]))
    verified = subprocess.run(
        [sys.executable, "-m", "primacy.cli.main", "log", "verify", "--json", state_dir],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert json.loads(verified.stdout)["is_sound"] is True
    target = cluster.folder / "report.tar.gz"
    assert cluster.run("report", "-o", str(target)).returncode == 0
    packed = subprocess.run(
        ["tar", "xzOf", str(target)], capture_output=True, text=True, check=True
    )
    verifiers = SqliteKit().secrets(cluster.config)
    assert verifiers
    for secret in (*verifiers, cluster.config.secret().hex()):
        assert secret not in packed.stdout
    assert "apsw " in packed.stdout


def _check_that_a_login_is_needed(cluster: Cluster) -> None:
    url = SqliteKit().url(cluster.config, user="app", is_read=False)
    with pytest.raises(db.DatabaseError, match="wrong user or password"):
        primacy.connect(url, password="guessed").close()
    password = (cluster.folder / "app.password").read_text().strip()

    async def shown() -> int:
        connection = await primacy.connect_async(url, password=password)
        row = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
        await connection.close()
        assert row is not None
        return int(row[0])

    assert asyncio.run(shown()) == 3
    with closing(primacy.connect(url, password=password)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (3,)
