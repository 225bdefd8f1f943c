"""Agents that go and come back under a running database, and agents that stay away."""

import signal

from tests.integration.cluster.conftest import SETTINGS, live_cluster, run

TTL_S = 6.0
"""An agent is back well within it, on a busy machine too: the default is for the benchmarks."""
PATIENT = SETTINGS.replace("lease_ttl_s = 3.0", f"lease_ttl_s = {TTL_S}")


def test_an_agent_that_restarts_adopts_its_running_primary() -> None:
    async def story() -> None:
        async with live_cluster(PATIENT) as live:
            primary, epoch = live.primary, live.epoch
            database = live.cluster.pids(primary)["database"]
            live.cluster.signal_part(primary, "agent", signal.SIGKILL)
            live.cluster.start(primary)
            killed_at_s = live.clock.wall_s()
            await live.written_after(
                killed_at_s + TTL_S + 1.0
            )  # Beyond the lease of the agent that died.
            assert (live.primary, live.epoch) == (primary, epoch)
            assert live.cluster.pids(primary)["database"] == database
            await live.nothing_lost()

    run(story())


def test_the_guard_ends_a_primary_whose_agent_stays_away() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            old, epoch = live.primary, live.epoch
            live.cluster.signal_part(old, "agent", signal.SIGKILL)
            await live.until(lambda: live.epoch > epoch, "another primary is elected")
            assert "database" not in live.cluster.pids(old), "fenced before it was replaced"
            await live.until(lambda: live.scene.primary is not None, "its doors are open")
            live.cluster.start(old)
            await live.healed()
            await live.nothing_lost()

    run(story())


def test_a_replicas_agent_that_restarts_disturbs_nobody() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            primary, epoch = live.primary, live.epoch
            replica = live.replicas[0]
            database = live.cluster.pids(replica)["database"]
            live.cluster.signal_part(replica, "agent", signal.SIGKILL)
            live.cluster.start(replica)
            await live.written_after(live.clock.wall_s() + 3.0)
            await live.healed()
            assert (live.primary, live.epoch) == (primary, epoch)
            assert live.cluster.pids(replica)["database"] == database

    run(story())
