"""Replicas that break, and a planned change under the eyes of clients."""

import asyncio
import shutil
import threading
from dataclasses import dataclass, field

import pymysql
from tests.integration.cluster.conftest import Live, live_cluster, run

from primacy.cli.demo_mariadb_client import TABLE
from primacy.model import NodeId


def test_a_broken_replica_and_a_wiped_one_are_cloned_anew_while_writes_go_on() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            broken, wiped = live.replicas
            epoch = live.epoch
            before = live.scene.view().nodes[broken].incarnation
            await asyncio.to_thread(_break_applier, live, broken)
            await live.until(
                lambda: live.scene.view().nodes[broken].incarnation != before,
                "the broken replica has a new life",
            )
            await live.healed()
            old_life = live.scene.view().nodes[wiped].incarnation
            live.cluster.kill_host(wiped)
            shutil.rmtree(live.cluster.nodes[wiped].state_dir / "data")
            live.cluster.start(wiped)
            await live.until(
                lambda: live.scene.view().nodes[wiped].incarnation not in (old_life, None),
                "the wiped replica has a new life",
            )
            await live.healed()
            assert live.epoch == epoch, "the primary was never disturbed"
            await live.nothing_lost()

    run(story())


def _break_applier(live: Live, node: NodeId) -> None:
    """A row of its own that the next rows of a client will meet."""
    newest = max(line.row for line in live.acknowledged() if line.door == "rw")
    values = ", ".join(f"({newest + ahead}, 'x', 0)" for ahead in range(200, 400))
    told = live.sql(node, f"SET sql_log_bin = 0; INSERT INTO {TABLE} VALUES {values}")
    assert "ERROR" not in told, told


@dataclass
class Watcher:
    """Opens a connection every few milliseconds, and keeps one session open beside."""

    host: str
    port: int
    password: str
    stop: threading.Event = field(default_factory=threading.Event)
    opened: int = 0
    errors_on_new: list[str] = field(default_factory=list)
    errors_in_session: list[str] = field(default_factory=list)

    def connect(self) -> "pymysql.connections.Connection":
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user="demo",
            password=self.password,
            autocommit=True,
            connect_timeout=12,
            read_timeout=15,
            ssl_disabled=True,
        )

    def open_new(self) -> None:
        while not self.stop.wait(0.01):
            try:
                with self.connect() as connection, connection.cursor() as cursor:
                    cursor.execute(f"SELECT COUNT(*) FROM {TABLE}")
                self.opened += 1
            except pymysql.err.Error as error:
                self.errors_on_new.append(str(error))

    def stay(self) -> None:
        session = self.connect()
        row = 1 << 60
        while not self.stop.wait(0.005):
            row += 1
            try:
                with session.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {TABLE} VALUES ({row}, 'session', 0)")
            except pymysql.err.Error as error:
                self.errors_in_session.append(str(error))
                session = self.connect()
        session.close()


def test_a_switchover_costs_new_connections_nothing_and_a_session_one_error() -> None:
    async def story() -> None:
        async with live_cluster() as live:
            epoch, target = live.epoch, live.replicas[0]
            door = live.cluster.nodes[live.replicas[1]].address("rw_port")
            watcher = Watcher(door.host, door.port, live.password)
            threads = [
                threading.Thread(target=watcher.open_new),
                threading.Thread(target=watcher.stay),
            ]
            for thread in threads:
                thread.start()
            try:
                await live.until(lambda: watcher.opened > 10, "connections are made")
                done = await asyncio.to_thread(live.command, "switchover", "--to", target)
                assert done.returncode == 0, done.stderr
                seen = watcher.opened
                await live.until(lambda: watcher.opened > seen + 10, "connections are made again")
            finally:
                watcher.stop.set()
                for thread in threads:
                    await asyncio.to_thread(thread.join)
            assert live.epoch == epoch + 1
            assert live.primary == target
            # One that was shaking hands when the clients were held is an open session: the opener
            # has at most one of those. Nobody meets a closed door, and nobody is refused.
            assert len(watcher.errors_on_new) <= 1, watcher.errors_on_new
            assert all("2013" in error for error in watcher.errors_on_new), watcher.errors_on_new
            assert len(watcher.errors_in_session) <= 1, watcher.errors_in_session
            await live.nothing_lost()

    run(story())
