"""Messages between the members of one cluster over TCP. See `docs/formats/wire.md`.

Promises  A payload arrives as it was sent, or not at all. Between two members payloads of one
          connection keep their order. `send` never waits.
Assumes   Losses are tolerated: what finds no connection, or a full queue, is dropped and counted.
Does not  Authenticate: until TLS is there, the port must be reachable by members only. It checks
          the cluster's name and that the sender is a known peer, against mistakes.

Each member connects to each peer and sends on that connection only; it receives on the
connections that the peers have opened.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import cast

import msgspec

from primacy import telemetry
from primacy.clock import Clock
from primacy.errors import Corrupt
from primacy.model import Address, NodeId
from primacy.runtime.listening import listening
from primacy.telemetry import Event, Sink
from primacy.wire import FrameDecoder, encode_frame

QUEUE_BYTES_MAX = 64 << 20
"""Waiting for one slow peer; past it the newest is dropped. Above Raft's bytes in flight."""

STRANGER_BYTES_MAX = 1024
"""What a connection may buffer before it has said who it is."""

CONNECTIONS_MAX = 64
"""Accepted at a time; more are closed at once."""

STRANGER_S = 5.0
"""How long a connection may take to say who it is."""

BACKOFF_MIN_S = 0.02
BACKOFF_MAX_S = 1.0
CONNECT_TIMEOUT_S = 2.0
SILENT_PEER_MS = 3000
"""How long the kernel waits for a peer's acknowledgement before it gives the connection up."""

_PROTOCOL_VERSION = 1


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    version: int
    cluster: str
    sender: NodeId


@dataclass
class TransportCounts:
    """What an operator can see of the transport; all since the start."""

    sent: int = 0
    received: int = 0
    dropped_unconnected: int = 0
    dropped_full: int = 0
    refused_connections: int = 0
    connects: int = 0


OnMessage = Callable[[NodeId, bytes], None]


class TcpTransport:
    """`async with` opens the door and keeps trying to reach every peer until the exit."""

    def __init__(  # noqa: PLR0913 - all that a transport is made of, once
        self,
        node: NodeId,
        *,
        cluster: str,
        listen: Address,
        peers: Mapping[NodeId, Address],
        clock: Clock,
        chance: random.Random,
        sink: Sink = telemetry.ignore,
    ) -> None:
        self.counts = TransportCounts()
        self._node = node
        self._cluster = cluster
        self._listen = listen
        self._clock = clock
        self._chance = chance
        self._sink = sink
        self._peers = dict(peers)
        self._outgoing: dict[NodeId, _Outgoing] = {}
        self._incoming: set[_Incoming] = set()
        self._deliver: OnMessage | None = None
        self._server: asyncio.Server | None = None
        self._tasks = asyncio.TaskGroup()
        self._links: list[asyncio.Task[None]] = []

    def deliver_to(self, on_message: OnMessage) -> None:
        """Called in the event loop for each payload. It must return soon and must not raise."""
        self._deliver = on_message

    def send(self, to: NodeId, payload: bytes) -> None:
        """Send once, or drop and count. Never waits."""
        link = self._outgoing.get(to)
        if link is None:
            self.counts.dropped_unconnected += 1
        else:
            link.send(encode_frame(payload))

    def is_connected(self, to: NodeId) -> bool:
        """Whether a connection to `to` stands now. It may be dead without anyone knowing yet."""
        return to in self._outgoing

    async def __aenter__(self) -> "TcpTransport":
        loop = asyncio.get_running_loop()
        with listening(self._listen):
            self._server = await loop.create_server(
                lambda: _Incoming(self), self._listen.host, self._listen.port
            )
        await self._tasks.__aenter__()
        for peer, address in self._peers.items():
            link = self._tasks.create_task(self._keep_connected(peer, address), name=f"to-{peer}")
            self._links.append(link)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for link in self._links:
            link.cancel()
        for outgoing in self._outgoing.copy().values():
            outgoing.abort()
        for incoming in self._incoming.copy():
            incoming.close()
        await self._tasks.__aexit__(kind, error, trace)

    # ---- outgoing -----------------------------------------------------------------------

    async def _keep_connected(self, peer: NodeId, address: Address) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_MIN_S
        was_told = False
        while True:
            link = _Outgoing(self.counts)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await loop.create_connection(lambda link=link: link, address.host, address.port)  # type: ignore[misc]  # mypy cannot infer a lambda with a default.
            except (OSError, TimeoutError) as error:
                if not was_told:
                    was_told = True
                    self._sink(Event("peer-unreachable", {"peer": peer, "why": str(error)}))
            else:
                was_told, backoff_s = False, BACKOFF_MIN_S
                await self._use(peer, link)
            await self._clock.sleep(backoff_s * (0.5 + self._chance.random()))
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _use(self, peer: NodeId, link: "_Outgoing") -> None:
        """Until the connection is lost."""
        hello = Hello(_PROTOCOL_VERSION, self._cluster, self._node)
        link.send(encode_frame(msgspec.msgpack.encode(hello)))
        self._outgoing[peer] = link
        self.counts.connects += 1
        self._sink(Event("peer-connected", {"peer": peer}))
        try:
            await link.closed.wait()
        finally:
            del self._outgoing[peer]
            link.abort()
        self._sink(Event("peer-disconnected", {"peer": peer}))

    # ---- incoming -----------------------------------------------------------------------

    def accepted(self, connection: "_Incoming") -> bool:
        """Called by a new connection. False: it must close."""
        if len(self._incoming) >= CONNECTIONS_MAX:
            self.refuse("too many connections")
            return False
        self._incoming.add(connection)
        return True

    def lost(self, connection: "_Incoming") -> None:
        """Called by a connection that has ended."""
        self._incoming.discard(connection)

    def greeted(self, payload: bytes) -> NodeId | None:
        """Called with the first frame: who it is, or None for a stranger."""
        try:
            hello = msgspec.msgpack.decode(payload, type=Hello)
        except msgspec.DecodeError:
            self.refuse("the first frame is no hello")
            return None
        if hello.version != _PROTOCOL_VERSION:
            self.refuse(f"protocol version {hello.version}")
        elif hello.cluster != self._cluster:
            self.refuse(f"cluster {hello.cluster}")
        elif hello.sender not in self._peers:
            self.refuse(f"unknown sender {hello.sender}")
        else:
            return hello.sender
        return None

    def refuse(self, why: str) -> None:
        self.counts.refused_connections += 1
        self._sink(Event("connection-refused", {"why": why[:200]}))

    def received(self, sender: NodeId, payload: bytes) -> None:
        """Called with each further frame."""
        self.counts.received += 1
        if self._deliver is not None:
            self._deliver(sender, payload)


class _Outgoing(asyncio.Protocol):
    """A connection that this side has opened. Nothing comes back on it."""

    def __init__(self, counts: TransportCounts) -> None:
        self.closed = asyncio.Event()
        self._counts = counts
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._transport = transport
        set_options(transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed.set()

    def send(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._counts.dropped_unconnected += 1
        elif transport.get_write_buffer_size() + len(frame) > QUEUE_BYTES_MAX:
            self._counts.dropped_full += 1
        else:
            self._counts.sent += 1
            transport.write(frame)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Incoming(asyncio.Protocol):
    """A connection that a peer has opened. Nothing is sent on it."""

    def __init__(self, owner: TcpTransport) -> None:
        self._owner = owner
        self._decoder = FrameDecoder()
        self._sender: NodeId | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._transport = transport
        set_options(transport)
        if not self._owner.accepted(self):
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(STRANGER_S, self._on_silence)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        try:
            payloads = self._decoder.feed(data)
        except Corrupt as error:
            self._owner.refuse(error.what)
            self.close()
            return
        for payload in payloads:
            if self._transport is None or self._transport.is_closing():
                return
            if self._sender is not None:
                self._owner.received(self._sender, payload)
            else:
                self._sender = self._owner.greeted(payload)
                if self._sender is None:
                    self.close()
                    return
        if self._sender is None and self._decoder.buffered_bytes > STRANGER_BYTES_MAX:
            self._owner.refuse("a first frame that is too long for a hello")
            self.close()

    def _on_silence(self) -> None:
        if self._sender is None:
            self._owner.refuse("no hello")
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def set_options(transport: asyncio.Transport) -> None:
    """Send at once, and notice a peer that is gone without a word."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_PEER_MS)
