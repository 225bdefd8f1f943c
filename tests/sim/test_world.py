"""The world itself: time, processes, disks, and asyncio under virtual time."""

import asyncio
from functools import partial

import pytest

from primacy.coordination.api import Change, KeyValue, RangeResult
from primacy.errors import InvariantBroken
from primacy.model import Revision
from primacy.sim.disk import Disk, DiskRates
from primacy.sim.history import StoreHistory
from primacy.sim.loop import SimClock, new_loop
from primacy.sim.network import Network, NetworkRates
from primacy.sim.trace import Trace
from primacy.sim.world import NodeClock, Process, World


def make_world(seed: int = 1) -> World:
    return World(seed, trace=Trace())


def make_process(world: World, name: str = "p", *, rate: float = 1.0) -> Process:
    process = world.process(name, name, NodeClock(offset_s=0.0, rate=rate))
    world.start(process)
    return process


def test_events_run_in_order_of_time_then_of_number() -> None:
    world, seen = make_world(), list[str]()
    world.after(2.0, None, seen.append, "late")
    world.after(1.0, None, seen.append, "first")
    world.after(1.0, None, seen.append, "second")
    world.run(until_s=10.0)
    assert seen == ["first", "second", "late"]
    assert world.now_s == 10.0


def test_what_a_dead_life_expected_never_happens() -> None:
    world, seen = make_world(), list[str]()
    process = make_process(world)
    world.after(1.0, process, seen.append, "of the first life")
    world.kill(process)
    world.after(1.0, process, seen.append, "to a dead process")
    world.start(process)
    world.after(1.0, process, seen.append, "of the second life")
    world.run(until_s=2.0)
    assert seen == ["of the second life"]


def test_a_paused_process_does_later_what_it_missed() -> None:
    world, seen = make_world(), list[float]()
    process = make_process(world)
    world.after(1.0, process, lambda: seen.append(world.now_s))
    world.pause(process)
    world.after(5.0, None, world.resume, process)
    world.run(until_s=9.0)
    assert seen == [5.0]


def test_streams_of_chance_do_not_disturb_each_other() -> None:
    one, other = make_world(7), make_world(7)
    one.stream("faults").random()
    assert one.stream("network").random() == other.stream("network").random()


def test_a_crash_keeps_only_a_first_part_of_what_was_not_synced() -> None:
    for seed in range(20):
        world, durable = make_world(seed), list[int]()
        process = make_process(world)
        disk = Disk(world, process, DiskRates(fsync_s=1.0))
        told = list[int]()
        for number in range(5):
            disk.write(partial(durable.append, number), partial(told.append, number))
        world.kill(process)
        disk.crash()
        world.run(until_s=60.0)
        assert durable == list(range(len(durable)))
        assert told == []


def test_a_writer_is_told_only_after_its_write_is_durable() -> None:
    world, seen = make_world(), list[str]()
    process = make_process(world)
    disk = Disk(world, process, DiskRates())
    disk.write(lambda: seen.append("durable"), lambda: seen.append("told"))
    world.run(until_s=1.0)
    assert seen == ["durable", "told"]


def test_a_cut_link_carries_nothing_one_way_only() -> None:
    world, seen = make_world(), list[str]()
    a, b = make_process(world, "a"), make_process(world, "b")
    network = Network(world, NetworkRates())
    network.cuts.add(("a", "b"))
    network.send("a", b, "flow", seen.append, "a to b")
    network.send("b", a, "flow", seen.append, "b to a")
    world.run(until_s=1.0)
    assert seen == ["b to a"]


def test_asyncio_runs_on_the_clock_of_its_process() -> None:
    world = make_world()
    process = make_process(world, rate=2.0)
    loop, clock, seen = new_loop(world, process), SimClock(world, process), list[float]()

    async def work() -> None:
        async with asyncio.timeout(5.0):
            await clock.sleep(2.0)
        seen.append(world.now_s)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.Event().wait()
        seen.append(world.now_s)

    loop.run_inside(lambda: start(loop.create_task(work())))
    world.run(until_s=10.0)
    assert seen == [1.0, 1.5]


def test_tasks_of_a_dead_process_never_go_on() -> None:
    world, seen = make_world(), list[str]()
    process = make_process(world)
    loop, clock = new_loop(world, process), SimClock(world, process)

    async def work() -> None:
        try:
            await clock.sleep(1.0)
        finally:
            seen.append("cleaned up")

    loop.run_inside(lambda: start(loop.create_task(work())))
    world.kill(process)
    world.start(process)
    world.run(until_s=5.0)
    assert seen == []
    loop.abandon()


def start(task: "asyncio.Task[None]") -> None:
    task.add_done_callback(lambda done: done.exception())


def test_a_stale_read_of_the_store_is_noticed() -> None:
    history = StoreHistory()
    items = [KeyValue("k", bytes([each]), Revision(1), Revision(each), each) for each in (1, 2)]
    for each in items:
        history.applied(each.mod, (Change("k", each),))
    history.wrote(history.begin(), Revision(2))
    asked = history.begin()
    with pytest.raises(InvariantBroken, match="linearizable-store"):
        history.read(asked, "k", RangeResult((items[0],), Revision(1)))
    with pytest.raises(InvariantBroken, match="linearizable-store"):
        history.read(asked, "k", RangeResult((items[0],), Revision(2)))
    history.read(asked, "k", RangeResult((items[1],), Revision(2)))
