"""`primacy log` on a node's directory: what it says, and that it changes nothing."""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.replication.log.given import A, B, copied, opened, start, with_rows

from primacy.cli.main import exit_code_of
from primacy.engines.sqlite.storage.images import Ddl, encode_events
from primacy.model import Epoch
from primacy.replication.log.record import Entry, Kind
from primacy.replication.log.segments import file_path

SECOND_US = 1_000_000
NOON_US = 1_795_694_400 * SECOND_US
"""2026-11-26 12:00:00 UTC."""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = exit_code_of(["log", *(str(each) for each in arguments)])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory with a log in several files, closed; its bytes do not change."""
    log = with_rows(tmp_path / "state" / "log", *range(40), file_bytes=2_000)
    log.append(start(B), epoch=Epoch(3), source=B)
    for second in range(10):
        entry = Entry(Kind.STATEMENT, b"x" * second, 9, NOON_US + second * SECOND_US)
        log.append([entry], epoch=Epoch(3), source=B)
    log.close()
    before = contents(tmp_path / "state" / "log")
    yield tmp_path / "state"
    assert contents(tmp_path / "state" / "log") == before


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_a_sound_log_is_verified_from_the_state_directory_or_its_own(state: Path, say: Say) -> None:
    for directory in (state, state / "log"):
        code, out, err = say("verify", directory)
        assert (code, err) == (0, "")
        assert "52 records, a@1:1-41,b@3:42-52, end 3/52#" in out
        assert out.count("sound") == len(list((state / "log").glob("*.bin")))
    code, out, _ = say("verify", state, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["is_sound"] is True
    assert report["records"] == 52 == sum(each["records"] for each in report["files"])
    assert report["gtids"] == "a@1:1-41,b@3:42-52"
    assert {each["torn_bytes"] for each in report["files"]} == {0}


def test_damage_is_named_with_file_and_offset(state: Path, say: Say) -> None:
    directory = copied(state / "log", "damaged")
    with opened(copied(state / "log", "asked")) as log:
        place = log.place_of(15)
    assert place is not None
    path = directory / place.file
    data = bytearray(path.read_bytes())
    data[place.offset + 30] ^= 1
    path.write_bytes(data)
    code, out, err = say("verify", directory)
    assert code == 2
    assert "DAMAGED: " in out
    assert f"{place.file}, offset {place.offset}: no whole record" in err
    code, out, err = say("verify", directory, "--json")
    assert code == 2
    report = json.loads(out)
    assert report["is_sound"] is False
    assert report["files"][-1]["file"] == place.file  # What follows cannot be judged.
    assert report["end"].startswith("1/14#")
    code, out, err = say("dump", directory)
    assert code == 2
    assert len(out.splitlines()) == 14
    assert f"{place.file}, offset {place.offset}" in err


def test_a_torn_tail_is_no_damage(tmp_path: Path, say: Say) -> None:
    log = with_rows(tmp_path / "log", 5, 6)
    log.append([Entry(Kind.ROWS, b"x" * 100, 0, 0)], epoch=Epoch(1), source=A)
    directory = copied(log.directory, "crashed")
    log.close()
    path = file_path(directory, 1)
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-10])
    code, out, _ = say("verify", directory)
    assert code == 0
    assert "torn tail of 158 bytes" in out
    assert len(say("dump", directory)[1].splitlines()) == 3


def test_files_of_two_histories_are_damage_though_each_is_sound(tmp_path: Path, say: Say) -> None:
    def log_of(name: str, schema_hash: int) -> Path:
        with opened(tmp_path / name, file_bytes=1_000) as log:
            log.append(start(A), epoch=Epoch(1), source=A)
            for _ in range(30):
                log.append([Entry(Kind.ROWS, b"x", schema_hash, 0)], epoch=Epoch(1), source=A)
        return tmp_path / name

    one, other = log_of("one", 1), log_of("other", 2)
    file_path(one, 2).write_bytes(file_path(other, 2).read_bytes())
    code, out, err = say("verify", one)
    assert code == 2
    assert "log-000000000002.bin, offset 0: it begins behind 1/" in err
    assert out.count("DAMAGED") == 1


def test_records_are_dumped_in_order_with_all_their_names(state: Path, say: Say) -> None:
    code, out, _ = say("dump", state)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 52
    assert lines[0].startswith("a@1:1 EPOCH 1970-01-01T00:00:00.000005+00:00 ")
    assert lines[43].startswith("b@3:44 STATEMENT 2026-11-26T12:00:01+00:00 1 bytes, point 3/44#")
    assert len(say("dump", state, "--after", 30, "--limit", 4)[1].splitlines()) == 4
    objects = [json.loads(line) for line in say("dump", state, "--json")[1].splitlines()]
    assert [each["index"] for each in objects] == list(range(1, 53))
    by_file: dict[str, list[int]] = {}
    for each in objects:
        by_file.setdefault(each["file"], []).append(each["index"])
    name = sorted(by_file)[1]
    only = [
        json.loads(line)
        for line in say("dump", state, "--json", "--file", name)[1].split("\n")[:-1]
    ]
    assert [each["index"] for each in only] == by_file[name]
    last = json.loads(say("dump", state, "--json", "--after", 51, "--payload")[1])
    assert last["payload"] == "78" * 9
    assert "    " + "78" * 9 in say("dump", state, "--after", 51, "--payload")[1]


def test_a_record_is_found_by_each_of_its_names(state: Path, say: Say) -> None:
    def found(*arguments: object) -> Any:  # Any: JSON.
        code, out, err = say("find", state, "--json", *arguments)
        assert (code, err) == (0, "")
        return json.loads(out)

    one = found("--index", 45)
    assert one["gtid"] == "b@3:45"
    assert one == found("--gtid", "b@3:45")
    assert one == found("--time", "2026-11-26T12:00:02")
    assert one == found("--time", "2026-11-26T13:00:01.000001+01:00")
    for byte in (0, 69):
        assert one == found("--place", f"{one['file']}:{one['offset'] + byte}")
    assert say("find", state, "--index", 45)[1].startswith("b@3:45 STATEMENT 2026-11-26T12:00:02")


REFUSED = {
    "an index that is not there": (["--index", "53"], "has no record 53"),
    "a GTID of another epoch": (["--gtid", "c@2:45"], "its record 45 is b@3:45"),
    "a set": (["--gtid", "b@3:45-46"], "is 2 transactions"),
    "what is no GTID": (["--gtid", "b3:45"], "malformed GTIDs at column 1"),
    "a time after the end": (["--time", "2026-11-27"], "has no record that was committed"),
    "what is no time": (["--time", "noon"], "is no time"),
    "what is no place": (["--place", "log-000000000001.bin"], "is no place"),
    "a file that is not there": (["--place", "log-000000000099.bin:1"], "has no file"),
    "a place in a head": (["--place", "log-000000000001.bin:1"], "no record of"),
    "nothing": ([], "in exactly one way"),
    "two ways": (["--index", "1", "--gtid", "a@1:1"], "in exactly one way"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_found_is_refused_with_the_reason(name: str, state: Path, say: Say) -> None:
    arguments, reason = REFUSED[name]
    code, out, err = say("find", state, *arguments)
    assert (code, out) == (2, "")
    assert reason in err


def test_a_directory_without_a_log_and_a_newer_log_are_refused(tmp_path: Path, say: Say) -> None:
    for command in ("verify", "dump", "find"):
        code, _, err = say(command, tmp_path, *(["--index", 1] if command == "find" else []))
        assert code == 2
        assert "holds no log" in err
    with_rows(tmp_path / "log", 1).close()
    path = file_path(tmp_path / "log", 1)
    newer = bytearray(path.read_bytes())
    newer[8] = 9
    newer[12:16] = zlib.crc32(newer[:12]).to_bytes(4, "little")
    path.write_bytes(newer)
    for command in ("verify", "dump"):
        code, _, err = say(command, tmp_path)
        assert code == 2
        assert "has version 9 of the log's format, this primacy reads 1" in err


def test_a_log_that_runs_is_looked_at_beside_it(tmp_path: Path, say: Say) -> None:
    with with_rows(tmp_path / "log", 1, 2):
        assert say("verify", tmp_path)[0] == 0


def test_transactions_read_as_sql(tmp_path: Path, say: Say) -> None:
    log = opened(tmp_path / "log")
    payload = encode_events([Ddl("CREATE TABLE t(a)"), Ddl("CREATE TABLE u(a)")], {})
    log.append([*start(A), Entry(Kind.DDL, payload, 9, NOON_US)], epoch=Epoch(1), source=A)
    log.close()
    code, out, err = say("dump", tmp_path, "--sql")
    assert (code, err) == (0, "")
    remarks = [line.startswith("-- a@1:") for line in out.splitlines()]
    assert remarks == [True, True, False, False, False, False]
    assert out.endswith("\nCREATE TABLE t(a)\n;\nCREATE TABLE u(a)\n;\n")
    code, out, _ = say("dump", tmp_path, "--sql", "--json")
    told = [json.loads(line)["sql"] for line in out.splitlines()]
    assert told == [[], ["CREATE TABLE t(a)\n;", "CREATE TABLE u(a)\n;"]]


def test_a_payload_that_is_no_change_is_named_and_not_shown(state: Path, say: Say) -> None:
    code, _, err = say("dump", state, "--sql")
    assert code == 2
    assert "cannot be read" in err
