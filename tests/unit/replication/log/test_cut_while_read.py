"""A log that is cut while others read it: nothing of the tail comes back, or is mistaken."""

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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

from primacy.errors import Conflict
from primacy.model import Epoch
from primacy.replication.log import holds
from primacy.replication.log.log import Log
from primacy.replication.log.record import Entry, Kind, decode
from primacy.runtime.files import DiskFull

ONE = Epoch(1)
SMALL = 2_000
DEADLINE_S = 30.0
CUTS = 15

_pread = os.pread


def long_log(directory: Path, *, cache_bytes: int = 0) -> Log:
    return with_rows(directory, *range(60), file_bytes=SMALL, cache_bytes=cache_bytes)


def meanwhile(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object], *, before: bool) -> None:
    """Done once, right before or after the next piece of a file is read."""
    left = [deed]

    def pread(fd: int, size: int, offset: int) -> bytes:
        if before and left:
            left.pop()()
        data = _pread(fd, size, offset)
        if left:
            left.pop()()
        return data

    monkeypatch.setattr(os, "pread", pread)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("after", [20, 58])
def test_a_read_that_a_cut_overtakes_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, when: str
) -> None:
    """Of a file that goes, and of one that is shortened; found damaged, gone, or whole."""
    with long_log(tmp_path / "log") as log:
        meanwhile(monkeypatch, lambda: log.cut(10), before=when == "before")
        with pytest.raises(Conflict, match="cut while it was read"):
            log.read(after, bytes_max=1 << 20)


def test_a_file_that_a_cut_removed_was_not_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Purged` would make a replica ask for a copy."""
    directory = tmp_path / "log"
    with long_log(directory) as log:
        opens = os.open

        def cutting(path: Path, flags: int, mode: int = 0o777) -> int:
            monkeypatch.setattr(os, "open", opens)
            log.cut(10)
            return opens(path, flags, mode)

        monkeypatch.setattr(os, "open", cutting)
        with pytest.raises(Conflict, match="cut while it was read"):
            log.read(58, bytes_max=1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_look_that_a_cut_overtakes_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    looks: list[Callable[[Log], object]] = [
        lambda log: log.point(58),
        lambda log: log.place_of(58),
        lambda log: log.bytes_after(58) or None,
    ]
    for number, look in enumerate(looks):
        with monkeypatch.context() as patch, long_log(tmp_path / str(number)) as log:
            meanwhile(patch, lambda log=log: log.cut(10), before=when == "before")  # type: ignore[misc]  # A default binds it now.
            assert look(log) is None
            assert log.point(10) == log.end


def test_a_cut_that_fails_leaves_readers_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "log"
    log = long_log(directory)
    kept = everything(log)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(os, "ftruncate", broken)
        with pytest.raises(Exception, match="cannot be written"):
            log.cut(10)
    assert kept.startswith(everything(log))
    assert log.end.index == 10
    log.close()
    with opened(directory, file_bytes=SMALL) as log:
        assert log.end.index >= 10
        log.cut(10)
        assert kept.startswith(everything(log))


def test_readers_meet_cuts_at_any_moment_and_see_one_history_at_a_time(tmp_path: Path) -> None:
    """Each life of the tail has rows of its own; a read never mixes two, nor sees damage."""
    log = with_rows(tmp_path / "log", *range(10), file_bytes=SMALL, cache_bytes=500)
    floor, is_over, kinds = log.end.index, threading.Event(), set[str]()

    def read() -> int:
        seen = 0
        while not is_over.is_set():
            count, after = log.cut_count, floor
            try:
                while data := log.read(after, bytes_max=700):
                    lives = {payload[:4] for _, payload in decode(data)}
                    indexes = [header.index for header, _ in decode(data)]
                    assert indexes == list(range(after + 1, after + 1 + len(indexes)))
                    assert len(lives) == 1
                    (life,) = lives
                    assert int.from_bytes(life, "little") >= count
                    after = indexes[-1]
                    seen += len(indexes)
                assert log.point(floor) is not None
                log.bytes_after(floor + 3)
            except Conflict as error:
                kinds.add(type(error).__name__)
        return seen

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        for life in range(CUTS):
            payload = life.to_bytes(4, "little") + bytes(90)
            for _ in range(8):
                log.append([Entry(Kind.ROWS, payload, 7, 1)] * 5, epoch=ONE, source=A)
            log.cut(floor)
        is_over.set()
        assert all(each.result(DEADLINE_S) >= 0 for each in reading)
    assert kinds <= {"Conflict"}  # And never `Purged`.
    log.close()


def test_whoever_held_what_was_cut_holds_no_more_than_there_is(tmp_path: Path) -> None:
    """Else a purge would take what comes to stand there for what that node has already."""
    directory = tmp_path / "log"
    with long_log(directory) as log:
        log.hold("c", 50)
        log.hold("d", 5)
        log.cut(20)
        assert log.holds == {"c": 20, "d": 5}
        log.append([*start(B), *rows(*range(60))], epoch=Epoch(2), source=B)
        log.release("d")
        log.purge(keep_bytes=0, before_index=log.end.index)
        assert log.read(20, bytes_max=1)
    with opened(directory) as log:
        assert log.holds == {"c": 20}


def test_a_hold_above_the_end_that_a_crash_left_is_lowered(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with with_rows(directory, 1, 2, 3) as log:
        log.append(rows(4), epoch=ONE, source=A)
        log.hold("c", log.end.index)
        copy = copied(directory, "copy")
    path = next(copy.glob("log-*.bin"))
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[:-1])
    with opened(copy) as log:
        assert log.holds == {"c": log.end.index}


def test_a_cut_on_a_disk_that_cannot_note_the_holds_cuts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with long_log(tmp_path / "log") as log:
        log.hold("c", 50)
        before = everything(log)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(holds, "replace_file", full)
            with pytest.raises(DiskFull):
                log.cut(20)
        assert everything(log) == before
        log.cut(20)
        assert log.end.index == 20


def test_what_was_refused_for_lack_of_space_is_gone_from_the_disk_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two records fits, and a loss of power must not bring it back."""
    log = with_rows(tmp_path / "log", 1)
    deeds: list[str] = []
    pwrite, ftruncate, fsync = os.pwrite, os.ftruncate, os.fsync

    def some(fd: int, data: memoryview, offset: int) -> int:
        if deeds:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        deeds.append("written in part")
        return pwrite(fd, data[:200], offset)

    def undo(fd: int, size: int) -> None:
        deeds.append("undone")
        ftruncate(fd, size)

    def sync(fd: int) -> None:
        deeds.append("synced")
        fsync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", some)
        patch.setattr(os, "ftruncate", undo)
        patch.setattr(os, "fsync", sync)
        with pytest.raises(DiskFull):
            log.append(rows(50, 300), epoch=ONE, source=A)
    assert deeds == ["written in part", "undone", "synced"]
    log.close()
