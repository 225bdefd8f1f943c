"""Clients of the store that want the same few keys at the same time: what `windows` checks.

One sits beside each of three hosts and is cut off with it; one sits outside. All act at the ticks
of one clock, so that their operations overlap: they read, put, compare and swap, delete, and write
two keys at once.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial

from primacy.coordination.api import (
    Compare,
    Delete,
    Field,
    KeyValue,
    Put,
    Range,
    RangeResult,
    Test,
    Txn,
    absent,
    holds_value,
    unchanged,
)
from primacy.errors import OutcomeUnknown, PrimacyError
from primacy.model import NodeId
from primacy.sim.loop import SimClock, SimLoop, new_loop
from primacy.sim.store_client import SimStore
from primacy.sim.store_model import StoreAnswer, StoreRequest
from primacy.sim.windows import Histories
from primacy.sim.world import NodeClock, Process, World

EVERY_S = 1.5
"""Between two ticks."""

BURST = 2
"""Operations of each client at a tick, one after the other."""

SPREAD_S = 0.01
"""Within which the clients act at a tick: a few network delays."""

PATIENCE_S = 6.0
"""Longer than the store client's own: whoever is cancelled does not know what came of it."""

OPENS_MAX = 3
CALLS_MAX = 400
"""After so many lost answers, or calls, the keys of a group are left for fresh ones: each lost
answer may double the ways in which a window can have ended."""


class Contender:
    """One client: what it last saw of each key, and what it does next."""

    def __init__(
        self, name: str, contest: "Contest", chance: random.Random, store: SimStore, clock: SimClock
    ) -> None:
        self.name = name
        self._contest = contest
        self._chance = chance
        self._store = store
        self._clock = clock
        self._seen: dict[str, KeyValue | None] = {}
        self._number = 0

    async def run(self, start_s: float) -> None:
        await self._clock.sleep(start_s)
        while True:
            spread_s = SPREAD_S * self._chance.random()
            await self._clock.sleep(EVERY_S - self._clock.now_s() % EVERY_S + spread_s)
            for _ in range(BURST):
                kind = self._chance.choice(["solo", "pair"])
                group = self._contest.group(self._chance, kind)
                await self._ask(group, self._wish(group, is_pair=kind == "pair"))

    async def _ask(self, group: str, request: StoreRequest) -> None:
        histories = self._contest.histories
        call = histories.call(group, self.name, request)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._answer(request)
        except (OutcomeUnknown, TimeoutError):
            histories.lose(call)
        except PrimacyError:
            histories.refuse(call)
        else:
            self._remember(request, answer)
            histories.answer(call, answer)

    async def _answer(self, request: StoreRequest) -> StoreAnswer:
        if isinstance(request, Range):
            return await self._store.range(request.key, is_prefix=request.is_prefix)
        return await self._store.txn(request)

    def _remember(self, request: StoreRequest, answer: StoreAnswer) -> None:
        """What reads show; what the own writes made is learnt by the next read."""
        asked = [request] if isinstance(request, Range) else request.otherwise
        shown = [answer] if isinstance(answer, RangeResult) else answer.results
        for op, result in zip(asked, shown, strict=False):
            if isinstance(op, Range) and isinstance(result, RangeResult):
                self._seen |= {op.key: None} | {each.key: each for each in result.items}

    # ---- wishes

    def _wish(self, group: str, *, is_pair: bool) -> StoreRequest:
        keys = [f"{group}/x", f"{group}/y"] if is_pair else [f"{group}/x"]
        key = self._chance.choice(keys)
        wishes: list[tuple[int, Callable[[str], StoreRequest]]] = [
            (6, Range),
            (3, lambda key: Txn(then=(self._put(key),))),
            (6, self._swap),
            (2, lambda key: Txn(then=(Delete(key),))),
        ]
        if is_pair:
            wishes += [
                (3, lambda _: Range(f"{group}/", is_prefix=True)),
                (3, lambda _: Txn(then=(self._put(keys[0]), self._put(keys[1])))),
                (2, lambda _: self._move(keys)),
            ]
        weights = [weight for weight, _ in wishes]
        return self._chance.choices(wishes, weights)[0][1](key)

    def _put(self, key: str) -> Put:
        self._number += 1
        return Put(key, f"{self.name}/{self._number}".encode())

    def _swap(self, key: str) -> Txn:
        """Write if nothing has changed since it was seen; else look."""
        return Txn((self._as_seen(key),), (self._put(key),), (Range(key),))

    def _as_seen(self, key: str) -> Compare:
        item = self._seen.get(key)
        if item is None:
            return absent(key)
        return self._chance.choice(
            [
                unchanged(key, item.mod),
                holds_value(key, item.value),
                Compare(key, Field.VERSION, Test.EQUAL, item.version),
            ]
        )

    def _move(self, keys: list[str]) -> Txn:
        """From one key to the other, and look at both on the way."""
        source, target = keys
        return Txn(
            (self._as_seen(source),),
            (Delete(source), self._put(target), Range(source), Range(target)),
            (Range(source), Range(target)),
        )


class Contest:
    """All of them, and which keys they fight for at the moment."""

    def __init__(
        self,
        world: World,
        hosts: Sequence[NodeId],
        *,
        histories: Histories,
        new_store: Callable[[NodeId, Process], SimStore],
        on_end: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """`on_end` hears of a client that ends: none does by itself."""
        self.histories = histories
        self.names = [f"store-{host}" for host in hosts]
        self._world = world
        self._hosts = hosts
        self._new_store = new_store
        self._on_end = on_end
        self._loops: list[SimLoop] = []
        self._round = 0

    def start(self, start_of: Callable[[str, float], float | None]) -> None:
        """Those that `start_of` lets start."""
        for host, name in zip(self._hosts, self.names, strict=True):
            chance = self._world.stream(f"load/{name}")
            start_s = start_of(name, chance.random() * EVERY_S)
            if start_s is None:
                continue
            process = self._world.process(name, host, NodeClock(offset_s=0.0, rate=1.0))
            self._world.start(process)
            loop = new_loop(self._world, process)
            self._loops.append(loop)
            store, clock = self._new_store(host, process), SimClock(self._world, process)
            contender = Contender(name, self, chance, store, clock)
            loop.run_inside(partial(self._run, loop, contender, start_s))

    def _run(self, loop: SimLoop, contender: "Contender", start_s: float) -> None:
        loop.create_task(contender.run(start_s)).add_done_callback(self._on_end)

    def abandon(self) -> None:
        for loop in self._loops:
            loop.abandon()

    def group(self, chance: random.Random, kind: str) -> str:
        """Of the present round; once in a while of the one before, whose lost writes may come."""
        group = self.histories.group(f"contest/{self._round}/{kind}")
        if len(group.opens) >= OPENS_MAX or group.calls_count >= CALLS_MAX:
            self._round += 1
        number = self._round - 1 if self._round and chance.random() < 0.1 else self._round
        return f"contest/{number}/{kind}"
