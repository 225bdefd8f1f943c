"""What a SQLite node's size costs: `sqlite_growth.py [--gigabytes 2] [--json]`.

`insert_cost`, `update_cost`
    One client that commits one row at a time: appended, or changed at random. The server's CPU time
    of a commit with all gigabytes there, and with next to nothing there as its peer. Of the sizes
    in between the largest ratio is shown as `..._worst`. The bar is 1.2.
`restart`
    Seconds from a start after kill -9, in the middle of writes and with nothing in the page cache,
    to the first commit that is answered. Its peer: the same of the small database. The bar is 5 s.

One real server process on a real disk. It takes two and a half times the gigabytes of space in
`--directory`, and gives them back.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import primacy
import primacy.driver as db
from primacy.driver import Connection
from primacy.runtime.ports import PortBlocks

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, balance INTEGER, body BLOB)"
INSERT = "INSERT INTO t(name, balance, body) VALUES(?, ?, ?)"
UPDATE = "UPDATE t SET balance = balance + 1 WHERE id = ?"
BODY_BYTES = 2_000
FILL_ROWS = 2_000
"""Of one commit while it is filled."""
SMALL_ROWS = 4_000
"""So that there is something to be changed at random."""
STEPS = 4
LOG_KEEP_BYTES = 256 << 20
WAIT_S = 120.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Figure(NamedTuple):
    name: str
    value: float
    unit: str
    peer: float
    ratio: float


class Cost(NamedTuple):
    cpu_us: float
    p50_ms: float


class Server:
    """One process, its primary from the start."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._port = port
        self.url = f"primacy://127.0.0.1:{port}/db"
        self._spec = folder / "spec.json"
        limits = {"log_keep_bytes": LOG_KEEP_BYTES}
        spec = {"cluster": "growth", "node": "a", "directory": str(folder / "data"), "port": port}
        self._spec.write_text(json.dumps({**spec, "epoch": 1, "limits": limits}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "primacy.engines.sqlite.server", str(self._spec)]
        with (self.folder / "events").open("ab") as events:
            self._process = subprocess.Popen(command, stderr=events)

    def wait(self) -> None:
        """Until it listens."""
        until_s = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.005)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def connect(self) -> Connection:
        return primacy.connect(self.url, isolation_level=None, timeout_s=WAIT_S)

    def cpu_s(self) -> float:
        """Of all its threads so far."""
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "data").glob("db.sqlite*"))

    def forget_cached(self) -> None:
        """As after a restart of the host."""
        for path in (self.folder / "data").rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


class Growth:
    def __init__(self, server: Server, *, commits: int) -> None:
        self._server = server
        self._commits = commits
        self._chance = random.Random(1)
        self._rows = 0

    def fill(self, connection: Connection, *, until_bytes: int) -> None:
        body = self._chance.randbytes(BODY_BYTES)
        row = ("somebody", 12_345, body)
        while self._server.size_bytes < until_bytes or self._rows < SMALL_ROWS:
            connection.executemany(INSERT, [row] * FILL_ROWS)
            self._rows += FILL_ROWS

    def insert_cost(self, connection: Connection) -> Cost:
        body = self._chance.randbytes(BODY_BYTES)

        def insert() -> None:
            connection.execute(INSERT, ("somebody", 12_345, body))
            self._rows += 1

        return self._cost(insert)

    def update_cost(self, connection: Connection) -> Cost:
        return self._cost(
            lambda: connection.execute(UPDATE, (self._chance.randrange(1, self._rows + 1),))
        )

    def _cost(self, commit: Callable[[], object]) -> Cost:
        took_s: list[float] = []
        before_s = self._server.cpu_s()
        for _ in range(self._commits):
            began = time.perf_counter()
            commit()
            took_s.append(time.perf_counter() - began)
        cpu_s = self._server.cpu_s() - before_s
        return Cost(1e6 * cpu_s / self._commits, 1000 * statistics.median(took_s))

    def restart_s(self) -> float:
        """Killed while a client writes."""
        is_writing = threading.Event()

        def write() -> None:
            with contextlib.suppress(db.Error), closing(self._server.connect()) as connection:
                for _ in range(10_000):
                    connection.execute(UPDATE, (self._chance.randrange(1, self._rows + 1),))
                    is_writing.set()

        client = threading.Thread(target=write)
        client.start()
        is_writing.wait(WAIT_S)
        time.sleep(0.2)  # Some hundred commits: the moment is no matter.
        self._server.kill()
        client.join()
        self._server.forget_cached()
        began = time.perf_counter()
        self._server.start()
        self._server.wait()
        with closing(self._server.connect()) as connection:
            connection.execute(UPDATE, (1,))
        return time.perf_counter() - began


def figures(folder: Path, *, size_bytes: int, commits: int) -> list[Figure]:
    with PortBlocks(random.Random()) as ports:
        server = Server(folder, *ports.take(1))
        server.start()
        server.wait()
        try:
            return _measured(server, size_bytes=size_bytes, commits=commits)
        finally:
            server.kill()


def _measured(server: Server, *, size_bytes: int, commits: int) -> list[Figure]:
    growth = Growth(server, commits=commits)
    with closing(server.connect()) as connection:
        connection.execute(SCHEMA)
        growth.fill(connection, until_bytes=0)
    small_s = growth.restart_s()
    inserts: list[Cost] = []
    updates: list[Cost] = []
    with closing(server.connect()) as connection:
        growth.insert_cost(connection)  # Warm.
        for step in range(STEPS + 1):
            growth.fill(connection, until_bytes=size_bytes * step // STEPS)
            inserts.append(growth.insert_cost(connection))
            updates.append(growth.update_cost(connection))
            _tell(server.size_bytes, inserts[-1], updates[-1])
    large_s = growth.restart_s()
    return [
        *_costs("insert_cost", inserts),
        *_costs("update_cost", updates),
        Figure("restart", large_s, "s", small_s, large_s / small_s),
    ]


def _costs(name: str, costs: list[Cost]) -> list[Figure]:
    first, last = costs[0].cpu_us, costs[-1].cpu_us
    worst = max(each.cpu_us for each in costs[1:])
    return [
        Figure(name, last, "us of CPU", first, last / first),
        Figure(f"{name}_worst", worst, "us of CPU", first, worst / first),
    ]


def _tell(size_bytes: int, insert: Cost, update: Cost) -> None:
    costs = {"insert": insert, "update": update}
    said = [f"{name} {c.cpu_us:.0f} us of CPU, p50 {c.p50_ms:.2f} ms" for name, c in costs.items()]
    sys.stderr.write(f"{size_bytes / 1e9:.2f} GB: {'; '.join(said)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--commits", type=int, default=3_000, help="of each kind at each size")
    parser.add_argument("--directory", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="primacy-growth-", dir=asked.directory))
    try:
        found = figures(folder, size_bytes=int(asked.gigabytes * 1e9), commits=asked.commits)
    finally:
        shutil.rmtree(folder)
    if asked.json:
        sys.stdout.write(json.dumps([each._asdict() for each in found], indent=2) + "\n")
        return
    for each in found:
        line = f"{each.name:20} {each.value:10.2f} {each.unit:10} peer {each.peer:10.2f}"
        sys.stdout.write(f"{line}   ratio {each.ratio:.2f}\n")


if __name__ == "__main__":
    main()
