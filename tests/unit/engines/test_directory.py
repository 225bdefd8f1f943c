"""The data directory of any engine: whose it is, and that it is replaced whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from primacy.engines.api import ServerState
from primacy.engines.directory import MARK_NAME, Mark
from primacy.engines.layout import Layout
from primacy.engines.sqlite.directory import Directory
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.errors import Conflict, Rejected
from primacy.model import Incarnation, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import ORIGIN_POINT
from primacy.telemetry import ignore


def directory(root: Path, *, node: str = "a", cluster: str = "shop") -> Directory:
    return Directory(Layout(root), cluster=cluster, node=NodeId(node), database="db")


def filled(root: Path, word: str) -> None:
    """An `incoming` that says what it is."""
    (directory(root).clear_incoming() / "content").write_text(word)


def content(root: Path) -> str:
    return (root / "data" / "content").read_text()


def test_an_empty_one_is_made_whole_with_database_and_log(tmp_path: Path) -> None:
    made = directory(tmp_path)
    assert made.state()[0] is ServerState.ABSENT
    made.make_empty()
    assert directory(tmp_path).state() == (ServerState.STOPPED, "")
    mark = made.mark()
    assert mark is not None
    assert (mark.engine, mark.node, mark.cluster) == ("sqlite", "a", "shop")
    assert len(mark.incarnation) == 32
    applier = Applier(tmp_path / "data" / "db.sqlite", StorageSettings())
    assert applier.position == ORIGIN_POINT
    applier.close()
    with Log.open(tmp_path / "data" / "log", limits=LogLimits(), events=ignore) as log:
        assert log.end == ORIGIN_POINT
    with pytest.raises(Conflict, match="is STOPPED, not ABSENT"):
        made.make_empty()


def strangers() -> dict[str, Callable[[Path], None]]:
    mark = Mark(engine="sqlite", cluster="shop", node="a", incarnation=Incarnation("i"))

    def marked(changed: Mark) -> Callable[[Path], None]:
        return lambda data: write(data, MARK_NAME, msgspec.json.encode(changed))

    return {
        "no mark": lambda data: write(data, "db.sqlite", b"x"),
        "no mark that can be read": lambda data: write(data, MARK_NAME, b"{"),
        "no directory": lambda data: write(data.parent, "data", b"x"),
        "another node": marked(msgspec.structs.replace(mark, node="b")),
        "another cluster": marked(msgspec.structs.replace(mark, cluster="bank")),
        "another engine": marked(msgspec.structs.replace(mark, engine="mariadb")),
    }


def write(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)


@pytest.mark.parametrize("kind", strangers())
def test_what_primacy_did_not_make_for_this_node_is_never_touched(
    kind: str, tmp_path: Path
) -> None:
    strangers()[kind](tmp_path / "data")
    before = snapshot(tmp_path / "data")
    own = directory(tmp_path)
    assert own.state()[0] is ServerState.FOREIGN
    with pytest.raises(Rejected, match="never touches it"):
        own.make_empty()
    filled(tmp_path, "new")
    with pytest.raises(Rejected, match="never touches it"):
        own.adopt_incoming()
    assert snapshot(tmp_path / "data") == before


def snapshot(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(each): each.read_bytes() for each in files}


def test_the_old_data_stand_aside_until_they_are_forgotten(tmp_path: Path) -> None:
    own = directory(tmp_path)
    filled(tmp_path, "first")
    own.adopt_incoming()
    first = own.mark()
    assert not own.has_old_data
    filled(tmp_path, "second")
    own.adopt_incoming()
    second = own.mark()
    assert first is not None
    assert second is not None
    assert first.incarnation != second.incarnation
    assert (content(tmp_path), own.has_old_data) == ("second", True)
    assert (tmp_path / "old-data" / "content").read_text() == "first"
    own.forget_old()
    own.forget_old()
    assert (content(tmp_path), own.has_old_data) == ("second", False)


class PowerCut(Exception):
    """Nothing more is done."""


def until_step(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Of what changes names; each that comes later is a power cut."""
    done = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **named: object) -> object:
            nonlocal done
            done += 1
            if done > steps:
                raise PowerCut
            return real(*args, **named)

        return act

    for name in ("rename", "rmdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr("shutil.rmtree", counted(__import__("shutil").rmtree))


@pytest.mark.parametrize("steps", range(6))
def test_a_crash_at_any_step_leaves_the_old_data_or_the_new(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = directory(tmp_path)
    for word in ("oldest", "old"):  # So that there is something aside already.
        filled(tmp_path, word)
        own.adopt_incoming()
    filled(tmp_path, "new")
    with monkeypatch.context() as patched:
        until_step(patched, steps)
        try:
            own.adopt_incoming()
        except PowerCut:
            assert steps < 4
        else:
            assert steps >= 4  # The mark, what stood aside, and two renames.
    found = directory(tmp_path)
    found.restore_old()
    assert found.state()[0] is ServerState.STOPPED
    assert content(tmp_path) == ("old" if steps < 4 else "new")
    filled(tmp_path, "newer")
    found.adopt_incoming()
    assert content(tmp_path) == "newer"


def test_what_stands_aside_is_not_forgotten_while_nothing_else_is_there(tmp_path: Path) -> None:
    own = directory(tmp_path)
    filled(tmp_path, "old")
    own.adopt_incoming()
    (tmp_path / "data").rename(tmp_path / "old-data")
    directory(tmp_path).forget_old()
    found = directory(tmp_path)
    found.restore_old()
    assert (found.state()[0], content(tmp_path)) == (ServerState.STOPPED, "old")


def test_whether_a_disk_is_full_is_said_whatever_becomes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked at every look: an error would end the agent, and not the database."""
    made = directory(tmp_path)
    assert not made.is_full(full_bytes=0)
    assert made.is_full(full_bytes=1 << 60)

    def free_bytes(place: Path) -> int:
        raise errors[place.name == "data"]

    monkeypatch.setattr("primacy.engines.directory.free_bytes", free_bytes)
    gone = FileNotFoundError(2, "being replaced")
    errors: list[OSError] = [gone, gone]
    assert not made.is_full()
    errors = [OSError(5, "Input/output error"), gone]
    assert made.is_full()
