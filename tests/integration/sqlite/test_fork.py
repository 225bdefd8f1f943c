"""A primary loses power with a record that only one replica has, restarts as primary, writes on."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import apsw
import pytest
from tests.integration.replication.powerless import lose_log_tail
from tests.integration.sqlite.serving import Served
from tests.integration.sqlite.test_roles import SECRET, member, until
from tests.ports import LOOPBACK, free_ports
from tests.unit.engines.sqlite.storage.pair import contents_of

import primacy.driver as db
from primacy.clock import SystemClock
from primacy.engines.api import Branch
from primacy.engines.sqlite.diverged import save_diverged
from primacy.engines.sqlite.rewinding import rewind
from primacy.engines.sqlite.server.process import SqliteServer
from primacy.engines.sqlite.server.replica import Replica
from primacy.engines.sqlite.server.spec import PullSpec, Spec
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.storage import position
from primacy.model import Address, Epoch, NodeId
from primacy.replication.log import inspecting
from primacy.replication.log.record import VERSION, Point, decode
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import ReceiverState
from primacy.telemetry import ignore

pytestmark = pytest.mark.integration

CLIENTS = 6
KILLS_MAX = 40
"""Until one meets the moment between a replica's disk and the primary's; mostly two or three."""


class Cluster:
    """The primary is a process, to be killed; the replicas are here."""

    def __init__(self, primary: Served, replicas: dict[str, SqliteServer]) -> None:
        self.primary = primary
        self.replicas = replicas
        self.data = Path(primary.spec["directory"])

    async def follow(self, name: str) -> Replica:
        following = Following(
            cluster="shop",
            secret=SECRET,
            node=NodeId(name),
            incarnation=member(name).incarnation,
            epoch=Epoch(self.primary.spec["epoch"]),
            upstream=NodeId("a"),
            log_version=VERSION,
        )
        where = Address(LOOPBACK, self.primary.spec["pull"]["port"])
        roles = self.replicas[name].roles
        await roles.follow(following, where, acknowledge=True)
        assert roles.replica is not None
        return roles.replica

    def end_of(self, name: str) -> Point:
        return self.replicas[name].roles.log.end

    def committed(self) -> Point:
        with closing(apsw.Connection(str(self.data / "db.sqlite"))) as connection:
            return position.read(connection)

    async def lose_power_ahead_of(self, name: str) -> Point:
        """Kill it again and again in the middle of writes, until that replica has a record more
        than it had made durable. Returns how far it had."""
        for _ in range(KILLS_MAX):
            await self.follow(name)
            await until(lambda: self.end_of(name).epoch == self.primary.spec["epoch"])
            await asyncio.to_thread(written_until_killed, self.primary)
            await self.replicas[name].roles.rest()
            durable = self.committed()
            if self.end_of(name).index > durable.index:
                chance = random.Random(durable.index)
                while inspecting.verify(self.data / "log").records > durable.index:
                    lose_log_tail(self.data / "log", durable.index, chance)
                return durable
            self.primary.spec["epoch"] += 1
            self.primary.start()
        raise AssertionError(f"{KILLS_MAX} kills, and never in that moment")


def written_until_killed(server: Served) -> None:
    """Several clients at once, so that a group is always on its way."""
    is_killed = threading.Event()
    counts = [0] * CLIENTS

    def write(client: int) -> None:
        try:
            with closing(server.connect(isolation_level=None, timeout_s=1)) as connection:
                while not is_killed.is_set():
                    connection.execute("INSERT INTO t (a) VALUES ('before')")
                    counts[client] += 1
        except db.Error:
            return  # As the kill finds them; whoever was told "done" is counted by the log.

    threads = [threading.Thread(target=write, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while sum(counts) < 40:
        assert any(thread.is_alive() for thread in threads)
    server.kill()
    is_killed.set()
    for thread in threads:
        thread.join()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    ports = iter(free_ports(5))
    async with AsyncExitStack() as stack:
        pull = {"host": LOOPBACK, "port": next(ports), "secret_path": str(secret)}
        primary = stack.enter_context(Served(folder, pull=pull))
        replicas = {}
        for name in "bc":
            spec = Spec(
                cluster="shop",
                node=name,
                directory=str(folder / name / "data"),
                port=next(ports),
                pull=PullSpec(host=LOOPBACK, port=next(ports), secret_path=str(secret)),
            )
            server = SqliteServer(spec, clock=SystemClock(), events=ignore)
            replicas[name] = await stack.enter_async_context(server)
        yield Cluster(primary, replicas)


def settings_of(name: str, folder: Path) -> SqliteSettings:
    nowhere = {NodeId(each): Address(LOOPBACK, 1) for each in "abc"}
    return SqliteSettings(
        cluster="shop",
        node=NodeId(name),
        doors=nowhere,
        pull_doors=nowhere,
        clone_doors=nowhere,
        state_dir=folder,
        cluster_secret=SECRET,
    )


def test_the_fork_is_found_at_connect_and_never_applied(tmp_path: Path) -> None:
    async def work() -> None:
        async with cluster(tmp_path) as nodes:
            primary = nodes.primary
            with closing(primary.connect(isolation_level=None)) as setup:
                setup.execute("CREATE TABLE t (n INTEGER PRIMARY KEY AUTOINCREMENT, a)")
            shared = await nodes.lose_power_ahead_of("b")
            b = nodes.replicas["b"]
            own = b.roles.log.read(shared.index, bytes_max=1 << 20)
            assert own
            primary.spec["epoch"] += 1
            primary.start()
            with closing(primary.connect(isolation_level=None, timeout_s=10)) as writer:
                for _ in range(20):
                    writer.execute("INSERT INTO t (a) VALUES ('after')")
            # Found at connect, in words, with the place; nothing of it is in the log or applied.
            replica = await nodes.follow("b")
            await until(lambda: replica.receiver.status.state is ReceiverState.DIVERGED)
            parted = replica.receiver.status.parted
            assert parted is not None
            assert parted.common == shared
            assert str(shared.position) in replica.receiver.status.reason
            assert b.roles.log.read(shared.index, bytes_max=1 << 20) == own
            assert "after" not in str(contents_of(b.spec.database_path)["t"])
            # Somebody else, who has no fork, is not troubled by it.
            await nodes.follow("c")
            await until(lambda: nodes.end_of("c").epoch == primary.spec["epoch"])
            # Saved, as SQL and as records, and counted.
            await b.roles.rest()
            branch = Branch(
                epoch=Epoch(primary.spec["epoch"]),
                node=NodeId("a"),
                first_sequence=shared.index + 1,
            )
            found = await save_diverged(settings_of("b", tmp_path / "b"), [branch])
            assert (found.count, found.parts_at) == (len(list(decode(own))), shared.index + 1)
            assert found.is_reversible
            assert found.tables == ('"t"',)
            saved = Path(found.path).read_text()
            assert saved.count("INSERT INTO") >= found.count
            assert "'before'" in saved
            # Taken back to that place, it follows as any other.
            back = rewind(
                b.roles.log, b.spec.storage, database_path=b.spec.database_path, to=shared.index
            )
            assert back == shared
            replica = await nodes.follow("b")
            end = nodes.committed()
            for name in "bc":
                applied = nodes.replicas[name].roles.replica
                assert applied is not None
                await until(lambda: applied.applied == end)  # noqa: B023 - at once.
            expected = contents_of(nodes.data / "db.sqlite")
            assert "after" in str(expected["t"])
            for name in "bc":
                assert contents_of(nodes.replicas[name].spec.database_path) == expected

    asyncio.run(work())
