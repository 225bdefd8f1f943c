"""The relay of a demo, in a process of its own: `python -m primacy.cli.demo_relay`.

    a --> 127.x.y.12, "b as a sees it" ==[ relay ]== from 127.x.y.21, "a as b sees it" --> b

For each pair of nodes and each door there is a listening address of its own, so that it is known
who talks to whom. Told by lines on standard input, and answered by lines on standard output: `Open`
once, then `Cut` and `Heal`. It ends with its input.

Promises  What a cut direction carries is held, as a network that drops packets has it sent again,
          and passed on at the next heal in order. Against it only a first window comes through, for
          lack of acknowledgements: then that direction is held as well. A connection that is begun
          while either direction is cut is not heard of before the heal, and never where whoever
          began it has gone.
Does not  Refuse: who is nobody's door looks like one that accepts and closes at once.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass, field

import msgspec

HELD_BYTES_MAX = 1 << 20
"""Of one direction of one connection; past it nothing more is read, as a full window has it."""
WINDOW_PIECES = 10
"""So much is on its way before the first acknowledgement, with Linux; a small message is one."""
BACKLOG = 256
CONNECT_WITHIN_S = 5.0


class Door(msgspec.Struct, frozen=True):
    """Where `client` finds a door of `server`."""

    client: str
    server: str
    listen: str
    """The server's host, as the client sees it."""
    source: str
    """The client's host, as the server sees it."""
    target: str
    port: int


class Open(msgspec.Struct, frozen=True, tag=True):
    doors: tuple[Door, ...]


class Cut(msgspec.Struct, frozen=True, tag=True):
    """What `sender` says never reaches `receiver`; with `ports`, only at these doors of either."""

    sender: str
    receiver: str
    ports: tuple[int, ...] = ()


class Heal(msgspec.Struct, frozen=True, tag=True):
    """Everybody hears everybody again."""


Order = Open | Cut | Heal


class Done(msgspec.Struct, frozen=True):
    """The answer to each; `problem` is empty where it was carried out."""

    problem: str = ""


@dataclass(slots=True)
class Cuts:
    """Which directions are cut now."""

    standing: list[Cut] = field(default_factory=list)

    def hold(self, sender: str, receiver: str, port: int) -> bool:
        return any(
            (each.sender, each.receiver) == (sender, receiver)
            and (not each.ports or port in each.ports)
            for each in self.standing
        )


class Side(asyncio.Protocol):
    """One end of a connection: what it says, and what became of it."""

    def __init__(self, pair: "Pair", name: str) -> None:
        self._pair = pair
        self.name = name
        self.transport: asyncio.Transport | None = None
        self.held = bytearray()
        """Said, and not passed on yet."""
        self.has_ended = False
        """It says no more."""
        self.is_lost = False
        self.unheard = 0
        """Pieces that were passed on while no acknowledgement of them could come back."""
        self.is_full = False
        """The other end's buffers are: it is not read from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._pair.pass_on()

    def data_received(self, data: bytes) -> None:
        self.held += data
        self._pair.pass_on()

    def eof_received(self) -> bool:
        self.has_ended = True
        self._pair.pass_on()
        return True  # The other direction may go on.

    def connection_lost(self, _error: Exception | None) -> None:
        self.has_ended = self.is_lost = True
        self._pair.pass_on()

    def pause_writing(self) -> None:
        self._pair.other(self).read_on(is_full=True)

    def resume_writing(self) -> None:
        self._pair.other(self).read_on(is_full=False)

    def read_on(self, *, is_full: bool | None = None) -> None:
        """Or not: where what it said finds no place."""
        self.is_full = self.is_full if is_full is None else is_full
        if self.transport is None or self.transport.is_closing() or self.has_ended:
            return
        if self.is_full or len(self.held) > HELD_BYTES_MAX:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class Pair:
    """One connection through the relay."""

    def __init__(self, door: Door, relay: "Relay") -> None:
        self._door = door
        self._relay = relay
        self.client = Side(self, door.client)
        self.server = Side(self, door.server)
        self._connecting: asyncio.Task[None] | None = None
        relay.pairs.add(self)

    def other(self, side: Side) -> Side:
        return self.server if side is self.client else self.client

    def pass_on(self) -> None:
        """Whatever may go now goes. Called after each change of either end, and after a heal."""
        if self.server.transport is None and not self.server.is_lost:
            self._connect()
            return
        for side in (self.client, self.server):
            self._pass_on(side, self.other(side))
        if self.client.is_lost and self.server.is_lost:
            self._relay.pairs.discard(self)

    def _connect(self) -> None:
        one, other, port = self._door.client, self._door.server, self._door.port
        hold = self._relay.cuts.hold
        is_cut = hold(one, other, port) or hold(other, one, port)
        if self.client.is_lost or (is_cut and self.client.has_ended):
            self._forget()  # Nobody at the other end has ever heard of it.
        elif self._connecting is None and not is_cut:
            self._connecting = asyncio.get_running_loop().create_task(self._reach())
        self.client.read_on()  # What it says is held, and its end is seen.

    async def _reach(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await loop.create_connection(
                    lambda: self.server,
                    self._door.target,
                    self._door.port,
                    local_addr=(self._door.source, 0),
                )
        except (OSError, TimeoutError):
            self._forget()

    def _forget(self) -> None:
        self.server.has_ended = self.server.is_lost = True
        if self.client.transport is not None:
            self.client.transport.abort()
        self._relay.pairs.discard(self)

    def _pass_on(self, side: Side, other: Side) -> None:
        hold, port = self._relay.cuts.hold, self._door.port
        if not hold(other.name, side.name, port):
            side.unheard = 0
        elif side.held:
            side.unheard += 1
        if hold(side.name, other.name, port) or side.unheard > WINDOW_PIECES:
            side.read_on()
            return
        if other.transport is None or other.is_lost:
            side.held.clear()
            if side.transport is not None and not side.transport.is_closing():
                side.transport.close()
            return
        if side.held:
            other.transport.write(bytes(side.held))
            side.held.clear()
        if side.is_lost:
            other.transport.close()
        elif side.has_ended:
            try:
                other.transport.write_eof()
            except OSError:  # It was reset, and asyncio does not know yet.
                other.transport.abort()
        side.read_on()


class Relay:
    """All doors, and what is cut."""

    def __init__(self) -> None:
        self.cuts = Cuts()
        self.pairs: set[Pair] = set()

    async def obey(self, order: Order) -> Done:
        match order:
            case Open():
                return await self._open(order.doors)
            case Cut():
                self.cuts.standing.append(order)
            case Heal():
                self.cuts.standing.clear()
                for pair in list(self.pairs):
                    pair.pass_on()
        return Done()

    async def _open(self, doors: tuple[Door, ...]) -> Done:
        loop = asyncio.get_running_loop()
        for door in doors:
            try:
                await loop.create_server(
                    lambda door=door: Pair(door, self).client,  # type: ignore[misc]  # mypy and a lambda's default.
                    door.listen,
                    door.port,
                    backlog=BACKLOG,
                )
            except OSError as error:
                return Done(f"{door.listen}:{door.port}: {error.strerror or error}")
        return Done()


async def run() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    relay = Relay()
    decoder = msgspec.json.Decoder(Order)
    while line := await lines.readline():
        done = await relay.obey(decoder.decode(line))
        sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
