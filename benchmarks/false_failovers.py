"""Failovers that nobody needed: a busy machine, and processes that stand still for a moment.

    .venv/bin/python benchmarks/false_failovers.py --minutes 60 [--profile fast] [--busy 20]

Three real nodes as in `primacy demo`, kept to `--cores` cores together with `--busy` processes that
only burn time. At random moments the agent or the database of a random node is stopped for half a
second. Nothing fails: every epoch that begins is one too many. Clients write all the while, and
their ledger says how long a write had to wait, and that none was lost. The bar: none in the default
profile, at most one an hour in `fast`, and no acknowledged write lost.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from primacy.cli.demo_database import DemoDatabase, database_of
from primacy.cli.demo_ledger import LedgerFile, Owner, outage, settle
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Scene
from primacy.clock import SystemClock
from primacy.config import PROFILES
from primacy.errors import PrimacyError, Unavailable
from primacy.model import NodeId

NODES = ("a", "b", "c")
READY_WITHIN_S = 120.0
WELL_WITHIN_S = 60.0

STOP_S = 0.5
STOPPED = ("agent", "database")
BETWEEN_S = (1.0, 9.0)
"""Between the end of one stop and the next: as long, by chance."""

BARS = {"default": 0.0, "fast": 1.0}
"""Failovers in an hour that are borne."""

BURN = (
    "import os\n"
    "parent = os.getppid()\n"
    "while os.getppid() == parent:\n"
    "    for _ in range(1_000_000): pass\n"
)
"""It ends with whoever started it, even where that one was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    engine: str
    minutes: float
    profile: str
    busy: int
    cores: int
    seed: int
    is_json: bool
    is_kept: bool


@dataclass(slots=True)
class Seen:
    """What happened so far."""

    stops: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    """Stops whose process was not there."""
    last_stop: str = "none yet"
    last_stop_s: float = 0.0
    epochs: list[str] = field(default_factory=list)
    """Each that began without need, and what was known of it."""


class Hour:
    """One run on one cluster."""

    def __init__(self, options: Options, cluster: LocalCluster) -> None:
        self._options = options
        self._cluster = cluster
        self._clock = SystemClock()
        self._chance = random.Random(options.seed)
        self._began_s = self._clock.now_s()
        self._seen = Seen()
        self._is_measuring = False
        self._scene = Scene(cluster, clock=self._clock, say=self._hear)
        self._database = database_of(options.engine)(cluster)
        self._ledger = LedgerFile(cluster.root / "ledger")

    async def run(self) -> dict[str, object]:
        self._cluster.start_all()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._scene.run())
            await self._well(READY_WITHIN_S)
            await asyncio.to_thread(self._database.prepare, self._scene.primary or NodeId("a"))
            with writing(self._cluster.root, self._database), burning(self._options.busy):
                told = await self._measure()
            watching.cancel()
        return told

    async def _measure(self) -> dict[str, object]:
        await self._scene.wait_until(
            lambda: len(self._ledger.lines()) > len(NODES), "acknowledged writes", WELL_WITHIN_S
        )
        self._say(f"{self._options.busy} busy processes, {self._options.cores} cores; it begins")
        first, from_s = self._scene.view().epoch, self._clock.wall_s()
        self._is_measuring = True
        until_s = self._clock.now_s() + 60.0 * self._options.minutes
        minute = 1
        while self._clock.now_s() < until_s:
            await self._clock.sleep(self._chance.uniform(*BETWEEN_S))
            await self._stop_one()
            if self._clock.now_s() >= self._minute_s(until_s, minute):
                self._say(f"minute {minute}: {self._progress(from_s)}")
                minute += 1
        self._is_measuring = False
        await self._well(WELL_WITHIN_S)
        return await self._account(from_s, epochs=self._scene.view().epoch - first)

    def _minute_s(self, until_s: float, minute: int) -> float:
        return until_s - 60.0 * (self._options.minutes - minute)

    async def _stop_one(self) -> None:
        node = NodeId(self._chance.choice(NODES))
        part = self._chance.choice(STOPPED)
        role = "primary" if node == self._scene.primary else "replica"
        pid = self._cluster.pids(node).get(part)
        if pid is None:
            self._seen.missed += 1
            return
        self._seen.stops[f"{role}'s {part}"] += 1
        self._seen.last_stop = f"{node}'s {part} ({role})"
        self._seen.last_stop_s = self._clock.now_s()
        os.kill(pid, signal.SIGSTOP)
        try:
            await self._clock.sleep(STOP_S)
        finally:
            self._cluster.signal_parts({part: pid}, signal.SIGCONT)

    def _hear(self, who: str, what: str) -> None:
        """Of the store: what the nodes decide. All of it is told; a new epoch is counted."""
        if not self._is_measuring:
            return
        ago_s = self._clock.now_s() - self._seen.last_stop_s
        if "may be primary of epoch" in what:
            self._seen.epochs.append(f"{what}; {ago_s:.1f} s after {self._seen.last_stop} stood")
        self._say(f"{who}: {what} ({ago_s:.1f} s after the stop of {self._seen.last_stop})")

    def _progress(self, from_s: float) -> str:
        gap_s, _ = outage(self._ledger.lines(), from_s=from_s, until_s=self._clock.wall_s())
        load = os.getloadavg()[0]
        return (
            f"{self._seen.stops.total()} stops, {len(self._seen.epochs)} failovers,"
            f" longest write gap {gap_s:.2f} s, load {load:.0f}"
        )

    async def _account(self, from_s: float, *, epochs: int) -> dict[str, object]:
        primary = self._scene.primary
        if primary is None:
            raise Unavailable("no primary at the end", hint="See the timeline above.")
        lines = self._ledger.lines().copy()  # Before the rows are read: each must be among them.
        present = await asyncio.to_thread(self._database.rows, primary)
        owners = [Owner(at_s, node) for node, at_s in self._scene.primaries.values()]
        account = settle(
            lines, present=present, owners=owners, from_s=from_s, until_s=self._clock.wall_s()
        )
        late = account.against_promise(answers_by_page=self._database.answers_by_page)
        borne = BARS[self._options.profile] * max(1.0, self._options.minutes / 60.0)
        return {
            "engine": self._options.engine,
            "profile": self._options.profile,
            "minutes": self._options.minutes,
            "cores": self._options.cores,
            "busy": self._options.busy,
            "seed": self._options.seed,
            "stops": dict(self._seen.stops),
            "missed_stops": self._seen.missed,
            "failovers": epochs,
            "of_them": self._seen.epochs,
            "longest_gap_s": round(account.outage_s, 3),
            "acknowledged": account.acknowledged,
            "lost": account.lost,
            "late": late,
            "ok": epochs <= borne and not account.lost and not late,
        }

    async def _well(self, within_s: float) -> None:
        await self._scene.wait_until(
            lambda: not self._scene.ailments(), "a primary and two replicas", within_s
        )

    def _say(self, what: str) -> None:
        at_s = self._clock.now_s() - self._began_s
        print(f"{at_s:8.1f}  {what}", file=sys.stderr, flush=True)


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Processes that always want to run."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for each in burners:
            each.kill()
            each.wait()


@contextmanager
def writing(root: Path, database: DemoDatabase) -> Iterator[None]:
    """The demo's clients."""
    spec = root / "writers.json"
    spec.write_bytes(msgspec.json.encode(database.writers()))
    writers = subprocess.Popen(
        [sys.executable, "-m", "primacy.cli.demo_writers", str(spec)], stdin=subprocess.PIPE
    )
    try:
        yield
    finally:
        writers.kill()
        writers.communicate()


def place() -> Path:
    root = Path(tempfile.mkdtemp(prefix="primacy-calm-"))
    root.chmod(0o755)  # The server runs as another user.
    return root


async def measure(options: Options) -> dict[str, object]:
    root = place()
    cluster = LocalCluster(
        root,
        clock=SystemClock(),
        names=NODES,
        settings=f'[cluster]\nname = "calm"\nengine = "{options.engine}"\n'
        f"lease_ttl_s = {PROFILES[options.profile]}\n{database_of(options.engine).settings}\n",
    )
    try:
        return await Hour(options, cluster).run()
    finally:
        await cluster.stop_all()
        if not options.is_kept:
            shutil.rmtree(root, ignore_errors=True)
        else:
            print(f"kept: {root}", file=sys.stderr)


def parsed() -> Options:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="sqlite", choices=("sqlite", "mariadb"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--profile", default="default", choices=sorted(PROFILES))
    parser.add_argument("--busy", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the directory with its logs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    return Options(
        engine=given.engine,
        minutes=given.minutes,
        profile=given.profile,
        busy=given.busy,
        cores=min(given.cores, len(os.sched_getaffinity(0))),
        seed=given.seed,
        is_json=given.json,
        is_kept=given.keep,
    )


def main() -> int:
    options = parsed()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    told: dict[str, object] = {}
    try:
        told = asyncio.run(measure(options))
    except* PrimacyError as errors:
        for error in errors.exceptions:
            print(f"failed: {error}", file=sys.stderr)
    if not told:
        return 1
    if options.is_json:
        print(json.dumps(told))
    else:
        print(" ".join(f"{key}={value}" for key, value in told.items()))
        print("within the bar" if told["ok"] else "NOT within the bar")
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
