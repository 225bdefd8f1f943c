"""The write-ahead log on a real disk: what it recovers, what it cuts, what it refuses."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from primacy.consensus.machine import Entry, HardState, Persist, SnapshotMeta
from primacy.errors import Corrupt, Unavailable
from primacy.model import LogIndex, NodeId, Term
from primacy.runtime.files import DiskFull
from primacy.runtime.wal import Image, Wal, segment_numbers, segment_path
from primacy.telemetry import Event

DEADLINE_S = 10.0


def entry(index: int, term: int, data: bytes = b"data") -> Entry:
    return Entry(Term(term), LogIndex(index), data)


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(entry(index, term, b"%d" % index) for index in range(first, last + 1))


def meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index=LogIndex(index), term=Term(term))


class Writer:
    """Writes to a log, one group commit for each `write`."""

    def __init__(self, directory: Path) -> None:
        self.wal = Wal.open(directory)
        self.failures: list[Exception] = []
        self._written = 0
        self._durable = 0
        self._changed = threading.Condition()
        self.wal.start(self._on_durable, self._on_failure)

    def ask(self, persist: Persist) -> None:
        self._written = persist.write_id
        self.wal.write(persist)

    def write(self, **what: object) -> None:
        self.ask(Persist(self._written + 1, **what))  # type: ignore[arg-type]  # Test shorthand.
        self.settle()

    def settle(self) -> None:
        with self._changed:
            assert self._changed.wait_for(
                lambda: self._durable >= self._written or self.failures, DEADLINE_S
            )

    def _on_durable(self, write_id: int) -> None:
        with self._changed:
            self._durable = write_id
            self._changed.notify_all()

    def _on_failure(self, error: Exception) -> None:
        with self._changed:
            self.failures.append(error)
            self._changed.notify_all()


def recovered(directory: Path) -> Image:
    wal = Wal.open(directory)
    wal.close()
    return wal.image


def three_records(directory: Path) -> tuple[Image, Image, list[int]]:
    """The image before and after the last record, and the offset behind each record."""
    writer = Writer(directory)
    path = segment_path(directory, 1)
    ends = [path.stat().st_size]
    writer.write(hard=HardState(term=Term(1), voted_for=NodeId("a")), entries=entries(1, 3))
    ends.append(path.stat().st_size)
    writer.write(entries=entries(4, 6))
    ends.append(path.stat().st_size)
    before = recovered_copy(path, directory)
    writer.write(hard=HardState(term=Term(2)), entries=entries(6, 8, term=2))
    ends.append(path.stat().st_size)
    writer.wal.close()
    return before, recovered(directory), ends


def recovered_copy(path: Path, directory: Path) -> Image:
    copy = directory / "copy"
    copy.mkdir()
    (copy / path.name).write_bytes(path.read_bytes())
    return recovered(copy)


def test_what_was_durable_is_recovered(tmp_path: Path) -> None:
    _, after, _ = three_records(tmp_path)
    assert after.hard == HardState(term=Term(2))
    assert tuple(after.entries) == (*entries(1, 5), *entries(6, 8, term=2))
    assert recovered(tmp_path) == after


def test_a_log_cut_at_every_byte_of_its_last_record_loses_that_record_and_no_more(
    tmp_path: Path,
) -> None:
    before, after, ends = three_records(tmp_path)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    assert before != after
    for size in range(ends[2], ends[3]):
        path.write_bytes(whole[:size])
        assert recovered(tmp_path) == before
        assert path.stat().st_size == ends[2]
    path.write_bytes(whole)
    assert recovered(tmp_path) == after


def test_a_log_flipped_at_every_byte_of_its_last_record_loses_that_record_and_no_more(
    tmp_path: Path,
) -> None:
    before, _, ends = three_records(tmp_path)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for place in range(ends[2], ends[3]):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= mask
            path.write_bytes(damaged)
            assert recovered(tmp_path) == before
            assert path.read_bytes() == whole[: ends[2]]


def test_a_log_flipped_anywhere_before_its_last_record_is_refused_and_not_changed(
    tmp_path: Path,
) -> None:
    _, _, ends = three_records(tmp_path)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for place in range(ends[2]):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        begins = max((end for end in ends if end <= place), default=0)
        with pytest.raises(Corrupt, match=rf"{path.name}, offset \d+: ") as refused:
            recovered(tmp_path)
        if begins:
            assert f"offset {begins}:" in str(refused.value)
        assert path.read_bytes() == damaged


def test_a_head_that_is_cut_is_refused_since_it_was_renamed_whole(tmp_path: Path) -> None:
    _, _, ends = three_records(tmp_path)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for size in range(ends[0]):
        path.write_bytes(whole[:size])
        with pytest.raises(Corrupt):
            recovered(tmp_path)


def test_data_that_looks_like_a_record_does_not_pose_as_one(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    path = segment_path(tmp_path, 1)
    writer.write(entries=(entry(1, 1),))
    before = path.read_bytes()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    three_records(foreign)
    writer.write(entries=(entry(2, 1, segment_path(foreign, 1).read_bytes()),))
    writer.wal.close()
    damaged = bytearray(path.read_bytes())
    damaged[len(before)] ^= 1
    path.write_bytes(damaged)
    assert recovered(tmp_path).entries == [entry(1, 1)]


def test_a_torn_tail_is_reported_and_the_log_goes_on_behind_the_cut(tmp_path: Path) -> None:
    three_records(tmp_path)
    path = segment_path(tmp_path, 1)
    os.truncate(path, path.stat().st_size - 1)
    told: list[Event] = []
    Wal.open(tmp_path, sink=told.append).close()
    assert [event.name for event in told] == ["wal-tail-cut"]
    writer = Writer(tmp_path)
    writer.write(entries=(entry(7, 3),))
    writer.wal.close()
    assert recovered(tmp_path).entries == [*entries(1, 6), entry(7, 3)]


def test_what_is_asked_for_while_a_sync_runs_shares_the_next_one(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for number in range(1, 2001):
        writer.ask(Persist(number, entries=(entry(number, 1),)))
    writer.settle()
    assert writer.wal.sync_count < 1000
    writer.wal.close()
    assert len(recovered(tmp_path).entries) == 2000


def test_a_received_snapshot_voids_the_log(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(entries=entries(1, 5))
    writer.write(snapshot=meta(50, 3))
    writer.write(entries=(entry(51, 3),))
    writer.wal.close()
    image = recovered(tmp_path)
    assert (image.snapshot, image.entries) == (meta(50, 3), [entry(51, 3)])


def test_compaction_keeps_the_tail_and_one_segment(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(hard=HardState(term=Term(4)), entries=entries(1, 100))
    writer.wal.compact(meta(90), trailing=10)
    writer.write(entries=entries(101, 102))
    writer.wal.close()
    assert segment_numbers(tmp_path) == [2]
    image = recovered(tmp_path)
    assert image.hard == HardState(term=Term(4))
    assert image.snapshot == meta(90)
    assert tuple(image.entries) == entries(81, 102)


def test_a_crash_between_a_new_segment_and_the_removal_of_the_old_is_harmless(
    tmp_path: Path,
) -> None:
    writer = Writer(tmp_path)
    writer.write(entries=entries(1, 100))
    old = segment_path(tmp_path, 1).read_bytes()
    writer.wal.compact(meta(90), trailing=0)
    writer.write(entries=entries(101, 101))
    writer.wal.close()
    segment_path(tmp_path, 1).write_bytes(old)
    (tmp_path / "wal-0000000000000003.log.new").write_bytes(b"half")
    assert tuple(recovered(tmp_path).entries) == entries(91, 101)
    assert segment_numbers(tmp_path) == [2]
    assert not list(tmp_path.glob("*.new"))


def test_a_write_that_fails_is_final_and_nothing_is_reported_durable_after_it(
    tmp_path: Path,
) -> None:
    writer = Writer(tmp_path)
    writer.write(entries=entries(1, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = segment_path(tmp_path, 1).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        writer.write(entries=entries(2, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(writer.failures[0], Unavailable)
    assert "Look at the disk" in str(writer.failures[0])
    writer.wal.write(Persist(9, entries=entries(2, 2)))
    writer.wal.close()
    assert len(writer.failures) == 1
    assert tuple(recovered(tmp_path).entries) == entries(1, 1)


def test_a_full_disk_leaves_no_doubt_and_the_log_goes_on_from_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path)
    writer.write(hard=HardState(term=Term(1)), entries=entries(1, 3))
    with monkeypatch.context() as full:
        full.setattr(os, "write", _half_a_write)
        writer.write(entries=entries(4, 6))
    writer.wal.close()
    assert isinstance(writer.failures[0], DiskFull)
    again = Writer(tmp_path)
    assert [each.index for each in again.wal.image.entries] == [1, 2, 3]
    again.write(entries=entries(4, 5))
    again.wal.close()
    assert [each.index for each in recovered(tmp_path).entries] == [1, 2, 3, 4, 5]


_write = os.write


def _half_a_write(fd: int, data: memoryview) -> int:
    """As the kernel does it: what fits is written, and the next call finds no space."""
    if len(data) < 40:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _write(fd, data[: len(data) // 2])
