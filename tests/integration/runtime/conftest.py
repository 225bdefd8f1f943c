"""Raft members on loopback, each with a real directory, and a state that is a list of commands."""

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from tests.ports import free_addresses

from primacy.clock import SystemClock
from primacy.consensus.machine import (
    Apply,
    Effect,
    Install,
    Propose,
    SnapshotMeta,
    Tick,
)
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import Limits, Raft, State, Timing
from primacy.model import NodeId
from primacy.runtime.host import MachineHost
from primacy.runtime.storage import MemberStorage
from primacy.runtime.tcp import TcpTransport

NODES = [NodeId("a"), NodeId("b"), NodeId("c")]
DEADLINE_S = 20.0
TIMING = Timing(heartbeat_s=0.05, election_timeout_min_s=0.2, election_timeout_max_s=0.35)


@dataclass
class Running:
    raft: Raft
    host: MachineHost[Message, Tick, Effect[Message]]
    storage: MemberStorage
    transport: TcpTransport
    state: list[bytes] = field(default_factory=list)
    applied: SnapshotMeta = field(default_factory=SnapshotMeta)
    installed_count: int = 0

    def on_effect(self, effect: Effect[Message]) -> None:
        match effect:
            case Apply(entries):
                self.state += [entry.data for entry in entries if entry.data]
                self.applied = SnapshotMeta(index=entries[-1].index, term=entries[-1].term)
            case Install(meta):
                self.state = list(self.storage.snapshots.load(meta))
                self.applied = meta
                self.installed_count += 1
            case _:
                pass


class Members:
    """Starts and kills members; a killed one keeps its directory and nothing else."""

    def __init__(self, directory: Path, tasks: asyncio.TaskGroup, *, trailing: int) -> None:
        self.running: dict[NodeId, Running] = {}
        self._directory = directory
        self._tasks = tasks
        self._limits = Limits(trailing_entries=trailing)
        self._addresses = dict(zip(NODES, free_addresses(len(NODES)), strict=True))
        self._of: dict[NodeId, asyncio.Task[None]] = {}
        self._seed = 0

    async def start(self, node: NodeId) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._of[node] = self._tasks.create_task(self._run(node, ready))
        await ready

    async def kill(self, node: NodeId) -> None:
        """Nothing more is sent, written or said: what the disk holds is what remains."""
        task = self._of.pop(node)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def kill_all(self) -> None:
        for node in list(self._of):
            await self.kill(node)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.01)

    async def leader(self) -> Running:
        await self.until(lambda: any(map(_leads, self.running.values())))
        return next(each for each in self.running.values() if _leads(each))

    async def replicate(self, commands: list[bytes]) -> None:
        """Until every running member has applied them all."""
        for begin in range(0, len(commands), 50):
            part = commands[begin : begin + 50]
            while not self._hold(part):
                leader = await self.leader()
                missing = tuple(each for each in part if each not in leader.state)
                if missing:
                    assert leader.host.post(Propose(missing, 1))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2.0):
                        await self.until(functools.partial(self._hold, part))

    def _hold(self, commands: list[bytes]) -> bool:
        return all(set(commands) <= set(each.state) for each in self.running.values())

    async def _run(self, node: NodeId, ready: asyncio.Future[None]) -> None:
        self._seed += 1
        chance = random.Random(self._seed)
        clock = SystemClock()
        peers = {peer: self._addresses[peer] for peer in NODES if peer != node}
        with MemberStorage.open(
            self._directory / node,
            cluster="shop",
            node=node,
            trailing_entries=self._limits.trailing_entries,
        ) as storage:
            raft = Raft(
                node,
                NODES,
                timing=TIMING,
                limits=self._limits,
                restored=storage.restored,
                chance=chance.random,
                now_s=clock.now_s(),
            )
            transport = TcpTransport(
                node,
                cluster="shop",
                listen=self._addresses[node],
                peers=peers,
                clock=clock,
                chance=chance,
            )
            effects: list[Running] = []
            host: MachineHost[Message, Tick, Effect[Message]] = MachineHost(
                raft,
                storage=storage,
                transport=transport,
                encode=msgspec.msgpack.Encoder().encode,
                decode=msgspec.msgpack.Decoder(Message).decode,
                clock=clock,
                on_effect=lambda effect: effects[0].on_effect(effect),
            )
            running = Running(raft, host, storage, transport)
            effects.append(running)
            snapshot = storage.restored.snapshot
            if snapshot.index:
                running.state = list(storage.snapshots.load(snapshot))
                running.applied = snapshot
            self.running[node] = running
            try:
                async with transport:
                    ready.set_result(None)
                    await host.run()
            finally:
                del self.running[node]


def _leads(each: Running) -> bool:
    return each.raft.state is State.LEADER


MembersOf = Callable[..., contextlib.AbstractAsyncContextManager[Members]]


@pytest.fixture
def members_of(tmp_path: Path) -> MembersOf:
    @contextlib.asynccontextmanager
    async def started(*, trailing: int = 5000) -> AsyncIterator[Members]:
        async with asyncio.TaskGroup() as tasks:
            members = Members(tmp_path, tasks, trailing=trailing)
            try:
                yield members
            finally:
                await members.kill_all()

    return started
