"""A real HAProxy, configured as docs/guides/haproxy.md says; an operator who uses HTTP alone."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest
from tests.integration.cluster.asking import asked
from tests.integration.cluster.conftest import SETTINGS, Live, live_cluster, run
from tests.integration.web.test_schemathesis import surprises
from tests.ports import free_ports

from primacy.cli.demo_mariadb_client import TABLE
from primacy.model import NodeId

GUIDE = Path(__file__).parents[3] / "docs/guides/haproxy.md"
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")
TOKEN = "a-token-of-the-test-0123456789"
HAPPENS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Balancer:
    """HAProxy's two doors."""

    live: Live
    primary: int
    replicas: int

    def ask(self, port: int, *statements: str) -> list[int]:
        """The numbers that the statements show, through one new connection."""
        with (
            pymysql.connect(
                host="127.0.0.1",
                port=port,
                user="demo",
                password=self.live.password,
                autocommit=True,
                connect_timeout=5,
                read_timeout=10,
                ssl_disabled=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return [int(row[0]) for row in cursor.fetchall()]

    def node(self, port: int) -> NodeId | None:
        """Whose server is behind the door; None: HAProxy has none."""
        try:
            (database_port,) = self.ask(port, "SELECT @@port")
        except pymysql.err.Error:
            return None
        nodes = self.live.cluster.nodes.values()
        return next(each.name for each in nodes if each.ports["database_port"] == database_port)

    def writes(self, row: int) -> bool:
        """A write through the door of the primary is acknowledged, or stands already."""
        try:
            self.ask(self.primary, f"INSERT IGNORE INTO {TABLE} VALUES ({row}, 'haproxy', 0)")
        except pymysql.err.Error:
            return False
        return True


@contextmanager
def balancer(live: Live) -> Iterator[Balancer]:
    text = re.search(r"```haproxy\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert text is not None
    config = text.group(1)
    for node in live.cluster.nodes.values():
        letter = node.name.upper()
        config = config.replace(f"{letter}_HOST", node.address("api_port").host)
        for name in ("DATABASE_PORT", "API_PORT"):
            config = config.replace(f"{letter}_{name}", str(node.ports[name.lower()]))
    primary, replicas = free_ports(2)
    config = config.replace("*:5000", f"127.0.0.1:{primary}")
    config = config.replace("*:5001", f"127.0.0.1:{replicas}")
    file = live.cluster.root / "haproxy.cfg"
    file.write_text(config)
    assert HAPROXY is not None
    with (live.cluster.root / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=log)
    try:
        yield Balancer(live, primary, replicas)
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed; `make test` installs it")
def test_haproxy_follows_a_switchover_and_a_failover(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.touch(0o600)
    token_file.write_text(TOKEN)
    settings = f'{SETTINGS}\n[api]\ntoken_file = "{token_file}"\n'

    async def story() -> None:
        async with live_cluster(settings) as live:
            with balancer(live) as doors:
                await _leads_to(doors, doors.primary, lambda: live.primary)
                await _is_a_replica(doors)
                await _a_switchover_over_http(live, doors)
                await _a_failover(live, doors)
            await live.healed()
            await _the_command_line_over_http(live, token_file)
            await _no_surprises(live)
            await live.healed()
            await live.nothing_lost()

    run(story())


async def _until(holds: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(HAPPENS_WITHIN_S):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {HAPPENS_WITHIN_S} s: {what}") from None


async def _leads_to(doors: Balancer, port: int, node: Callable[[], NodeId]) -> None:
    await _until(lambda: doors.node(port) == node(), "HAProxy leads there")


async def _is_a_replica(doors: Balancer) -> None:
    await _until(
        lambda: doors.node(doors.replicas) in doors.live.replicas, "HAProxy leads to a replica"
    )


async def _a_switchover_over_http(live: Live, doors: Balancer) -> None:
    target, agent, epoch = live.replicas[0], live.replicas[1], live.epoch
    refused = await asyncio.to_thread(asked, live, agent, "/switchover", body={"to": target})
    assert refused[0] == 401
    done = await asyncio.to_thread(
        asked, live, agent, "/switchover", body={"to": target}, token=TOKEN
    )
    assert done == (200, done[1] | {"is_done": True})
    await live.until(lambda: (live.epoch, live.primary) == (epoch + 1, target), "it has moved")
    await _leads_to(doors, doors.primary, lambda: target)
    await _until(lambda: doors.writes(1 << 61), "a write passes")
    await _is_a_replica(doors)


async def _a_failover(live: Live, doors: Balancer) -> None:
    await live.healed()
    old, epoch = live.primary, live.epoch
    live.cluster.kill_host(old)
    await live.until(lambda: live.epoch > epoch and live.scene.primary is not None, "another leads")
    await _leads_to(doors, doors.primary, lambda: live.primary)
    await _until(lambda: doors.writes(1 << 62), "a write passes")
    live.cluster.start(old)


async def _the_command_line_over_http(live: Live, token_file: Path) -> None:
    api = f"http://{live.cluster.nodes[live.primary].address('api_port')}"
    status = await asyncio.to_thread(live.command, "status", "--json", "--api", api)
    shown = json.loads(status.stdout)
    assert (shown["primary"], shown["epoch"]) == (live.primary, live.epoch), status.stderr
    past = await asyncio.to_thread(live.command, "history", "--json", "--api", api)
    kinds = [each["kind"] for each in json.loads(past.stdout)]
    assert kinds[0] == "bootstrap"
    assert kinds[-2:] == ["switchover", "failover"]
    refused = await asyncio.to_thread(live.command, "pause", "--api", api)
    assert (refused.returncode, "token" in refused.stderr) == (2, True)
    token = ("--token-file", str(token_file))
    for command in ("pause", "resume"):
        done = await asyncio.to_thread(live.command, command, "--api", api, *token)
        assert done.returncode == 0, done.stderr


async def _no_surprises(live: Live) -> None:
    """Of every agent's health check the right one says yes; and nothing makes a real agent fail."""
    for node in live.cluster.nodes:
        for path, is_wanted in (("/primary", node == live.primary), ("/read-only", True)):
            status, body = await asyncio.to_thread(asked, live, node, path)
            assert status == (200 if is_wanted else 503), body
    url = f"http://{live.cluster.nodes[live.replicas[0]].address('api_port')}"
    said = await asyncio.to_thread(
        surprises, url, token=TOKEN, phases="fuzzing", examples=3, folder=live.cluster.root
    )
    assert said == ""
