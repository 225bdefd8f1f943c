"""A copy of the database that a writer goes on changing: one point of the history, and held."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.engines.sqlite.storage.pair import contents_of
from tests.unit.engines.sqlite.storage.primary import SETTINGS, Primary

from primacy.engines.sqlite.storage import copying
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.copying import discard
from primacy.engines.sqlite.storage.sums import MISSING_ROWS, TableSum, TableSums, table_sums
from primacy.errors import Conflict, Unavailable
from primacy.replication.gtid import GtidSet
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import decode
from primacy.runtime.files import DiskFull
from primacy.telemetry import ignore


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    made = Primary(tmp_path)
    made.run("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)")
    yield made
    made.close()


def caught_up(primary: Primary, path: Path) -> Path:
    """The copy, with what the log has behind it."""
    applier = Applier(path, SETTINGS)
    data = primary.log.read(applier.position.index, bytes_max=1 << 30)
    applier.apply(list(decode(data)))
    applier.close()
    return path


def test_a_copy_is_of_one_point_whatever_is_written_meanwhile(
    primary: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        primary.run("INSERT INTO t VALUES (?, ?)", number, bytes(50_000))
    before = primary.writer.position
    steps = 0

    class Writing(threading.Event):
        """Asked between two steps: then the primary commits something in front and behind."""

        def wait(self, timeout: float | None = None) -> bool:
            nonlocal steps
            steps += 1
            primary.run("UPDATE t SET b = ? WHERE n IN (0, 99)", f"step {steps}")
            return False

    into = tmp_path / "copies" / "one"
    into.parent.mkdir()
    copy = primary.copy(into, stop=Writing())
    assert steps >= 5
    assert copy.point == before
    assert copy.gtids == f"a@1:1-{before.index}"
    assert copy.size_bytes == into.stat().st_size
    assert primary.log.holds == {"one": before.index}
    assert contents_of(caught_up(primary, into)) == contents_of(primary.path)


def test_the_log_is_held_from_the_copys_point_on(primary: Primary, tmp_path: Path) -> None:
    into = tmp_path / "one"
    copy = primary.copy(into)
    for number in range(10):
        primary.run("INSERT INTO t VALUES (?, NULL)", number)
        primary.log.rotate()
    primary.log.purge(keep_bytes=0, before_index=primary.log.end.index)
    assert primary.log.first.index <= copy.point.index
    gtids = GtidSet.parse(copy.gtids)
    receiver = Log.begin(
        tmp_path / "received", at=copy.point, gtids=gtids, limits=LogLimits(), events=ignore
    )
    with receiver:
        receiver.append_received(primary.log.read(copy.point.index, bytes_max=1 << 30))
        assert receiver.end == primary.log.end
    primary.log.release("one")
    assert primary.log.purge(keep_bytes=0, before_index=primary.log.end.index) > 0
    assert primary.log.first.index > copy.point.index


def test_what_is_given_up_leaves_nothing(primary: Primary, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Unavailable, match="given up"):
        primary.copy(tmp_path / "one", stop=stop)
    assert not list(tmp_path.glob("one*"))
    assert primary.log.holds == {}


def test_a_copy_whose_file_is_taken_away_is_none(primary: Primary, tmp_path: Path) -> None:
    into = tmp_path / "one"

    class Taking(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            into.unlink(missing_ok=True)
            return False

    with pytest.raises(Unavailable, match="cannot be made"):
        primary.copy(into, stop=Taking())
    assert primary.log.holds == {}


def test_a_disk_without_space_for_it_is_left_alone(
    primary: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(DiskFull, match="MiB are free"):
        primary.copy(tmp_path / "one")
    assert not list(tmp_path.glob("one*"))
    assert primary.log.holds == {}


def test_a_copy_replaces_what_stood_in_its_place(primary: Primary, tmp_path: Path) -> None:
    into = tmp_path / "one"
    into.write_bytes(b"half of an older one" * 1000)
    copy = primary.copy(into)
    assert into.stat().st_size == copy.size_bytes
    assert contents_of(into) == contents_of(primary.path)
    discard(into)
    discard(into)
    assert not into.exists()


# ---- checksums


TABLES = ("t", "k", "a", "none")


def sums(primary: Primary) -> TableSums:
    return table_sums(primary.path, SETTINGS, TABLES)


def by_name(found: TableSums) -> dict[str, TableSum]:
    return {each.table: each for each in found.sums}


def test_sums_see_every_row_rowid_type_and_counter(primary: Primary, tmp_path: Path) -> None:
    primary.run("CREATE TABLE k (x TEXT, y, PRIMARY KEY (y, x)) WITHOUT ROWID")
    primary.run("CREATE TABLE a (n INTEGER PRIMARY KEY AUTOINCREMENT, rowid)")
    primary.run("CREATE TABLE u (x)")
    primary.copy(tmp_path / "copy")
    first = sums(primary)
    assert first.point == primary.writer.position
    assert first.sums[-1] == TableSum("none", MISSING_ROWS, "")
    assert [each.table for each in first.sums] == list(TABLES)
    assert table_sums(tmp_path / "copy", SETTINGS, TABLES) == first
    seen = [by_name(first)]
    for sql, changed in (
        ("INSERT INTO t VALUES (1, 'x')", "t"),
        ("UPDATE t SET b = x'78'", "t"),
        ("UPDATE t SET n = 2", "t"),
        ("INSERT INTO k VALUES ('a', 1)", "k"),
        ("UPDATE k SET y = 1.5", "k"),
        ("INSERT INTO a (rowid) VALUES ('r')", "a"),
        ("DELETE FROM a", "a"),  # Its counter stays.
        ("INSERT INTO u VALUES (1)", ""),
    ):
        primary.run(sql)
        found = by_name(sums(primary))
        before = seen[-1]
        assert {name for name in TABLES if found[name] != before[name]} == {changed} - {""}
        assert found not in seen or not changed
        seen.append(found)


def test_tables_that_are_too_large_are_not_read(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("primacy.engines.sqlite.storage.sums.SUMMED_BYTES_MAX", 10_000)
    primary.run("INSERT INTO t VALUES (1, ?)", bytes(9_000))
    sums(primary)
    primary.run("INSERT INTO t VALUES (2, ?)", bytes(9_000))
    with pytest.raises(Conflict, match="Clone the node"):
        sums(primary)
