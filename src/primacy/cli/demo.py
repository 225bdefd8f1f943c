"""`primacy demo`: a cluster on this machine, the faults one after another, and an account of each.

Four clients write through the routers and one is attached directly to each server. A write counts
when its OK arrived and stands in a ledger outside the cluster. After each fault every acknowledged
row is looked for on the new primary with a plain driver.
"""

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from primacy.cli.demo_faults import FAULTS, Stage
from primacy.cli.demo_ledger import Account, read_ledger, settle
from primacy.cli.demo_mariadb import MariaDbDemo
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Scene
from primacy.cli.demo_writers import WritersSpec
from primacy.clock import SystemClock
from primacy.config import PROFILES
from primacy.errors import PrimacyError, Rejected, Unavailable
from primacy.model import NodeId

READY_WITHIN_S = 120.0
HEALED_WITHIN_S = 90.0
WRITING_WITHIN_S = 30.0
EQUAL_WITHIN_S = 60.0
DIFFERENCES_SHOWN = 10
CALM_S = 1.0
"""Between two faults, so that one outage does not run into the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    engine: str = "mariadb"
    fault: str = "all"
    profile: str = "default"
    rounds: int = 1
    is_json: bool = False
    is_kept: bool = False
    acks: int = 1
    promote_laggard: bool = False
    """The negative control: a replica that does not hold everything is promoted on purpose."""
    seed: int | None = None


class FaultResult(msgspec.Struct, frozen=True):
    fault: str
    outage_s: float
    acknowledged: int
    lost: int
    late: int
    primary: str
    healthy: bool
    steps: dict[str, float]


class DemoResult(msgspec.Struct, frozen=True):
    engine: str
    profile: str
    ok: bool
    results: tuple[FaultResult, ...]


def run_demo(options: DemoOptions) -> int:
    """Returns the exit code: 0 only if nothing was lost, all healed and all nodes are equal."""
    if options.engine != "mariadb":
        raise Rejected(
            f"--engine {options.engine}: this version has the engine mariadb",
            hint="Leave --engine away or say --engine mariadb.",
        )
    faults = list(FAULTS) if options.fault == "all" else options.fault.split(",")
    unknown = [fault for fault in faults if fault not in FAULTS]
    if unknown:
        raise Rejected(
            f"--fault {','.join(unknown)} is not known", hint=f"Known: {', '.join(FAULTS)}, all."
        )
    root = Path(tempfile.mkdtemp(prefix="primacy-demo-"))
    root.chmod(0o755)  # The server runs as another user and must get to its own directory.
    return asyncio.run(_until_told(Demo(options, faults).run(root)))


async def _until_told(play: Coroutine[None, None, int]) -> int:
    """SIGTERM and SIGINT end the play, and everything that it started."""
    running = asyncio.current_task()
    if running is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        return await play
    except asyncio.CancelledError:
        return 130


class Demo:
    def __init__(self, options: DemoOptions, faults: list[str]) -> None:
        self._options = options
        self._faults = faults
        self._clock = SystemClock()
        self._console = Console(stderr=options.is_json, highlight=False)
        self._began_s = self._clock.now_s()
        self._chance = random.Random(options.seed)  # Chooses a fault's victim.
        self._results: list[FaultResult] = []
        self._judged_bytes = 0

    async def run(self, root: Path) -> int:
        cluster = LocalCluster(
            root, clock=self._clock, names=("a", "b", "c"), settings=self._settings()
        )
        is_equal = False
        try:
            is_equal = await self._play(cluster)
        except* PrimacyError as errors:
            for error in errors.exceptions:
                self._say("demo", f"failed: {error}")
        finally:
            await cluster.stop_all()
            if self._options.is_kept:
                self._say("demo", f"kept: {root}")
            else:
                shutil.rmtree(root, ignore_errors=True)
        return self._report(is_equal=is_equal)

    def _settings(self) -> str:
        return "\n".join(
            [
                "[cluster]",
                'name = "demo"',
                f'engine = "{self._options.engine}"',
                f"lease_ttl_s = {PROFILES[self._options.profile]}",
                "failovers_before_back_off = 10000",  # Here they are made on purpose.
                "[durability]",
                f"acks = {self._options.acks}",
                "[mariadb]",
                "innodb_buffer_pool_mb = 32",
            ]
        )

    def _say(self, who: str, what: str) -> None:
        at_s = self._clock.now_s() - self._began_s
        self._console.print(f"{at_s:8.3f}  {who:<6} {what}", markup=False, soft_wrap=True)

    # ---- the play

    async def _play(self, cluster: LocalCluster) -> bool:
        self._say("demo", f"three nodes in {cluster.root}")
        scene = Scene(cluster, clock=self._clock, say=self._say)
        database = MariaDbDemo(cluster)
        cluster.start_all()
        is_equal = False
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(scene.run())
            await scene.wait_until(
                lambda: not scene.ailments(), "a primary and two replicas", READY_WITHIN_S
            )
            writers = await self._start_writers(cluster, database, scene)
            try:
                stage = Stage(
                    cluster=cluster,
                    scene=scene,
                    clock=self._clock,
                    chance=self._chance,
                    say=self._say,
                    promote_laggard=self._options.promote_laggard,
                )
                for _ in range(self._options.rounds):
                    for fault in self._faults:
                        await self._one_fault(fault, stage, database)
            finally:
                if writers.stdin is not None:
                    writers.stdin.close()
                await asyncio.to_thread(writers.wait)
            is_equal = await self._compare(scene, database)
            watching.cancel()
        return is_equal

    async def _start_writers(
        self, cluster: LocalCluster, database: MariaDbDemo, scene: Scene
    ) -> "subprocess.Popen[bytes]":
        primary = scene.primary
        if primary is None:
            raise Unavailable("the primary went away", hint="Run the demo again.")
        await asyncio.to_thread(database.prepare, primary)
        spec = database.writers()
        path = cluster.root / "writers.json"
        path.write_bytes(msgspec.json.encode(spec))
        self._ledger = Path(spec.ledger)
        process = _start_writers(path)
        await self._wait_for_writes(spec)
        return process

    async def _wait_for_writes(self, spec: WritersSpec) -> None:
        await self._until(
            lambda: len(read_ledger(self._ledger)) > len(spec.writers),
            "the first acknowledged writes",
            WRITING_WITHIN_S,
        )
        self._say("demo", f"{len(spec.writers)} clients are writing")

    async def _one_fault(self, fault: str, stage: Stage, database: MariaDbDemo) -> None:
        scene = stage.scene
        await self._clock.sleep(CALM_S)
        old = scene.primary
        if old is None:
            raise Unavailable("no primary before the fault", hint="See the timeline above.")
        self._say("demo", f"--- fault: {fault} (the primary is {old})")
        from_s = self._clock.wall_s()
        acknowledged_before = len(read_ledger(self._ledger))
        await FAULTS[fault](stage, old)
        healthy = await self._healed(scene)
        until_s = self._clock.wall_s()
        await self._until(
            lambda: any(
                line.acked_s > until_s and line.door == "rw" for line in read_ledger(self._ledger)
            ),
            "a write through the router after the cluster healed",
            WRITING_WITHIN_S,
        )
        account = await self._settle(stage, database, old=old, from_s=from_s, until_s=until_s)
        epoch = scene.view().epoch
        history = scene.history.get(epoch)
        self._results.append(
            FaultResult(
                fault=fault,
                outage_s=round(account.outage_s, 3),
                acknowledged=account.acknowledged - acknowledged_before,
                lost=account.lost,
                late=account.late - account.late_direct,
                primary=scene.primary or "",
                healthy=healthy,
                steps=history.steps_s if history else {},
            )
        )
        self._say(
            "demo",
            f"outage {account.outage_s:.3f} s, lost {account.lost}, late {account.late}",
        )

    async def _healed(self, scene: Scene) -> bool:
        try:
            await scene.wait_until(
                lambda: not scene.ailments(), "every node healthy again", HEALED_WITHIN_S
            )
        except Unavailable as error:
            self._say("demo", error.what)
            return False
        return True

    async def _settle(
        self, stage: Stage, database: MariaDbDemo, *, old: str, from_s: float, until_s: float
    ) -> Account:
        scene = stage.scene
        lines = read_ledger(self._ledger)  # Before the rows are read: each must be among them.
        primary = scene.primary
        if primary is None:
            raise Unavailable("no primary after the fault", hint="See the timeline above.")
        present = await asyncio.to_thread(database.rows, primary)
        return settle(
            lines,
            present=present,
            old_server=database.server_number(old),
            replaced_at_s=scene.replaced_at_s.get(scene.view().epoch, until_s),
            from_s=from_s,
            until_s=until_s,
        )

    async def _compare(self, scene: Scene, database: MariaDbDemo) -> bool:
        """All nodes hold the same rows, once the last have been applied."""
        checksums: dict[NodeId, tuple[int, int]] = {}

        def are_equal() -> bool:
            return len(checksums) == len(scene.nodes) and len(set(checksums.values())) == 1

        async def look() -> None:
            checksums.update(await asyncio.to_thread(database.checksums))

        deadline_s = self._clock.now_s() + EQUAL_WITHIN_S
        await look()
        while not are_equal() and self._clock.now_s() < deadline_s:
            await self._clock.sleep(0.2)
            await look()
        self._say("demo", f"checksums of all nodes: {checksums}")
        if not are_equal():
            await self._tell_differences(scene, database)
        return are_equal()

    async def _tell_differences(self, scene: Scene, database: MariaDbDemo) -> None:
        """Which rows, and from which client: the first thing that one wants to know."""
        rows = {node: await asyncio.to_thread(database.rows, node) for node in scene.nodes}
        everywhere = set.intersection(*rows.values())
        for node, held in rows.items():
            only = sorted(held - everywhere)[:DIFFERENCES_SHOWN]
            shown = ", ".join(f"{row >> 40}:{row & (1 << 40) - 1}" for row in only)
            self._say(node, f"{len(held)} rows; not everywhere (client:row): {shown or 'none'}")

    async def _until(self, holds: Callable[[], bool], what: str, within_s: float) -> None:
        deadline_s = self._clock.now_s() + within_s
        while not holds():
            if self._clock.now_s() > deadline_s:
                raise Unavailable(f"not within {within_s:.0f} s: {what}", hint="See the timeline.")
            await self._clock.sleep(0.05)

    # ---- the account

    def _report(self, *, is_equal: bool) -> int:
        expected = len(self._faults) * self._options.rounds
        ok = (
            is_equal
            and len(self._results) == expected
            and all(each.healthy and not each.lost and not each.late for each in self._results)
        )
        result = DemoResult(self._options.engine, self._options.profile, ok, tuple(self._results))
        if self._options.is_json:
            sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        else:
            self._console.print(_table(result))
            self._console.print("all nodes equal" if is_equal else "the nodes are NOT equal")
        return 0 if ok else 1


def _start_writers(spec: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "primacy.cli.demo_writers", str(spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _table(result: DemoResult) -> Table:
    table = Table(title=f"{result.engine}, profile {result.profile}")
    for heading in ("fault", "write outage", "acknowledged", "lost", "late", "primary now", ""):
        table.add_column(heading)
    for each in result.results:
        table.add_row(
            each.fault,
            f"{each.outage_s:.3f} s",
            str(each.acknowledged),
            str(each.lost),
            str(each.late),
            each.primary,
            "healthy" if each.healthy else "NOT healthy",
        )
    return table
