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
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from primacy.cli.demo_database import DemoDatabase, database_of
from primacy.cli.demo_disks import SmallDisk, enter_room, needs_room
from primacy.cli.demo_faults.catalogue import DISK, NETWORK, Programme, programme
from primacy.cli.demo_faults.stage import Stage
from primacy.cli.demo_network import LOOPBACK, CuttableNetwork, Loopback, Network
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_relayed import cuttable
from primacy.cli.demo_round import FaultResult, Rounds
from primacy.cli.demo_scene import Scene
from primacy.cli.demo_writers import WritersSpec
from primacy.clock import SystemClock
from primacy.config import PROFILES
from primacy.errors import PrimacyError, Unavailable
from primacy.model import NodeId

NODES = ("a", "b", "c")
READY_WITHIN_S = 120.0
EQUAL_WITHIN_S = 60.0
DIFFERENCES_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    engine: str = "sqlite"
    fault: str = "all"
    profile: str = "default"
    rounds: int = 1
    is_json: bool = False
    is_kept: bool = False
    acks: int = 1
    promote_laggard: bool = False
    """The negative control: a replica that does not hold everything is promoted on purpose."""
    seed: int | None = None
    is_relayed: bool = False
    """By a relay, although namespaces could be made."""


class DemoResult(msgspec.Struct, frozen=True):
    engine: str
    profile: str
    ok: bool
    results: tuple[FaultResult, ...]


def run_demo(options: DemoOptions) -> int:
    """Returns the exit code: 0 only if nothing was lost, all healed and all nodes are equal."""
    database_of(options.engine)  # `Rejected` before anything is done.
    chance = random.Random(options.seed)
    plan = programme(options.fault, engine=options.engine, rounds=options.rounds, chance=chance)
    if plan.needs(DISK) and needs_room():
        enter_room([sys.executable, *sys.orig_argv[1:], "--relay"])
    root = Path(tempfile.mkdtemp(prefix="primacy-demo-"))
    root.chmod(0o755)  # The server runs as another user and must get to its own directory.
    return asyncio.run(_until_told(Demo(options, plan, chance).run(root)))


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
    def __init__(self, options: DemoOptions, plan: Programme, chance: random.Random) -> None:
        """`chance` chooses the victims of a fault."""
        self._options = options
        self._plan = plan
        self._chance = chance
        self._clock = SystemClock()
        self._console = Console(stderr=options.is_json, highlight=False)
        self._began_s = self._clock.now_s()
        self._results: list[FaultResult] = []
        self._cut: CuttableNetwork | None = None

    async def run(self, root: Path) -> int:
        for fault, why in self._plan.skipped.items():
            self._say("demo", f"fault {fault} is left out: {why}")
        is_equal: bool | None = None
        try:
            with self._network() as network:
                is_equal = await self._on(root, network)
        except* PrimacyError as errors:
            for error in errors.exceptions:
                self._say("demo", f"failed: {error}")
        if self._options.is_kept:
            self._say("demo", f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
        return self._report(is_equal=is_equal)

    @contextmanager
    def _network(self) -> Iterator[Network]:
        """One that can be cut where a fault cuts it; else all on loopback."""
        network: Network = Loopback()
        if self._plan.needs(NETWORK):
            network, said = cuttable(NODES, random.Random(), is_relayed=self._options.is_relayed)
            self._cut = network
            if said:
                self._say("demo", said)
        try:
            yield network
        finally:
            network.close()

    async def _on(self, root: Path, network: Network) -> bool:
        cluster = LocalCluster(
            root,
            clock=self._clock,
            names=NODES,
            settings=self._settings(is_beyond_loopback=network.clients_host != LOOPBACK),
            network=network,
        )
        disk: SmallDisk | None = None
        try:
            if self._plan.needs(DISK):
                place = cluster.nodes[NodeId(NODES[-1])].state_dir
                place.mkdir()
                disk = SmallDisk(place, self._clock)
            return await self._play(cluster, disk)
        finally:
            await cluster.stop_all()
            if disk is not None:
                disk.close(is_kept=self._options.is_kept)

    def _settings(self, *, is_beyond_loopback: bool) -> str:
        return "\n".join(
            [
                "[cluster]",
                'name = "demo"',
                f'engine = "{self._options.engine}"',
                f"lease_ttl_s = {PROFILES[self._options.profile]}",
                "failovers_before_back_off = 10000",  # Here they are made on purpose.
                f"insecure = {str(is_beyond_loopback).lower()}",  # On a made-up LAN.
                "[durability]",
                f"acks = {self._options.acks}",
                database_of(self._options.engine).settings,
            ]
        )

    def _say(self, who: str, what: str) -> None:
        at_s = self._clock.now_s() - self._began_s
        self._console.print(f"{at_s:8.3f}  {who:<6} {what}", markup=False, soft_wrap=True)

    # ---- the play

    async def _play(self, cluster: LocalCluster, disk: SmallDisk | None) -> bool:
        self._say("demo", f"three nodes in {cluster.root}")
        scene = Scene(cluster, clock=self._clock, say=self._say)
        database = database_of(self._options.engine)(cluster)
        cluster.start_all()
        is_equal = False
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(scene.run())

            def is_ready() -> bool:
                cluster.check_agents()
                return not scene.ailments()

            await scene.wait_until(is_ready, "a primary and two replicas", READY_WITHIN_S)
            stage = Stage(
                cluster=cluster,
                scene=scene,
                database=database,
                clock=self._clock,
                chance=self._chance,
                say=self._say,
                cut=self._cut,
                disk=disk,
                promote_laggard=self._options.promote_laggard,
            )
            await self._play_rounds(stage)
            is_equal = await self._compare(scene, database)
            watching.cancel()
        return is_equal

    async def _play_rounds(self, stage: Stage) -> None:
        spec = stage.database.writers()
        rounds = Rounds(stage, Path(spec.ledger))
        writers = await self._start_writers(stage, spec)
        try:
            await rounds.written(len(spec.writers))
            self._say("demo", f"{len(spec.writers)} clients are writing")
            for round_ in self._plan.rounds:
                self._results.append(await rounds.play(round_))
        finally:
            if writers.stdin is not None:
                writers.stdin.close()
            await asyncio.to_thread(writers.wait)

    async def _start_writers(self, stage: Stage, spec: WritersSpec) -> "subprocess.Popen[bytes]":
        primary = stage.scene.primary
        if primary is None:
            raise Unavailable("the primary went away", hint="Run the demo again.")
        await asyncio.to_thread(stage.database.prepare, primary)
        path = stage.cluster.root / "writers.json"
        path.write_bytes(msgspec.json.encode(spec))
        return _start_writers(path)

    async def _compare(self, scene: Scene, database: DemoDatabase) -> bool:
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

    async def _tell_differences(self, scene: Scene, database: DemoDatabase) -> None:
        """Which rows, and from which client: the first thing that one wants to know."""
        rows = {node: await asyncio.to_thread(database.rows, node) for node in scene.nodes}
        everywhere = set.intersection(*rows.values())
        for node, held in rows.items():
            only = sorted(held - everywhere)[:DIFFERENCES_SHOWN]
            shown = ", ".join(f"{row >> 40}:{row & (1 << 40) - 1}" for row in only)
            self._say(node, f"{len(held)} rows; not everywhere (client:row): {shown or 'none'}")

    # ---- the account

    def _report(self, *, is_equal: bool | None) -> int:
        """`is_equal`: None where the nodes could not be compared."""
        expected = len(self._plan.rounds)
        ok = (
            is_equal is True
            and len(self._results) == expected
            and all(each.healthy and not each.lost and not each.late for each in self._results)
        )
        result = DemoResult(self._options.engine, self._options.profile, ok, tuple(self._results))
        if self._options.is_json:
            sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        else:
            self._console.print(_table(result))
            if is_equal is not None:
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
