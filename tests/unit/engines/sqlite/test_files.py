"""What a server that is down has on its disk, and the cut of what nobody acknowledged."""

import asyncio
from pathlib import Path

import pytest

from primacy.engines.api import Diverged
from primacy.engines.sqlite.directory import LOG_NAME, Directory
from primacy.engines.sqlite.files import applied, cut_unapplied, log_end
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.storage.applier import Applier
from primacy.errors import Conflict, Corrupt
from primacy.model import Address, Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import ORIGIN_POINT, Entry, Kind, decode, epoch_entry
from primacy.telemetry import ignore

A = NodeId("a")
DOORS = {A: Address("127.0.0.1", 7001)}


def made(root: Path, *, records: int, applied_records: int) -> SqliteSettings:
    """A node whose log has so many records, of which the database has applied some."""
    settings = SqliteSettings(
        cluster="test",
        node=A,
        doors=DOORS,
        pull_doors=DOORS,
        clone_doors=DOORS,
        state_dir=root,
        cluster_secret=b"a secret for tests only, 32 bytes",
    )
    Directory(settings.layout, cluster="test", node=A, database=settings.database).make_empty()
    path = settings.layout.data / "db.sqlite"
    applier = Applier(path, settings.storage)
    entries = [epoch_entry(A, schema_hash=applier.schema_hash, commit_time_us=0)]
    entries += [Entry(Kind.MARKER, b"", applier.schema_hash, 0)] * (records - 1)
    with opened(settings) as log:
        data = log.append(entries, epoch=Epoch(1), source=A)
        log.sync()
    applier.apply(list(decode(data))[:applied_records])
    applier.close()
    return settings


def opened(settings: SqliteSettings) -> Log:
    return Log.open(settings.layout.data / LOG_NAME, limits=LogLimits(), events=ignore)


def parted_at(index: int) -> Diverged:
    return Diverged(count=1, parts_at=index)


def test_log_and_database_say_how_far_they_go(tmp_path: Path) -> None:
    settings = made(tmp_path, records=5, applied_records=3)
    end, position = asyncio.run(log_end(settings)), asyncio.run(applied(settings))
    assert (end.epoch, end.index) == (1, 5)
    assert (position.epoch, position.index) == (1, 3)


def test_a_tail_is_cut_where_the_histories_part_and_no_further(tmp_path: Path) -> None:
    settings = made(tmp_path, records=5, applied_records=3)
    assert asyncio.run(cut_unapplied(settings, parted_at(5)))
    assert asyncio.run(log_end(settings)).index == 4
    assert asyncio.run(cut_unapplied(settings, parted_at(5)))  # Once more, as after a crash.
    assert asyncio.run(log_end(settings)).index == 4


def test_what_is_applied_is_not_cut_from_under_the_database(tmp_path: Path) -> None:
    settings = made(tmp_path, records=5, applied_records=3)
    assert not asyncio.run(cut_unapplied(settings, parted_at(3)))
    assert asyncio.run(log_end(settings)).index == 5


def test_a_log_that_a_server_has_open_is_not_read(tmp_path: Path) -> None:
    settings = made(tmp_path, records=2, applied_records=2)
    with opened(settings), pytest.raises(Conflict):
        asyncio.run(log_end(settings))


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    settings = made(tmp_path, records=2, applied_records=2)
    path = settings.layout.data / "db.sqlite"
    path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(Corrupt, match=r"db\.sqlite cannot be read"):
        asyncio.run(applied(settings))
    path.unlink()
    assert asyncio.run(applied(settings)) == ORIGIN_POINT
    assert not path.exists()
