"""The host with a machine of a few lines: order, time, failure of the disk, and stalls."""

import asyncio
import math
import random
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from primacy.clock import SystemClock
from primacy.consensus import machine
from primacy.consensus.machine import (
    Entry,
    Persist,
    Persisted,
    Received,
    Send,
    SnapshotMeta,
    SnapshotSaved,
    Tick,
)
from primacy.errors import Unavailable
from primacy.model import Address, LogIndex, NodeId, Term
from primacy.runtime.host import INBOX_MAX, MachineHost
from primacy.runtime.storage import MemberStorage
from primacy.runtime.tcp import TcpTransport
from primacy.telemetry import Event

pytestmark = pytest.mark.integration

A, B = NodeId("a"), NodeId("b")
DEADLINE_S = 10.0


@dataclass(frozen=True)
class Do:
    """What the test wants done."""

    effects: tuple[object, ...] = ()


@dataclass(frozen=True)
class Done:
    number: int


class Recorder:
    """Writes down every event, and does what it is told."""

    def __init__(self) -> None:
        self.wake_at_s = math.inf
        self.events: list[object] = []

    def step(self, now_s: float, event: machine.Event[bytes] | Do) -> list[object]:
        self.events.append(event)
        if isinstance(event, Tick):
            self.wake_at_s = math.inf
        return list(event.effects) if isinstance(event, Do) else []


class Stage:
    def __init__(self, directory: Path) -> None:
        self.clock = SystemClock()
        self.told: list[Event] = []
        self.effects: list[object] = []
        self.recorder = Recorder()
        self.storage = MemberStorage.open(directory, cluster="shop", node=A)
        self.transport = TcpTransport(
            A,
            cluster="shop",
            listen=Address("127.0.0.1", 0),
            peers={},
            clock=self.clock,
            chance=random.Random(1),
        )
        self.host: MachineHost[bytes, Do, object] = MachineHost(
            self.recorder,
            storage=self.storage,
            transport=self.transport,
            encode=bytes,
            decode=bytes,
            clock=self.clock,
            on_effect=self.effects.append,
            sink=self.told.append,
        )

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.002)


def play(directory: Path, story: Callable[[Stage], Awaitable[None]]) -> Stage:
    async def main() -> Stage:
        stage = Stage(directory)
        with stage.storage:
            async with stage.transport, asyncio.TaskGroup() as tasks:
                running = tasks.create_task(stage.host.run())
                await asyncio.sleep(0)
                await story(stage)
                running.cancel()
        return stage

    return asyncio.run(main())


def persist(number: int) -> Persist:
    return Persist(number, entries=(Entry(Term(1), LogIndex(number), b"x"),))


def test_effects_keep_their_order_and_a_write_is_answered_when_it_is_durable(
    tmp_path: Path,
) -> None:
    async def story(stage: Stage) -> None:
        for number in range(1, 101):
            assert stage.host.post(Do((persist(number), Done(number))))
        await stage.until(lambda: Persisted(100) in stage.recorder.events)

    stage = play(tmp_path, story)
    assert stage.effects == [Done(number) for number in range(1, 101)]
    durable = [each.write_id for each in stage.recorder.events if isinstance(each, Persisted)]
    assert durable == sorted(durable)
    with MemberStorage.open(tmp_path, cluster="shop", node=A) as storage:
        assert len(storage.restored.entries) == 100


def test_a_tick_comes_at_its_time_and_not_before(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        due_s = stage.clock.now_s() + 0.05
        stage.recorder.wake_at_s = due_s
        stage.host.call(lambda _now_s: [])
        await stage.until(lambda: Tick() in stage.recorder.events)
        assert stage.clock.now_s() >= due_s

    assert play(tmp_path, story).recorder.events == [Tick()]


def test_work_between_two_steps_has_its_effects_carried_out(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.host.call(lambda _now_s: [Done(1), Send(B, b"to nobody"), Done(2)])
        await stage.until(lambda: len(stage.effects) == 2)

    stage = play(tmp_path, story)
    assert stage.effects == [Done(1), Done(2)]
    assert stage.transport.counts.dropped_unconnected == 1


def test_a_full_inbox_refuses_what_comes_from_outside(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        taken = [stage.host.post(Do()) for _ in range(INBOX_MAX + 1)]
        assert all(taken[:-1])
        assert not taken[-1]
        await stage.until(lambda: len(stage.recorder.events) == INBOX_MAX)
        assert stage.host.post(Received(B, b"again"))

    play(tmp_path, story)


def test_a_snapshot_of_many_pieces_is_saved_without_a_stall_and_told(tmp_path: Path) -> None:
    meta = SnapshotMeta(index=LogIndex(3), term=Term(1))

    async def story(stage: Stage) -> None:
        stage.host.post(Do(tuple(persist(number) for number in range(1, 4))))
        await stage.until(lambda: Persisted(3) in stage.recorder.events)
        stage.host.save_snapshot(meta, (b"x" * 1000 for _ in range(20_000)))
        await stage.until(lambda: SnapshotSaved(meta) in stage.recorder.events)
        assert sum(map(len, stage.storage.snapshots.load(meta))) == 20_000_000

    play(tmp_path, story)


def test_a_stalled_loop_is_counted_and_told(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        time.sleep(0.1)
        await stage.until(lambda: stage.host.stalls.stall_count)
        assert stage.host.stalls.longest_s > 0.02

    stage = play(tmp_path, story)
    assert "loop-stalled" in [event.name for event in stage.told]


def test_a_disk_that_fails_stops_the_host_and_confirms_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stages: list[Stage] = []

    async def story(stage: Stage) -> None:
        stages.append(stage)
        stage.host.post(Do((persist(1),)))
        await stage.until(lambda: Persisted(1) in stage.recorder.events)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        stage.host.post(Do((persist(2),)))
        await asyncio.sleep(DEADLINE_S)

    try:
        with pytest.raises(ExceptionGroup) as raised:
            play(tmp_path, story)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.group_contains(Unavailable, match="cannot be written")
    assert Persisted(2) not in stages[0].recorder.events
    assert "storage-failed" in [event.name for event in stages[0].told]
