"""One member's door for clients: requests in, answers and watches out, over TCP.

Promises  A watch hears every change that this member applies, in order, once, from the state of
          this member: any member serves. It hears every `PROGRESS_S` that nothing happened, but
          only while this member knows a leader. A connection that does not read its watches is cut;
          its client resumes by revision, here or elsewhere.
Assumes   One event loop: `on_effect` and the connections run between each other's steps.
Does not  Decide anything. Encrypt or authenticate: it listens where it is told to.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import cast

from primacy.clock import Clock
from primacy.coordination.api import WatchBatch
from primacy.coordination.embedded.commands import Failure, Refusal
from primacy.coordination.embedded.keyspace import matches
from primacy.coordination.embedded.member import BUSY, StoreMember
from primacy.coordination.embedded.protocol import (
    PROGRESS_S,
    CancelWatch,
    Request,
    Response,
    Watched,
    WatchKeys,
    payload_of,
    request_in,
)
from primacy.coordination.embedded.requests import ClientRequest, Reply
from primacy.errors import Compacted, Corrupt
from primacy.model import Address, Revision
from primacy.runtime.listening import listening
from primacy.runtime.tcp import set_options
from primacy.telemetry import Event, Sink
from primacy.wire import FrameDecoder, encode_frame

CONNECTIONS_MAX = 1000
WATCHES_MAX = 4000
"""Of one member. Past either, the newcomer is refused and tries another member."""

OUTSTANDING_MAX = 256
"""Requests of one connection without an answer."""

STALLED_REVISIONS_MAX = 1000
"""How far a watch may fall behind while its connection does not read."""

PROGRESS_REVISIONS = 1000
"""After so many revisions that a watch did not see it is told where the store stands."""


class _Watch:
    __slots__ = ("is_prefix", "key", "next_revision", "number", "told_revision")

    def __init__(self, number: int, asked: WatchKeys) -> None:
        self.number = number
        self.key = asked.key
        self.is_prefix = asked.is_prefix
        self.next_revision = asked.from_revision
        self.told_revision = 0


class Connection(asyncio.Protocol):
    """One client. It knows its own requests and watches, and nothing of others."""

    def __init__(self, door: "Door") -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._reader = FrameDecoder()
        self.watches: dict[int, _Watch] = {}
        self.outstanding_count = 0
        self.is_writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._transport = transport
        set_options(transport)
        if not self._door.admit(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watches.clear()
        self._transport = None
        self._door.forget(self, exc)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                self._door.on_request(self, request_in(payload))
        except Corrupt as error:
            self._door.tell("store-client-corrupt", error.what)
            self.cut()

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._door.catch_up(self)

    def send(self, response: Response) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(payload_of(response)))

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Door:
    """Hands requests to the member through `post`, and takes its replies in `on_reply`."""

    def __init__(
        self,
        member: StoreMember,
        address: Address,
        clock: Clock,
        *,
        post: Callable[[ClientRequest], bool],
        events: Sink,
    ) -> None:
        self._member = member
        self._address = address
        self._clock = clock
        self._post = post
        self._events = events
        self._connections: set[Connection] = set()
        self._asked: dict[int, tuple[Connection, int]] = {}
        self._last_id = 0
        self._server: asyncio.Server | None = None
        self.cut_count = 0
        """Connections that were cut because they did not read their watches."""

    async def __aenter__(self) -> "Door":
        """Listens. `Rejected` where the address is taken."""
        loop = asyncio.get_running_loop()
        with listening(self._address):
            self._server = await loop.create_server(
                lambda: Connection(self), self._address.host, self._address.port
            )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.cut()

    async def run(self) -> None:
        """Tells the watches, until it is cancelled, that nothing has happened."""
        while True:
            await self._clock.sleep(PROGRESS_S)
            self._tell_progress()

    # ---- what the member says --------------------------------------------------------------

    def on_reply(self, reply: Reply) -> None:
        asked = self._asked.pop(reply.request_id, None)
        if asked is None:
            return  # Its connection has gone.
        connection, number = asked
        connection.outstanding_count -= 1
        connection.send(Response(number, reply.body))

    def on_changes(self, batch: WatchBatch) -> None:
        for connection in self._connections:
            if connection.watches:
                self._tell(connection, batch)

    def on_replaced(self) -> None:
        """The state jumped: whoever was behind its revision has a gap, and is told so."""
        for connection in tuple(self._connections):
            self.catch_up(connection)

    # ---- connections -----------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        if len(self._connections) >= CONNECTIONS_MAX:
            self.tell("store-client-refused", f"{CONNECTIONS_MAX} connections are open")
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection, error: Exception | None) -> None:
        self._connections.discard(connection)
        if error is not None:
            self.tell("store-client-lost", str(error))

    def tell(self, name: str, reason: str) -> None:
        self._events(Event(name, {"reason": reason}))

    def on_request(self, connection: Connection, request: Request) -> None:
        match request.body:
            case WatchKeys():
                self._begin_watch(connection, request.number, request.body)
            case CancelWatch(number):
                if connection.watches.pop(number, None) is not None:
                    failure = Failure(Refusal.UNAVAILABLE, "the watch was cancelled", "")
                    connection.send(Response(number, failure))
            case body:
                if connection.outstanding_count >= OUTSTANDING_MAX:
                    full = f"{OUTSTANDING_MAX} requests of this connection wait"
                    failure = Failure(Refusal.UNAVAILABLE, full, "Wait for some answers first.")
                    connection.send(Response(request.number, failure))
                    return
                self._last_id += 1
                if not self._post(ClientRequest(self._last_id, body)):
                    connection.send(Response(request.number, BUSY))
                    return
                connection.outstanding_count += 1
                self._asked[self._last_id] = (connection, request.number)

    # ---- watches ---------------------------------------------------------------------------

    def _begin_watch(self, connection: Connection, number: int, asked: WatchKeys) -> None:
        if sum(len(each.watches) for each in self._connections) >= WATCHES_MAX:
            full = f"this member serves {WATCHES_MAX} watches"
            failure = Failure(Refusal.UNAVAILABLE, full, "Ask another member.")
            connection.send(Response(number, failure))
            return
        watch = _Watch(number, asked)
        connection.watches[number] = watch
        self._catch_up_watch(connection, watch)
        if number in connection.watches and watch.told_revision == 0:
            self._send(connection, watch, WatchBatch(self._member.kv.revision, ()))

    def catch_up(self, connection: Connection) -> None:
        for watch in tuple(connection.watches.values()):
            self._catch_up_watch(connection, watch)

    def _catch_up_watch(self, connection: Connection, watch: _Watch) -> None:
        if watch.next_revision > self._member.kv.revision:
            return  # From the future: this member is behind, or nothing has happened.
        try:
            batches = self._member.kv.history.since(watch.next_revision)
        except Compacted as error:
            del connection.watches[watch.number]
            failure = Failure(Refusal.COMPACTED, asked=error.asked, oldest=error.oldest)
            connection.send(Response(watch.number, failure))
            return
        for batch in batches:
            if not connection.is_writable:
                return  # `resume_writing` goes on from here.
            self._tell_watch(connection, watch, batch)

    def _tell(self, connection: Connection, batch: WatchBatch) -> None:
        for watch in tuple(connection.watches.values()):
            if not connection.is_writable:
                behind = batch.revision - watch.next_revision
                if behind > STALLED_REVISIONS_MAX:
                    self.cut_count += 1
                    self.tell("store-watch-cut", f"{behind} revisions were not read")
                    connection.cut()
                    return
            elif watch.next_revision == batch.revision:
                self._tell_watch(connection, watch, batch)
            elif watch.next_revision < batch.revision:
                self._catch_up_watch(connection, watch)

    def _tell_watch(self, connection: Connection, watch: _Watch, batch: WatchBatch) -> None:
        seen = matches(batch, watch.key, is_prefix=watch.is_prefix)
        watch.next_revision = Revision(batch.revision + 1)
        if seen is not None:
            self._send(connection, watch, seen)
        elif batch.revision - watch.told_revision >= PROGRESS_REVISIONS:
            self._send(connection, watch, WatchBatch(batch.revision, ()))

    def _send(self, connection: Connection, watch: _Watch, batch: WatchBatch) -> None:
        watch.told_revision = batch.revision
        connection.send(Response(watch.number, Watched(batch)))

    def _tell_progress(self) -> None:
        """Only what this member has told already counts, and only while it knows a leader."""
        knows_leader = self._member.raft.leader is not None
        for connection in tuple(self._connections):
            for watch in tuple(connection.watches.values()):
                if not knows_leader:
                    del connection.watches[watch.number]
                    failure = Failure(Refusal.UNAVAILABLE, "this member knows no leader", "Retry.")
                    connection.send(Response(watch.number, failure))
                elif connection.is_writable:
                    self._catch_up_watch(connection, watch)
                    if watch.number in connection.watches:
                        told = min(watch.next_revision - 1, self._member.kv.revision)
                        self._send(connection, watch, WatchBatch(Revision(told), ()))
