"""The end of a history is taken back, in the database and in the log, whatever interrupts it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from tests.unit.engines.sqlite.storage.pair import contents_of
from tests.unit.engines.sqlite.storage.primary import SETTINGS, Primary

from primacy.engines.sqlite import rewinding
from primacy.engines.sqlite.rewinding import rewind
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.failures import MissingRow, NotInvertible, RowDiffers
from primacy.errors import Conflict
from primacy.replication.log.log import Log
from primacy.replication.log.record import Point


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    made = Primary(tmp_path)
    made.run("CREATE TABLE t (n INTEGER PRIMARY KEY AUTOINCREMENT, b)")
    for number in range(20):
        made.run("INSERT INTO t (b) VALUES (?)", number)
    yield made
    made.close()


def diverge(primary: Primary) -> None:
    """Rows come, change and go, and the counter moves."""
    primary.run("UPDATE t SET b = b + 1")
    primary.run("DELETE FROM t WHERE n % 2 = 0")
    primary.run("INSERT INTO t (b) VALUES ('late')")
    primary.run("UPDATE t SET n = 200 WHERE n = 1")


def take_back(primary: Primary, to: Point) -> Point:
    return rewind(primary.log, SETTINGS, database_path=primary.path, to=to.index)


def test_what_was_applied_is_taken_back_and_what_was_not_is_cut(
    primary: Primary, tmp_path: Path
) -> None:
    common = primary.copy(tmp_path / "before").point
    diverge(primary)
    primary.append(3)
    assert take_back(primary, common) == common
    assert (primary.log.end, primary.log.durable) == (common, common)
    assert contents_of(primary.path) == contents_of(tmp_path / "before")
    assert take_back(primary, common) == common


def test_a_tail_that_nobody_applied_is_cut_alone(primary: Primary, tmp_path: Path) -> None:
    common = primary.copy(tmp_path / "before").point
    primary.append(5)
    assert take_back(primary, common) == common
    primary.append(5)
    further = primary.log.point(common.index + 2)
    assert further is not None
    assert take_back(primary, further) == further
    assert contents_of(primary.path) == contents_of(tmp_path / "before")


@pytest.mark.parametrize("step", range(3))
def test_a_crash_in_the_middle_is_ended_by_the_same_call(
    step: int, primary: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = primary.copy(tmp_path / "before").point
    diverge(primary)
    primary.append(3)

    class PowerCut(Exception):
        pass

    done = 0

    def until(real: Callable[..., None]) -> Callable[..., None]:
        def act(*args: object, **named: object) -> None:
            nonlocal done
            done += 1
            if done > step:
                raise PowerCut
            real(*args, **named)

        return act

    with monkeypatch.context() as patched:
        patched.setattr(Log, "cut", until(Log.cut))
        patched.setattr(Applier, "rewind", until(Applier.rewind))
        with pytest.raises(PowerCut):
            take_back(primary, common)
    assert take_back(primary, common) == common
    assert contents_of(primary.path) == contents_of(tmp_path / "before")


def test_what_has_no_inverse_is_left_as_it_was(primary: Primary, tmp_path: Path) -> None:
    common = primary.writer.position
    primary.run("INSERT INTO t (b) VALUES (1)")
    primary.run("CREATE TABLE u (x)")
    primary.copy(tmp_path / "after")
    with pytest.raises(NotInvertible, match="change of the schema"):
        take_back(primary, common)
    assert contents_of(primary.path) == contents_of(tmp_path / "after")
    assert primary.log.end == primary.writer.position


@pytest.mark.parametrize(
    ("sql", "error"),
    [("UPDATE t SET b = 'other' WHERE n = 200", RowDiffers), ("DELETE FROM t", MissingRow)],
)
def test_a_file_that_somebody_changed_is_not_rewound(
    sql: str, error: type[Exception], primary: Primary
) -> None:
    common = primary.writer.position
    diverge(primary)
    connection = apsw.Connection(str(primary.path))
    connection.execute(sql)
    connection.close()
    before = contents_of(primary.path)
    with pytest.raises(error):
        take_back(primary, common)
    assert contents_of(primary.path) == before


def test_neither_what_was_purged_nor_too_much_is_taken_back(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = primary.writer.position
    diverge(primary)
    monkeypatch.setattr(rewinding, "REWOUND_BYTES_MAX", 100)
    with pytest.raises(Conflict, match="0 MiB of the log would be taken back"):
        take_back(primary, common)
    primary.log.rotate()
    primary.run("INSERT INTO t (b) VALUES (1)")
    primary.log.purge(keep_bytes=0, before_index=primary.log.end.index)
    with pytest.raises(Conflict, match="the log begins behind"):
        take_back(primary, common)
