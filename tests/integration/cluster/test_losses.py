"""What is lost together: both replicas, the store's majority, writes without acknowledgement."""

import json
import signal
from pathlib import Path

from tests.integration.cluster.asking import asked
from tests.integration.cluster.conftest import SETTINGS, Live, live_cluster, run

from primacy.cli.demo_mariadb_client import TABLE
from primacy.model import NodeId


def test_nothing_is_acknowledged_while_both_replicas_are_frozen() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            primary, replicas = live.primary, live.replicas
            for replica in replicas:
                live.cluster.signal_part(replica, "database", signal.SIGSTOP)
            await live.until(
                lambda: bool(live.scene.view().nodes[primary].blocked_on),
                "the primary says for whom its commits wait",
            )
            frozen_at_s = live.clock.wall_s()
            assert set(live.scene.view().nodes[primary].blocked_on) <= set(replicas)
            await live.until(
                lambda: live.clock.wall_s() > frozen_at_s + 2.0, "two seconds have passed"
            )
            late = [line for line in live.acknowledged() if line.sent_s > frozen_at_s]
            assert late == []
            for replica in replicas:
                if "database" in live.cluster.pids(replica):
                    live.cluster.signal_part(replica, "database", signal.SIGCONT)
            await live.healed()
            await live.nothing_lost()

    run(story())


def test_without_the_stores_majority_the_primary_ends_and_returns_by_itself() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            primary, replicas = live.primary, live.replicas
            for replica in replicas:
                live.cluster.signal_part(replica, "agent", signal.SIGKILL)
            await live.until(
                lambda: "database" not in live.cluster.pids(primary),
                "the guard ended the primary at its deadline",
            )
            ended_at_s = live.clock.wall_s()
            shown = live.command("status", "--json")
            assert shown.returncode != 0
            assert "majority" in shown.stdout + shown.stderr
            assert [line for line in live.acknowledged() if line.sent_s > ended_at_s] == []
            await live.until(lambda: _is_said_over_http(live, primary), "its agent says so too")
            for replica in replicas:
                live.cluster.start(replica)
            await live.healed()
            await live.nothing_lost()

    run(story())


def _is_said_over_http(live: Live, node: NodeId) -> bool:
    """Health is answered by the agent that is left; the status by what its member remembers."""
    is_primary, said = asked(live, node, "/primary")
    is_running, _ = asked(live, node, "/health")
    is_alive, _ = asked(live, node, "/liveness")
    _, status = asked(live, node, "/status")
    assert (is_primary, is_alive, status["source"]) == (503, 200, node)
    return is_running == 503 and not said["is_store_current"]


def test_lost_transactions_without_acknowledgements_are_counted_saved_and_shown() -> None:
    async def story() -> None:
        settings = SETTINGS + "[durability]\nacks = 0\nwait_s = 1.0\n"
        async with live_cluster(settings) as live:
            old, replicas, epoch = live.primary, live.replicas, live.epoch
            for replica in replicas:
                live.cluster.signal_part(replica, "database", signal.SIGSTOP)
            _hang_up(live, old)  # A stopped process would still find all in its socket.
            # A change of definitions has no reverse: this node is cloned, not rewound.
            assert "ERROR" not in live.sql(old, f"ALTER TABLE {TABLE} ADD COLUMN lost INT")
            await live.written_after(live.clock.wall_s() + 0.5)
            live.cluster.kill_host(old)
            for replica in replicas:
                live.cluster.signal_part(replica, "database", signal.SIGCONT)
            await live.until(lambda: live.epoch > epoch, "the most advanced replica is promoted")
            await live.until(lambda: live.scene.primary is not None, "its doors are open")
            live.cluster.start(old)
            await live.until(
                lambda: live.scene.view().nodes[old].diverged_count > 0, "the loss is counted"
            )
            await live.healed()
            listed = json.loads(live.command("diverged", "list", "--json").stdout)["diverged"]
            assert [each["ended"] for each in listed] == ["cloned"]
            assert "DDL" in listed[0]["obstacle"]
            path = Path(live.scene.view().nodes[old].diverged_path)
            assert "INSERT INTO" in path.read_text()
            history = json.loads(live.command("history", "--json").stdout)
            assert any(entry["lost_count"] > 0 for entry in _entries(history))
            assert '"diverged_count"' in live.command("status", "--json").stdout

    run(story())


def test_what_somebody_wrote_on_a_replica_is_saved_told_and_undone() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            epoch, replica = live.epoch, live.replicas[0]
            said = live.sql(replica, f"INSERT INTO {TABLE} VALUES (-7, 'errant', 0)")
            assert "ERROR" not in said
            await live.until(
                lambda: live.scene.view().nodes[replica].diverged_count == 1, "it is counted"
            )
            await live.healed()
            listed = json.loads(live.command("diverged", "list", "--json").stdout)["diverged"]
            assert [(each["is_errant"], each["count"]) for each in listed] == [(True, 1)]
            # Taken back row by row; or copied over, where the primary let it in too late for that.
            assert listed[0]["ended"] in ("rewound", "cloned")
            assert "errant" in (Path(listed[0]["path"]).parent / "readable.sql").read_text()
            shown = live.command("status")
            assert "while it was a replica" in shown.stdout
            assert live.epoch == epoch, "the primary has lost nothing by it"
            assert all(-7 not in live.database.rows(node) for node in live.scene.nodes)
            await live.nothing_lost()

    run(story())


def _hang_up(live: Live, node: NodeId) -> None:
    """End the connections of those who read this node's log."""
    reading = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
    for thread in live.sql(node, reading).split()[1:]:
        live.sql(node, f"KILL {thread}")


def _entries(told: object) -> list[dict[str, int]]:
    """`history --json` is a list, or an object that holds one."""
    if isinstance(told, dict):
        return next(value for value in told.values() if isinstance(value, list))
    assert isinstance(told, list)
    return told
