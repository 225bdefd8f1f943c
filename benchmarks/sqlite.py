"""The SQLite engine against SQLite itself, in one run on one disk.

    python benchmarks/sqlite.py [--json] [--seconds 2] [--rounds 5] [DIRECTORY]

`engine_batch_N`      N one-row transactions per group: row images, all checks, an append to the log
                      and one fdatasync, COMMIT at synchronous=NORMAL. Its peer: plain SQLite at
                      synchronous=FULL, N inserts per COMMIT. Ratio of transactions per second;
                      more is better.
`replica_apply_cpu`   CPU of decoding and applying the records, against the primary's CPU for making
                      them (execute, capture, log) in groups of 64; a replica groups by itself, up
                      to 256. Ratio; less is better.
`semisync_...`        the whole server with two replicas: `sqlite_server.py`.

The two take turns in short slices, so that another load on the machine meets both; the median of
the rounds counts. A benchmark is no test: it never fails on a time.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import apsw
import sqlite_server

from primacy.clock import SystemClock
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.writer import Writer
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Entry, decode, epoch_entry
from primacy.telemetry import ignore

BATCHES = (1, 16, 64, 256)
APPLIED_TOGETHER = 256
TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, balance INTEGER, note TEXT)"
INSERT = "INSERT INTO t(name, balance, note) VALUES(?, ?, ?)"
ROW = ("somebody", 12_345, "x" * 100)
NODE = NodeId("a")


class Figure(NamedTuple):
    """One line of the answer."""

    name: str
    value: float
    unit: str
    peer: float
    ratio: float


class Floor:
    """What SQLite gives by itself with the same durability and the same group commit."""

    def __init__(self, directory: Path) -> None:
        self._connection = apsw.Connection(str(directory / "floor.db"))
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("synchronous", "full")
        self._connection.wal_autocheckpoint(StorageSettings().checkpoint_pages)
        self._connection.execute(TABLE)
        self._cursor = self._connection.cursor()

    def group(self, batch: int) -> None:
        execute = self._cursor.execute
        execute("BEGIN IMMEDIATE")
        for _ in range(batch):
            execute(INSERT, ROW)
        execute("COMMIT")


class Engine:
    """The same by the writer and the log."""

    def __init__(self, directory: Path) -> None:
        self._writer = Writer(
            directory / "engine.db", StorageSettings(), clock=SystemClock(), seeds=random.Random(1)
        )
        self._log = Log.open(directory / "log", limits=LogLimits(), events=ignore)
        self._now_us = 0
        start = epoch_entry(NODE, schema_hash=0, commit_time_us=0)
        self._log.append([start], epoch=Epoch(1), source=NODE)
        self._writer.begin()
        self._writer.run(TABLE)
        self.end([self._entry()])

    def _entry(self) -> Entry:
        change = self._writer.change()
        if change is None:
            sys.exit("a transaction changed nothing")
        return Entry(change.kind, change.payload, change.schema_hash, self._now_us)

    def group(self, batch: int) -> None:
        self._now_us = time.time_ns() // 1000
        run, entry = self._writer.run, self._entry
        self._writer.begin()
        entries: list[Entry] = []
        for _ in range(batch):
            run(INSERT, ROW)
            entries.append(entry())
        self.end(entries)

    def end(self, entries: list[Entry]) -> None:
        self._log.append(entries, epoch=Epoch(1), source=NODE)
        self._writer.commit(self._log.sync())

    def records(self, after: int) -> bytes:
        return self._log.read(after, bytes_max=1 << 20)

    @property
    def end_index(self) -> int:
        return self._log.end.index


def rate_per_s(group: Callable[[int], None], batch: int, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        group(batch)
        count += batch
    return count / (time.perf_counter() - began)


def batches(directory: Path, *, seconds: float, rounds: int) -> list[Figure]:
    floor, engine = Floor(directory), Engine(directory)
    figures: list[Figure] = []
    for batch in BATCHES:
        mine: list[float] = []
        peers: list[float] = []
        for _ in range(rounds):
            peers.append(rate_per_s(floor.group, batch, seconds / 2))
            mine.append(rate_per_s(engine.group, batch, seconds / 2))
        ratio = statistics.median(a / b for a, b in zip(mine, peers, strict=True))
        value, peer = statistics.median(mine), statistics.median(peers)
        figures.append(Figure(f"engine_batch_{batch}", value, "transactions/s", peer, ratio))
    return figures


def apply_cpu(directory: Path, *, rounds: int, groups: int = 60, batch: int = 64) -> Figure:
    engine = Engine(directory)
    applier = Applier(directory / "replica.db", StorageSettings())
    made: list[float] = []
    applied: list[float] = []
    for _ in range(rounds):
        first = engine.end_index
        began = time.process_time()
        for _ in range(groups):
            engine.group(batch)
        made.append(time.process_time() - began)
        began = time.process_time()
        while applier.position.index < engine.end_index:
            records = decode(engine.records(applier.position.index))
            while group := list(islice(records, APPLIED_TOGETHER)):
                applier.apply(group)
        applied.append((time.process_time() - began) * (groups * batch))
        applied[-1] /= applier.position.index - first
    each = groups * batch / 1e6
    value, peer = statistics.median(applied) / each, statistics.median(made) / each
    return Figure("replica_apply_cpu", value, "us/transaction", peer, value / peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("directory", type=Path, nargs="?", help="where to write (a real disk)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0, help="per batch size and round")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as where:
        for part in ("batches", "apply", "server"):
            (Path(where) / part).mkdir()
        figures = batches(Path(where) / "batches", seconds=asked.seconds, rounds=asked.rounds)
        figures.append(apply_cpu(Path(where) / "apply", rounds=asked.rounds))
        server = sqlite_server.figures(
            Path(where) / "server", seconds=asked.seconds, rounds=asked.rounds
        )
        figures += [Figure(*row) for row in server]
    if asked.json:
        print(json.dumps([figure._asdict() for figure in figures], indent=1))
        return
    for name, value, unit, peer, ratio in figures:
        print(f"{name:36} {value:12,.1f} {unit:18} peer {peer:12,.1f}   ratio {ratio:.2f}")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
