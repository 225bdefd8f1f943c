"""How a modelled log travels: a sender with one stream per receiver, a receiver with one source.

A stream is a connection: ordered, and broken when the link is cut or either end dies. Whoever
receives first logs in, which a source refuses to those that it locks out; then it asks from where
its own log ends, on this very connection. A source whose log does not hold that place says so, and
the receiver stops: its log is no prefix.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from primacy.engines.api import Replication
from primacy.model import Epoch, Incarnation, NodeId, Position
from primacy.sim.engine_log import Record

if TYPE_CHECKING:
    from primacy.sim.server_model import ModelServer

BATCH_MAX = 64
"""Records of one message."""

CONNECT_EVERY_S = 0.1
KEEPALIVE_S = 0.3
APPLIER_ERROR = "1030: the applier stopped"
SILENCE_MAX_S = 1.0
"""A source that says nothing for this long is connected to anew."""


class Stream:
    """What a sender knows of one receiver."""

    __slots__ = ("acked", "connection", "incarnation", "is_acknowledging", "node", "sent")

    def __init__(
        self, node: NodeId, connection: int, *, sent: int, acked: int, is_acknowledging: bool
    ) -> None:
        self.node = node
        self.connection = connection
        self.sent = sent
        self.acked = acked
        self.is_acknowledging = is_acknowledging
        self.incarnation = Incarnation("")


class Sender:
    """The source's side of all streams."""

    def __init__(self, engine: "ModelServer") -> None:
        self._engine = engine
        self._streams: dict[NodeId, Stream] = {}
        self._logins: dict[NodeId, int] = {}
        """The newest connection of each node that was let in."""
        self._is_keeping_alive = False

    def forget(self) -> None:
        self._streams.clear()
        self._logins.clear()
        self._is_keeping_alive = False

    def detach(self, node: NodeId) -> None:
        self._streams.pop(node, None)
        self._logins.pop(node, None)

    def receivers(self) -> frozenset[NodeId]:
        return frozenset(self._streams)

    def acknowledging_count(self) -> int:
        return sum(1 for each in self._streams.values() if each.is_acknowledging)

    def acknowledgers(self) -> list[tuple[NodeId, Incarnation]]:
        return [
            (each.node, each.incarnation)
            for each in self._streams.values()
            if each.is_acknowledging
        ]

    def acknowledged_by(self, count: int) -> int:
        """The highest sequence that so many receivers have acknowledged."""
        acked = sorted((each.acked for each in self._streams.values()), reverse=True)
        return acked[count - 1] if len(acked) >= count else 0

    def holders(self, sequence: int) -> list[NodeId]:
        return [each.node for each in self._streams.values() if each.acked >= sequence]

    def login(self, node: NodeId, connection: int) -> None:
        """Whoever is locked out is not answered. The answer goes to the connection that asked: one
        that its receiver has given up meanwhile comes to nothing, however late it is let in."""
        engine = self._engine
        if node in engine.files.excluded:
            return
        self._logins[node] = connection
        receiver = engine.fleet[node]
        self._tell(receiver, receiver.receiver.on_let_in, connection)

    def attach(
        self,
        node: NodeId,
        connection: int,
        position: Position,
        durable: int,
        incarnation: Incarnation,
        is_acknowledging: bool,  # noqa: FBT001  # Arguments of a message, passed by place.
    ) -> None:
        """A receiver that was let in: its log ends at `position`; `durable` records of it are
        synced."""
        engine = self._engine
        receiver = engine.fleet[node]
        if self._logins.get(node) != connection:
            return
        if not engine.files.holds(position):
            self._tell(receiver, receiver.receiver.on_diverged, connection)
            return
        stream = Stream(
            node,
            connection,
            sent=position.sequence,
            acked=durable if is_acknowledging else 0,
            is_acknowledging=is_acknowledging,
        )
        stream.incarnation = incarnation
        self._streams[node] = stream
        if is_acknowledging:
            engine.witnesses.on_counted(engine, node, incarnation)
            engine.witnesses.on_attached(node)
        self._tell(receiver, receiver.receiver.on_attached, connection)
        self._ship(stream)
        engine.release()
        self._keep_alive()

    def on_acknowledged(self, node: NodeId, connection: int, sequence: int) -> None:
        stream = self._streams.get(node)
        if stream is None or stream.connection != connection or not stream.is_acknowledging:
            return
        engine = self._engine
        engine.witnesses.on_counted(engine, node, stream.incarnation)
        if sequence > stream.acked:
            stream.acked = sequence
            engine.release()

    def on_detached(self, node: NodeId, connection: int) -> None:
        if self._logins.get(node) == connection:
            del self._logins[node]
        stream = self._streams.get(node)
        if stream is not None and stream.connection == connection:
            del self._streams[node]

    def ship_all(self) -> None:
        for stream in self._streams.values():
            self._ship(stream)

    def _shipped_end(self) -> int:
        """Nothing is sent before it is durable here."""
        return self._engine.files.synced

    def _ship(self, stream: Stream) -> None:
        files, last = self._engine.files, self._shipped_end()
        receiver = self._engine.fleet[stream.node]
        while stream.sent < last:
            end = min(last, stream.sent + BATCH_MAX)
            records = tuple(files.log[stream.sent : end])
            self._tell(
                receiver,
                receiver.receiver.on_records,
                stream.connection,
                self._engine,
                stream.sent + 1,
                records,
            )
            stream.sent = end

    def _keep_alive(self) -> None:
        if not self._is_keeping_alive and self._streams:
            self._is_keeping_alive = True
            self._engine.world.after(KEEPALIVE_S, self._engine.process, self._say_alive)

    def _say_alive(self) -> None:
        self._is_keeping_alive = False
        for stream in self._streams.values():
            receiver = self._engine.fleet[stream.node]
            self._tell(receiver, receiver.receiver.on_alive, stream.connection, stream.sent)
        self._keep_alive()

    def _tell(
        self, receiver: "ModelServer", action: Callable[..., None], *arguments: object
    ) -> None:
        engine = self._engine
        engine.network.stream(engine.node, receiver.process, "log", action, *arguments)


class Receiver:
    """The replica's side of its one stream."""

    def __init__(self, engine: "ModelServer") -> None:
        self._engine = engine
        self.upstream: NodeId | None = None
        self.is_acknowledging = False
        self.is_connected = False
        self.error: str | None = None
        self._epoch = Epoch(0)
        self._connection = 0
        self._connections = 0
        self._heard_at_s = 0.0

    def observed(self) -> Replication:
        broken = APPLIER_ERROR if self._engine.files.is_applier_broken else None
        return Replication(
            upstream=self.upstream,
            is_receiving=self.is_connected,
            is_applying=self.upstream is not None and self.error is None and broken is None,
            acknowledges=self.is_acknowledging and self.upstream is not None,
            error=self.error or broken,
            is_diverged=self.error is not None,
        )

    def start(self, upstream: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        is_same = self.upstream == upstream and self._epoch == epoch and self._connection
        if is_same and self.is_acknowledging == acknowledge:
            return
        self.stop()
        self.upstream = upstream
        self.is_acknowledging = acknowledge
        self.error = None
        self._epoch = epoch
        self._connect()

    def stop(self) -> None:
        """Nothing more is received or acknowledged from now on."""
        if self._connection and self.upstream is not None:
            source = self._engine.fleet[self.upstream]
            self._engine.network.stream(
                self._engine.node,
                source.process,
                "acks",
                source.sender.on_detached,
                self._engine.node,
                self._connection,
            )
        self.forget()

    def forget(self) -> None:
        self.upstream = None
        self.is_acknowledging = False
        self.is_connected = False
        self.error = None
        self._connection = 0

    def on_let_in(self, connection: int) -> None:
        engine = self._engine
        if connection != self._connection or self.upstream is None:
            return
        source = engine.fleet[self.upstream]
        engine.network.stream(
            engine.node,
            source.process,
            "acks",
            source.sender.attach,
            engine.node,
            connection,
            engine.position(),
            engine.files.synced,
            engine.files.incarnation,
            self.is_acknowledging,
        )

    def on_attached(self, connection: int) -> None:
        if connection == self._connection:
            self.is_connected = True
            self._heard_at_s = self._engine.world.now_s

    def on_diverged(self, connection: int) -> None:
        if connection == self._connection:
            self.is_connected = False
            self.error = "the source has not the transaction that this log ends with"
            self._engine.world.trace.sometimes("diverged log")

    def on_alive(self, connection: int, sent: int) -> None:
        if connection != self._connection:
            return
        self._heard_at_s = self._engine.world.now_s
        if sent > len(self._engine.files.log):
            self._connect()  # Something before this was lost with a cut.

    def on_records(
        self, connection: int, source: "ModelServer", first: int, records: tuple[Record, ...]
    ) -> None:
        engine = self._engine
        if connection != self._connection:
            return
        self._heard_at_s = engine.world.now_s
        if first != len(engine.files.log) + 1:
            self._connect()
            return
        engine.witnesses.on_received(engine, source, first, records)
        engine.received(records)
        end = len(engine.files.log)
        files = engine.files
        engine.disk.write(lambda: files.mark_synced(end), lambda: self.durable(connection, end))

    def durable(self, connection: int, end: int) -> None:
        """Everything up to `end` is synced: apply it, and say so to a source that counts it."""
        engine = self._engine
        engine.schedule_apply()
        if connection == self._connection:
            self.acknowledge(end)

    def acknowledge(self, end: int) -> None:
        engine = self._engine
        if not self.is_acknowledging or self.upstream is None:
            return
        source = engine.fleet[self.upstream]
        engine.witnesses.on_acknowledge(engine, source, self._epoch)
        engine.network.stream(
            engine.node,
            source.process,
            "acks",
            source.sender.on_acknowledged,
            engine.node,
            self._connection,
            end,
        )

    def _connect(self) -> None:
        engine = self._engine
        if self.upstream is None or self.error is not None:
            return
        self._connections += 1
        self._connection = self._connections
        self.is_connected = False
        self._heard_at_s = engine.world.now_s
        source = engine.fleet[self.upstream]
        engine.network.stream(
            engine.node,
            source.process,
            "acks",
            source.sender.login,
            engine.node,
            self._connection,
        )
        engine.world.after(CONNECT_EVERY_S, engine.process, self._watch, self._connection)

    def _watch(self, connection: int) -> None:
        """Connect anew when the source has not answered, or has been silent for too long."""
        if connection != self._connection or self.error is not None:
            return
        silent_s = self._engine.world.now_s - self._heard_at_s
        if not self.is_connected or silent_s > SILENCE_MAX_S:
            self._connect()
        else:
            self._engine.world.after(
                SILENCE_MAX_S / 2, self._engine.process, self._watch, connection
            )
