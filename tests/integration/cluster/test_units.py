"""The service units without a service manager: their ExecStart lines as processes, under load."""

import asyncio

from tests.integration.cluster.conftest import SETTINGS, live_cluster, run

from primacy.cli.demo_units import UnitCluster

PATIENT = SETTINGS.replace("lease_ttl_s = 3.0", "lease_ttl_s = 12.0")
"""A program may take seconds to start where tests share a machine. How long it takes by itself, and
with the default lease, is printed by benchmarks/agent_upgrade.py."""


def test_an_agent_is_stopped_and_upgraded_under_a_primary_that_goes_on() -> None:
    async def story() -> None:
        async with live_cluster(PATIENT, cluster_of=UnitCluster) as live:
            cluster = live.cluster
            assert isinstance(cluster, UnitCluster)
            primary, epoch, before = live.primary, live.epoch, cluster.pids(live.primary)
            of_the_unit = {each.pid for each in await asyncio.to_thread(cluster.tree, primary)}
            assert before["agent"] in of_the_unit
            assert not {before[part] for part in ("guard", "database", "router")} & of_the_unit
            life = live.scene.view().nodes[primary].agent
            await asyncio.to_thread(cluster.upgrade)
            await asyncio.to_thread(cluster.stop_agent, primary)
            cluster.start(primary)
            await live.until(
                lambda: live.scene.view().nodes[primary].agent != life, "the new agent reports"
            )
            await live.healed()
            after = cluster.pids(primary)
            assert after["agent"] != before["agent"]
            for part in ("guard", "database", "router"):
                assert after[part] == before[part], part
            assert (live.primary, live.epoch) == (primary, epoch)
            await live.nothing_lost()

    run(story())
