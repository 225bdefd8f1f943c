"""Clones over real sockets and files: whole or resumed, never half, and held until they attach."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.sqlite.cloning import A, C, Site, settings_of, site, until, wrong_secret
from tests.unit.engines.sqlite.storage.pair import contents_of
from tests.unit.engines.sqlite.storage.primary import SETTINGS

from primacy.engines.api import ServerState
from primacy.engines.cloning import asking
from primacy.engines.sqlite import copies, fetching
from primacy.engines.sqlite.clone import ends_of
from primacy.engines.sqlite.clone_messages import Request
from primacy.engines.sqlite.fetching import Declined, ask_sums
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.sums import table_sums
from primacy.errors import Rejected, Unavailable
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Point, decode
from primacy.runtime.files import DiskFull
from primacy.telemetry import ignore

pytestmark = pytest.mark.integration

MB = 1 << 20


def fill(at: Site, size_bytes: int) -> None:
    """A table of that size, of bytes that no two rows share."""
    at.primary.run("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)")
    for number in range(max(1, size_bytes // MB)):
        at.primary.run("INSERT INTO t VALUES (?, ?)", number, os.urandom(min(MB, size_bytes)))


def attach(at: Site, reached: Point) -> None:
    """The clone becomes a replica: it takes from the log what came since."""
    data = at.receiver.layout.data
    with Log.open(data / "log", limits=LogLimits(), events=ignore) as log:
        assert log.end == reached
        assert str(log.gtids) == f"a@1:1-{reached.index}"
        log.append_received(at.primary.log.read(reached.index, bytes_max=1 << 30))
        assert log.end == at.primary.log.end
        applier = Applier(data / "db.sqlite", SETTINGS)
        applier.apply(list(decode(log.read(reached.index, bytes_max=1 << 30))))
        applier.close()
    paths = (data / "db.sqlite", at.primary.path)
    here, there = (table_sums(path, SETTINGS, ["t"]) for path in paths)
    assert here == there
    if here.sums[0].rows < 50:
        assert contents_of(paths[0]) == contents_of(paths[1])


def test_a_clone_becomes_a_replica_that_is_equal(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 3 * MB)
            before = at.primary.writer.position
            at.primary.log.rotate()
            reached = await at.fetch()
            assert reached == before
            at.directory.adopt_incoming()
            assert at.directory.state()[0] is ServerState.STOPPED
            assert {each.label for each in at.progress} >= {"receiving", "checking"}
            last = [each for each in at.progress if each.label == "receiving"][-1]
            assert last.done_bytes == last.total_bytes > 3 * MB
            await until(lambda: at.told("clone-given"))
            at.primary.run("UPDATE t SET b = 'since' WHERE n = 1")
            at.primary.log.rotate()
            at.primary.run("DELETE FROM t WHERE n = 2")
            at.primary.log.purge(keep_bytes=0, before_index=at.primary.log.end.index)
            attach(at, reached)
            (ticket,) = at.primary.log.holds
            assert at.copies == [f"{ticket}.held"]  # The file is gone, the log is still held.

    asyncio.run(work())


def test_a_clone_of_100_mb_goes_on_where_its_connection_was_cut(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 100 * MB)
            at.relay.cuts = [30 * MB, 100, 20 * MB, 0]
            reached = await at.fetch()
            assert at.relay.connections == 5
            assert at.server.copies == 1
            offsets = [int(str(each.fields["offset"])) for each in at.told("clone-resumed")]
            assert 28 * MB < offsets[0] <= 30 * MB
            assert 48 * MB < offsets[-1] <= 50 * MB
            assert at.told("clone-cut")[0].fields["done_bytes"] == offsets[0]
            done = [each.done_bytes for each in at.progress if each.label == "receiving"]
            assert done == sorted(done)
            at.directory.adopt_incoming()
            attach(at, reached)

    asyncio.run(work())


def test_a_new_connection_waits_for_what_the_old_one_still_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would count the same bytes into one digest."""
    reads = Reads()
    monkeypatch.setattr(copies.Held, "piece", reads.piece)

    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 2 * MB)
            at.relay.cuts = [400]  # In the offer: the first piece is being read by then.
            await at.fetch()
            assert at.relay.connections == 2
            assert reads.most == 1

    asyncio.run(work())


def test_a_clone_that_is_cancelled_writes_nothing_more_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is closed by then: another one may have its number."""
    entered, go_on = threading.Event(), threading.Event()
    written: list[bool] = []
    real = fetching.Download.write

    def write(download: fetching.Download, piece: bytes) -> None:
        entered.set()
        assert go_on.wait(10)
        written.append(cancelled.is_set())
        real(download, piece)

    cancelled = threading.Event()
    monkeypatch.setattr(fetching.Download, "write", write)

    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 2 * MB)
            clone = asyncio.create_task(at.fetch())
            await until(entered.is_set)
            clone.cancel()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
            with pytest.raises(asyncio.CancelledError):
                await clone
            cancelled.set()
            assert written == [False]  # It had ended before its caller went on.
            await at.fetch()
            assert at.server.copies == 1

    asyncio.run(work())


class Reads:
    """The first takes a second, unless another comes meanwhile."""

    def __init__(self) -> None:
        self.most = 0
        self._count = self._under_way = 0
        self._another = threading.Event()
        self._real = copies.Held.piece

    @property
    def piece(self) -> Callable[[copies.Held, int, int, int], bytes]:
        def read(held: copies.Held, fd: int, offset: int, size_bytes: int) -> bytes:
            self._count += 1
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            try:
                if self._count > 1:
                    self._another.set()
                self._another.wait(1.0)
                return self._real(held, fd, offset, size_bytes)
            finally:
                self._under_way -= 1

        return read


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.integration.sqlite.cloning import A, B, C, directory_of, settings_of
from primacy.clock import SystemClock
from primacy.engines.sqlite.fetching import fetch
from primacy.model import Address
from primacy.telemetry import ignore

door = Address("127.0.0.1", int(sys.argv[2]))
settings = settings_of(B, Path(sys.argv[1]), {A: door, B: door, C: door})
say = lambda progress: print(progress.label, progress.done_bytes, flush=True)
asyncio.run(fetch(settings, directory_of(settings), A, say, clock=SystemClock(), events=ignore))
"""


async def killed_receiver(at: Site, *, after_bytes: int) -> None:
    """A receiver of its own process dies by kill -9 in the middle of a clone."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(at.receiver.state_dir),
        str(at.relayed.port),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        while line := await child.stdout.readline():
            label, done_bytes = line.decode().rsplit(maxsplit=1)
            if label == "receiving" and int(done_bytes) >= after_bytes:
                child.send_signal(signal.SIGKILL)
                break
        assert await child.wait() == -signal.SIGKILL


def test_a_receiver_that_was_killed_goes_on_with_what_it_has(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 20 * MB)
            at.directory.make_empty()
            mark = at.directory.mark()
            await killed_receiver(at, after_bytes=8 * MB)
            assert at.directory.mark() == mark  # The old data stand as they were.
            assert at.directory.state()[0] is ServerState.STOPPED
            reached = await at.fetch()
            assert at.server.copies == 1
            (resumed,) = at.told("clone-resumed")
            assert int(str(resumed.fields["offset"])) >= 8 * MB
            at.directory.adopt_incoming()
            assert at.directory.has_old_data
            attach(at, reached)

    asyncio.run(work())


def test_what_is_damaged_on_the_way_is_not_taken(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 3 * MB)
            at.relay.damages_at = 2 * MB
            with pytest.raises(Unavailable, match="digest is another"):
                await at.fetch()
            reached = await at.fetch()
            assert at.server.copies == 2
            at.directory.adopt_incoming()
            attach(at, reached)

    asyncio.run(work())


def test_what_lies_half_there_of_another_copy_is_thrown_away(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 6 * MB)
            await killed_receiver(at, after_bytes=3 * MB)
            await at.close_door()
            await at.open_door()  # The donor's agent has started anew meanwhile.
            reached = await at.fetch()
            at.directory.adopt_incoming()
            attach(at, reached)
            assert len(at.primary.log.holds) == 1

    asyncio.run(work())


def test_neither_end_speaks_to_one_without_the_secret(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 1)
            with pytest.raises((Rejected, Unavailable)):
                await at.fetch(wrong_secret(at.receiver))
            await until(lambda: at.told("clone-refused"))
            assert at.server.copies == 0
            stranger = settings_of(A, tmp_path / "x", at.receiver.clone_doors)
            with pytest.raises(Rejected, match="a is no donor for a"):
                await at.fetch(stranger)
            request = Request(cluster="shop", node="z", nonce="00")
            with pytest.raises(Unavailable):
                async with asking(at.relayed, ends_of(at.receiver), request):
                    pass

    asyncio.run(work())


def test_one_copy_at_a_time_and_the_other_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 3 * MB)
            at.relay.cuts = [MB]
            first = asyncio.create_task(at.fetch())
            await until(lambda: at.told("clone-cut"))
            other = settings_of(C, tmp_path / "c", at.receiver.clone_doors)
            with pytest.raises(Declined, match="another clone is under way, for b"):
                await at.fetch(other)
            await first
            await until(lambda: at.told("clone-given"))
            await at.fetch(other)

    asyncio.run(work())


def test_a_server_that_is_down_gives_nothing_and_keeps_no_hold(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 1)
            at.server.is_down = True
            with pytest.raises(Declined, match="the server is down"):
                await at.fetch()
            at.server.is_down = False
            await at.fetch()

    asyncio.run(work())


def test_a_primary_gives_its_copy_at_a_pace(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 1)
            await at.fetch()
            at.server.is_reigning = True
            at.directory.adopt_incoming()
            await until(lambda: at.told("clone-given"))
            await at.fetch()
            assert at.server.paces == [0, 200 << 20]

    asyncio.run(work())


def test_a_copy_that_nobody_fetches_is_dropped_with_its_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 6 * MB)
            await killed_receiver(at, after_bytes=2 * MB)
            assert len(at.primary.log.holds) == 1
            monkeypatch.setattr(copies, "KEEP_S", 0.0)
            monkeypatch.setattr(copies, "SWEEP_S", 0.01)
            await at.close_door()
            await at.open_door()
            await until(lambda: not at.primary.log.holds and not at.copies)

    asyncio.run(work())


def test_a_receiver_without_space_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, MB)
            with monkeypatch.context() as patched:
                patched.setattr("primacy.engines.sqlite.fetching.RESERVE_BYTES", 1 << 60)
                with pytest.raises(DiskFull, match="the old data are kept"):
                    await at.fetch()
            await at.fetch()

    asyncio.run(work())


def test_tables_are_compared_at_one_point(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as at:
            fill(at, 1)
            sums = await ask_sums(at.receiver, A, ["t", "none"])
            assert sums.point == at.primary.writer.position
            assert [(each.table, each.rows) for each in sums.sums] == [("t", 1), ("none", -1)]
            at.server.is_down = True
            with pytest.raises(Unavailable):
                await ask_sums(at.receiver, A, ["t"])

    asyncio.run(work())
