"""An operator's commands against a cluster under load: a new copy, a changed file with
its rolling restart, a report."""

import asyncio
import json
import tarfile
from pathlib import Path

from tests.integration.cluster.conftest import SETTINGS, Live, live_cluster, run

from primacy.cli.redaction import SECRET_MIN
from primacy.cli.report import secrets_of
from primacy.config import load

PATIENT = SETTINGS.replace("lease_ttl_s = 3.0", "lease_ttl_s = 6.0")
"""Agents are restarted while everything else runs: how fast is not the question here."""


def test_a_new_copy_a_changed_file_and_a_report_under_load(tmp_path: Path) -> None:
    async def story() -> None:
        async with live_cluster(PATIENT) as live:
            await reinit(live)
            await apply(live)
            await restart_one(live)
            await report(live, tmp_path)

    run(story())


async def reinit(live: Live) -> None:
    node, before = live.replicas[0], live.scene.view().nodes
    refused = await asyncio.to_thread(live.command, "reinit", live.primary, "--yes")
    assert (refused.returncode, "is the primary" in refused.stderr) == (2, True), refused.stderr
    unsaid = await asyncio.to_thread(live.command, "reinit", node)
    assert (unsaid.returncode, "--yes" in unsaid.stderr) == (2, True), unsaid.stderr
    done = await asyncio.to_thread(live.command, "reinit", node, "--yes", "--timeout", "55")
    assert done.returncode == 0, done.stdout + done.stderr
    after = live.scene.view().nodes
    assert after[node].incarnation != before[node].incarnation
    await live.healed()
    await live.nothing_lost()


async def apply(live: Live) -> None:
    """A changed file: on every host, and then in force, node by node."""
    primary, before = live.primary, live.scene.view().nodes
    new = live.cluster.root / "new.toml"
    old = live.cluster.config_path.read_text()
    new.write_text(f"{old}\n[mariadb.settings]\nmax_connections = 333\n")
    done = await asyncio.to_thread(
        live.command, "config", "apply", str(new), "--json", within_s=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["changed"] == ["mariadb.settings.max_connections: (absent) -> 333"]
    assert [each["node"] for each in told["restarted"]][-1] == primary
    assert live.cluster.config_path.read_text() == new.read_text()
    await live.healed()
    after = live.scene.view().nodes
    assert live.primary == told["switched_to"] != primary
    for node in live.scene.nodes:
        assert after[node].agent != before[node].agent
        assert after[node].server_start != before[node].server_start
        assert "333" in await asyncio.to_thread(live.sql, node, "SELECT @@max_connections")
    await live.nothing_lost()


async def restart_one(live: Live) -> None:
    node, before = live.replicas[0], live.scene.view().nodes
    refused = await asyncio.to_thread(
        live.command, "restart", "--node", live.primary, "--databases"
    )
    assert (refused.returncode, "is the primary" in refused.stderr) == (1, True), refused.stderr
    done = await asyncio.to_thread(live.command, "restart", "--node", node, "--agents")
    assert done.returncode == 0, done.stdout + done.stderr
    await live.until(
        lambda: live.scene.view().nodes[node].agent != before[node].agent, "another agent"
    )
    await live.healed()


async def report(live: Live, tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    done = await asyncio.to_thread(live.command, "report", "--output", str(target), "--json")
    assert done.returncode == 0, done.stderr
    with tarfile.open(target) as archive:
        files = {
            member.name.partition("/")[2]: file.read().decode()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }
    assert json.loads(files["status.json"])["primary"] == live.primary
    assert len(json.loads(files["history.json"])["epochs"]) >= 2
    assert "decided" in files[f"{live.primary}/agent.log"]
    assert "OPEN" in files[f"{live.primary}/page.txt"]
    everything = "\n".join(files.values())
    config = load(live.cluster.config_path)
    for secret in secrets_of(config):
        assert len(secret) < SECRET_MIN or secret not in everything
