"""Random sequences of engine calls, with servers killed and frozen and agents that die in the
middle, by the rules of the contract and of the promotion rule. By hand:

    python -m tests.conformance.engine.breaking --engine sqlite --seed 1 --rounds 30

Checks    No acknowledged row is missing on a later primary, and no refused one is there. What a
          node has sealed for it never undercuts, unless it was cut or rewound. All nodes are equal
          in the end. One node opens its doors in an epoch: by construction.
Assumes   A durability record of one acknowledgement: `members` are those that may give it.
"""

import argparse
import asyncio
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from tests.conformance.engine.conftest import MAKERS
from tests.conformance.engine.harness import MEMBERS, Answer
from tests.conformance.engine.stage import Stage
from tests.integration.mariadb.conftest import folder_for_all

from primacy.engines.api import ServerState
from primacy.errors import Conflict, PrimacyError
from primacy.model import ORIGIN, Incarnation, NodeId, Position

T = TypeVar("T")

WRITERS = 3
ROUND_S = 90.0
GIVES_UP_S = 2.0
"""A client that is not answered by then."""


class Breaker:
    """One cluster, from its first epoch to the comparison at the end."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self._stage = stage
        self._chance = chance
        self.acked: set[int] = set()
        self.refused: set[int] = set()
        self.unknown_count = 0
        self.done: list[str] = []
        """What happened, for whoever looks for the cause."""
        self._primary: NodeId | None = None
        self._record: NodeId | None = None
        """The primary of the durability record."""
        self._members: dict[NodeId, Incarnation | None] = {}
        self._sealed: dict[NodeId, Position] = {}
        self._sleeper: NodeId | None = None
        self._is_over = False

    # -- clients

    async def write(self) -> None:
        """To whoever leads, or to any node: what is acknowledged must last."""
        while not self._is_over:
            node = self._primary
            if node is None or self._chance.random() < 0.1:
                node = self._sleeper or self._chance.choice(MEMBERS)
            row = self._stage.row()
            answer = await self._stage.harness.write(node, row, within_s=GIVES_UP_S)
            if answer is Answer.ACKNOWLEDGED:
                self.acked.add(row)
            elif answer is Answer.REFUSED:
                self.refused.add(row)
                await asyncio.sleep(0.02)
            else:
                self.unknown_count += 1

    # -- rounds

    async def play(self, rounds: int) -> None:
        stage = self._stage
        await stage.ready()
        self._primary = self._record = MEMBERS[0]
        await self._name(MEMBERS[1:])
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(self.write())
            for number in range(rounds):
                self.done.append(f"-- round {number}, epoch {stage.epoch}")
                async with asyncio.timeout(ROUND_S):
                    await self._round()
            self._is_over = True
        async with asyncio.timeout(ROUND_S):
            await self._until_whole()
            await self._check(self._led())
            for node in MEMBERS:
                if node != self._led():
                    await stage.caught_up(self._led(), node)
                    assert list(await stage.harness.read(node)) == list(
                        await stage.harness.read(self._led())
                    ), f"{node} differs from {self._led()}"

    async def _round(self) -> None:
        """One agent calls at a time: it acts, something happens, and it goes on or gives up."""
        act = self._chance.choice(
            [self._whole, self._whole, self._switch_over, self._rejoin_all, self._leave]
        )
        happens = self._chance.choice([self._crash, self._crash, self._freeze, self._nothing])
        delay_s = self._chance.choice([0.0, 0.01, 0.05, 0.2, 0.5])
        self.done.append(f"{act.__name__} and, after {delay_s} s, {happens.__name__}")
        acting = asyncio.create_task(self._tried(act()))
        await asyncio.sleep(delay_s)
        await happens()
        does_agent_die = self._chance.random() < 0.3
        if does_agent_die or self._chance.random() < 0.3:
            acting.cancel()
        await asyncio.wait([acting])
        if not acting.cancelled():
            acting.result()
        if does_agent_die:
            await self._new_agents()
        if self._chance.random() < 0.2:
            await self._stale()
        await self._until_led()

    async def _tried(self, act: Coroutine[Any, Any, None]) -> None:  # Any: asyncio's own.
        try:
            await act
        except (PrimacyError, TimeoutError) as error:
            self.done.append(f"  given up: {type(error).__name__}: {error}"[:300])

    async def _nothing(self) -> None:
        await asyncio.sleep(0.1)

    # -- troubles

    async def _crash(self) -> None:
        for node in self._chance.sample(MEMBERS, self._chance.choice([1, 1, 1, 2, 3])):
            if self._stage[node].guardian is not None:
                self.done.append(f"  kill -9 {node}")
                await self._stage.crash(node)

    async def _freeze(self) -> None:
        node = self._chance.choice(MEMBERS)
        if self._stage[node].guardian is not None:
            self.done.append(f"  freeze {node}")
            async with self._stage.frozen(node):
                await asyncio.sleep(self._chance.choice([0.05, 0.2, 1.5]))

    async def _new_agents(self) -> None:
        for node in self._chance.sample(MEMBERS, self._chance.choice([1, 3])):
            self.done.append(f"  another agent of {node}")
            await self._stage.new_agent(node)

    async def _stale(self) -> None:
        """A primary that sleeps through a failover wakes up, with its clients, and is not asked
        anything for a while."""
        node = self._primary
        if node is None or self._stage[node].guardian is None:
            return
        self.done.append(f"  {node} sleeps through a failover")
        async with self._stage.frozen(node):
            await asyncio.sleep(0.1)
            await self._tried(self._fail_over(but=node))
        self._sleeper = node
        await asyncio.sleep(0.5)
        self._sleeper = None

    # -- what a brain does while all is well

    async def _leave(self) -> None:
        """A member leaves the record, as rule 2 has it."""
        primary = self._primary
        if primary is None or len(self._members) < 2:
            return
        node = self._chance.choice(sorted(self._members))
        self.done.append(f"  {node} leaves the record")
        await self._take_out(primary, node)

    async def _take_out(self, primary: NodeId, node: NodeId) -> None:
        stage = self._stage
        await stage[primary].exclude(node)
        marker = await stage[primary].write_marker()
        rest = [each for each in sorted(self._members) if each != node]
        async with asyncio.timeout(3.0):
            while not any([(await stage.end(each)).sequence >= marker for each in rest]):
                await asyncio.sleep(0.02)
        if self._primary == primary:
            del self._members[node]

    # -- what a brain does about it

    async def _until_led(self) -> None:
        while not await self._is_led():
            self._primary = None
            await self._tried(self._fail_over())

    async def _is_led(self) -> bool:
        primary = self._primary
        if primary is None:
            return False
        seen = await self._stage.seen(primary)
        return seen.state is ServerState.RUNNING and not seen.is_read_only

    def _led(self) -> NodeId:
        if self._primary is None:
            raise Conflict("nobody leads", hint="Let somebody.")
        return self._primary

    async def _fail_over(self, *, but: NodeId | None = None) -> None:
        """The promotion rule, 4 and 5, and then rule 3."""
        stage, self._primary = self._stage, None  # Its lease has ended, whatever it still does.
        epoch = stage.next_epoch()
        found: dict[NodeId, Position] = {}
        for node in self._chance.sample(MEMBERS, len(MEMBERS)):
            if node != but:
                position = await self._seal(node)
                if position is not None:
                    found[node] = position
        named = {node for node in found if await self._counts(node)}
        needed = len(self._members)  # n - k + 1 with one acknowledgement.
        record = self._record
        candidates = [max(named, key=lambda node: found[node])] if len(named) >= needed else []
        if record in found and not (await stage.seen(record)).is_cut:
            candidates.append(record)
        self.done.append(f"  epoch {epoch}: sealed {found}, of the record {sorted(named)}")
        if not candidates:
            return
        winner = self._chance.choice(candidates)
        self.done.append(f"  {winner} wins epoch {epoch}")
        await stage.up(winner)
        first = await self._twice(lambda: stage.begin(winner))
        torn = [node for node in MEMBERS if (await stage.seen(node)).is_torn]  # Cannot be sealed.
        others = [node for node in (*found, *torn) if node not in (winner, but)]
        await self._open(winner, first, others)

    async def _seal(self, node: NodeId) -> Position | None:
        stage = self._stage
        try:
            seen = await self._twice(lambda: stage[node].seal(stage.epoch))
        except PrimacyError as error:
            self.done.append(f"  no seal of {node}: {error}"[:300])
            return None
        assert seen.received >= self._sealed.get(node, ORIGIN), (
            f"{node} sealed at {seen.received}, and before at {self._sealed[node]}"
        )
        self._sealed[node] = seen.received
        return seen.received

    async def _twice(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:  # Any: asyncio's own.
        """Sometimes its caller loses patience first, and asks again."""
        if self._chance.random() < 0.3:
            task = asyncio.create_task(call())
            await asyncio.wait([task], timeout=self._chance.choice([0.0, 0.01, 0.05]))
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                return task.result()
        return await patiently_a_while(call)

    async def _counts(self, node: NodeId) -> bool:
        """It is a member in the very life that the record names."""
        return (
            node in self._members
            and (await self._stage.seen(node)).incarnation == self._members[node]
        )

    async def _open(self, winner: NodeId, first: int, others: list[NodeId]) -> None:
        stage = self._stage
        attached: list[NodeId] = []
        torn = [node for node in others if (await stage.seen(node)).is_torn]
        for node in sorted(others, key=lambda each: each in torn):
            if node in torn and attached:
                continue  # A named life ends once another record stands.
            try:
                await self._rejoin(node, winner, acknowledge=True)
                await stage.until(
                    node, lambda seen: seen.received >= Position(stage.epoch, first), within_s=5.0
                )
            except (PrimacyError, TimeoutError) as error:
                self.done.append(f"  {node} does not follow: {error}"[:300])
                await self._silence(node)
            else:
                attached.append(node)
        if not attached:
            raise Conflict(f"nobody holds the row of epoch {stage.epoch}", hint="Another epoch.")
        self._record = winner
        await self._name(attached)
        await stage.open(winner)
        self._primary = winner
        await self._check(winner)

    async def _silence(self, node: NodeId) -> None:
        """It may hold the row and will not be named: it must not acknowledge."""
        await self._stage[node].kill()

    async def _name(self, members: Any) -> None:  # Any: a list or tuple of nodes.
        self._members = {node: (await self._stage.seen(node)).incarnation for node in members}

    async def _check(self, primary: NodeId) -> None:
        acked, refused = set(self.acked), set(self.refused)
        rows = set(await self._stage.harness.read(primary))
        assert acked <= rows, f"acknowledged and lost: {sorted(acked - rows)}"
        assert not refused & rows, f"refused and there: {sorted(refused & rows)}"

    # -- what an operator or a brain does while all is well

    async def _switch_over(self) -> None:
        primary, stage = self._led(), self._stage
        target = self._chance.choice(sorted(self._members))
        self.done.append(f"  switchover from {primary} to {target}")
        await stage.step_down(primary)
        self._primary = None
        last = await stage.end(primary)
        await stage.until(target, lambda seen: seen.received >= last, within_s=5.0)
        await self._fail_over()

    async def _until_whole(self) -> None:
        """An agent plans again and again: what is unavailable now is asked for once more."""
        while True:
            try:
                return await self._whole()
            except (PrimacyError, TimeoutError) as error:
                self.done.append(f"  not whole yet: {type(error).__name__}: {error}"[:300])

    async def _whole(self) -> None:
        await self._until_led()
        await self._rejoin_all()
        for node in MEMBERS:
            if node not in (self._led(), *self._members):
                await self._take_in(node)

    async def _rejoin_all(self) -> None:
        """Who does not follow, does so again, without acknowledging. Whoever is kept out cannot:
        `_take_in` lets him in first."""
        for node in self._chance.sample(MEMBERS, len(MEMBERS)):
            kept_out = (await self._stage.seen(self._led())).sending.excluded
            if node == self._primary or node in kept_out:
                continue
            seen = await self._stage.seen(node)
            if seen.state is ServerState.HUNG:
                await self._stage[node].kill()
            if not seen.replication.is_receiving or seen.following_epoch != self._stage.epoch:
                await self._rejoin(node, self._led(), acknowledge=await self._counts(node))

    async def _rejoin(self, node: NodeId, primary: NodeId, *, acknowledge: bool) -> None:
        """By whatever way it can; cut, rewound or cloned where it must be."""
        stage, seen = self._stage, await self._stage.seen(node)
        if seen.is_torn:
            await self._clone(node, primary)
            seen = await stage.seen(node)
        if seen.state is ServerState.RUNNING:
            try:
                await stage.attach(primary, node, acknowledge=acknowledge)
            except Conflict as error:
                self.done.append(f"  {node} is killed, to be read: {error}"[:300])
                await stage[node].kill()
            else:
                return
        found = await stage.save_diverged(node)
        if found.count:
            self.done.append(f"  {node} has {found.count} of its own: {found}"[:300])
            self._sealed.pop(node, None)
        await stage[node].start(as_primary=found.count == 0)
        try:
            await stage.attach(primary, node, acknowledge=acknowledge)
        except Conflict as error:
            self.done.append(f"  {node} is {error}"[:300])
            if not found.count:  # Of epochs that were begun and never recorded.
                await self._clone(node, primary)
                await stage[node].start(as_primary=True)
            else:
                async with stage.harness.serving(primary):
                    await stage[node].rewind(found, primary, stage.epoch)
            await stage.attach(primary, node, acknowledge=acknowledge)

    async def _clone(self, node: NodeId, donor: NodeId) -> None:
        self.done.append(f"  {node} is cloned")
        self._sealed.pop(node, None)
        async with self._stage.harness.serving(donor):
            await self._stage[node].clone(donor, lambda _: None)

    async def _take_in(self, node: NodeId) -> None:
        primary, stage = self._led(), self._stage
        await stage[primary].admit(node)
        await patiently_a_while(lambda: self._rejoin(node, primary, acknowledge=False))
        await stage.caught_up(primary, node)
        if self._primary == primary:
            self._members[node] = (await stage.seen(node)).incarnation
            self.done.append(f"  {node} is in the record")
            await stage.attach(primary, node)


async def patiently_a_while(call: Callable[[], Awaitable[T]]) -> T:
    """An agent plans again and again; this one for a few seconds."""
    for _ in range(40):
        try:
            return await call()
        except (PrimacyError, TimeoutError):
            await asyncio.sleep(0.05)
    return await call()


async def break_it(engine: str, seed: int, rounds: int) -> str:
    """What is wrong, and how it came to it; empty where nothing is."""
    with folder_for_all() as root:
        harness = await MAKERS[engine](root)
        breaker = Breaker(Stage(harness), random.Random(seed))
        try:
            await breaker.play(rounds)
        except (AssertionError, ExceptionGroup, TimeoutError, PrimacyError) as error:
            trace = "".join(traceback.format_exception(error))
            return "\n".join([*breaker.done, trace, f"seed {seed} failed"])
        finally:
            await harness.close()
    counts = f"{len(breaker.acked)} acknowledged, {breaker.unknown_count} unknown"
    sys.stdout.write(f"seed {seed}: {rounds} rounds, {counts}, nothing lost\n")
    sys.stdout.flush()
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="sqlite", choices=sorted(MAKERS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    told = parser.parse_args()
    for seed in range(told.seed, told.seed + told.seeds):
        problem = asyncio.run(break_it(told.engine, seed, told.rounds))
        if problem:
            sys.exit(problem)


if __name__ == "__main__":
    main()
