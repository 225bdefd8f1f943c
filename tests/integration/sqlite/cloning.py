"""A donor's clone door over real files, and a way to it that breaks. The donor's server is played
by its storage and log: what its control socket would ask of them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.ports import LOOPBACK, free_addresses
from tests.unit.engines.sqlite.storage.primary import SETTINGS, Primary

from primacy.clock import SystemClock
from primacy.engines.api import Progress
from primacy.engines.sqlite.clone import CloneDoor
from primacy.engines.sqlite.control import Copied, Sum, Sums
from primacy.engines.sqlite.directory import Directory
from primacy.engines.sqlite.fetching import fetch
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.storage.copying import copy_database
from primacy.engines.sqlite.storage.sums import table_sums
from primacy.errors import Unavailable
from primacy.model import Address, NodeId
from primacy.replication.log.record import Point
from primacy.telemetry import Event

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
SECRET = b"0123456789abcdef0123456789abcdef"
WITHIN_S = 30.0


def settings_of(node: NodeId, root: Path, clone_doors: Mapping[NodeId, Address]) -> SqliteSettings:
    doors = {each: Address(LOOPBACK, 1) for each in clone_doors}
    return SqliteSettings(
        cluster="shop",
        node=node,
        doors=doors,
        pull_doors=doors,
        clone_doors=clone_doors,
        state_dir=root,
        cluster_secret=SECRET,
    )


class PlayedServer:
    """What a server does for a clone door."""

    def __init__(self, primary: Primary) -> None:
        self.primary = primary
        self.is_reigning = False
        self.is_down = False
        self.paces: list[int] = []
        self.copies = 0

    async def snapshot(self, name: str, path: Path, bytes_per_s: int) -> Copied:
        self._answers()
        assert name == path.name
        self.paces.append(bytes_per_s)
        self.copies += 1
        stop, log = threading.Event(), self.primary.log

        def copied() -> Copied:
            made = copy_database(
                log,
                SETTINGS,
                database_path=self.primary.path,
                into=path,
                bytes_per_s=bytes_per_s,
                stop=stop,
            )
            return Copied(point=made.point, gtids=made.gtids, size_bytes=made.size_bytes)

        try:
            return await asyncio.to_thread(copied)
        finally:
            stop.set()

    async def release(self, name: str) -> None:
        self._answers()
        await asyncio.to_thread(self.primary.log.release, name)

    async def is_primary(self) -> bool:
        self._answers()
        return self.is_reigning

    async def table_sums(self, tables: Sequence[str], at: int = 0) -> Sums:
        self._answers()
        assert at == 0
        return await asyncio.to_thread(sums_of, self.primary.path, tables)

    def _answers(self) -> None:
        if self.is_down:
            raise Unavailable("the server is down", hint="Start it.")


def sums_of(path: Path, tables: Sequence[str]) -> Sums:
    found = table_sums(path, SETTINGS, tables)
    sums = (Sum(table=s.table, rows=s.rows, digest=s.digest) for s in found.sums)
    return Sums(point=found.point, sums=tuple(sums))


class Site:
    """A donor, a, with its door open; and a receiver, b, that reaches it through a relay."""

    def __init__(self, root: Path, primary: Primary | None = None) -> None:
        door, self.relayed = free_addresses(2)
        self.root = root
        (root / "a" / "data").mkdir(parents=True, exist_ok=True)
        self.primary = primary or Primary(root / "a" / "data")
        self.server = PlayedServer(self.primary)
        self.donor = settings_of(A, root / "a", {A: door, B: door, C: door})
        self.receiver = settings_of(B, root / "b", {A: self.relayed, B: door, C: door})
        self.relay = Relay(self.relayed, door)
        self.events: list[Event] = []
        self.progress: list[Progress] = []
        self._door = AsyncExitStack()

    @property
    def directory(self) -> Directory:
        return directory_of(self.receiver)

    async def fetch(self, settings: SqliteSettings | None = None) -> Point:
        chosen = settings or self.receiver
        return await fetch(
            chosen,
            directory_of(chosen),
            A,
            self.progress.append,
            clock=SystemClock(),
            events=self.events.append,
        )

    def told(self, name: str) -> list[Event]:
        return [each for each in self.events if each.name == name]

    @property
    def copies(self) -> list[str]:
        return sorted(each.name for each in self.donor.layout.copies.glob("*"))

    async def open_door(self) -> None:
        door = CloneDoor(self.donor, self.server, clock=SystemClock(), events=self.events.append)
        await self._door.enter_async_context(door.open())

    async def close_door(self) -> None:
        await self._door.aclose()


def directory_of(settings: SqliteSettings) -> Directory:
    return Directory(
        settings.layout,
        cluster=settings.cluster,
        node=settings.node,
        database=settings.database,
    )


@asynccontextmanager
async def site(root: Path, primary: Primary | None = None) -> AsyncIterator[Site]:
    made = Site(root, primary)
    try:
        async with made.relay.open():
            await made.open_door()
            yield made
    finally:
        await made.close_door()
        made.primary.close()


class Relay:
    """Between receiver and donor: cuts each connection after so many bytes, as a network does."""

    def __init__(self, listen: Address, to: Address) -> None:
        self._listen = listen
        self._to = to
        self.cuts: list[int] = []
        """Of the connections that come next: after so many bytes to the receiver."""
        self.connections = 0
        self.damages_at = -1
        """The byte that is changed on the way, counted over all connections."""
        self._passed_bytes = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        serving: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.add(asyncio.get_running_loop().create_task(self._serve(reader, writer)))

        listener = await asyncio.start_server(begin, self._listen.host, self._listen.port)
        try:
            yield
        finally:
            listener.close()
            for task in serving:
                task.cancel()
            if serving:
                await asyncio.wait(serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left_bytes = self.cuts.pop(0) if self.cuts else -1
        there, back = await asyncio.open_connection(self._to.host, self._to.port)
        asking = asyncio.get_running_loop().create_task(_pass(reader, back))
        try:
            while left_bytes and (data := await there.read(1 << 16)):
                data = data if left_bytes < 0 else data[:left_bytes]
                left_bytes -= len(data) if left_bytes > 0 else 0
                writer.write(self._damaged(data))
                await writer.drain()
        except ConnectionError:
            pass  # The receiver has gone: that is what some tests want.
        finally:
            asking.cancel()
            for each in (writer, back):
                each.transport.abort()

    def _damaged(self, data: bytes) -> bytes:
        place = self.damages_at - self._passed_bytes
        self._passed_bytes += len(data)
        if not 0 <= place < len(data):
            return data
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.01)


def wrong_secret(settings: SqliteSettings) -> SqliteSettings:
    return replace(settings, cluster_secret=SECRET[::-1])
