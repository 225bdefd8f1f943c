"""A seed in, a verdict out: one run, a budget of runs, and the replay of one.

Two phases. In the first anything may happen, and nothing may break. In the second all faults are
repaired, and within `CONVERGE_WITHIN_S` everything must be whole again (`healing`): no dead end.
"""

import asyncio
import multiprocessing
import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from math import inf

from primacy.coordination.api import Put, Txn
from primacy.errors import InvariantBroken, PrimacyError
from primacy.model import NodeId
from primacy.replication.records import SWITCHOVER_KEY, SwitchoverRequest, encoded
from primacy.sim.choices import Choices, Chooser, Luck, narrowed
from primacy.sim.contest import Contest
from primacy.sim.engine_model import ModelEngine
from primacy.sim.faults import Faults
from primacy.sim.healing import Healing
from primacy.sim.invariants import Invariants
from primacy.sim.loop import SimClock, new_loop
from primacy.sim.member_host import StoreParts
from primacy.sim.network import Network
from primacy.sim.node import Node, Parts
from primacy.sim.report import DURATION_S, Break, Report, Verdict
from primacy.sim.scene import Scene
from primacy.sim.settings import EngineName, Setup, draw
from primacy.sim.sqlite_model import SqliteModel
from primacy.sim.store_client import SimStore
from primacy.sim.trace import Trace
from primacy.sim.windows import Histories
from primacy.sim.workload import CLIENT_HOST, DirectWriter, Uids, Writer, write_once
from primacy.sim.world import NodeClock, Process, World

CALM_SHARE = 0.75
"""Of a run's duration faults strike; the rest is calm."""

CONVERGE_WITHIN_S = 150.0
"""After the faults: the longest back-off is 60 s, a clone and some elections come on top."""

CONVERGE_LOOK_S = 0.5

ROUTED_WRITERS = 3

CONTESTED_NODES = 3
"""Beside so many nodes a client of the store sits; one more is outside."""

NUMBERS = "numbers"
"""The client that writes numbered keys into the store, each once."""

NUMBERS_EVERY_S = 0.45

Assembly = Callable[[Setup], Parts]


ENGINES: dict[EngineName, type[ModelEngine]] = {"mariadb": ModelEngine, "sqlite": SqliteModel}


def genuine(setup: Setup) -> Parts:
    """The real parts, with nothing planted."""
    return Parts(
        store=StoreParts(
            timing=setup.timing, limits=setup.limits, member_limits=setup.member_limits
        ),
        engine=ENGINES[setup.engine],
    )


class Run:
    """One seed's world, put together and ready to go."""

    def __init__(
        self,
        seed: int,
        *,
        engine: EngineName = "mariadb",
        assembly: Assembly = genuine,
        listener: Callable[[str], None] | None = None,
        choices: Choices | None = None,
    ) -> None:
        """What the choices say goes before `engine`."""
        drawn = draw(seed, engine if choices is None else choices.engine)
        self.setup = setup = drawn if choices is None else narrowed(drawn, choices)
        self.trace = Trace(listener=listener)
        self.world = world = world_of(seed, choices, self.trace)
        self._chooser = Chooser(seed, choices)
        self.network = Network(world, setup.network)
        self.invariants = Invariants(world, setup.nodes, setup.policy)
        clocks = self._clocks()
        parts = assembly(setup)
        self.nodes = {
            name: Node(
                name,
                world,
                self.network,
                setup=setup,
                parts=parts,
                clock=clocks[name],
                witness=self.invariants,
            )
            for name in setup.nodes
        }
        for node in self.nodes.values():
            node.connect(self.nodes)
        data = [self.nodes[name] for name in setup.data_nodes]
        self.invariants.ledger.engines = {node.name: node.engine for node in data}
        self.invariants.ledger.ack_on = setup.ack_on
        self.invariants.guards = {node.name: node.guard for node in data}
        self.client = world.process(CLIENT_HOST, CLIENT_HOST, NodeClock(offset_s=0.0, rate=1.0))
        self._loop = new_loop(world, self.client)
        self._uids = Uids()
        self._add_writers(data)
        self._scene = Scene(
            world,
            self.network,
            self.nodes,
            ttl_s=setup.policy.lease_ttl_s,
            patience_s=setup.store_patience_s,
            primary=self._primary,
            ask_switchover=self._ask_switchover,
            moments=self.invariants.moments,
            ledger=self.invariants.ledger,
        )
        self.faults = Faults(
            self._scene,
            weights=setup.faults,
            every_s=setup.fault_every_s,
            chooser=self._chooser,
        )
        self._requests = 0
        self._add_contest()

    def _clocks(self) -> dict[NodeId, NodeClock]:
        setup, chance = self.setup, self.world.stream("clocks")
        return {
            name: NodeClock(
                offset_s=100.0 + 1000.0 * chance.random(), rate=rate, wall_rate=setup.wall_rate
            )
            for name, rate in zip(setup.nodes, setup.clock_rates, strict=True)
        }

    def _add_writers(self, data: list[Node]) -> None:
        setup, world = self.setup, self.world
        self.writers = [
            Writer(
                f"writer-{number}",
                world,
                self.network,
                client=self.client,
                routers=[node.router for node in data],
                uids=self._uids,
                every_s=setup.write_every_s,
            )
            for number in range(1, ROUTED_WRITERS + 1)
        ]
        self.direct_writers = [
            DirectWriter(
                f"direct-{node.name}",
                world,
                client=self.client,
                engine=node.engine,
                uids=self._uids,
                every_s=setup.write_every_s * 2,
            )
            for node in data
        ]

    def _add_contest(self) -> None:
        setup, world = self.setup, self.world
        self._contest = Contest(
            world,
            [*setup.nodes[:CONTESTED_NODES], NodeId(CLIENT_HOST)],
            histories=Histories(lambda: world.now_s, self.trace.sometimes),
            new_store=self._new_store,
            on_end=self._client_ended,
        )
        writers = [each.name for each in self._all_writers()]
        self._chooser.check_clients([*writers, NUMBERS, *self._contest.names])

    def go(self, duration_s: float, *, until_s: float | None = None) -> Verdict:
        """Both phases, or only up to `until_s`. What the choices say goes before `duration_s`."""
        told = self._chooser.told
        duration_s = duration_s if told is None else told.duration_s
        heal_at_s = duration_s * CALM_SHARE if told is None else told.heal_at_s
        end_s = duration_s if until_s is None else min(duration_s, until_s)
        try:
            self._start()
            self._advance(min(heal_at_s, end_s))
            if end_s > heal_at_s:
                self.faults.heal()
                self._advance(end_s)
            if until_s is None and (told is None or told.is_converging):
                self._converge(heal_at_s)
            self._contest.histories.close()
        except InvariantBroken as broken:
            self.invariants.stop(broken)
        except Exception as error:  # noqa: BLE001  # Whatever breaks is the verdict of this seed.
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.invariants.fail("no-exception", f"{error!r} at {where.filename}:{where.lineno}")
        verdict = self._verdict(duration_s, heal_at_s)
        for node in self.nodes.values():
            node.abandon()
        self._contest.abandon()
        self._loop.abandon()
        return verdict

    def _all_writers(self) -> list[Writer | DirectWriter]:
        return [*self.writers, *self.direct_writers]

    def _verdict(self, duration_s: float, heal_at_s: float) -> Verdict:
        world, broken = self.world, self.invariants.broken
        return Verdict(
            seed=world.seed,
            setup=self.setup,
            broken=None if broken is None else Break(broken.name, str(broken)),
            at_s=world.now_s,
            digest=self.trace.digest,
            events_count=world.events_count,
            commits_count=self.invariants.ledger.commits_count,
            checked_count=self.invariants.store.checked_count,
            lost_count=self.invariants.ledger.lost_count,
            counters=self.trace.counters,
            choices=self._chooser.record(
                self.setup,
                duration_s,
                heal_at_s,
                broken=broken.name if broken else None,
                luck=world.luck,
            ),
        )

    def _start(self) -> None:
        self.world.start(self.client)
        for node in self.nodes.values():
            self.world.after(self.world.stream("clocks").random(), None, node.boot)
        for writer in self._all_writers():
            start_s = self._chooser.start_of(writer.name, writer.start_s())
            if start_s is not None:
                writer.start(start_s)
        self._loop = new_loop(self.world, self.client)
        self._store = self._new_store(NodeId(CLIENT_HOST), self.client)
        if self._chooser.start_of(NUMBERS, 0.0) is not None:
            self._loop.run_inside(self._start_numbers)
        self._contest.start(self._chooser.start_of)
        self.faults.start()

    def _new_store(self, node: NodeId, process: Process) -> SimStore:
        return SimStore(
            node,
            self.world,
            self.network,
            {name: each.member for name, each in self.nodes.items()},
            process=process,
            history=self.invariants.store,
            on_asked=self.invariants.on_asked,
            on_watched=self.invariants.on_watched,
            patience_s=self.setup.store_patience_s,
        )

    def _start_numbers(self) -> None:
        clock = SimClock(self.world, self.client)
        task = self._loop.create_task(write_once(self._store, clock, "client", NUMBERS_EVERY_S))
        task.add_done_callback(self._client_ended)

    def _client_ended(self, task: "asyncio.Task[None]") -> None:
        """What a client found out by its answers is the verdict of the run."""
        error = task.exception()
        if isinstance(error, InvariantBroken):
            self.invariants.stop(error)
        elif error is not None:
            self.invariants.fail("no-exception", f"a client ended: {error!r}")

    def _advance(self, until_s: float) -> None:
        self.world.run(until_s=until_s)
        if self.invariants.broken is not None:
            raise self.invariants.broken

    def _converge(self, healed_at_s: float) -> None:
        """no-dead-end: everything is whole, and a write goes through a router again."""
        started = {each.name for each in self._chooser.clients}
        writers = [writer for writer in self.writers if writer.name in started]
        healing = Healing(
            self.nodes, self.setup.policy, self.invariants, spoiled=self._scene.spoiled
        )
        deadline_s = self.world.now_s + CONVERGE_WITHIN_S
        while lacking := healing.lacking() or self._unserved(writers, healed_at_s):
            if self.world.now_s >= deadline_s:
                self.invariants.fail(
                    "no-dead-end", f"after {CONVERGE_WITHIN_S:.0f} s of calm: {lacking}"
                )
                return
            self._advance(self.world.now_s + CONVERGE_LOOK_S)
        healing.check_whole()

    def _unserved(self, writers: list[Writer], healed_at_s: float) -> str:
        ok_at_s = max((writer.ok_at_s for writer in writers), default=inf)
        return "" if ok_at_s > healed_at_s + 1.0 else "no write was acknowledged through a router"

    # ---- people

    def _primary(self) -> NodeId | None:
        record = self.invariants.primary
        return None if record is None else record.node

    def _ask_switchover(self, target: NodeId | None) -> None:
        self._requests += 1
        request = SwitchoverRequest(request_id=f"s{self._requests}", target=target)

        def ask() -> None:
            task = self._loop.create_task(self._put(SWITCHOVER_KEY, encoded(request)))
            task.add_done_callback(self._client_ended)

        self._loop.run_inside(ask)

    async def _put(self, key: str, value: bytes) -> None:
        try:
            await self._store.txn(Txn(then=(Put(key, value),)))
        except PrimacyError as error:
            self.world.note(CLIENT_HOST, "request-failed", error.what)


def world_of(seed: int, choices: Choices | None, trace: Trace) -> World:
    """With the luck that the choices tell, or with the seed's own."""
    if choices is None:
        return World(seed, trace=trace)
    return World(seed, trace=trace, salt=choices.salt, luck=Luck(choices.mishaps))


def run_seed(  # noqa: PLR0913  # What decides a run: each by its name.
    seed: int,
    duration_s: float,
    *,
    engine: EngineName = "mariadb",
    assembly: Assembly = genuine,
    listener: Callable[[str], None] | None = None,
    until_s: float | None = None,
    choices: Choices | None = None,
) -> Verdict:
    """One seed, from its first event to its verdict; or its run by other choices."""
    run = Run(seed, engine=engine, assembly=assembly, listener=listener, choices=choices)
    return run.go(duration_s, until_s=until_s)


def run_seeds(  # noqa: PLR0913  # And what decides a budget of them.
    first_seed: int,
    count: int,
    duration_s: float = DURATION_S,
    *,
    engine: EngineName = "mariadb",
    on_verdict: Callable[[Verdict], None] | None = None,
    failures_max: int = 10,
    workers: int | None = None,
) -> Report:
    """Genuine seeds from `first_seed` on, as many at a time as there are processors; stops early
    once `failures_max` have failed. Verdicts come in the order of their seeds."""
    report = Report(engine=engine)
    context = multiprocessing.get_context("spawn")
    workers = workers or len(os.sched_getaffinity(0))
    seeds = range(first_seed, first_seed + count)
    with ProcessPoolExecutor(min(workers, count), mp_context=context) as pool:
        waiting = deque(pool.submit(_timed, seed, duration_s, engine) for seed in seeds)
        while waiting and len(report.failures) < failures_max:
            verdict, cpu_s = waiting.popleft().result()
            report.add(verdict)
            report.cpu_s += cpu_s
            if on_verdict is not None:
                on_verdict(verdict)
        for future in waiting:
            future.cancel()
    return report


def _timed(seed: int, duration_s: float, engine: EngineName) -> tuple[Verdict, float]:
    """In a process of its own: the verdict, and the CPU seconds that it took."""
    began_s = time.process_time()
    return run_seed(seed, duration_s, engine=engine), time.process_time() - began_s


def replay(
    seed: int,
    *,
    duration_s: float = DURATION_S,
    engine: EngineName = "mariadb",
    until_s: float | None = None,
    listener: Callable[[str], None] | None = None,
    choices: Choices | None = None,
) -> Verdict:
    """The same seed again; `listener` hears one line per event of note."""
    return run_seed(
        seed, duration_s, engine=engine, listener=listener, until_s=until_s, choices=choices
    )


def is_deterministic(seed: int, duration_s: float) -> bool:
    """Run the seed twice and compare the digests."""
    return run_seed(seed, duration_s).digest == run_seed(seed, duration_s).digest
