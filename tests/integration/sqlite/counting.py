"""Clients that count through failovers of a whole cluster: real agents, guards, routers, servers.

Sixteen clients add one to the same row through the routers, each call with a key of its own, sent
again with the same key until it is answered. One primary after another is lost meanwhile. Half of
the clients now and then hang up in the middle of a call, and come back for its answer later.

Promises  Each call took effect once: the answers are the numbers from 1 to the number of calls,
          none twice and none left out; each is higher than all that were answered before its call
          was made; the counter is the number of calls, on every node.
"""

import argparse
import asyncio
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import primacy
import primacy.driver as db
from primacy.cli.demo_faults import primary
from primacy.cli.demo_faults.stage import Run, Stage
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Scene
from primacy.cli.demo_sqlite import SqliteDemo
from primacy.cli.demo_sqlite_client import DATABASE
from primacy.clock import SystemClock
from primacy.driver.aio import AsyncConnection
from primacy.model import NodeId

CLIENTS = 16
PAUSE_S = 0.01
"""Between two calls of a client, and before it repeats one: the cluster shares their cores."""
IMPATIENT_S, PATIENT_S = 0.1, 30.0
"""How long the driver goes on by itself. Every other client gives up sooner than a failover takes,
and repeats the call itself, by another connection."""
HANG_UP_SHARE = 0.15
"""Of an impatient client's attempts: those that it does not wait for."""
HANG_UP_MAX_S = 0.01
"""About as long as a call takes: some have taken effect by then, and some not."""
AWAY_MAX_S = 0.8
"""Until it comes back for the answer: the primary may be another one by then."""
READY_WITHIN_S, ANSWERED_WITHIN_S = 60.0, 60.0
ANSWERS_BETWEEN = 4 * CLIENTS
"""At least so many calls are answered between two failovers."""
LOG_LINES_TOLD = 60

INCREMENT = "UPDATE counter SET n = n + 1 RETURNING n"
SETTINGS = """
[cluster]
name = "counting"
engine = "sqlite"
failovers_before_back_off = 10000
[durability]
acks = 1
"""


class Doubled(AssertionError):
    """A call took effect twice, or not at all."""


class HungUp(Exception):
    """A client did not wait for the answer."""

    def __init__(self, for_s: float) -> None:
        super().__init__(f"away for {for_s:.3f} s")
        self.for_s = for_s


@dataclass(slots=True)
class Tally:
    """What the clients were answered."""

    numbers: set[int] = field(default_factory=set)
    at_s: list[float] = field(default_factory=list)
    newest: int = 0
    repeats: int = 0
    """Attempts that clients made behind the first one; the driver's own are not seen here."""
    settled: int = 0
    """Calls that had taken effect before the attempt that was answered."""
    settled_elsewhere: int = 0
    """Of them: those that another node answered than the one that was asked first."""

    def take(self, number: int, *, made_at: int, sent_at: int, is_elsewhere: bool = False) -> None:
        """`made_at`, `sent_at`: the newest number when the call was made, and when the attempt was
        sent that was answered."""
        if number in self.numbers:
            raise Doubled(f"{number} was answered to two calls: a write was lost")
        if number <= made_at:
            raise Doubled(f"{number} was answered to a call that was made after {made_at}")
        self.numbers.add(number)
        self.newest = max(self.newest, number)
        self.settled += number <= sent_at
        self.settled_elsewhere += is_elsewhere and number <= sent_at
        self.at_s.append(time.monotonic())

    def longest_gap_s(self, *, after_s: float) -> float:
        """Between two answers; the first of which may have come before `after_s`."""
        first = next((n for n, at_s in enumerate(self.at_s) if at_s >= after_s), len(self.at_s))
        within = self.at_s[max(0, first - 1) :]
        return max((later - sooner for sooner, later in itertools.pairwise(within)), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    calls: int
    are_all_answered: bool
    """The answers are the numbers from 1 to `calls`."""
    counters: Mapping[NodeId, int]
    epochs: int
    repeats: int
    settled: int
    settled_elsewhere: int
    outages: Sequence[tuple[str, float]]
    """Fault -> the longest time without an answer."""

    def check(self) -> None:
        if not self.are_all_answered or set(self.counters.values()) != {self.calls}:
            raise Doubled(f"{self.calls} calls were answered; the nodes hold {self.counters}")

    def told(self) -> str:
        outages = ", ".join(f"{fault} {outage_s:.2f}" for fault, outage_s in self.outages)
        counter = "/".join(str(each) for each in sorted(set(self.counters.values())))
        return (
            f"calls {self.calls}, counter {counter} on {len(self.counters)} nodes; failovers"
            f" {len(self.outages)} (epochs {self.epochs}), repeated by clients {self.repeats},"
            f" settled by the key {self.settled} ({self.settled_elsewhere} of them by the next"
            f" primary); outages in s: {outages}"
        )


class Client:
    """`chance` says when it hangs up; None: never."""

    def __init__(
        self, url: str, tally: Tally, clock: SystemClock, *, chance: random.Random | None
    ) -> None:
        self._url = url
        self._tally = tally
        self._clock = clock
        self._chance = chance
        self._connection: AsyncConnection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """The call that is under way when it is to stop is made to its end."""
        while not stop.is_set():
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                await self._call()
            await self._clock.sleep(PAUSE_S)
        await self._close()

    async def _call(self) -> None:
        tally, key = self._tally, db.idempotency_key()
        made_at = tally.newest
        asked = ""
        while True:
            sent_at = tally.newest
            try:
                connection = await self._connected()
                asked = asked or connection.server
                number = await self._attempt(connection, key)
            except HungUp as away:
                tally.repeats += 1
                await self._close()
                await self._clock.sleep(away.for_s)
            except (db.OutcomeUnknown, db.Unavailable):
                tally.repeats += 1
                await self._close()
                await self._clock.sleep(PAUSE_S)
            else:
                is_elsewhere = asked != connection.server
                tally.take(number, made_at=made_at, sent_at=sent_at, is_elsewhere=is_elsewhere)
                return

    async def _attempt(self, connection: AsyncConnection, key: str) -> int:
        chance, within_s = self._chance, None
        if chance is not None and chance.random() < HANG_UP_SHARE:
            within_s = chance.uniform(0, HANG_UP_MAX_S)
        try:
            async with asyncio.timeout(within_s):
                cursor = await connection.execute(INCREMENT, idempotency_key=key)
                (number,) = await cursor.fetchone()
        except TimeoutError:
            assert chance is not None
            raise HungUp(chance.uniform(0, AWAY_MAX_S)) from None
        return int(number)

    async def _connected(self) -> AsyncConnection:
        if self._connection is None:
            self._connection = await primacy.connect_async(
                self._url,
                isolation_level=None,
                timeout_s=PATIENT_S if self._chance is None else IMPATIENT_S,
            )
        return self._connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def agent(stage: Stage, node: NodeId) -> None:
    """SIGKILL of the agent alone: its guard ends the primary at the deadline. Back when another
    leads."""
    epoch = stage.epoch
    try:
        stage.cluster.signal_part(node, "agent", signal.SIGKILL)
        await stage.replaced(epoch)
    finally:
        stage.start(node)


FAULTS: Mapping[str, Run] = {
    "database": primary.crash,
    "guard": primary.guard,
    "agent": agent,
    "switchover": primary.switchover,
}


class Counting:
    """One cluster and its clients."""

    def __init__(self, stage: Stage, database: SqliteDemo, clock: SystemClock) -> None:
        self._stage = stage
        self._clock = clock
        self._login = database.writers()
        self._tally = Tally()

    async def play(self, failovers: int) -> Counted:
        stage, tally = self._stage, self._tally
        async with await self._connected(self._url("rw_port")) as setup:
            await setup.executescript("CREATE TABLE counter (n); INSERT INTO counter VALUES (0);")
        await setup.close()
        stop = asyncio.Event()
        before = stage.epoch
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                chance = random.Random(f"{stage.chance.random()} {number}") if number % 2 else None
                url = self._url("rw_port", first=number)
                client = Client(url, tally, self._clock, chance=chance)
                tasks.create_task(client.run(stop))
            outages = [
                (fault, await self._lose(FAULTS[fault]))
                for fault in itertools.islice(itertools.cycle(FAULTS), failovers)
            ]
            await self._answered(ANSWERS_BETWEEN)
            stop.set()
        return Counted(
            calls=len(tally.at_s),
            are_all_answered=tally.numbers == set(range(1, len(tally.at_s) + 1)),
            counters=await self._counters(),
            epochs=stage.epoch - before,
            repeats=tally.repeats,
            settled=tally.settled,
            settled_elsewhere=tally.settled_elsewhere,
            outages=outages,
        )

    async def _lose(self, fault: Run) -> float:
        """Until the cluster is whole again."""
        stage = self._stage
        await self._answered(ANSWERS_BETWEEN)
        await stage.healed()
        old, epoch, began_s = stage.scene.primary, stage.epoch, self._clock.now_s()
        assert old is not None
        await fault(stage, old)
        await self._answered(ANSWERS_BETWEEN)
        await stage.healed()
        assert stage.epoch > epoch
        return self._tally.longest_gap_s(after_s=began_s)

    async def _answered(self, more: int) -> None:
        enough = len(self._tally.at_s) + more
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            while len(self._tally.at_s) < enough:
                await self._clock.sleep(PAUSE_S)

    async def _counters(self) -> dict[NodeId, int]:
        """Of each server, once it has applied what the primary had."""
        found, token = {}, ""
        nodes = self._stage.scene.nodes
        first = self._stage.scene.primary
        for node in sorted(nodes, key=lambda each: each != first):
            door = self._stage.cluster.nodes[node].address("database_port")
            async with await self._connected(self._of(f"{door.host}:{door.port}", "any")) as reader:
                if token:
                    reader.token = token
                row = await (await reader.execute("SELECT n FROM counter")).fetchone()
                found[node], token = int(row[0]), reader.token
            await reader.close()
        return found

    async def _connected(self, url: str) -> AsyncConnection:
        return await primacy.connect_async(url, isolation_level=None)

    def _url(self, port: str, *, first: int = 0) -> str:
        """All hosts, from another one on for each client."""
        nodes = list(self._stage.cluster.nodes.values())
        turned = [nodes[(first + n) % len(nodes)] for n in range(len(nodes))]
        doors = [node.address(port) for node in turned]
        return self._of(",".join(f"{door.host}:{door.port}" for door in doors), "primary")

    def _of(self, hosts: str, target: str) -> str:
        login = self._login
        return f"primacy://{login.user}:{login.password}@{hosts}/{DATABASE}?target={target}"


@asynccontextmanager
async def staged(root: Path, *, seed: int) -> AsyncIterator[tuple[Stage, SqliteDemo, SystemClock]]:
    """Three nodes, whole and led; every process is gone when it ends."""
    clock = SystemClock()
    cluster = LocalCluster(
        root, clock=clock, names=("a", "b", "c"), settings=f"{SETTINGS}\n{SqliteDemo.settings}"
    )
    lines: list[str] = []
    began_s = clock.now_s()

    def say(who: str, what: str) -> None:
        lines.append(f"{clock.now_s() - began_s:8.3f}  {who:<6} {what}\n")

    scene = Scene(cluster, clock=clock, say=say)
    database = SqliteDemo(cluster)
    watching = asyncio.get_running_loop().create_task(scene.run())
    try:
        cluster.start_all()
        what = "a primary and two replicas"
        await scene.wait_until(lambda: not scene.ailments(), what, READY_WITHIN_S)
        chance = random.Random(seed)
        yield (
            Stage(
                cluster=cluster,
                scene=scene,
                database=database,
                clock=clock,
                chance=chance,
                say=say,
            ),
            database,
            clock,
        )
    except BaseException:
        sys.stderr.writelines(lines)
        for node in cluster.nodes.values():
            sys.stderr.write(f"---- {node.name}: {node.log}\n")
            sys.stderr.writelines(
                node.log.read_text(errors="replace").splitlines(keepends=True)[-LOG_LINES_TOLD:]
            )
        raise
    finally:
        watching.cancel()
        await cluster.stop_all()


async def count(root: Path, *, failovers: int, seed: int) -> Counted:
    """`Doubled` where a call did not take effect exactly once."""
    async with staged(root, seed=seed) as (stage, database, clock):
        counted = await Counting(stage, database, clock).play(failovers)
        counted.check()
        return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failovers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="primacy-counting-"))
    started_s = time.monotonic()
    counted = asyncio.run(count(folder, failovers=asked.failovers, seed=asked.seed))
    shutil.rmtree(folder)  # Kept where something was wrong.
    print(f"{counted.told()}; {time.monotonic() - started_s:.0f} s")  # noqa: T201  # A command.


if __name__ == "__main__":
    main()
