"""A log on a disk without space, on a real kernel."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from primacy.cli.demo_disks import SmallDisk, why_no_disk
from primacy.clock import SystemClock
from primacy.model import Epoch, NodeId
from primacy.replication.log import inspecting
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Entry, Kind, epoch_entry
from primacy.runtime.files import DiskFull
from primacy.telemetry import ignore

WHY_NOT = why_no_disk(bears_room=False)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(WHY_NOT != "", reason=f"no disk can be mounted: {WHY_NOT}"),
]

A, ONE = NodeId("a"), Epoch(1)
LIMITS = LogLimits(file_bytes=400_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    mounted = SmallDisk(tmp_path, SystemClock())
    yield mounted
    mounted.close(is_kept=False)


def appended(log: Log, size: int) -> int:
    """Appends and syncs until there is no space; returns the last index that was durable."""
    while True:
        try:
            log.append([Entry(Kind.ROWS, bytes(size), 0, 0)], epoch=ONE, source=A)
        except DiskFull:
            return log.sync().index
        log.sync()


def test_a_full_disk_is_said_once_and_with_space_the_log_goes_on(
    tmp_path: Path, disk: SmallDisk
) -> None:
    directory = tmp_path / "log"
    log = Log.open(directory, limits=LIMITS, events=ignore)
    log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=ONE, source=A)
    durable = log.sync().index
    for size in (10_000, 300_000, 100):
        asyncio.run(disk.fill())
        full_at = appended(log, size)
        assert durable <= full_at == log.end.index
        assert inspecting.verify(directory).damage is None
        disk.free()
        log.append([Entry(Kind.ROWS, bytes(size), 0, 0)], epoch=ONE, source=A)
        durable = log.sync().index
        assert durable == full_at + 1
    log.close()
    with Log.open(directory, limits=LIMITS, events=ignore) as found:
        assert found.end.index == durable
    assert inspecting.verify(directory).records == durable


def test_a_log_is_opened_and_closed_on_a_full_disk(tmp_path: Path, disk: SmallDisk) -> None:
    directory = tmp_path / "log"
    log = Log.open(directory, limits=LIMITS, events=ignore)
    log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=ONE, source=A)
    asyncio.run(disk.fill())
    durable = appended(log, 1_000)
    log.close()
    with Log.open(directory, limits=LIMITS, events=ignore) as found:
        assert found.end.index == durable
