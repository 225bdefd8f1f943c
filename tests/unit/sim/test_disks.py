"""Disks of the model: what a failure leaves behind, and what recovery makes of damage."""

import random
from functools import partial

import pytest

from primacy.consensus.machine import Entry, HardState, Persist, SnapshotMeta
from primacy.errors import Corrupt
from primacy.model import LogIndex, Term
from primacy.sim.disk import Disk, DiskRates
from primacy.sim.member_files import MemberFiles
from primacy.sim.trace import Trace
from primacy.sim.world import NodeClock, Process, World


def make(seed: int = 1) -> tuple[World, Process, Disk]:
    world = World(seed, trace=Trace())
    process = world.process("p", "p", NodeClock(offset_s=0.0, rate=1.0))
    world.start(process)
    return world, process, Disk(world, process, DiskRates())


def test_nobody_hears_of_a_write_whose_fsync_failed_and_the_owner_stops() -> None:
    for seed in range(20):
        world, _, disk = make(seed)
        durable, told, failures = list[int](), list[int](), list[str]()
        disk.on_failure = failures.append
        disk.fails_next = True
        for number in range(4):
            disk.write(partial(durable.append, number), partial(told.append, number))
        world.run(until_s=60.0)
        assert failures == ["an fsync failed"]
        assert told == []
        assert durable == list(range(len(durable)))


def test_a_full_disk_stops_a_log_and_lets_a_database_wait() -> None:
    world, _, disk = make()
    seen = list[str]()
    disk.is_full = disk.waits_for_space = True
    disk.on_failure = seen.append
    disk.write(lambda: seen.append("durable"), lambda: seen.append("told"))
    world.run(until_s=5.0)
    assert seen == []
    disk.make_space()
    world.run(until_s=7.0)
    assert seen == ["durable", "told"]
    disk.is_full, disk.waits_for_space = True, False
    disk.write(lambda: seen.append("not written"))
    world.run(until_s=9.0)
    assert seen[-1] == "no space is left"


def entries(first: int, last: int) -> tuple[Entry, ...]:
    return tuple(Entry(Term(1), LogIndex(index), b"x") for index in range(first, last + 1))


def written(last: int) -> MemberFiles:
    files = MemberFiles("a-disk-1")
    files.persist(Persist(1, HardState(term=Term(1)), entries(1, last)), {})
    return files


def test_a_rotten_entry_is_refused_with_its_place() -> None:
    files = written(5)
    place = files.rot(random.Random(1)).removeprefix("entry ")
    with pytest.raises(Corrupt, match=f"entry {place} of the log is damaged"):
        files.restore()


def test_a_rotten_snapshot_gives_way_to_an_older_one_that_the_log_reaches() -> None:
    files = written(20)
    older, newer = (SnapshotMeta(index=LogIndex(index), term=Term(1)) for index in (8, 16))
    files.save_snapshot(older, (b"8",), trailing_entries=2)
    files.save_snapshot(newer, (b"16",), trailing_entries=10)
    files.is_snapshot_rotten = True
    restored, pieces = files.restore()
    assert (restored.snapshot, pieces) == (older, (b"8",))
    assert restored.entries[-1].index == 20


def test_a_rotten_snapshot_that_nothing_can_stand_in_for_is_refused() -> None:
    files = written(20)
    for index in (8, 16):
        meta = SnapshotMeta(index=LogIndex(index), term=Term(1))
        files.save_snapshot(meta, (b"s",), trailing_entries=1)
    files.is_snapshot_rotten = True
    with pytest.raises(Corrupt, match="snapshot 16 is damaged"):
        files.restore()
