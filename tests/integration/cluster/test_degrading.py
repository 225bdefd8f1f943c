"""`on_timeout = "degrade"` on real servers: what is recorded first, the way back, the way out."""

import asyncio
import json
import signal
from pathlib import Path

from tests.integration.cluster.conftest import SETTINGS, Live, live_cluster, run

from primacy.model import NodeId
from primacy.replication.records import DURABILITY_KEY, DurabilityRecord, decoded

FAST = SETTINGS.replace("lease_ttl_s = 3.0", "lease_ttl_s = 1.0")
DEGRADING = FAST + '[durability]\non_timeout = "degrade"\ntimeout_s = 1.0\n'


def stop_databases(live: Live, *nodes: NodeId) -> None:
    for node in nodes:
        live.cluster.signal_part(node, "database", signal.SIGSTOP)


def go_on(live: Live, *nodes: NodeId) -> None:
    """A server that was killed for hanging meanwhile is another process, and is not stopped."""
    for node in nodes:
        if "database" in live.cluster.pids(node):
            live.cluster.signal_part(node, "database", signal.SIGCONT)


def durability(live: Live) -> DurabilityRecord:
    found = live.scene.view().durability
    assert found is not None
    return found


async def degraded(live: Live) -> None:
    await live.until(lambda: durability(live).is_degraded, "the degradation is recorded")
    await live.written_after(live.clock.wall_s())


async def nothing_acknowledged_before_the_record(live: Live, stopped_at_s: float) -> None:
    """The ledger first, then a linearizable read of the record: what the ledger had by then was
    acknowledged before the record that is read."""
    async with asyncio.timeout(30):
        while True:
            late = [each for each in live.acknowledged() if each.sent_s > stopped_at_s]
            item = (await live.scene.store.range(DURABILITY_KEY)).items[0]
            if decoded(DurabilityRecord, item.value).is_degraded:
                return
            assert late == []
            await asyncio.sleep(0.02)


def test_a_degradation_is_recorded_first_ends_by_itself_and_binds_the_next_primary() -> None:
    async def story() -> None:
        async with live_cluster(DEGRADING) as live:
            primary, replicas, epoch = live.primary, live.replicas, live.epoch
            stop_databases(live, *replicas)
            await live.until(
                lambda: bool(live.scene.view().nodes[primary].blocked_on), "its commits wait"
            )
            await nothing_acknowledged_before_the_record(live, live.clock.wall_s())
            await degraded(live)
            said = live.command("status").stdout
            assert "degraded: no replica acknowledges" in said

            go_on(live, *replicas)
            await live.until(lambda: durability(live).acks == 1, "the policy's k again")
            await live.healed()
            assert live.epoch == epoch, "nothing was disturbed on the way there and back"
            await live.nothing_lost()

            stop_databases(live, *replicas)
            await degraded(live)
            live.cluster.kill_host(primary)
            go_on(live, *replicas)
            await live.until(
                lambda: all(
                    f"only {primary} surely holds" in live.scene.view().nodes[node].doing
                    for node in replicas
                ),
                "both replicas say why they do not take over",
            )
            said = live.command("status").stdout
            assert f"{primary} had recorded that no replica acknowledges" in said
            assert f"only {primary} surely holds every write" in live.command("why").stdout
            live.cluster.start(primary)
            await live.healed()
            assert live.primary == primary
            await live.nothing_lost()

    run(story())


def test_a_lossy_policy_set_on_the_running_cluster_loses_what_it_says_and_says_so() -> None:
    async def story() -> None:
        async with live_cluster(DEGRADING) as live:
            old, replicas, epoch = live.primary, live.replicas, live.epoch
            told = live.command("durability", "set", "--degrade-failover", "lossy", "--json")
            assert told.returncode == 0, told.stderr
            answer = json.loads(told.stdout)
            assert (answer["degrade_failover"], answer["source"]) == ("lossy", "operator")
            assert answer["is_in_force"]

            stop_databases(live, *replicas)
            await degraded(live)
            await live.written_after(live.clock.wall_s() + 0.5)
            live.cluster.kill_host(old)
            go_on(live, *replicas)
            await live.until(lambda: live.epoch > epoch, "a replica is promoted")
            await live.until(lambda: live.scene.primary is not None, "its doors are open")
            history = json.loads(live.command("history", "--json").stdout)
            newest = max(history, key=lambda each: each["epoch"])
            assert "degrade_failover = lossy" in newest["may_have_lost"]
            assert "may lack acknowledged writes" in live.command("status").stdout

            live.cluster.start(old)
            await live.until(lambda: _ended(live) != "", "what it had alone is saved")
            await live.healed()
            listed = json.loads(live.command("diverged", "list", "--json").stdout)["diverged"]
            assert [each["ended"] for each in listed] == ["rewound"], listed
            assert listed[0]["count"] > 0
            assert listed[0]["node"] == old
            assert "INSERT INTO" in Path(listed[0]["path"]).read_text()
            shown = live.command("diverged", "show", listed[0]["id"])
            assert "as sent: INSERT INTO" in shown.stdout, shown.stderr
            assert listed[0]["id"] in live.command("status").stdout
            assert live.command("diverged", "dismiss").returncode == 0
            assert listed[0]["id"] not in live.command("status").stdout
            await same_rows(live)

    run(story())


def _ended(live: Live) -> str:
    """What became of the first of what diverged; empty while nothing did."""
    told = live.command("diverged", "list", "--json")
    found = json.loads(told.stdout)["diverged"] if told.returncode == 0 else []
    return str(found[0]["ended"]) if found else ""


async def same_rows(live: Live) -> None:
    """All nodes hold what the primary holds, once the writers pause."""

    async def read() -> list[set[int]]:
        return [set(await asyncio.to_thread(live.database.rows, node)) for node in live.scene.nodes]

    primary = await asyncio.to_thread(live.database.rows, live.primary)
    await live.written_after(live.clock.wall_s())
    for rows in await read():
        assert set(primary) <= rows, "no node lacks what the primary had a moment ago"


def test_two_data_nodes_and_a_witness_go_on_when_either_data_node_is_away() -> None:
    async def story() -> None:
        async with live_cluster(DEGRADING, witnesses=("c",)) as live:
            primary, (replica,) = live.primary, live.replicas
            said = live.command("status").stdout
            assert "two data nodes" in said
            epoch = live.epoch
            live.cluster.kill_host(replica)
            await degraded(live)
            live.cluster.start(replica)
            await live.until(lambda: durability(live).acks == 1, "the policy's k again")
            await live.healed()
            assert live.epoch == epoch
            await live.nothing_lost()

            live.cluster.kill_host(primary)
            await live.until(
                lambda: live.scene.primary == replica and durability(live).is_degraded,
                "the other leads, alone",
            )
            await live.nothing_lost()
            live.cluster.start(primary)
            await live.until(lambda: durability(live).acks == 1, "the policy's k again")
            await live.healed()
            await live.nothing_lost()

    run(story())
