"""The SQLite server over TCP, with replicas and without: the second part of `sqlite.py`.

N clients, each with one one-row INSERT under way at a time:

`semisync_N_vs_commit_per_request`
    A primary with two replicas, one acknowledgement for each commit. Its peer: a server with the
    same protocol that executes and commits each request by itself, at synchronous=FULL, in its
    event loop. Ratio of transactions per second; more is better.
`semisync_256_vs_no_replicas`
    The same against the same server without replicas.

Every server and the clients are processes of their own, on whatever cores there are; the two
servers that are compared take turns.
"""

import asyncio
import multiprocessing
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw
import uvloop

from primacy.clock import SystemClock
from primacy.engines.sqlite.protocol import (
    PROTOCOL_VERSION,
    Done,
    Failure,
    FromServer,
    Greeting,
    Login,
    Run,
    ServerRole,
    Statement,
    Welcome,
    frame_of,
    from_client,
    from_server,
)
from primacy.engines.sqlite.server.__main__ import SWITCH_INTERVAL_S
from primacy.engines.sqlite.server.process import SqliteServer
from primacy.engines.sqlite.server.spec import PullSpec, Spec
from primacy.model import Address, Epoch, Incarnation, Member, NodeId
from primacy.replication.log.record import VERSION
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.receiver import Following
from primacy.runtime.ports import PortBlocks
from primacy.telemetry import ignore
from primacy.wire import FrameDecoder

CLIENTS = (1, 16, 256)
TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, balance INTEGER, note TEXT)"
INSERT = "INSERT INTO t(name, balance, note) VALUES(?, ?, ?)"
ROW = ["somebody", 12_345, "x" * 100]
HOST = "127.0.0.1"
START_S = 20.0


class Load(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float


class _Client(asyncio.Protocol):
    """Asks again as soon as it is answered."""

    def __init__(self, took_s: list[float]) -> None:
        self._took_s = took_s
        self._decoder = FrameDecoder()
        self._number = 0
        self._asked_s = 0.0
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for payload in self._decoder.feed(data):
            self._hear(from_server(payload))

    def _hear(self, message: FromServer) -> None:
        match message:
            case Greeting():
                self._say(frame_of(Login(PROTOCOL_VERSION, "", "", b"")))
                return
            case Failure():
                sys.exit(f"the server refused: {message.what}")
            case Done():
                self._took_s.append(time.perf_counter() - self._asked_s)
        if not self.is_over:
            self._number += 1
            self._asked_s = time.perf_counter()
            self._say(frame_of(Run(self._number, [Statement(INSERT, [ROW])])))

    def _say(self, frame: bytes) -> None:
        self._transport.write(frame)  # type: ignore[attr-defined]  # A stream, as it is made.


async def _load(port: int, clients: int, seconds: float) -> Load:
    loop, took_s = asyncio.get_running_loop(), list[float]()
    made = [
        await loop.create_connection(lambda: _Client(took_s), HOST, port) for _ in range(clients)
    ]
    await asyncio.sleep(0.2)  # Warm.
    took_s.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = len(took_s) / (time.perf_counter() - began)
    for transport, client in made:
        client.is_over = True
        transport.close()
    ordered = sorted(took_s) or [0.0]
    return Load(rate, 1000 * statistics.median(ordered), 1000 * ordered[int(0.99 * len(ordered))])


def load(port: int, clients: int, seconds: float) -> Load:
    return uvloop.run(_load(port, clients, seconds))


class _EachByItself(asyncio.Protocol):
    def __init__(self, cursor: apsw.Cursor) -> None:
        self._cursor = cursor
        self._decoder = FrameDecoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        greeting = Greeting(
            PROTOCOL_VERSION, "", "", "floor", 1, ServerRole.PRIMARY, "", b"", needs_login=False
        )
        self._say(frame_of(greeting))

    def data_received(self, data: bytes) -> None:
        for payload in self._decoder.feed(data):
            message = from_client(payload)
            if isinstance(message, Run):
                (statement,) = message.statements
                self._cursor.execute(statement.sql, statement.rows[0])
                done = Done(message.number, None, [], 0, 1, 1, "", is_in_transaction=False)
                self._say(frame_of(done))
            else:
                self._say(frame_of(Welcome(b"")))

    def _say(self, frame: bytes) -> None:
        self._transport.write(frame)  # type: ignore[attr-defined]  # A stream, as it is made.


def _serve_floor(path: str, port: int) -> None:
    connection = apsw.Connection(path)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.wal_autocheckpoint(4000)
    connection.execute(TABLE)
    cursor = connection.cursor()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _EachByItself(cursor), HOST, port)
        await server.serve_forever()

    uvloop.run(serve())


# ---- our own servers ------------------------------------------------------------------------

EPOCH = Epoch(1)
SECRET = b"a secret of the benchmark"
REPLICAS = ("b", "c")


def _member(name: str) -> Member:
    return Member(NodeId(name), Incarnation(f"life-{name}"))


class Node(NamedTuple):
    """One server: alone, or with a door for replicas."""

    name: str
    directory: Path
    port: int
    pull_port: int = 0

    def spec(self) -> Spec:
        pull = None
        if self.pull_port:
            secret = self.directory.parent / "secret"
            pull = PullSpec(host=HOST, port=self.pull_port, secret_path=str(secret))
        directory = str(self.directory)
        return Spec(cluster="bench", node=self.name, directory=directory, port=self.port, pull=pull)


async def _reign(node: Node, *, acks: int) -> None:
    async with SqliteServer(node.spec(), clock=SystemClock(), events=ignore) as server:
        requirement = Requirement(acks=acks)
        row = await server.roles.reign(EPOCH)
        server.roles.require(requirement)
        leading = server.roles.leading
        while acks and leading is not None:
            if leading.acks.held(requirement) >= row:
                break
            await asyncio.sleep(0.01)
        server.roles.open_doors()
        await server.ended.wait()


async def _follow(node: Node, source: Node) -> None:
    async with SqliteServer(node.spec(), clock=SystemClock(), events=ignore) as server:
        me = _member(node.name)
        following = Following(
            cluster="bench",
            secret=SECRET,
            node=me.node,
            incarnation=me.incarnation,
            epoch=EPOCH,
            upstream=NodeId(source.name),
            log_version=VERSION,
        )
        address = Address(HOST, source.pull_port)
        await server.roles.follow(following, address, acknowledge=True)
        await server.ended.wait()


def _serve(node: Node, acks: int) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(_reign(node, acks=acks))


def _replicate(node: Node, source: Node) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(_follow(node, source))


# ---- all together ---------------------------------------------------------------------------


def _until_listening(port: int, is_alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and is_alive():
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    sys.exit("a server of the benchmark does not listen")


def _create_table(port: int) -> None:
    import primacy

    connection = primacy.connect(f"primacy://{HOST}:{port}/", isolation_level=None)
    connection.execute(TABLE)
    connection.close()


class Row(NamedTuple):
    """One line of the answer: rates per second of ours and of the peer."""

    name: str
    value: float
    unit: str
    peer: float
    ratio: float


def figures(directory: Path, *, seconds: float, rounds: int) -> list[Row]:
    (directory / "secret").write_bytes(SECRET)
    with PortBlocks(random.Random()) as ports:
        floor, alone, primary, pull, *others = ports.take(6)
        leads = Node("a", directory / "a", primary, pull)
        replicas = [
            Node(name, directory / name, port) for name, port in zip(REPLICAS, others, strict=True)
        ]
        works: list[tuple[Callable[..., None], tuple[object, ...]]] = [
            (_serve_floor, (str(directory / "floor.db"), floor)),
            (_serve, (Node("a", directory / "alone", alone), 0)),
            (_serve, (leads, 1)),
            *((_replicate, (each, leads)) for each in replicas),
        ]
        running = [multiprocessing.Process(target=work, args=args) for work, args in works]
        for each in running:
            each.start()
        try:
            for port, each in zip((floor, alone, primary, *others), running, strict=True):
                _until_listening(port, each.is_alive)
            for port in (alone, primary):
                _create_table(port)
            return _compared(floor, alone, primary, seconds=seconds, rounds=rounds)
        finally:
            for each in running:
                each.kill()
                each.join()


def _compared(floor: int, alone: int, primary: int, *, seconds: float, rounds: int) -> list[Row]:
    rows: list[Row] = []
    for clients in CLIENTS:
        rows.append(_measured("commit_per_request", primary, floor, clients, seconds, rounds))
    rows.append(_measured("no_replicas", primary, alone, CLIENTS[-1], seconds, rounds))
    return rows


def _measured(peer: str, ours: int, theirs: int, clients: int, seconds: float, rounds: int) -> Row:
    mine: list[float] = []
    peers: list[float] = []
    for _ in range(rounds):
        peers.append(load(theirs, clients, seconds / 2).per_second)
        mine.append(load(ours, clients, seconds / 2).per_second)
    ratio = statistics.median(a / b for a, b in zip(mine, peers, strict=True))
    value, other = statistics.median(mine), statistics.median(peers)
    return Row(f"semisync_{clients}_vs_{peer}", value, "transactions/s", other, ratio)
