"""Whose directory it is, and which snapshot the log goes on from."""

import asyncio
import os
from pathlib import Path

import pytest

from primacy.clock import SystemClock
from primacy.consensus.machine import Entry, Persist, SnapshotMeta
from primacy.errors import Conflict, Corrupt, Rejected
from primacy.model import LogIndex, NodeId, Term
from primacy.runtime.snapshots import SnapshotStore
from primacy.runtime.storage import MemberStorage

A = NodeId("a")


def opened(directory: Path, *, cluster: str = "shop", node: NodeId = A) -> MemberStorage:
    return MemberStorage.open(directory, cluster=cluster, node=node, trailing_entries=5)


def meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index=LogIndex(index), term=Term(term))


def with_log_and_snapshots(directory: Path, *, at: list[int]) -> None:
    async def write() -> None:
        with opened(directory) as storage:
            durable = asyncio.Event()
            failures: list[Exception] = []
            storage.start(lambda _write_id: durable.set(), failures.append)
            entries = tuple(Entry(Term(1), LogIndex(index), b"x") for index in range(1, 21))
            storage.write(Persist(1, entries=entries))
            async with asyncio.timeout(10):
                await durable.wait()
            for index in at:
                await storage.save_snapshot(meta(index), iter([b"state", b"x" * 99]), SystemClock())
            assert not failures

    asyncio.run(write())


def test_a_disk_keeps_its_incarnation_and_another_disk_has_another(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as storage:
        first = storage.restored.incarnation
    with opened(tmp_path / "one") as storage:
        assert storage.restored.incarnation == first
    with opened(tmp_path / "two") as storage:
        assert storage.restored.incarnation != first
    assert (tmp_path / "one" / "identity.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("cluster", "node"), [("other", "a"), ("shop", "b")])
def test_the_directory_of_another_is_refused(tmp_path: Path, cluster: str, node: str) -> None:
    opened(tmp_path).close()
    with pytest.raises(Rejected, match="belongs to node a of cluster shop"):
        opened(tmp_path, cluster=cluster, node=NodeId(node))


def test_a_directory_in_use_is_refused_and_free_again_after_close(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(Conflict, match="another process uses"):
        opened(tmp_path)
    opened(tmp_path).close()


def test_an_identity_without_a_log_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    next(tmp_path.glob("wal-*.log")).unlink()
    with pytest.raises(Corrupt, match="an identity and no log"):
        opened(tmp_path)


def test_a_log_without_its_identity_is_refused_unless_it_is_blank(tmp_path: Path) -> None:
    blank, full = tmp_path / "blank", tmp_path / "full"
    opened(blank).close()
    (blank / "identity.json").unlink()
    opened(blank).close()
    with_log_and_snapshots(full, at=[])
    (full / "identity.json").unlink()
    with pytest.raises(Corrupt, match="a log and no identity"):
        opened(full)


def test_an_unusable_directory_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Rejected, match="cannot be used"):
        opened(tmp_path / "file")


def test_the_log_goes_on_from_the_newest_snapshot_and_keeps_a_tail(tmp_path: Path) -> None:
    with_log_and_snapshots(tmp_path, at=[5, 10, 15])
    with opened(tmp_path) as storage:
        assert storage.restored.snapshot == meta(15)
        assert [entry.index for entry in storage.restored.entries] == list(range(11, 21))
        assert storage.snapshots.metas() == [meta(15), meta(10)]
        assert list(storage.snapshots.load(meta(15))) == [b"state", b"x" * 99]


def test_a_damaged_snapshot_gives_way_to_an_older_one_that_the_log_reaches(tmp_path: Path) -> None:
    with_log_and_snapshots(tmp_path, at=[10, 15])
    path = SnapshotStore(tmp_path).path(meta(15))
    os.truncate(path, path.stat().st_size - 1)
    with opened(tmp_path) as storage:
        assert storage.restored.snapshot == meta(10)
    SnapshotStore(tmp_path).path(meta(10)).unlink()
    with pytest.raises(Corrupt, match=path.name):
        opened(tmp_path)
    path.unlink()
    with pytest.raises(Corrupt, match="no snapshot reaches it"):
        opened(tmp_path)


def test_a_received_snapshot_that_the_log_does_not_know_yet_is_found(tmp_path: Path) -> None:
    with_log_and_snapshots(tmp_path, at=[])

    async def receive() -> None:
        await SnapshotStore(tmp_path).save(meta(70, 2), iter([b"new"]), SystemClock())

    asyncio.run(receive())
    with opened(tmp_path) as storage:
        assert storage.restored.snapshot == meta(70, 2)


def test_every_flipped_byte_of_a_snapshot_is_found(tmp_path: Path) -> None:
    with_log_and_snapshots(tmp_path, at=[10])
    snapshots = SnapshotStore(tmp_path)
    path = snapshots.path(meta(10))
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x04
        path.write_bytes(damaged)
        with pytest.raises(Corrupt, match=rf"{path.name}, offset \d+"):
            snapshots.verify(meta(10))
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(Corrupt):
            snapshots.verify(meta(10))


def test_a_received_file_is_kept_only_when_it_is_whole(tmp_path: Path) -> None:
    with_log_and_snapshots(tmp_path / "from", at=[10])
    data = SnapshotStore(tmp_path / "from").path(meta(10)).read_bytes()
    (tmp_path / "to").mkdir()
    snapshots = SnapshotStore(tmp_path / "to")
    file = snapshots.begin_receiving(meta(10), "b")
    with pytest.raises(Rejected, match="offset 7 came at 0"):
        file.write(7, data)
    file.write(0, data[:50])
    with pytest.raises(Corrupt):
        file.finish()
    file.abandon()
    assert snapshots.metas() == []
    file = snapshots.begin_receiving(meta(10), "b")
    file.write(0, data[:50])
    file.write(50, data[50:])
    file.finish()
    assert snapshots.metas() == [meta(10)]
    assert not list((tmp_path / "to").glob("*.new"))
