"""What the demo does to a SQLite server, on a real one: clients, checksums, the hands of faults."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.integration.sqlite.serving import Served

import primacy.driver as db
from primacy.cli.demo_ledger import read_ledger
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_sqlite import USERS_FILE, SqliteDemo
from primacy.cli.demo_writers import LedgerLine
from primacy.clock import SystemClock
from primacy.errors import Unavailable
from primacy.model import NodeId

pytestmark = pytest.mark.integration

A = NodeId("a")
WITHIN_S = 20.0


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s, "it does not become true"
        time.sleep(0.02)


class Alone:
    """The only node of a cluster, without an agent: a primary that waits for nobody."""

    def __init__(self, root: Path) -> None:
        self.cluster = LocalCluster(root, clock=SystemClock(), names=(A,))
        self.database = SqliteDemo(self.cluster)
        node = self.cluster.nodes[A]
        node.state_dir.mkdir()
        self.server = Served(
            node.state_dir,
            port=node.ports["database_port"],
            users_path=str(root / USERS_FILE),
        )
        self.server.port = node.ports["database_port"]

    def acknowledged(self) -> list[LedgerLine]:
        return read_ledger(self.cluster.root / "ledger")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """By the client that is attached directly: there is no router."""
        path = self.cluster.root / "writers.json"
        spec = self.database.writers()
        direct = tuple(each for each in spec.writers if each.door == A)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(spec, writers=direct)))
        writers = subprocess.Popen(
            [sys.executable, "-m", "primacy.cli.demo_writers", str(path)], stdin=subprocess.PIPE
        )
        try:
            yield
        finally:
            writers.communicate(timeout=WITHIN_S)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    made = Alone(tmp_path)
    try:
        with made.server:
            made.database.prepare(A)
            yield made
    finally:
        asyncio.run(made.cluster.stop_all())


def test_acknowledged_rows_are_there_after_a_crash_and_clients_go_on(alone: Alone) -> None:
    alone.database.prepare(A)  # Again: nothing changes.
    with alone.writing():
        until(lambda: len(alone.acknowledged()) > 3)
        alone.server.kill()
        before = alone.acknowledged()
        alone.server.start()
        until(lambda: len(alone.acknowledged()) > len(before) + 3)
    lines = alone.acknowledged()
    assert {line.node for line in lines} == {A}
    assert {line.row for line in lines} <= alone.database.rows(A)
    assert alone.database.checksums()[A][0] == len(alone.database.rows(A))


def test_checksums_tell_rows_apart(alone: Alone) -> None:
    seen = {alone.database.checksums()[A]}
    for row, sent_s in ((1, 1.0), (2, 1.0), (2, 2.0)):
        alone.database.put_in_the_way(A, [row + int(sent_s) * 10])
        seen.add(alone.database.checksums()[A])
    assert len(seen) == 4


def test_whoever_has_no_password_is_refused(alone: Alone) -> None:
    door = alone.cluster.nodes[A].address("database_port")
    with pytest.raises(db.Error, match="user"):
        db.connect(f"primacy://demo:wrong@{door.host}:{door.port}/db").close()


def test_nothing_is_written_to_the_file_while_it_is_locked(alone: Alone) -> None:
    with alone.writing():
        until(alone.acknowledged)
        with closing(alone.database.block_applier(A)):
            locked = alone.database.rows(A)
            last_s = time.time()
            time.sleep(0.3)
            assert alone.database.rows(A) == locked
        until(lambda: any(line.acked_s > last_s for line in alone.acknowledged()))


def test_a_server_that_is_kept_down_starts_when_it_may_again(alone: Alone) -> None:
    alone.server.kill()
    with closing(alone.database.keep_down(A)):
        with pytest.raises(AssertionError, match="the server exited"):
            alone.server.start()
        alone.server.kill()
        with pytest.raises(Unavailable, match="a's file"):
            alone.database.put_in_the_way(A, [1])
    alone.database.data_directory(A).rename(alone.cluster.root / "elsewhere")
    with pytest.raises(Unavailable, match="there is no"):
        alone.database.keep_down(A)
    (alone.cluster.root / "elsewhere").rename(alone.database.data_directory(A))
    alone.server.start()
    assert alone.database.rows(A) == set()
