"""The donor's side of a clone: a copy of the running server's database, sent in pieces that may be
asked for again.

    prove -> the server copies its file beside it, held in its log -> pieces -> digest -> forgotten

Promises  What is sent is one point of the history, and the log behind it is kept until the receiver
          has it. A receiver that comes back goes on where its connection was cut.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from primacy.clock import Clock
from primacy.engines import clone_wire as wire
from primacy.engines.cloning import Ends, admitted, clone_door, header
from primacy.engines.sqlite.clone_messages import Offer, Received, Request, Status, Trailer
from primacy.engines.sqlite.control import Copied, Sums
from primacy.engines.sqlite.copies import Copies, Held, Maker
from primacy.engines.sqlite.directory import database_in
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.errors import PrimacyError, Rejected, Unavailable
from primacy.runtime.threads import to_its_end
from primacy.telemetry import Event, Sink, Value

STATUS_S = 1.0
"""Between two words to a receiver that waits for its copy."""


class Donor(Maker, Protocol):
    """The server of this node."""

    async def is_primary(self) -> bool: ...

    async def table_sums(self, tables: Sequence[str], at: int = 0) -> Sums: ...


class CloneDoor:
    """Gives copies, and checksums of tables, to whoever knows the cluster's secret."""

    def __init__(
        self, settings: SqliteSettings, donor: Donor, *, clock: Clock, events: Sink
    ) -> None:
        self._settings = settings
        self._donor = donor
        self._clock = clock
        self._events = events
        self._copies = Copies(settings.layout.copies, donor, clock=clock, events=events)
        self._serving: dict[str, asyncio.Task[None]] = {}
        """By receiver: the newest connection of each is the one that counts."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """The door is open inside. `Rejected` where its port is taken."""
        node = self._settings.node
        address = self._settings.clone_doors[node]
        async with clone_door(address, self._give, node=node, events=self._events):
            sweeping = asyncio.get_running_loop().create_task(self._copies.keep_sweeping())
            try:
                yield
            finally:
                sweeping.cancel()
                await asyncio.wait([sweeping])

    async def _give(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = ends_of(self._settings)
        request, challenge = await admitted(reader, writer, ends, Request)
        if request.node not in self._settings.clone_doors:
            raise Rejected(f"{request.node!r} is no data node", hint="Check its configuration.")
        total_bytes = await asyncio.to_thread(self._size_bytes)
        await wire.send(writer, header(ends, request, challenge, total_bytes=total_bytes))
        if request.compare:
            self._tell("comparison-asked", receiver=request.node, tables=len(request.compare))
            await wire.send(writer, await self._donor.table_sums(request.compare))
            return
        older = self._serving.pop(request.node, None)
        if older is not None:  # Its connection was cut, whether this end has noticed or not.
            older.cancel()
            await asyncio.wait([older])
        task = asyncio.get_running_loop().create_task(self._give_copy(request, reader, writer))
        self._serving[request.node] = task
        try:
            await task
        finally:
            task.cancel()
            if self._serving.get(request.node) is task:
                del self._serving[request.node]

    async def _give_copy(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            bytes_per_s = await self._bytes_per_s()
            held = self._copies.known(request.ticket, request.node)
            if held is None:
                held = await self._copies.begin(request.node, bytes_per_s=bytes_per_s)
            copied = await self._made(held, writer)
        except PrimacyError as error:
            await wire.send(writer, Status(words=error.what))
            raise
        is_resumed = held.ticket == request.ticket
        offset = min(request.offset, held.hashed_bytes) if is_resumed else 0
        name = "clone-resumed" if is_resumed else "clone-begun"
        self._tell(name, receiver=request.node, total_bytes=copied.size_bytes, offset=offset)
        offer = Offer(
            point=copied.point, gtids=copied.gtids, size_bytes=copied.size_bytes, offset=offset
        )
        await wire.send(writer, Status(ticket=held.ticket, offer=offer))
        await self._stream(writer, held, offer, bytes_per_s=bytes_per_s)
        within_s = self._settings.timing.clone_silence_s
        received = await wire.receive(reader, Received, within_s=within_s)
        if received.ticket == held.ticket:
            await self._copies.fetched(held)
            self._tell("clone-given", receiver=request.node)

    async def _made(self, held: Held, writer: asyncio.StreamWriter) -> Copied:
        """Tells the receiver how far it is meanwhile. Whose making has failed is forgotten."""
        total_bytes = await asyncio.to_thread(self._size_bytes)
        while not held.making.done():
            await asyncio.wait([held.making], timeout=STATUS_S)
            self._copies.touch(held)
            done_bytes = await asyncio.to_thread(_size_of, held.path)
            status = Status(
                ticket=held.ticket, done_bytes=min(done_bytes, total_bytes), total_bytes=total_bytes
            )
            await wire.send(writer, status)
        try:
            return held.making.result()
        except (PrimacyError, OSError):
            await self._copies.give_up(held)
            raise

    async def _stream(
        self, writer: asyncio.StreamWriter, held: Held, offer: Offer, *, bytes_per_s: int
    ) -> None:
        offset, began_at_s = offer.offset, self._clock.now_s()
        words = ""
        fd = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while offset < offer.size_bytes and not words:
                piece = await to_its_end(held.piece, fd, offset, wire.PIECE_BYTES)
                words = "" if piece else f"the copy ends at {offset} of {offer.size_bytes} bytes"
                offset += len(piece)
                if piece:
                    await self._send_piece(writer, piece)
                self._copies.touch(held)
                if bytes_per_s:
                    earned_s = (offset - offer.offset) / bytes_per_s
                    late_s = self._clock.now_s() - began_at_s
                    await self._clock.sleep(max(0.0, earned_s - late_s))
        finally:
            os.close(fd)
        await wire.send_piece(writer, b"")
        digest = held.hasher.hexdigest()
        await wire.send(writer, Trailer(is_ok=not words, words=words, digest=digest))

    async def _send_piece(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        silence_s = self._settings.timing.clone_silence_s
        try:
            async with asyncio.timeout(silence_s):
                await wire.send_piece(writer, piece)
        except TimeoutError as error:
            raise Unavailable(
                f"the receiver took nothing for {silence_s:.0f} s", hint="It may come back."
            ) from error

    async def _bytes_per_s(self) -> int:
        """A primary has clients to serve; a replica that gives a clone has been taken out first."""
        limit = self._settings.clone_from_primary_mb_s
        return limit << 20 if limit and await self._donor.is_primary() else 0

    def _size_bytes(self) -> int:
        return _size_of(database_in(self._settings.layout.data, self._settings.database))

    def _tell(self, name: str, **fields: Value) -> None:
        self._events(Event(name, {"node": self._settings.node, **fields}))


def ends_of(settings: SqliteSettings) -> Ends:
    return Ends(
        cluster=settings.cluster,
        node=settings.node,
        secret=settings.cluster_secret,
        peer_s=settings.timing.peer_s,
        silence_s=settings.timing.clone_silence_s,
    )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
