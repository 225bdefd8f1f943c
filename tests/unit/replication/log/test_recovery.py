"""What a crash may leave at the end of a log, and what it cannot have left."""

import os
import zlib
from pathlib import Path

import pytest
from tests.unit.replication.log.given import (
    A,
    B,
    copied,
    everything,
    only_file,
    opened,
    rows,
    with_rows,
)

from primacy.errors import Corrupt, Rejected
from primacy.model import Epoch
from primacy.replication.log.log import Log
from primacy.replication.log.record import Point, decode, encode, source_id
from primacy.replication.log.segments import file_numbers, file_path
from primacy.telemetry import Event

ONE = Epoch(1)


class Crashed:
    """A log killed with a synced part, and one more append behind it that no sync covered."""

    def __init__(self, tmp_path: Path, *, unsynced: int = 1) -> None:
        log = with_rows(tmp_path / "log", 3, 30)
        self.durable, self.durable_bytes = log.end, everything(log)
        self.durable_size = end_offset(log)
        for size in range(unsynced):
            log.append(rows(size + 10), epoch=ONE, source=A)
        self.end, self.end_bytes = log.end, everything(log)
        self.directory = copied(log.directory, "crashed")
        self.path = only_file(self.directory)
        self.whole = self.path.read_bytes()[: end_offset(log)]
        log.close()

    def opened_with(self, data: bytes) -> tuple[Point, bytes, list[Event]]:
        """What the log holds when its file has become `data`; checked to go on behind it."""
        self.path.write_bytes(data)
        told: list[Event] = []
        with opened(self.directory, told=told) as log:
            found = log.end, everything(log), told
            assert log.durable == log.end
        with opened(self.directory) as log:
            assert everything(log) == found[1]
        return found


def end_offset(log: Log) -> int:
    """Behind the last record: what follows are zeros."""
    place = log.place_of(log.end.index)
    assert place is not None
    ((header, _),) = decode(log.read(log.end.index - 1, bytes_max=1))
    return place.offset + header.length


def refused(directory: Path, path: Path, data: bytes) -> str:
    """The message; nothing was changed."""
    path.write_bytes(data)
    with pytest.raises(Corrupt, match=r"log-\d+.bin, offset \d+: ") as error:
        opened(directory)
    assert path.read_bytes() == data
    return str(error.value)


def test_a_tail_cut_at_every_byte_loses_the_unsynced_record_and_no_more(tmp_path: Path) -> None:
    crashed = Crashed(tmp_path)
    for size in range(crashed.durable_size, len(crashed.whole)):
        end, data, told = crashed.opened_with(crashed.whole[:size])
        assert (end, data) == (crashed.durable, crashed.durable_bytes)
        is_torn = size not in (crashed.durable_size, crashed.durable_size + 24)  # The mark's end.
        assert [event.name for event in told] == ["log-tail-cut"] * is_torn
    assert crashed.opened_with(crashed.whole)[:2] == (crashed.end, crashed.end_bytes)


def test_a_flipped_bit_at_every_byte_of_the_unsynced_record_loses_it_and_no_more(
    tmp_path: Path,
) -> None:
    crashed = Crashed(tmp_path)
    begin = crashed.durable_size + 24  # Behind the mark, which says that all before it is durable.
    for place in range(begin, len(crashed.whole)):
        damaged = bytearray(crashed.whole)
        damaged[place] ^= 0x10
        end, data, told = crashed.opened_with(bytes(damaged))
        assert (end, data) == (crashed.durable, crashed.durable_bytes)
        assert told[0].fields["offset"] == begin
        assert told[0].fields["cut_bytes"] == len(crashed.whole) - begin


def test_a_flipped_bit_in_what_was_durable_is_refused_with_its_record(tmp_path: Path) -> None:
    crashed = Crashed(tmp_path)
    begins = offsets(crashed)
    for place in range(crashed.durable_size):
        damaged = bytearray(crashed.whole)
        damaged[place] ^= 0x10
        message = refused(crashed.directory, crashed.path, bytes(damaged))
        record = max((begin for begin in begins if begin <= place), default=0)
        if record and place < record + 68:
            assert f"offset {record}:" in message


def offsets(crashed: Crashed) -> list[int]:
    """Of the records that were durable."""
    with opened(copied(crashed.directory, "looked-at")) as log:
        found = [log.place_of(index) for index in range(1, crashed.durable.index + 1)]
    return [place.offset for place in found if place is not None]


def test_unsynced_writes_may_reach_the_disk_in_any_order(tmp_path: Path) -> None:
    """A hole in the middle of them, as pages written back out of order leave it."""
    crashed = Crashed(tmp_path, unsynced=5)
    for begin in range(crashed.durable_size + 24, len(crashed.whole), 7):
        holed = bytearray(crashed.whole)
        holed[begin : begin + 20] = bytes(len(holed[begin : begin + 20]))
        end, data, told = crashed.opened_with(bytes(holed))
        assert crashed.durable <= end < crashed.end
        assert crashed.end_bytes.startswith(data)
        assert [event.name for event in told] == ["log-tail-cut"]


def test_what_is_cut_is_gone_before_anything_is_written_behind_it(tmp_path: Path) -> None:
    """Else a mark or a record of the old tail could be met behind a shorter new one."""
    crashed = Crashed(tmp_path, unsynced=5)
    holed = bytearray(crashed.whole)
    begin = crashed.durable_size + 24
    holed[begin : begin + 20] = bytes(20)
    crashed.path.write_bytes(holed)
    with opened(crashed.directory):
        assert crashed.path.read_bytes() == holed[:begin]


def test_a_mark_says_no_more_than_what_a_sync_had_covered_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may append while a sync runs."""
    log = with_rows(tmp_path / "log", 1)
    log.append(rows(2), epoch=ONE, source=A)
    covered, fdatasync = log.end, os.fdatasync

    def appending_meanwhile(fd: int) -> None:
        fdatasync(fd)
        log.append(rows(300), epoch=ONE, source=A)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", appending_meanwhile)
        assert log.sync() == log.durable == covered
    log.append(rows(4), epoch=ONE, source=A)  # Begins with the mark of that sync.
    place = log.place_of(covered.index + 1)
    assert place is not None
    directory = copied(log.directory, "crashed")
    log.close()
    data = bytearray(only_file(directory).read_bytes())
    data[place.offset : place.offset + 200] = bytes(200)
    only_file(directory).write_bytes(data)
    with opened(directory) as found:
        assert found.end == covered


def test_a_record_by_another_node_than_its_epochs_primary_is_refused(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", 1)
    foreign, _ = encode(rows(2), after=log.end, epoch=ONE, source=source_id(B))
    offset = end_offset(log)
    directory = copied(log.directory, "forged")
    log.close()
    path = only_file(directory)
    message = refused(directory, path, path.read_bytes()[:offset] + foreign)
    assert f"offset {offset}: a record is not by the primary of its epoch" in message


def test_zeros_behind_the_end_are_no_damage(tmp_path: Path) -> None:
    crashed = Crashed(tmp_path)
    end, data, told = crashed.opened_with(crashed.whole + bytes(5_000))
    assert (end, data, told) == (crashed.end, crashed.end_bytes, [])


def test_garbage_behind_the_end_is_cut(tmp_path: Path) -> None:
    crashed = Crashed(tmp_path)
    for garbage in (b"x", b"\0\0\0\0x", b"\x18\0\0\0" + bytes(20), b"\xff" * 100):
        end, data, told = crashed.opened_with(crashed.whole + garbage)
        assert (end, data) == (crashed.end, crashed.end_bytes)
        assert told[0].fields["cut_bytes"] == len(garbage)


def test_after_a_clean_stop_any_damage_is_damage(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", 3, 30)
    log.append(rows(5), epoch=ONE, source=A)
    log.close()
    path = only_file(log.directory)
    whole = path.read_bytes()
    for place in range(len(whole) - 24):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        refused(log.directory, path, bytes(damaged))


def test_stored_bytes_that_look_like_a_mark_do_not_pose_as_one(tmp_path: Path) -> None:
    """A client may store a log's file in its database."""
    foreign = with_rows(tmp_path / "foreign", 3, 30)
    foreign.close()
    log = with_rows(tmp_path / "log", 1)
    before = everything(log)
    (entry,) = rows(0)
    posing = type(entry)(entry.kind, only_file(foreign.directory).read_bytes(), 0, 0)
    size = end_offset(log)
    log.append([posing], epoch=ONE, source=A)
    directory = copied(log.directory, "crashed")
    log.close()
    path = only_file(directory)
    damaged = bytearray(path.read_bytes())
    damaged[size + 24] ^= 1
    path.write_bytes(damaged)
    with opened(directory) as found:
        assert everything(found) == before


def test_a_file_with_a_successor_that_became_shorter_is_refused(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", *range(60), file_bytes=2_000)
    log.close()
    path = file_path(log.directory, 2)
    whole = path.read_bytes()
    for size in range(200, len(whole), 11):
        assert "does not end with one" in refused(log.directory, path, whole[:size])


def test_damage_in_a_file_with_a_successor_is_found_where_it_is_read(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", *range(60), file_bytes=2_000)
    log.close()
    path = file_path(log.directory, 2)
    data = bytearray(path.read_bytes())
    with opened(log.directory) as found:
        place = found.place_of(found.first.index + 25)
    assert place is not None
    assert place.file == path.name
    data[place.offset + 1] ^= 0x40  # In its length.
    path.write_bytes(data)
    with opened(log.directory) as found, pytest.raises(Corrupt, match=f"offset {place.offset}"):
        everything(found)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", *range(60), file_bytes=2_000)
    log.close()
    file_path(log.directory, 2).unlink()
    with pytest.raises(Corrupt, match="the file before it is missing"):
        opened(log.directory)


def test_a_head_cut_short_is_refused_since_it_was_renamed_whole(tmp_path: Path) -> None:
    with_rows(tmp_path / "log").close()
    path = only_file(tmp_path / "log")
    whole = path.read_bytes()
    for size in range(64 + 68):
        refused(tmp_path / "log", path, whole[:size])


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    with_rows(tmp_path / "log", 1).close()
    only_file(tmp_path / "log").rename(file_path(tmp_path / "log", 7))
    with pytest.raises(Corrupt, match="this is file 1"):
        opened(tmp_path / "log")


def test_a_log_of_a_newer_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    with_rows(tmp_path / "log", 1).close()
    path = only_file(tmp_path / "log")
    newer = bytearray(path.read_bytes())
    newer[8] = 2
    newer[12:16] = zlib.crc32(newer[:12]).to_bytes(4, "little")  # So in every version.
    path.write_bytes(newer)
    with pytest.raises(Rejected, match="has version 2 of the log's format"):
        opened(tmp_path / "log")
    assert path.read_bytes() == newer


def test_a_file_that_was_being_made_is_removed(tmp_path: Path) -> None:
    log = with_rows(tmp_path / "log", 1)
    data = everything(log)
    log.close()
    leftover = log.directory / "log-000000000002.bin.new"
    leftover.write_bytes(b"half")
    with opened(log.directory) as found:
        assert everything(found) == data
    assert not leftover.exists()


def test_a_cut_that_a_crash_stopped_leaves_a_log_that_the_same_cut_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = with_rows(tmp_path / "log", *range(60), file_bytes=1_500)
    whole, wanted = everything(log), log.point(4)
    assert len(file_numbers(log.directory)) > 4
    states: list[Path] = []
    unlink = Path.unlink

    def noted(self: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as pathlib's
        unlink(self, missing_ok)
        if self.suffix == ".bin":
            states.append(copied(log.directory, f"state-{len(states)}"))

    with monkeypatch.context() as watched:
        watched.setattr(Path, "unlink", noted)
        log.cut(4)
    log.close()
    assert len(states) > 3
    for state in states:
        with opened(state) as found:
            assert found.end.index > 4
            assert whole.startswith(everything(found))
            found.cut(4)
            assert found.end == wanted
            assert everything(found) == everything_of(log.directory)


def everything_of(directory: Path) -> bytes:
    with opened(directory) as log:
        return everything(log)


def test_what_was_read_at_a_restart_is_durable_before_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stand in the page cache only, and pages of a failed sync count as clean: the tail is
    written again before the sync."""
    crashed = Crashed(tmp_path, unsynced=3)
    calls: list[tuple[str, int]] = []
    pwrite, fsync = os.pwrite, os.fsync

    def noted_write(fd: int, data: bytes, offset: int) -> int:
        calls.append(("write", offset))
        return pwrite(fd, data, offset)

    def noted_sync(fd: int) -> None:
        calls.append(("sync", fd))
        fsync(fd)

    with monkeypatch.context() as noting:
        noting.setattr(os, "pwrite", noted_write)
        noting.setattr(os, "fsync", noted_sync)
        log: Log = opened(crashed.directory)
    log.close()
    assert calls[0] == ("write", crashed.durable_size)
    assert [name for name, _ in calls[1:]] == ["sync", "sync"]
