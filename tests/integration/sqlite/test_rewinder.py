"""An old primary's applied tail is taken back and compared with the primary at one place; what that
cannot mend says why, so that the node is cloned."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import pytest
from tests.integration.sqlite.cloning import A, B, Site, site, sums_of
from tests.unit.engines.sqlite.storage.pair import contents_of
from tests.unit.engines.sqlite.storage.primary import SETTINGS, Primary

from primacy.clock import SystemClock
from primacy.engines.api import Branch, Diverged
from primacy.engines.sqlite.control import Receiving, RoleNow, Shown, Sums, Upstream
from primacy.engines.sqlite.diverged import save_diverged
from primacy.engines.sqlite.rewinder import Rewinder
from primacy.engines.sqlite.rewinding import rewind
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.failures import RowDiffers
from primacy.errors import Conflict
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import decode
from primacy.telemetry import ignore

pytestmark = pytest.mark.integration


class OldServer:
    """The server of the old primary, started again: it rests, is rewound, follows."""

    def __init__(self, data: Path, primary: Primary) -> None:
        self.path = data / "db.sqlite"
        self.log = Log.open(data / "log", limits=LogLimits(), events=ignore)
        self.parted: Receiving | None = None
        self.trouble = ""
        self.asked: list[tuple[NodeId, bool, int]] = []
        self._primary = primary

    async def rest(self) -> int:
        return self.log.durable.index

    async def rewind(self, to: int) -> None:
        rewind(self.log, SETTINGS, database_path=self.path, to=to)

    async def follow(
        self, primary: NodeId, epoch: Epoch, *, acknowledge: bool = False, apply_until: int = 0
    ) -> None:
        assert epoch == 2
        self.asked.append((primary, acknowledge, apply_until))
        if self.parted or self.trouble:
            return
        try:
            self.log.append_received(self._primary.log.read(self.log.end.index, bytes_max=1 << 30))
        except Conflict:
            self.parted = Receiving.DIVERGED
            return
        self.log.sync()
        applier = Applier(self.path, SETTINGS)
        until = apply_until or self.log.end.index
        data = self.log.read(applier.position.index, bytes_max=1 << 30, until=until)
        applier.apply(list(decode(data)))
        applier.close()

    async def shown(self) -> Shown:
        applier = Applier(self.path, SETTINGS)
        applied = applier.position
        applier.close()
        state = self.parted or Receiving.STREAMING
        return Shown(
            cluster="shop",
            node=B,
            role=RoleNow.FOLLOWING,
            first=self.log.first,
            end=self.log.end,
            durable=self.log.durable,
            applied=applied,
            position_text="",
            upstream=Upstream(
                state=state, node=A, epoch=Epoch(2), acknowledges=False, reason="words"
            ),
            trouble=self.trouble,
        )

    async def table_sums(self, tables: Sequence[str], at: int = 0) -> Sums:
        found = sums_of(self.path, tables)
        assert at in (0, found.point.index)
        return found


class Story:
    """b led epoch 1 and has what nobody else has; a leads epoch 2 and goes on writing."""

    def __init__(self, root: Path, *lost: str) -> None:
        old, new = root / "b" / "data", root / "a" / "data"
        old.mkdir(parents=True)
        primary = Primary(old)
        primary.run("CREATE TABLE t (n INTEGER PRIMARY KEY AUTOINCREMENT, b)")
        primary.run("CREATE TABLE k (x TEXT PRIMARY KEY, y) WITHOUT ROWID")
        primary.run("INSERT INTO t (b) VALUES ('one'), ('two'), ('three')")
        primary.close()
        shutil.copytree(old, new)
        primary = Primary(old, is_new=False)
        for sql in lost:
            primary.run(sql)
        primary.append(2)
        primary.close()
        self.new = Primary(new, is_new=False)
        row = self.new.begin_epoch(Epoch(2), A)
        self.branches = [
            Branch(epoch=Epoch(1), node=A, first_sequence=1),
            Branch(epoch=Epoch(2), node=A, first_sequence=row),
        ]
        self.new.run("UPDATE t SET b = 'new' WHERE n = 2")
        self.old_data = old

    async def found(self, at: Site) -> Diverged:
        return await save_diverged(at.receiver, self.branches)


LOST = (
    "INSERT INTO t (b) VALUES ('lost')",
    "UPDATE t SET b = 'lost too' WHERE n = 2",
    "DELETE FROM t WHERE n = 1",
    "INSERT INTO k VALUES ('x', 1)",
)


def told(
    root: Path,
    *lost: str,
    meanwhile: Callable[[Story, OldServer], None] = lambda _story, _server: None,
) -> OldServer:
    """The whole rewind; what it raises is raised."""
    story = Story(root, *lost)
    server = OldServer(story.old_data, story.new)

    async def work() -> None:
        async with site(root, story.new) as at:
            found = await story.found(at)
            rewinder = Rewinder(at.receiver, server, SystemClock())
            plan = await rewinder.prepare(found)
            await rewinder.reverse(plan)
            meanwhile(story, server)
            await rewinder.compare(plan, A, Epoch(2))

    try:
        asyncio.run(work())
    finally:
        server.log.close()
    return server


def test_an_old_primary_is_rewound_and_equal_to_the_new_one(tmp_path: Path) -> None:
    def goes_on(story: Story, _server: OldServer) -> None:
        story.new.run("INSERT INTO t (b) VALUES ('since')")

    server = told(tmp_path, *LOST, meanwhile=goes_on)
    assert contents_of(server.path) == contents_of(tmp_path / "a" / "data" / "db.sqlite")
    (place, last) = server.asked
    assert place[:2] == last[:2] == (A, False)
    assert (place[2] > 0, last[2]) == (True, 0)


def test_a_place_that_the_primary_has_left_is_stood_at_all_the_same(tmp_path: Path) -> None:
    """It goes on between its checksums and the follower's."""

    class Ahead(OldServer):
        async def follow(
            self, primary: NodeId, epoch: Epoch, *, acknowledge: bool = False, apply_until: int = 0
        ) -> None:
            if apply_until:
                self._primary.run("INSERT INTO t (b) VALUES ('after the checksums')")
            await super().follow(primary, epoch, acknowledge=acknowledge, apply_until=apply_until)

    story = Story(tmp_path, *LOST)
    server = Ahead(story.old_data, story.new)

    async def work() -> None:
        async with site(tmp_path, story.new) as at:
            rewinder = Rewinder(at.receiver, server, SystemClock())
            plan = await rewinder.prepare(await story.found(at))
            await rewinder.reverse(plan)
            await rewinder.compare(plan, A, Epoch(2))

    asyncio.run(work())
    server.log.close()
    assert contents_of(server.path) == contents_of(tmp_path / "a" / "data" / "db.sqlite")


def change_behind(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def test_a_copy_that_differs_after_all_is_found_by_the_comparison(tmp_path: Path) -> None:
    def damage(_story: Story, server: OldServer) -> None:
        change_behind(server.path, "UPDATE t SET b = 'silently' WHERE n = 3")

    with pytest.raises(Conflict, match=r"after the rewind t differ\(s\) from a at 2/"):
        told(tmp_path, *LOST, meanwhile=damage)


def test_a_history_that_parts_again_is_told(tmp_path: Path) -> None:
    def part(_story: Story, server: OldServer) -> None:
        server.parted = Receiving.DIVERGED

    with pytest.raises(Conflict, match="after the rewind: diverged: words"):
        told(tmp_path, *LOST, meanwhile=part)


def test_trouble_on_the_way_is_told(tmp_path: Path) -> None:
    def trouble(_story: Story, server: OldServer) -> None:
        server.trouble = "a row is missing"

    with pytest.raises(Conflict, match="after the rewind: a row is missing"):
        told(tmp_path, *LOST, meanwhile=trouble)


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ("CREATE TABLE u (x)", "a change of the schema has no inverse"),
        ("INSERT INTO t (b) VALUES (zeroblob(3000000))", "have more than 1 MiB"),
    ],
)
def test_what_cannot_be_taken_back_changes_nothing(
    lost: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("primacy.engines.sqlite.storage.sums.SUMMED_BYTES_MAX", 1 << 20)
    with pytest.raises(Conflict, match=why):
        told(tmp_path, lost)
    connection = apsw.Connection(str(tmp_path / "b" / "data" / "db.sqlite"))
    tables, rows = connection.execute(
        "SELECT (SELECT count(*) FROM sqlite_schema WHERE name = 'u'), (SELECT count(*) FROM t)"
    ).get
    assert tables + rows == 4
    connection.close()


def test_a_row_that_is_not_as_the_log_left_it_stops_it_before_anything(tmp_path: Path) -> None:
    story = Story(tmp_path, *LOST)
    change_behind(story.old_data / "db.sqlite", "UPDATE t SET b = 'other' WHERE n = 4")
    server = OldServer(story.old_data, story.new)
    before = contents_of(server.path)

    async def work() -> None:
        async with site(tmp_path, story.new) as at:
            rewinder = Rewinder(at.receiver, server, SystemClock())
            plan = await rewinder.prepare(await story.found(at))
            await rewinder.reverse(plan)

    with pytest.raises(RowDiffers):
        asyncio.run(work())
    assert contents_of(server.path) == before
    server.log.close()
