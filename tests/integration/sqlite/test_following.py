"""Clients follow the primary from server to server. Each failover here hands the same directory to
another server under the next epoch: what the driver does is the same as with replicas."""

import itertools
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.sqlite.serving import Served
from tests.ports import LOOPBACK

import primacy
import primacy.driver as db

pytestmark = pytest.mark.integration

WAIT_S = 20.0


def test_counters_with_keys_end_at_the_number_of_calls_through_failovers(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    servers = [
        Served(folder, node=folder.name, directory=str(tmp_path / "data")) for folder in folders
    ]
    url = f"primacy://{','.join(f'{LOOPBACK}:{each.port}' for each in servers)}/db"
    calls = itertools.count()
    done: list[str] = []
    troubles: list[BaseException] = []
    is_over = threading.Event()

    def increment(name: str) -> None:
        try:
            with closing(primacy.connect(url, isolation_level=None, timeout_s=WAIT_S)) as mine:
                while not is_over.is_set():
                    key = db.idempotency_key(f"{name}-{next(calls)}")
                    cursor = mine.execute(
                        "UPDATE counter SET n = n + 1 RETURNING n", idempotency_key=key
                    )
                    assert cursor.fetchone() is not None
                    done.append(mine.server)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread.
            troubles.append(error)

    with servers[0] as first:
        with closing(first.connect(isolation_level=None)) as setup:
            setup.executescript("CREATE TABLE counter (n); INSERT INTO counter VALUES (0)")
        threads = [threading.Thread(target=increment, args=(str(n),)) for n in range(6)]
        for thread in threads:
            thread.start()
        for epoch in range(2, 6):
            before, after = servers[epoch % 2], servers[(epoch + 1) % 2]
            so_far = len(done)
            deadline_s = time.monotonic() + WAIT_S
            while len(done) < so_far + 50:
                assert not troubles, troubles
                assert time.monotonic() < deadline_s, "the clients do not get on"
                time.sleep(0.01)
            before.kill()
            after.spec["epoch"] = epoch
            after.start()
        is_over.set()
        for thread in threads:
            thread.join()
        assert not troubles, troubles
        with closing(primacy.connect(url)) as check:
            (count,) = check.execute("SELECT n FROM counter").fetchone()
            kept = check.execute("PRAGMA integrity_check").fetchone()
            assert check.token.split(":")[0] == f"{check.server}@5"
    for server in servers:
        server.kill()
    assert (count, kept) == (len(done), ("ok",))
    assert set(done) == {"a", "b"}


def test_a_token_of_a_history_that_was_given_up_is_refused(tmp_path: Path) -> None:
    with Served(tmp_path) as server, closing(server.connect(isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a)")
        server.kill()
        server.spec["epoch"] = 2
        server.start()
        connection.execute("INSERT INTO t VALUES (1)")
        assert connection.token == "a@2:4"
        stranger = server.connect()
        stranger.token = "b@1:3"  # Record 3 is the beginning of epoch 2.
        with pytest.raises(db.Conflict, match="given up"):
            stranger.execute("SELECT 1")
        stranger.close()
