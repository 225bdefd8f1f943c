"""What an old primary has alone: found by where the epochs begin, saved twice, counted, cut."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.engines.sqlite.storage.pair import contents_of
from tests.unit.engines.sqlite.storage.primary import Primary

from primacy.engines.api import Branch, Diverged
from primacy.engines.sqlite import tally
from primacy.engines.sqlite.diverged import save_diverged
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.model import Address, Epoch, NodeId
from primacy.replication.log import inspecting
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Entry, Kind, decode, epoch_entry
from primacy.telemetry import ignore

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
FIRST = Branch(epoch=Epoch(1), node=A, first_sequence=1)


class Old:
    """A node that led epoch 1, and whose server is down whenever it is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.data.mkdir()
        doors = {node: Address("127.0.0.1", 1) for node in (A, B, C)}
        self.settings = SqliteSettings(
            cluster="shop",
            node=A,
            doors=doors,
            pull_doors=doors,
            clone_doors=doors,
            state_dir=root,
            cluster_secret=bytes(32),
        )
        primary = Primary(self.data)
        primary.run("CREATE TABLE t (n INTEGER PRIMARY KEY, b)")
        primary.run("INSERT INTO t VALUES (1, 'shared')")
        self.common = primary.writer.position.index
        primary.close()

    def writes(self, *sql: str, markers: int = 0) -> None:
        primary = Primary(self.data, is_new=False)
        for each in sql:
            primary.run(each)
        primary.append(markers)
        primary.close()

    def saved(self, *branches: Branch) -> Diverged:
        return asyncio.run(save_diverged(self.settings, branches or (FIRST, self.parting)))

    @property
    def parting(self) -> Branch:
        """Epoch 2, begun by another that has only what is shared."""
        return Branch(epoch=Epoch(2), node=B, first_sequence=self.common + 1)

    @property
    def log(self) -> Path:
        return self.data / "log"


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path)


def test_a_log_that_is_a_part_of_the_new_history_has_nothing_to_save(old: Old) -> None:
    assert old.saved() == Diverged()
    assert old.saved(FIRST) == Diverged()
    assert not (old.root / "diverged").exists()


def test_the_tail_is_saved_as_sql_and_as_records_and_counted(old: Old) -> None:
    old.writes(
        "INSERT INTO t VALUES (2, 'it''s lost')", "UPDATE t SET b = 'other' WHERE n = 1", markers=2
    )
    found = old.saved()
    assert found == Diverged(
        ident=f"a-2-{old.common + 4}",
        epoch=Epoch(2),
        count=4,
        own_count=2,
        first=f"a@1:{old.common + 1}",
        last=f"a@1:{old.common + 4}",
        tables=('"t"',),
        path=str(old.root / "diverged" / found.ident / "readable.sql"),
        parts_at=old.common + 1,
    )
    assert found.is_reversible
    text = Path(found.path).read_text()
    assert 'INSERT INTO "t"("n", "b") VALUES(2, \'it\'\'s lost\');' in text
    assert "-- was b 'shared'" in text
    assert text.count("-- MARKER: primacy's own") == 2
    records = list(inspecting.records(Path(found.path).parent / "records"))
    assert [str(each.gtid) for each in records] == [
        f"a@1:{old.common + each}" for each in range(1, 5)
    ]
    assert inspecting.verify(Path(found.path).parent / "records").damage is None
    assert Path(found.path).parent.stat().st_mode & 0o777 == 0o700


def test_found_again_it_is_the_same_folder_and_nothing_was_removed(old: Old) -> None:
    old.writes("INSERT INTO t VALUES (2, 2)", markers=1)
    before = {each: each.read_bytes() for each in old.log.iterdir()}
    first = old.saved()
    content = {each: each.read_bytes() for each in folder_of(first).rglob("*") if each.is_file()}
    (folder_of(first) / "records.new").mkdir()  # What a crash may leave.
    (folder_of(first) / "readable.sql.new").write_text("half")
    assert old.saved() == first
    again = {each: each.read_bytes() for each in folder_of(first).rglob("*") if each.is_file()}
    assert again.keys() == content.keys()
    assert again[Path(first.path)] == content[Path(first.path)]
    assert {each: each.read_bytes() for each in old.log.iterdir()} == before


def folder_of(found: Diverged) -> Path:
    return Path(found.path).parent


@pytest.mark.parametrize(
    ("branches", "parts_behind"),
    [
        ([("2", B, 1)], 0),
        ([("2", B, 1), ("3", C, 5)], 0),
        ([("2", B, 3)], 2),
        ([("3", C, 2)], 1),
        ([("2", B, 9)], None),
    ],
)
def test_the_place_is_the_first_later_epoch_that_does_not_stand_in_the_log(
    branches: list[tuple[str, NodeId, int]], parts_behind: int | None, old: Old
) -> None:
    old.writes(markers=4)
    found = old.saved(
        FIRST,
        *(
            Branch(epoch=Epoch(int(epoch)), node=node, first_sequence=old.common + first)
            for epoch, node, first in branches
        ),
    )
    if parts_behind is None:
        assert found == Diverged()
    else:
        assert found.parts_at == old.common + parts_behind + 1
        assert found.count == 4 - parts_behind


def test_an_epoch_that_was_begun_in_vain_is_a_part_of_the_tail(old: Old) -> None:
    log = Log.open(old.log, limits=LogLimits(), events=ignore)
    with log:
        log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=Epoch(2), source=A)
    later = Branch(epoch=Epoch(3), node=B, first_sequence=old.common + 1)
    found = old.saved(FIRST, later)
    assert (found.count, found.own_count, found.parts_at) == (1, 1, old.common + 1)
    assert (found.first, found.epoch) == (f"a@2:{old.common + 1}", Epoch(3))


def test_what_is_saved_can_be_applied_to_a_copy_that_has_what_is_shared(
    old: Old, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch.sqlite"
    primary = Primary(old.data, is_new=False)
    primary.copy(scratch)
    primary.close()
    old.writes("INSERT INTO t VALUES (2, 'lost')", "DELETE FROM t WHERE n = 1", markers=1)
    applier = Applier(scratch, StorageSettings())
    log = inspecting.opened(folder_of(old.saved()) / "records")
    applier.apply(list(decode(log.read(old.common, bytes_max=1 << 20))))
    applier.close()
    assert contents_of(scratch) == contents_of(old.data / "db.sqlite")


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE u (x)", "a change of the schema has no inverse"),
        ("ANALYZE", "a change of the schema has no inverse"),
    ],
)
def test_what_has_no_reverse_says_why(sql: str, why: str, old: Old) -> None:
    old.writes("INSERT INTO t VALUES (2, 2)", sql)
    found = old.saved()
    assert (found.count, found.is_certain, found.is_reversible) == (2, True, False)
    assert found.obstacle == f"record 1/{old.common + 2}: {why}: {sql!r}"


def test_too_much_is_not_taken_back(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    old.writes("INSERT INTO t VALUES (2, 2)", "INSERT INTO t VALUES (3, 3), (4, 4)")
    for name, limit, why in (
        ("TRANSACTIONS_MAX", 1, "2 transactions, at most 1 are taken back"),
        ("ROWS_MAX", 2, "3 rows, at most 2 are taken back"),
        ("TABLES_MAX", 0, "1 tables, at most 0 are compared afterwards"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(tally, name, limit)
            assert old.saved().obstacle == why
    assert old.saved().is_reversible


def test_a_record_that_this_release_cannot_read_is_kept_and_named(old: Old) -> None:
    log = Log.open(old.log, limits=LogLimits(), events=ignore)
    with log:
        log.append([Entry(Kind.ROWS, b"\xc1", 0, 0)], epoch=Epoch(1), source=A)
    found = old.saved()
    assert (found.count, found.own_count, found.is_certain) == (1, 0, True)
    assert "cannot be read" in found.obstacle
    assert "-- a change of 1 bytes cannot be read" in Path(found.path).read_text()


# ---- damage


def damage(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.rindex(needle)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("is_closed", [False, True])
def test_what_stands_before_damage_is_saved_and_the_rest_is_uncertain(
    is_closed: bool,  # noqa: FBT001 - a parameter of the test.
    old: Old,
) -> None:
    old.writes(
        "INSERT INTO t VALUES (2, 'before')",
        "INSERT INTO t VALUES (3, 'damaged')",
        "INSERT INTO t VALUES (4, 'behind')",
    )
    if is_closed:
        with Log.open(old.log, limits=LogLimits(), events=ignore) as log:
            log.rotate()
            log.append([Entry(Kind.MARKER, b"", 0, 0)], epoch=Epoch(1), source=A)
    damage(old.log / "log-000000000001.bin", b"damaged")
    found = old.saved()
    assert (found.count, found.is_certain, found.is_reversible) == (1, False, False)
    text = Path(found.path).read_text()
    assert "'before'" in text
    assert "-- It could not be read any further:" in text
    assert inspecting.verify(folder_of(found) / "records").records == 1


def test_a_log_that_cannot_be_opened_is_uncertain(old: Old) -> None:
    old.writes(markers=1)
    path = old.log / "log-000000000001.bin"
    path.write_bytes(b"no log" * 100)
    assert old.saved() == Diverged(is_certain=False)
    path.unlink()
    assert old.saved() == Diverged(is_certain=False)


def test_a_torn_tail_was_never_durable_and_is_not_counted(old: Old) -> None:
    old.writes(markers=2)
    path = old.log / "log-000000000001.bin"
    path.write_bytes(path.read_bytes() + b"half a record")
    found = old.saved()
    assert (found.count, found.is_certain) == (2, True)


def test_what_was_purged_of_it_makes_it_uncertain(old: Old) -> None:
    with Log.open(old.log, limits=LogLimits(), events=ignore) as log:
        log.append([Entry(Kind.MARKER, b"", 0, 0)] * 3, epoch=Epoch(1), source=A)
        log.rotate()
        log.append([Entry(Kind.MARKER, b"", 0, 0)], epoch=Epoch(1), source=A)
        log.purge(keep_bytes=0, before_index=log.end.index)
    found = old.saved()
    assert (found.count, found.is_certain, found.parts_at) == (1, False, old.common + 1)
    assert found.first == found.last == f"a@1:{old.common + 4}"
