"""The log on a real disk: append, read, rotate, cut, purge."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.replication.log.given import (
    A,
    B,
    copied,
    everything,
    opened,
    rows,
    start,
    with_rows,
)

from primacy.errors import Conflict, Corrupt, Rejected, Unavailable
from primacy.model import Epoch
from primacy.replication.gtid import Gtid, GtidSet
from primacy.replication.log import holds
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.newest import Newest
from primacy.replication.log.reading import Purged
from primacy.replication.log.record import ORIGIN_POINT, Entry, Kind, Point, decode
from primacy.runtime.files import DiskFull
from primacy.telemetry import Event, ignore

ONE, TWO = Epoch(1), Epoch(2)
SMALL = 2_000
"""Bytes of a file, so that a few rows fill several."""


DEADLINE_S = 30.0


def notify(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("log-*"))


def test_an_empty_log_begins_at_the_origin(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        assert (log.first, log.end, log.durable) == (ORIGIN_POINT,) * 3
        assert log.read(0, bytes_max=100) == b""
        assert log.point(0) == ORIGIN_POINT
        assert log.point(1) is None
        assert not log.gtids


def test_what_was_appended_is_read_before_it_is_durable_and_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as log:
        sent = log.append([*start(A), *rows(3, 4)], epoch=ONE, source=A)
        assert everything(log) == sent
        assert (log.end.index, log.durable) == (3, ORIGIN_POINT)
        assert log.read(0, bytes_max=1000, until=log.durable.index) == b""
        assert log.sync() == log.durable == log.end
        end = log.end
    with opened(tmp_path / "log") as log:
        assert (log.end, log.durable) == (end, end)
        assert everything(log) == sent
        assert [payload for _, payload in decode(sent)][1:] == [e.payload for e in rows(3, 4)]


def test_a_replica_that_receives_holds_the_same_bytes_and_goes_on_as_primary(
    tmp_path: Path,
) -> None:
    with with_rows(tmp_path / "a", *range(60), file_bytes=SMALL) as primary:
        for bytes_max in (1, 500, 1 << 20):
            with opened(tmp_path / f"b{bytes_max}") as replica:
                while data := primary.read(replica.end.index, bytes_max=bytes_max):
                    assert len(data) <= max(bytes_max, 140)
                    replica.append_received(data)
                assert replica.sync() == primary.end
                assert everything(replica) == everything(primary)
                replica.append([*start(B), *rows(9)], epoch=TWO, source=B)
                assert str(replica.gtids) == "a@1:1-61,b@2:62-63"
                assert replica.gtid_of(61) == Gtid("a@1", 61)
                assert replica.gtid_of(62) == Gtid("b@2", 62)
                assert replica.node_of(TWO) == B
                assert replica.node_of(Epoch(3)) is None
                with pytest.raises(Rejected, match="no record 64"):
                    replica.gtid_of(64)
                with pytest.raises(Conflict, match="epoch 1 is over"):
                    replica.append(rows(1), epoch=ONE, source=A)
                with pytest.raises(Conflict, match="belongs to b, not to a"):
                    replica.append(rows(1), epoch=TWO, source=A)


def test_received_bytes_are_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    with with_rows(tmp_path / "a", 5, 6, 7) as primary, opened(tmp_path / "b") as replica:
        data = bytearray(everything(primary))
        data[-1] ^= 1
        with pytest.raises(Corrupt, match="received bytes are damaged"):
            replica.append_received(bytes(data))
        with pytest.raises(Corrupt, match="received bytes are damaged"):
            replica.append_received(bytes(data[:-1]))
        assert replica.end == ORIGIN_POINT
        assert everything(replica) == b""
        replica.append_received(everything(primary))
        with pytest.raises(Conflict, match="does not follow"):
            replica.append_received(everything(primary))
        assert replica.append_received(b"") == primary.end


@pytest.mark.parametrize("cache_bytes", [0, 1_000, 1 << 20])
def test_every_record_is_found_by_its_index_wherever_it_stands(
    tmp_path: Path, cache_bytes: int
) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, *range(50), file_bytes=SMALL, cache_bytes=cache_bytes) as log:
        assert len(names(directory)) > 3
        headers = {header.index: header for header, _ in decode(everything(log))}
        size_bytes = log.size_bytes
        for index in range(1, 52):
            assert log.point(index) == headers[index].point
            place = log.place_of(index)
            assert place is not None
            data = (directory / place.file).read_bytes()[place.offset :][: headers[index].length]
            ((header, _),) = decode(data)
            assert header == headers[index]
            behind_bytes = log.bytes_after(index - 1)
            assert headers[index].length <= behind_bytes <= size_bytes
            size_bytes = behind_bytes
        assert log.bytes_after(51) == 0
        assert log.point(52) is None
        assert log.place_of(52) is log.place_of(0) is None
    with opened(directory, file_bytes=SMALL, cache_bytes=cache_bytes) as log:
        assert [log.point(index) for index in range(1, 52)] == [
            header.point for header in headers.values()
        ]


def test_a_record_in_the_middle_of_a_large_batch_is_found(tmp_path: Path) -> None:
    """The index knows where the batch begins, and no more."""
    log = with_rows(tmp_path / "log", cache_bytes=0)
    log.append(rows(*[900] * 200, 300_000, *[800] * 100), epoch=ONE, source=A)
    log.append(rows(1), epoch=ONE, source=A)
    log.sync()
    for bytes_max in (1, 2_000, 100_000):
        for after in (0, 1, 150, 200, 201, 202, 250, 301):
            ((header, _), *more) = decode(log.read(after, bytes_max=bytes_max))
            assert header.index == after + 1
            assert len(more) == 0 or sum(each.length for each, _ in more) <= bytes_max
    log.close()


def test_one_record_larger_than_asked_for_is_read_all_the_same(tmp_path: Path) -> None:
    for cache_bytes in (0, 8 << 20):
        directory = tmp_path / str(cache_bytes)
        with with_rows(directory, 3 << 20, 2, cache_bytes=cache_bytes) as log:
            assert len(log.read(1, bytes_max=10)) == (3 << 20) + 68
            assert len(list(decode(log.read(1, bytes_max=4 << 20)))) == (2 if cache_bytes else 1)


def test_growth_is_told_when_it_can_be_read_and_durability_when_it_is_there(
    tmp_path: Path,
) -> None:
    with with_rows(tmp_path / "log", 1) as log:
        grown: list[tuple[Point, int]] = []
        durable: list[Point] = []
        stop = log.on_growth(
            lambda end: grown.append((end, len(log.read(end.index - 1, bytes_max=1))))
        )
        log.on_durable(durable.append)
        log.append(rows(2), epoch=ONE, source=A)
        assert [(end.index, size) for end, size in grown] == [(3, 70)]
        assert not durable
        log.sync()
        assert durable == [log.end]
        stop()
        log.append(rows(2), epoch=ONE, source=A)
        assert len(grown) == 1


def test_a_new_log_begins_where_a_copy_of_the_data_ends(tmp_path: Path) -> None:
    with with_rows(tmp_path / "a", *range(30), file_bytes=SMALL) as primary:
        at = primary.point(20)
        assert at is not None
        limits = LogLimits()
        gtids = GtidSet.parse("a@1:1-20")
        with Log.begin(tmp_path / "b", at=at, gtids=gtids, limits=limits, events=ignore) as clone:
            assert (clone.first, clone.end) == (at, at)
            clone.append_received(primary.read(20, bytes_max=1 << 20))
            with pytest.raises(Purged, match="record 6 was purged"):
                clone.read(5, bytes_max=1)
        with opened(tmp_path / "b") as clone:
            assert clone.first == at
            assert str(clone.gtids) == f"a@1:1-{clone.end.index}"
        with pytest.raises(Conflict, match="holds a log already"):
            Log.begin(tmp_path / "b", at=at, gtids=gtids, limits=limits, events=ignore)
        for wrong in ("a@1:1-19", "a@1:1-21", "a@1:2-21", "a@1:1-5:7-21", ""):
            with pytest.raises(Rejected, match="not one history"):
                Log.begin(
                    tmp_path / "c",
                    at=at,
                    gtids=GtidSet.parse(wrong),
                    limits=limits,
                    events=ignore,
                )


def test_a_cut_removes_the_tail_at_every_place_and_the_log_goes_on_behind_it(
    tmp_path: Path,
) -> None:
    for after in range(27):
        directory = tmp_path / str(after)
        told: list[Event] = []
        log = opened(directory, file_bytes=700, told=told)
        log.append(start(A), epoch=ONE, source=A)
        for size in range(20):
            log.append(rows(size), epoch=ONE, source=A)
        log.append([*start(B), *rows(1, 2, 3, 4)], epoch=TWO, source=B)
        log.sync()
        whole, point = everything(log), log.point(after)
        log.cut(after)
        assert (log.end, log.durable) == (point, point)
        assert whole.startswith(everything(log))
        cuts = [event.fields for event in told if event.name == "log-cut"]
        assert [each["cut_records"] for each in cuts] == ([26 - after] if after < 26 else [])
        assert log.cut_count == len(cuts)
        log.append([*start(B), *rows(7)], epoch=Epoch(3), source=B)
        log.close()
        with opened(directory) as log:
            assert log.end.index == after + 2
            assert log.gtids.count == after + 2
            assert str(log.gtids).endswith(f"b@3:{after + 1}-{after + 2}")


def test_a_cut_does_not_reach_below_what_was_purged(tmp_path: Path) -> None:
    with with_rows(tmp_path / "log", *range(30), file_bytes=SMALL) as log:
        log.purge(keep_bytes=0, before_index=20)
        with pytest.raises(Purged):
            log.cut(log.first.index - 1)
        log.cut(log.first.index)
        assert log.end == log.first


def test_behind_a_cut_the_older_epoch_may_go_on(tmp_path: Path) -> None:
    """A replica that loses what it had received of a reign that did not last."""
    with with_rows(tmp_path / "a", 1, 2, 3) as primary, opened(tmp_path / "b") as replica:
        replica.append_received(primary.read(0, bytes_max=200))
        at = replica.end.index
        replica.append([*start(B), *rows(9)], epoch=TWO, source=B)
        replica.cut(at)
        replica.append_received(primary.read(at, bytes_max=1 << 20))
        assert replica.end == primary.end
        assert replica.gtids == primary.gtids
        assert replica.node_of(TWO) is None


def test_behind_a_cut_there_is_nothing_to_read(tmp_path: Path) -> None:
    with with_rows(tmp_path / "log", 1, 2, 3) as log:
        log.cut(2)
        with pytest.raises(Conflict, match="It was cut"):
            log.read(3, bytes_max=1)
        assert log.read(2, bytes_max=1) == b""


def test_a_purge_removes_whole_files_that_nobody_needs(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, *range(60), file_bytes=SMALL) as log:
        files = names(directory)
        assert log.purge(keep_bytes=1 << 20, before_index=60) == 0
        assert log.purge(keep_bytes=0, before_index=1) == 0
        log.hold("c", 25)
        freed_bytes = log.purge(keep_bytes=0, before_index=60)
        assert freed_bytes > 0
        assert log.first.index <= 25
        kept = len(names(directory))
        assert log.read(25, bytes_max=1 << 20)
        with pytest.raises(Purged):
            log.hold("d", 0)
        log.hold("c", 40)
        log.purge(keep_bytes=0, before_index=60)
        assert len(names(directory)) < kept
        log.release("c")
        log.purge(keep_bytes=0, before_index=10**9)
        assert names(directory) == files[-1:]  # The last one is being written to.
        assert str(log.gtids) == "a@1:1-61"
    with opened(directory) as log:
        assert str(log.gtids) == "a@1:1-61"


def test_a_purge_stops_at_the_first_record_that_is_to_stay(tmp_path: Path) -> None:
    with with_rows(tmp_path / "log", *range(60), file_bytes=SMALL) as log:
        place = log.place_of(1)
        second = next(
            index
            for index in range(2, 60)
            if place is not None and getattr(log.place_of(index), "file", "") != place.file
        )
        assert log.purge(keep_bytes=0, before_index=second - 1) == 0
        log.hold("c", second - 2)
        assert log.purge(keep_bytes=0, before_index=60) == 0
        log.hold("c", second - 1)
        assert log.purge(keep_bytes=0, before_index=second) > 0
        assert log.first.index == second - 1


def test_a_purge_goes_by_no_hold_that_a_restart_would_not_find(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, *range(60), file_bytes=SMALL) as log:
        log.hold("c", 10)
        log.hold("c", 50)
        assert log.purge(keep_bytes=0, before_index=60) > 0
    with opened(directory, file_bytes=SMALL) as log:
        assert log.holds == {"c": 50}
        assert log.read(50, bytes_max=1)


def test_a_purge_leaves_the_bytes_that_are_to_be_kept(tmp_path: Path) -> None:
    with with_rows(tmp_path / "log", *range(60), file_bytes=SMALL) as log:
        log.purge(keep_bytes=5_000, before_index=60)
        assert 5_000 <= log.size_bytes <= 5_000 + SMALL


def test_a_hold_outlives_a_restart_and_is_never_later_than_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, *range(60), file_bytes=SMALL) as log:
        log.hold("backup", 10)
        log.hold("c", 10)
        log.hold("backup", 30)
    with opened(directory, file_bytes=SMALL) as log:
        assert log.holds == {"backup": 10, "c": 10}
        log.hold("c", 50)
        log.release("backup")
        log.purge(keep_bytes=0, before_index=60)
        assert 30 < log.first.index <= 50
    with opened(directory, file_bytes=SMALL) as log:
        assert log.holds == {"c": 50}


def test_a_hold_that_goes_back_or_goes_is_remembered_at_once(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, *range(9)) as log:
        log.hold("c", 5)
        log.hold("d", 5)
        log.hold("c", 3)
    with opened(directory) as log:
        assert log.holds == {"c": 3, "d": 5}
        log.release("d")
    with opened(directory) as log:
        assert log.holds == {"c": 3}


def test_a_hold_that_could_not_be_written_is_written_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _pieces: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    directory = tmp_path / "log"
    with with_rows(directory, *range(9)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(holds, "replace_file", full)
            with pytest.raises(DiskFull):
                log.hold("c", 5)
        log.hold("c", 5)
        assert opened_holds(directory) == {"c": 5}
        with monkeypatch.context() as patch:
            patch.setattr(holds, "replace_file", full)
            with pytest.raises(DiskFull):
                log.release("c")
        log.release("c")
        assert opened_holds(directory) == {}


def opened_holds(directory: Path) -> dict[str, int]:
    """As a restart at this moment would find them."""
    with opened(copied(directory, "copy")) as log:
        return log.holds


def test_a_purge_between_a_look_at_the_log_and_its_file_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_rows(tmp_path / "log", *range(90), file_bytes=SMALL, cache_bytes=0) as log:

        def purging(*_args: object, **_options: object) -> None:
            log.purge(keep_bytes=0, before_index=log.first.index + 20)

        monkeypatch.setattr(Newest, "header", purging)
        monkeypatch.setattr(Newest, "read", purging)
        assert log.point(log.first.index + 1) is None
        assert log.place_of(log.first.index + 1) is None
        with pytest.raises(Purged):
            log.read(log.first.index, bytes_max=1)


def test_a_bound_inside_one_append_is_kept_from_memory_and_from_files(tmp_path: Path) -> None:
    for cache_bytes in (0, 1 << 20):
        with with_rows(tmp_path / str(cache_bytes), cache_bytes=cache_bytes) as log:
            log.append(rows(*range(10)), epoch=ONE, source=A)
            log.append(rows(1), epoch=ONE, source=A)
            for after in range(11):
                for until in range(after + 1, 12):
                    data = log.read(after, bytes_max=1 << 20, until=until)
                    indexes = [header.index for header, _ in decode(data)]
                    assert indexes == list(range(after + 1, until + 1))


def test_a_damaged_list_of_holds_or_a_newer_ones_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, 1) as log:
        log.hold("c", 1)
    (directory / "holds.json").write_bytes(b"{")
    with pytest.raises(Corrupt, match=r"holds.json, offset 0"):
        opened(directory)
    (directory / "holds.json").write_bytes(b'{"version": 2, "holds": {"c": 1}, "more": []}')
    with pytest.raises(Rejected, match=r"holds.json has version 2, this primacy reads 1"):
        opened(directory)


def test_only_one_process_has_the_directory(tmp_path: Path) -> None:
    with opened(tmp_path / "log"), pytest.raises(Conflict, match="another process uses"):
        opened(tmp_path / "log")
    opened(tmp_path / "log").close()


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", 1)
    log.close()
    log.close()
    with pytest.raises(Unavailable, match="was closed"):
        log.append(rows(1), epoch=ONE, source=A)


_pwrite = os.pwrite


def _half_a_write(fd: int, data: memoryview, offset: int) -> int:
    """As the kernel does it: what fits is written, and the next call finds no space."""
    if len(data) < 40:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _pwrite(fd, data[: len(data) // 2], offset)


def test_a_full_disk_leaves_nothing_in_doubt_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "log"
    log = with_rows(directory, 1, 2)
    before, end = everything(log), log.end
    for _ in range(2):
        with monkeypatch.context() as full:
            full.setattr(os, "pwrite", _half_a_write)
            with pytest.raises(DiskFull, match="no space"):
                log.append(rows(300), epoch=ONE, source=A)
        assert (log.end, everything(log)) == (end, before)
        written = (directory / "log-000000000001.bin").read_bytes()
        assert written.endswith(before[-70:])  # No half of it is left, either.
    more = log.append(rows(5), epoch=ONE, source=A)
    assert log.sync() == log.end
    log.close()
    with opened(directory) as log:
        assert everything(log) == before + more


def test_no_space_for_the_next_file_leaves_nothing_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "log"
    log = with_rows(directory, 1, 2)
    before = everything(log)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fchmod", no_space)
        with pytest.raises(DiskFull, match="no space for the log"):
            log.rotate()
    assert names(directory) == ["log-000000000001.bin"]
    more = log.append(rows(5), epoch=ONE, source=A)
    log.rotate()
    more += log.append(rows(6), epoch=ONE, source=A)
    log.close()
    with opened(directory) as log:
        assert everything(log) == before + more
        assert len(names(directory)) == 2


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_any_other_failure_poisons_the_log_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    directory = tmp_path / "log"
    log = with_rows(directory, 1)
    durable = log.durable
    reign: Any = {"epoch": ONE, "source": A}  # Any: keywords of several types.

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(os, call, broken)
        if call == "fdatasync":
            log.append(rows(2), epoch=ONE, source=A)
        fails = log.sync if call == "fdatasync" else partial(log.append, rows(2), **reign)
        with pytest.raises(Unavailable, match="cannot be written") as failed:
            fails()
    assert not isinstance(failed.value, DiskFull)
    assert log.durable == durable
    for change in (
        partial(log.append, rows(2), **reign),
        log.sync,
        log.rotate,
        lambda: log.cut(0),
        lambda: log.purge(keep_bytes=0, before_index=1),
    ):
        with pytest.raises(Unavailable, match="cannot be written"):
            change()
    log.close()
    with opened(directory) as log:
        assert log.end >= durable


def test_readers_see_whole_records_in_order_while_the_log_grows(tmp_path: Path) -> None:
    """Some of it from memory, some from files, across rotations."""
    log = with_rows(tmp_path / "log", 1, file_bytes=6_000, cache_bytes=3_000)
    total = 400
    grown = threading.Condition()
    log.on_durable(lambda _: notify(grown))

    def is_beyond(index: int) -> bool:
        return log.durable.index > index

    def payload_of(index: int) -> bytes:
        return bytes([index % 251]) * (index % 90)

    def follow(behind: int) -> int:
        after = 0
        while after < total:
            with grown:
                assert grown.wait_for(partial(is_beyond, after + behind), DEADLINE_S)
            limit = log.durable.index - behind
            for header, payload in decode(log.read(after, bytes_max=1_000, until=limit)):
                assert header.index == after + 1
                assert after < 2 or payload == payload_of(header.index)
                after = header.index
        return after

    with ThreadPoolExecutor(3) as readers:
        reading = [readers.submit(follow, behind) for behind in (0, 0, 60)]
        while log.end.index < total + 100:
            entry = Entry(Kind.ROWS, payload_of(log.end.index + 1), 7, 1)
            log.append([entry], epoch=ONE, source=A)
            if log.end.index % 20 == 0:
                log.sync()
        log.sync()
        assert min(each.result(DEADLINE_S) for each in reading) >= total
    log.close()


def test_one_thread_syncs_while_another_appends_across_files(tmp_path: Path) -> None:
    """What a sync covers is what had been appended when it was called, and never more."""
    log = with_rows(tmp_path / "log", 1, file_bytes=5_000)
    reported: list[Point] = []
    is_done = threading.Event()

    def syncing() -> None:
        while not is_done.is_set():
            before = log.end
            after = log.sync()
            assert before <= after <= log.end
            reported.append(after)

    with ThreadPoolExecutor(1) as other:
        syncs = other.submit(syncing)
        for size in range(300):
            log.append(rows(size % 50), epoch=ONE, source=A)
        is_done.set()
        syncs.result(DEADLINE_S)
    assert reported == sorted(reported)
    assert log.sync() == log.end
    whole = everything(log)
    log.close()
    with opened(tmp_path / "log") as log:
        assert everything(log) == whole
