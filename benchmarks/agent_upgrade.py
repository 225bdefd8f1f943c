"""Write gap while the primary's agent is stopped, upgraded and started, beside a calm stretch.

    .venv/bin/python benchmarks/agent_upgrade.py --rounds 5 [--profile fast] [--json]

Three real nodes run as their service units would (`cli/demo_units.py`); clients write through the
routers. Each round replaces the primary's agent by one from a copied tree. The floor is the longest
gap between two acknowledgements in a stretch of the same length before, when nothing happens.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from primacy.cli.demo_ledger import outage, read_ledger
from primacy.cli.demo_mariadb import MariaDbDemo
from primacy.cli.demo_scene import Scene
from primacy.cli.demo_units import UnitCluster
from primacy.clock import SystemClock
from primacy.config import PROFILES
from primacy.model import NodeId

READY_WITHIN_S = 120.0
CALM_S = 4.0


def settings(profile: str) -> str:
    return (
        f'[cluster]\nname = "test"\nengine = "mariadb"\nlease_ttl_s = {PROFILES[profile]}\n'
        "[mariadb]\ninnodb_buffer_pool_mb = 32\n"
    )


async def one_round(
    cluster: UnitCluster, scene: Scene, ledger: Path, clock: SystemClock
) -> dict[str, float]:
    primary = scene.primary
    assert primary is not None
    epoch, life = scene.view().epoch, scene.view().nodes[primary].agent
    from_s = clock.wall_s()
    await clock.sleep(CALM_S)
    stopped_s = clock.wall_s()
    await asyncio.to_thread(cluster.stop_agent, primary)
    cluster.start(primary)
    await scene.wait_until(
        lambda: scene.view().nodes[primary].agent != life and not scene.ailments(),
        "the new agent is well",
        READY_WITHIN_S,
    )
    until_s = clock.wall_s()
    await clock.sleep(1.0)
    lines = read_ledger(ledger)
    return {
        "gap_s": outage(lines, from_s=stopped_s, until_s=until_s)[0],
        "calm_gap_s": outage(lines, from_s=from_s, until_s=stopped_s)[0],
        "without_agent_s": until_s - stopped_s,
        "failovers": float(scene.view().epoch - epoch),
    }


def place() -> Path:
    root = Path(tempfile.mkdtemp(prefix="primacy-bench-"))
    root.chmod(0o755)  # The server runs as another user.
    return root


def writing(root: Path, database: MariaDbDemo) -> "subprocess.Popen[bytes]":
    spec = root / "writers.json"
    spec.write_bytes(msgspec.json.encode(database.writers()))
    return subprocess.Popen(
        [sys.executable, "-m", "primacy.cli.demo_writers", str(spec)], stdin=subprocess.PIPE
    )


async def measure(rounds: int, profile: str) -> list[dict[str, float]]:
    root = place()
    clock = SystemClock()
    cluster = UnitCluster(root, clock=clock, names=("a", "b", "c"), settings=settings(profile))
    scene = Scene(cluster, clock=clock, say=lambda _who, _what: None)
    watching = asyncio.get_running_loop().create_task(scene.run())
    writers: subprocess.Popen[bytes] | None = None
    try:
        cluster.start_all()
        await scene.wait_until(lambda: not scene.ailments(), "three nodes", READY_WITHIN_S)
        database = MariaDbDemo(cluster)
        await asyncio.to_thread(database.prepare, scene.primary or NodeId("a"))
        writers = writing(root, database)
        await asyncio.to_thread(cluster.upgrade)
        return [await one_round(cluster, scene, root / "ledger", clock) for _ in range(rounds)]
    finally:
        watching.cancel()
        if writers is not None:
            writers.kill()
            writers.communicate()
        await cluster.stop_all()
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="default", choices=sorted(PROFILES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds, options.profile))
    names = ("gap_s", "calm_gap_s", "without_agent_s")
    row = {
        "profile": options.profile,
        "rounds": len(found),
        **{name: round(statistics.median(each[name] for each in found), 3) for name in names},
        "worst_gap_s": round(max(each["gap_s"] for each in found), 3),
        "failovers": int(sum(each["failovers"] for each in found)),
        "load": [round(each, 2) for each in os.getloadavg()],
    }
    row["ratio_to_calm"] = round(float(row["gap_s"]) / float(row["calm_gap_s"]), 1)
    print(json.dumps(row) if options.json else " ".join(f"{k}={v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
