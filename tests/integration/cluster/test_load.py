"""A store that is busy with itself and a clone under way cost no lease, not even a short one."""

import shutil

import pytest
from tests.integration.cluster.conftest import SETTINGS, live_cluster, run

from primacy.coordination.api import TXN_PARTS_MAX, Put, Txn

KEYS = 100_000
VALUE = b"x" * 200
"""With the keys: more than the size of log after which a member writes a snapshot."""


@pytest.mark.alone
def test_a_snapshot_of_100_000_keys_and_a_clone_lose_no_lease() -> None:
    async def story() -> None:
        fast = SETTINGS.replace("lease_ttl_s = 3.0", "lease_ttl_s = 1.0")
        async with live_cluster(fast) as live:
            epoch, lease = live.epoch, live.scene.view().primary_lease
            wiped = live.replicas[0]
            old_life = live.scene.view().nodes[wiped].incarnation
            live.cluster.kill_host(wiped)
            shutil.rmtree(live.cluster.nodes[wiped].state_dir / "data")
            live.cluster.start(wiped)
            for first in range(0, KEYS, TXN_PARTS_MAX):
                keys = range(first, min(first + TXN_PARTS_MAX, KEYS))
                puts = tuple(Put(f"load/{key:08d}", VALUE) for key in keys)
                await live.scene.store.txn(Txn(then=puts))
            await live.until(
                lambda: live.scene.view().nodes[wiped].incarnation not in (old_life, None),
                "the clone has ended",
            )
            await live.healed()
            snapshots = [
                path
                for node in live.cluster.nodes.values()
                for path in (node.state_dir / "store").rglob("*.snap*")
            ]
            assert snapshots, "no member has written a snapshot"
            assert (live.epoch, live.scene.view().primary_lease) == (epoch, lease)
            await live.nothing_lost()

    run(story())
