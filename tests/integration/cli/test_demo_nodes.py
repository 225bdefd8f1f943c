"""Which processes a demo takes for its own, and would kill; and agents that cannot start."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from primacy.cli.demo import Demo, DemoOptions
from primacy.cli.demo_faults.catalogue import programme
from primacy.cli.demo_nodes import LocalCluster
from primacy.clock import SystemClock
from primacy.model import NodeId

pytestmark = pytest.mark.integration

A = NodeId("a")
WAITS = "import sys; print('up', flush=True); sys.stdin.read()"
"""Its word is waited for: a process that has just begun has no command line yet."""
STARTS_A_CHILD = (
    "import subprocess, sys\n"
    f"argv = [sys.executable, '-c', {WAITS!r}, sys.argv[1]]\n"
    "child = subprocess.Popen(argv, stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path, clock=SystemClock(), names=(A,))
    (made.nodes[A].state_dir / "run").mkdir(parents=True)
    try:
        yield made
    finally:
        asyncio.run(made.stop_all())


def is_database(cluster: LocalCluster, pid: int) -> None:
    (cluster.nodes[A].state_dir / "run" / "db.pid").write_text(f"{pid}\n")


def test_whoever_inherited_a_database_is_no_guard_of_it(cluster: LocalCluster) -> None:
    """A guard was killed, its database is just dying: the demo once sent SIGKILL to process 1."""
    argv = [sys.executable, "-c", WAITS, str(cluster.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        is_database(cluster, orphan.pid)
        assert cluster.pids(A) == {"database": orphan.pid}


def test_the_parent_that_runs_for_this_cluster_is_its_guard(cluster: LocalCluster) -> None:
    argv = [sys.executable, "-c", STARTS_A_CHILD, str(cluster.root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guard:
        assert guard.stdout is not None
        database = int(guard.stdout.readline())
        is_database(cluster, database)
        assert cluster.pids(A) == {"database": database, "guard": guard.pid}


def test_agents_that_cannot_start_end_the_demo_with_what_they_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(1)
    plan = programme("crash", engine="sqlite", rounds=1, chance=chance)
    demo = Demo(DemoOptions(acks=7), plan, chance)
    assert asyncio.run(demo.run(tmp_path)) == 1
    said = capsys.readouterr().out
    assert "'s agent ended with exit code 2" in said
    assert "durability.acks = 7" in said
    assert "equal" not in said
