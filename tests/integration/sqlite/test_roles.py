"""Three servers in one event loop: one reigns, two follow, and the roles move on."""

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.ports import LOOPBACK, free_ports

import primacy
import primacy.driver as db
from primacy.clock import SystemClock
from primacy.engines.sqlite.control import RoleNow, Writes
from primacy.engines.sqlite.server import recovery
from primacy.engines.sqlite.server.process import SqliteServer
from primacy.engines.sqlite.server.recovery import Replay
from primacy.engines.sqlite.server.spec import PullSpec, Spec
from primacy.engines.sqlite.storage.applier import Applier
from primacy.errors import Conflict, PrimacyError, Rejected
from primacy.model import Address, Epoch, Incarnation, Member, NodeId
from primacy.replication.log.log import Log
from primacy.replication.log.record import VERSION, Header, Point
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import ReceiverState
from primacy.telemetry import Event, ignore

pytestmark = pytest.mark.integration

WAIT_S = 15.0
SECRET = b"0123456789abcdef0123456789abcdef"
NAMES = ("a", "b", "c")


def member(name: str) -> Member:
    return Member(NodeId(name), Incarnation(f"life-{name}"))


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


class Trio:
    def __init__(self, servers: dict[str, SqliteServer]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{each.spec.port}" for each in self.servers.values())
        return f"primacy://{hosts}/db"

    def url_of(self, name: str) -> str:
        return f"primacy://{LOOPBACK}:{self.servers[name].spec.port}/db"

    async def follow(self, name: str, upstream: str, epoch: int, *, apply_until: int = 0) -> None:
        source = self.servers[upstream].spec
        assert source.pull is not None
        following = Following(
            cluster="shop",
            secret=SECRET,
            node=NodeId(name),
            incarnation=member(name).incarnation,
            epoch=Epoch(epoch),
            upstream=NodeId(upstream),
            log_version=VERSION,
        )
        await self.servers[name].roles.follow(
            following,
            Address(LOOPBACK, source.pull.port),
            leader=f"{LOOPBACK}:{source.port}",
            acknowledge=True,
            apply_until=apply_until,
        )

    async def enthrone(self, name: str, epoch: int, *, acks: int, others: str) -> None:
        """As the agent does: the row first, the others follow, and then the doors."""
        roles = self.servers[name].roles
        row = await roles.reign(Epoch(epoch))
        asked = Requirement(acks=acks)
        roles.require(asked)
        for each in others:
            await self.follow(each, name, epoch)
        leading = roles.leading
        assert leading is not None
        await until(lambda: leading.acks.held(asked) >= row)
        roles.open_doors()


@asynccontextmanager
async def trio(folder: Path) -> AsyncIterator[Trio]:
    secret = folder / "secret"
    secret.write_bytes(SECRET + b"\n")
    async with AsyncExitStack() as stack:
        servers: dict[str, SqliteServer] = {}
        for name in NAMES:
            port, pull_port = free_ports(2)
            pull = PullSpec(host=LOOPBACK, port=pull_port, secret_path=str(secret))
            spec = Spec(
                cluster="shop", node=name, directory=str(folder / name), port=port, pull=pull
            )
            server = SqliteServer(spec, clock=SystemClock(), events=ignore)
            servers[name] = await stack.enter_async_context(server)
        yield Trio(servers)


async def count(url: str, token: str) -> int:
    """What a node shows to whoever has seen the token."""
    connection = await primacy.connect_async(
        f"{url}?target=any", isolation_level=None, timeout_s=WAIT_S
    )
    connection.token = token
    (found,) = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
    await connection.close()
    return int(found)


def test_replicas_have_every_commit_that_was_answered_and_show_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            for number in range(20):
                await writer.execute("INSERT INTO t VALUES (?)", (number,))
            for name in "bc":
                assert await count(nodes.url_of(name), writer.token) == 20
            fresh = await primacy.connect_async(
                f"{nodes.url}?target=replica&fresh_ms=5000", isolation_level=None
            )
            fresh.token = writer.token
            cursor = await fresh.execute("SELECT count(*) FROM t")
            assert (await cursor.fetchone(), fresh.server in "bc") == ((20,), True)
            assert fresh.token == writer.token  # Who wrote it, not who shows it.
            with pytest.raises(db.Unavailable, match="takes no writes"):
                await fresh.execute("INSERT INTO t VALUES (-1)")
            for each in (writer, fresh):
                await each.close()

    asyncio.run(work())


class Traffic:
    """Writers without keys and with them, until they are told to stop."""

    def __init__(self, url: str) -> None:
        self.answered: set[int] = set()
        self.increments = 0
        self.is_over = asyncio.Event()
        self._url = url
        self._numbers = itertools.count()

    async def write(self) -> None:
        mine = await primacy.connect_async(self._url, isolation_level=None)
        while not self.is_over.is_set():
            number = next(self._numbers)
            try:
                await mine.execute("INSERT INTO t VALUES (?)", (number,))
            except (db.OutcomeUnknown, db.Unavailable):
                continue
            self.answered.add(number)
        await mine.close()

    async def increment(self) -> None:
        mine = await primacy.connect_async(self._url, isolation_level=None)
        while not self.is_over.is_set():
            key = db.idempotency_key()
            await mine.execute("UPDATE counter SET c = c + 1", idempotency_key=key)
            self.increments += 1
        await mine.close()

    async def some_more(self) -> None:
        so_far = len(self.answered)
        await until(lambda: len(self.answered) > so_far + 50)


async def fail_over(nodes: Trio, old: str, epoch: int) -> str:
    """As the promotion rule has it: the others are sealed, and the most advanced of them leads. Who
    led may have a tail that nobody else has: never committed there, it is cut off."""
    await nodes.servers[old].roles.abdicate("a failover")
    sealed = {
        name: (await nodes.servers[name].roles.rest()).position for name in NAMES if name != old
    }
    new = max(sealed, key=lambda name: sealed[name])
    (other,) = set(sealed) - {new}
    await nodes.enthrone(new, epoch, acks=1, others=other)
    await rejoin(nodes, old, new, epoch)
    return new


async def rejoin(nodes: Trio, old: str, new: str, epoch: int) -> None:
    roles = nodes.servers[old].roles
    await nodes.follow(old, new, epoch)
    replica = roles.replica
    assert replica is not None
    settled = (ReceiverState.STREAMING, ReceiverState.DIVERGED)
    await until(lambda: replica.receiver.status.state in settled)
    parted = replica.receiver.status.parted
    if parted is not None:
        assert parted.common is not None
        assert replica.applied <= parted.common
        await roles.rest()
        roles.log.cut(parted.common.index)
        await nodes.follow(old, new, epoch)


def test_clients_and_their_writes_go_on_through_failovers(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            setup = await primacy.connect_async(nodes.url, isolation_level=None)
            await setup.executescript(
                "CREATE TABLE t (n INTEGER PRIMARY KEY); CREATE TABLE counter (c);"
                "INSERT INTO counter VALUES (0)"
            )
            await setup.close()
            traffic = Traffic(nodes.url)
            async with asyncio.TaskGroup() as tasks:
                for each in (traffic.write, traffic.write, traffic.increment, traffic.increment):
                    tasks.create_task(each())
                leads = "a"
                for epoch in range(2, 6):
                    await traffic.some_more()
                    leads = await fail_over(nodes, leads, epoch)
                await traffic.some_more()
                traffic.is_over.set()
            check = await primacy.connect_async(nodes.url, isolation_level=None)
            found = {row[0] async for row in await check.execute("SELECT n FROM t")}
            (total,) = await (await check.execute("SELECT c FROM counter")).fetchone()
            assert traffic.answered <= found
            assert total == traffic.increments
            for name in NAMES:
                assert await count(nodes.url_of(name), check.token) == len(found)
            await check.close()

    asyncio.run(work())


def test_a_commit_without_its_acknowledgement_is_not_answered_and_not_shown(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None, timeout_s=1)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            for name in "bc":
                await nodes.servers[name].roles.rest()
            with pytest.raises(db.OutcomeUnknown):
                await writer.execute("INSERT INTO t VALUES (1)")
            assert await count(nodes.url_of("a"), "") == 0
            await nodes.follow("b", "a", 1)
            await until(lambda: nodes.servers["a"].roles._state.applied.index == 3)  # noqa: SLF001 - committed now.
            assert await count(nodes.url_of("a"), "") == 1
            await writer.close()

    asyncio.run(work())


def test_an_abdication_leaves_what_waits_in_doubt_and_ends_its_clients(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=2, others="bc")
            writer = await primacy.connect_async(
                nodes.url_of("a"), isolation_level=None, connect_timeout_s=0.5
            )
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            await nodes.servers["c"].roles.rest()
            roles = nodes.servers["a"].roles
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(tried(writer))
                await until(lambda: roles.log.durable.index == 3)
                await roles.abdicate("sealed")
            assert isinstance(writing.result(), db.OutcomeUnknown)
            assert roles.now is RoleNow.RESTING
            assert await count(nodes.url_of("a"), "") == 0
            with pytest.raises(Conflict, match="is resting, not reigning"):
                roles.open_doors()
            await writer.close()

    asyncio.run(work())


def test_a_tail_that_nobody_else_has_is_never_applied_and_goes_when_the_node_rejoins(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=2, others="bc")
            writer = await primacy.connect_async(nodes.url_of("a"), isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            token, roles = writer.token, nodes.servers["a"].roles
            for name in "bc":
                await nodes.servers[name].roles.rest()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(tried(writer))
                await until(lambda: roles.log.durable.index == 3)
                await roles.abdicate("sealed")
            await writer.close()
            await nodes.enthrone("b", 2, acks=1, others="c")
            await nodes.follow("a", "b", 2)
            replica = roles.replica
            assert replica is not None
            await until(lambda: replica.receiver.status.state is ReceiverState.DIVERGED)
            assert await count(nodes.url_of("a"), token) == 0
            await rejoin(nodes, "a", "b", 2)
            again = await primacy.connect_async(nodes.url, isolation_level=None)
            await again.execute("INSERT INTO t VALUES (7)")
            for name in NAMES:
                assert await count(nodes.url_of(name), again.token) == 1
            await again.close()

    asyncio.run(work())


async def tried(writer: "primacy.driver.aio.AsyncConnection") -> Exception | None:
    try:
        await writer.execute("INSERT INTO t VALUES (1)")
    except db.Error as error:
        return error
    return None


def test_roles_are_one_at_a_time_and_epochs_only_grow(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 3, acks=1, others="bc")
            with pytest.raises(Conflict, match="is reigning"):
                await nodes.servers["a"].roles.reign(Epoch(4))
            with pytest.raises(Conflict, match="is reigning"):
                await nodes.follow("a", "b", 4)
            with pytest.raises(Conflict, match="is following"):
                await nodes.servers["b"].roles.reign(Epoch(4))
            await nodes.servers["a"].roles.abdicate("an end")
            with pytest.raises(Conflict, match="epoch 2 is over"):
                await nodes.servers["a"].roles.reign(Epoch(2))

    asyncio.run(work())


def hold_replays(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Each piece that a replay applies waits for this."""
    may_go_on, step = threading.Event(), Replay.step

    def held(replay: Replay) -> Point:
        assert may_go_on.wait(WAIT_S)
        return step(replay)

    monkeypatch.setattr(Replay, "step", held)
    return may_go_on


async def leave_a_tail(nodes: Trio) -> None:
    """On b: durable in its log and not in its database."""
    await nodes.enthrone("a", 1, acks=1, others="b")
    await nodes.follow("b", "a", 1, apply_until=1)
    writer = await primacy.connect_async(nodes.url_of("a"), isolation_level=None)
    await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    await writer.execute("INSERT INTO t VALUES (1)")
    await writer.close()
    await nodes.servers["a"].roles.abdicate("a failover")
    end = await nodes.servers["b"].roles.rest()
    assert end.index == 3


def test_a_reign_that_nobody_waits_for_any_more_has_its_end_and_no_second_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await leave_a_tail(nodes)
            may_go_on, roles = hold_replays(monkeypatch), nodes.servers["b"].roles
            asking = asyncio.create_task(roles.reign(Epoch(2)))
            await until(lambda: roles.under_way == "reign")
            asking.cancel()
            await asyncio.wait([asking])
            with pytest.raises(Conflict, match="in the middle of something: reign"):
                await nodes.follow("b", "a", 2)
            with pytest.raises(Conflict, match="in the middle of something: reign"):
                await roles.reign(Epoch(2))
            may_go_on.set()
            await until(lambda: roles.now is RoleNow.REIGNING and not roles.under_way)
            assert await roles.reign(Epoch(2)) == 4
            assert await count(nodes.url_of("b"), "") == 1

    asyncio.run(work())


def test_whoever_is_to_rest_gives_a_replay_up_and_its_caller_hears_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await leave_a_tail(nodes)
            may_go_on, roles = hold_replays(monkeypatch), nodes.servers["b"].roles
            monkeypatch.setattr(recovery, "READ_BYTES", 1)
            async with asyncio.TaskGroup() as tasks:
                draining = tasks.create_task(told(roles.drain(within_s=WAIT_S)))
                await until(lambda: roles.under_way == "drain")
                resting = tasks.create_task(roles.rest())
                await asyncio.sleep(0)
                may_go_on.set()
            assert "was given up at 1/2" in str(draining.result())
            assert resting.result().index == 3
            assert roles.now is RoleNow.RESTING
            assert "was applied to 1/2" in str(await told(roles.drain(within_s=0)))
            assert (await roles.drain(within_s=WAIT_S)).index == 3

    asyncio.run(work())


@pytest.mark.parametrize("to", ["reign", "drain", "follow"])
def test_a_file_that_was_emptied_while_it_was_open_is_of_no_use_and_is_not_waited_for(
    tmp_path: Path, to: str
) -> None:
    """SQLite says only that it is locked, by our own readers, and would say so for ever."""

    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await leave_a_tail(nodes)
            server = nodes.servers["b"]
            os.truncate(server.spec.database_path, 0)
            asked: dict[str, Callable[[], Awaitable[object]]] = {
                "reign": lambda: server.roles.reign(Epoch(2)),
                "drain": lambda: server.roles.drain(within_s=WAIT_S),
                "follow": lambda: nodes.follow("b", "a", 2),
            }
            with pytest.raises(Rejected, match="emptied or overwritten"):
                await asked[to]()
            assert server.roles.must_clone
            assert "emptied or overwritten" in server.roles.trouble

    asyncio.run(work())


def test_what_was_being_applied_when_a_replica_came_to_rest_counts_as_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_applied, may_go_on = threading.Event(), threading.Event()

    def apply(self: Applier, records: Sequence[tuple[Header, bytes]]) -> None:
        as_it_is(self, records)
        is_applied.set()
        assert may_go_on.wait(WAIT_S)

    as_it_is = Applier.apply

    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="c")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            await count(nodes.url_of("c"), writer.token)
            await writer.close()
            monkeypatch.setattr(Applier, "apply", apply)
            others = asyncio.all_tasks()
            await nodes.follow("b", "a", 1)
            (applying,) = (
                each for each in asyncio.all_tasks() - others if each.get_name() == "apply"
            )
            await until(is_applied.is_set)
            roles = nodes.servers["b"].roles
            async with asyncio.TaskGroup() as tasks:
                resting = tasks.create_task(roles.rest())
                await until(applying.done)
                may_go_on.set()
            assert resting.result().index == 2
            with pytest.raises(Conflict, match="1/2 is applied"):
                await roles.cut(1)

    asyncio.run(work())


async def told(work: Awaitable[object]) -> PrimacyError | None:
    try:
        await work
    except PrimacyError as error:
        return error
    return None


def test_a_reign_that_ended_by_itself_is_ended_once(tmp_path: Path) -> None:
    async def work() -> None:
        heard: list[Event] = []
        spec = Spec(cluster="shop", node="a", directory=str(tmp_path), port=free_ports(1)[0])
        async with SqliteServer(spec, clock=SystemClock(), events=heard.append) as server:
            roles = server.roles
            await roles.reign(Epoch(1))
            roles.require(Requirement(acks=0))
            roles.open_doors()
            reigning = roles.lead()
            outside = reigning.pipeline.committer.outside
            reigning.pipeline.committer.outside = replace(outside, permits=lambda _epoch: False)
            writer = await primacy.connect_async(
                f"primacy://{LOOPBACK}:{spec.port}/db", isolation_level=None, connect_timeout_s=0.5
            )
            with pytest.raises(db.Error):
                await writer.execute("CREATE TABLE t (n)")
            await writer.close()
            await until(lambda: reigning.why)
            assert (reigning.writes, roles.now) == (Writes.IN_DOUBT, RoleNow.REIGNING)
            for refused in (roles.open_doors, reigning.marker, reigning.beat):
                with pytest.raises(Conflict, match="the reign of epoch 1 has ended: records up to"):
                    await asyncio.ensure_future(as_awaitable(refused))
            with pytest.raises(Conflict, match="its writes are in doubt"):
                await roles.demote(2)
            reader = await primacy.connect_async(
                f"primacy://{LOOPBACK}:{spec.port}/db?target=any", isolation_level=None
            )
            await roles.abdicate("the agent says so")
            assert await (await reader.execute("SELECT 7")).fetchone() == (7,)
            await reader.close()
            closed = [each for each in heard if each.name == "sql-doors-closed"]
            assert len(closed) == 1
            with pytest.raises(Conflict, match="has given epoch 1 up"):
                await roles.reign(Epoch(1))

    asyncio.run(work())


async def as_awaitable(call: Callable[[], object]) -> None:
    result = call()
    if isinstance(result, Awaitable):
        await result


def test_a_start_that_fails_leaves_no_writer_behind(tmp_path: Path) -> None:
    async def work() -> None:
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            spec = Spec(cluster="shop", node="a", directory=str(tmp_path), port=port, epoch=1)
            with pytest.raises(Rejected, match="cannot listen"):
                async with SqliteServer(spec, clock=SystemClock(), events=ignore):
                    pass
        assert "writer" not in {each.name for each in threading.enumerate()}

    asyncio.run(work())


def test_a_copy_that_does_not_fit_stops_and_acknowledges_nothing_more(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            await nodes.enthrone("a", 1, acks=1, others="bc")
            writer = await primacy.connect_async(nodes.url, isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            await count(nodes.url_of("b"), writer.token)
            await nodes.servers["b"].roles.rest()
            damage(nodes.servers["b"].spec.database_path)
            await nodes.follow("b", "a", 1)
            await writer.execute("INSERT INTO t VALUES (1)")
            replica = nodes.servers["b"].roles.replica
            assert replica is not None
            await until(lambda: replica.receiver.status.state is ReceiverState.STOPPED)
            assert "t" in replica.trouble
            assert not replica.receiver.status.acknowledges
            await writer.execute("INSERT INTO t VALUES (2)")  # c still acknowledges.
            await writer.close()

    asyncio.run(work())


def test_a_replica_whose_log_cannot_be_written_ends_its_process(tmp_path: Path) -> None:
    async def work() -> None:
        async with trio(tmp_path) as nodes:
            # Whoever asks to follow does not stay: as the agent's requests.
            await asyncio.create_task(nodes.enthrone("a", 1, acks=1, others="bc"))
            broken = nodes.servers["b"]
            make_read_only(broken.roles.log)
            writer = await primacy.connect_async(nodes.url_of("a"), isolation_level=None)
            await writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            await writer.close()
            async with asyncio.timeout(WAIT_S):
                await broken.ended.wait()
            assert "cannot be written" in broken.why
            await broken.roles.rest()
            assert broken.roles.now is RoleNow.RESTING

    asyncio.run(work())


def make_read_only(log: Log) -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.dup2(fd, log._tail._fd)  # noqa: SLF001 - as of a disk that fails.
    os.close(fd)


def damage(path: Path) -> None:
    """Behind everybody's back: the row that the primary is about to insert is there already."""
    import apsw

    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
