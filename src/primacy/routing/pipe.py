"""Two ends of one passage: bytes go through as they are, both ways, with back-pressure.

    client <-> ClientSide --- passage --- ServerSide <-> database or peer router

Promises: an end is read only while the other end's write buffer is below HIGH_WATER_BYTES, so a
slow reader costs a fixed amount of memory; the end of one direction is passed on and leaves the
other open (but a client that ends before a server is found has left); bytes towards the client
pass only while `may_pass()` is true, asked for each chunk, and once it is not nothing more is
sent, not even what waits in the buffers.
Does not: understand the bytes.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, cast

HIGH_WATER_BYTES = 256 * 1024
LOW_WATER_BYTES = 64 * 1024
"""Per direction. A chunk from the socket is at most as large again."""

EARLY_BYTES_MAX = 16 * 1024
"""What a client may say before a server has answered: kept, so that it can be said again to
another server. MariaDB's clients say nothing; a PROXY header takes at most 528 bytes."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Why(Enum):
    """Why an end is not read for a while."""

    OTHER_IS_FULL = auto()
    EARLY_IS_FULL = auto()
    SWITCHOVER = auto()


class Side(asyncio.Protocol):
    """One socket. Its owner is told by `on_news` of all that it may have to act upon."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        self._on_news = on_news
        self._transport: asyncio.Transport | None = None
        self._holds: set[Why] = set()
        self._has_ended = False
        self.other: Side | None = None
        self.is_gone = False
        self.byte_count = 0
        """Received from this socket and passed on."""

    @property
    def transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionError("not connected yet")
        return self._transport

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._holds:
            transport.pause_reading()
        self._on_news()

    def eof_received(self) -> bool:
        self._has_ended = True
        if self.other is not None:
            self.other.end_writing()
        self._on_news()
        return self.other is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """A loss is passed on as what it was: a clean end as an end, a reset as a reset."""
        self.is_gone = True
        if self.other is not None:
            if exc is None:
                self.other.close()
            else:
                self.other.abort()
        self._on_news()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.hold(Why.OTHER_IS_FULL)

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.release(Why.OTHER_IS_FULL)

    def hold(self, why: Why) -> None:
        """Stop reading this socket until every reason is gone."""
        self._holds.add(why)
        if self.is_open and self.transport.is_reading():
            self.transport.pause_reading()

    def release(self, why: Why) -> None:
        if why not in self._holds:
            return
        self._holds.discard(why)
        if not self._holds and self.is_open:
            self.transport.resume_reading()

    def write(self, data: bytes | bytearray) -> None:
        if self.is_open:
            self.transport.write(data)

    def end_writing(self) -> None:
        """The other direction stays open, unless it has ended too."""
        if not self.is_open:
            return
        if self._has_ended:
            self.transport.close()
        else:
            self.transport.write_eof()

    def close(self) -> None:
        """After what has been written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """At once, with a reset: neither our buffer nor the kernel's sends another byte."""
        if self._transport is None:
            return
        found = self._transport.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()


class ClientSide(Side):
    """The end that came in by a door. Keeps the first bytes until a server has answered."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        super().__init__(on_news)
        self.early: bytearray | None = bytearray()
        """None once a server has answered: nothing can be said twice from then on."""

    def data_received(self, data: bytes) -> None:
        self.byte_count += len(data)
        if self.early is not None:
            self.early += data
            if len(self.early) > EARLY_BYTES_MAX:
                self.hold(Why.EARLY_IS_FULL)
            if self.other is None:
                self._on_news()
        if self.other is not None:
            self.other.write(data)

    def join(self, server: "ServerSide", preface: bytes) -> None:
        """Connect the two ends: first the preface, then what the client said already."""
        server.write(preface)
        if self.early:
            server.write(self.early)
        self.other, server.other = server, self

    def part(self) -> None:
        """Drop a server that has not answered; the client notices nothing."""
        server, self.other = self.other, None
        if server is not None:
            server.other = None
            server.abort()
        self.release(Why.OTHER_IS_FULL)

    def settle(self) -> None:
        """A server has answered: forget the early bytes."""
        self.early = None
        self.release(Why.EARLY_IS_FULL)


class ServerOwner(Protocol):
    """Who opened a server's end, and decides what comes through it."""

    def wake(self) -> None: ...

    def may_pass(self) -> bool:
        """Asked for each chunk on its way to the client."""
        ...

    def on_connected(self, server: "ServerSide") -> None:
        """Join the ends here and now: the greeting may be the next event."""
        ...

    def on_answered(self) -> None:
        """The first byte is about to pass."""
        ...

    def on_withheld(self) -> None:
        """Something came that may not pass; it was dropped."""
        ...


class ServerSide(Side):
    """The end towards the database."""

    def __init__(self, owner: ServerOwner) -> None:
        super().__init__(owner.wake)
        self._owner = owner
        self.has_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.on_connected(self)

    def data_received(self, data: bytes) -> None:
        client = self.other
        if client is None:
            return
        if not self._owner.may_pass():
            self._owner.on_withheld()
            return
        if not self.has_answered:
            self.has_answered = True
            self._owner.on_answered()
        self.byte_count += len(data)
        client.write(data)

    def eof_received(self) -> bool:
        """Before its first byte an end is a refusal, which the client is not told of."""
        if not self.has_answered:
            return False
        if not self._owner.may_pass():
            self._owner.on_withheld()
            return False
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.has_answered:
            self.is_gone = True
            self._on_news()
            return
        super().connection_lost(exc)
