"""The pull protocol between modelled servers: who gets the log, and what is said of it.

    receiver: hello -> source: challenge -> receiver: my epoch, my last record
    source:   welcome, then records as they are appended | parted | purged | go away
    receiver: so much is durable here, so much applied, and it counts (or not)

Promises  A session belongs to one epoch: it begins between two that agree on it, and ends with the
          reign. Logs are compared by their chains. A report replaces all before it.
Does not  Model cascades: members pull from the primary itself.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from primacy.engines.api import Replication
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.pull.acks import AckOn
from primacy.sim.engine_log import Record
from primacy.sim.shipping import Receiver, Sender, Stream

if TYPE_CHECKING:
    from primacy.sim.server_model import ModelServer
    from primacy.sim.sqlite_files import SqliteFiles
    from primacy.sim.sqlite_model import SqliteModel

SILENCE_S = 2.0
"""A receiver that says nothing for so long is not attached any more."""

AGAIN_S = 0.03
"""After a session that its source has ended."""


class Greeting(NamedTuple):
    """A receiver shows itself: its end is durable."""

    epoch: Epoch
    incarnation: Incarnation
    end: Record | None


class Report(NamedTuple):
    received: int
    applied: int
    acknowledges: bool


class Session(Stream):
    """What the source knows of one receiver."""

    __slots__ = ("epoch", "heard_at_s")

    def __init__(self, node: NodeId, connection: int, greeting: Greeting, now_s: float) -> None:
        sent = greeting.end.sequence if greeting.end is not None else 0
        super().__init__(node, connection, sent=sent, acked=0, is_acknowledging=False)
        self.incarnation = greeting.incarnation
        self.epoch = greeting.epoch
        self.heard_at_s = now_s


class PullSource(Sender):
    """The door of a primary."""

    def __init__(self, engine: "ModelServer") -> None:
        super().__init__(engine)
        self.serving = Epoch(0)
        self._held: dict[NodeId, int] = {}
        """What each has reported last, its session over or not: it holds that all the same."""

    @property
    def _sessions(self) -> Mapping[NodeId, Session]:
        return cast("dict[NodeId, Session]", self._streams)

    def forget(self) -> None:
        """The process has ended, and with it everything."""
        super().forget()
        self.serving = Epoch(0)
        self._held.clear()

    def serve(self, epoch: Epoch) -> None:
        self.withdraw()
        self.serving = epoch

    def withdraw(self) -> None:
        """When this returns nobody is attached, and nothing that anybody says counts."""
        self.serving = Epoch(0)
        for node in list(self._logins):
            self.detach(node)
        self._held.clear()

    def detach(self, node: NodeId) -> None:
        """Nothing that it has ever said counts any more."""
        self._held.pop(node, None)
        self._part(node)

    def _part(self, node: NodeId) -> None:
        connection = self._logins.get(node)
        super().detach(node)
        if connection is not None:
            self._end(node, connection)

    def _end(self, node: NodeId, connection: int) -> None:
        self._tell(self._engine.fleet[node], self._receiver(node).on_ended, connection)

    def _receiver(self, node: NodeId) -> "PullReceiver":
        return cast("PullReceiver", self._engine.fleet[node].receiver)

    # ---- who may have the log

    def login(self, node: NodeId, connection: int) -> None:
        """Anybody is challenged; who may not have the log hears that after its proof."""
        self._logins[node] = connection
        self._tell(self._engine.fleet[node], self._receiver(node).on_let_in, connection)

    def prove(self, node: NodeId, connection: int, greeting: Greeting) -> None:
        engine, receiver = self._engine, self._receiver(node)
        if self._logins.get(node) != connection:
            return
        files = cast("SqliteFiles", engine.files)
        end = greeting.end.sequence if greeting.end is not None else 0
        if not self._may_have(node, greeting.epoch):
            del self._logins[node]
            self._end(node, connection)
        elif end < files.first:
            self._tell(engine.fleet[node], receiver.on_purged, connection)
        elif not self.compares(greeting.end):
            self._tell(engine.fleet[node], receiver.on_parted, connection, files.last)
        else:
            self._streams[node] = session = Session(node, connection, greeting, engine.world.now_s)
            engine.witnesses.on_welcomed(engine, engine.fleet[node])
            self._tell(engine.fleet[node], receiver.on_attached, connection)
            self._ship(session)
            self._keep_alive()

    def _may_have(self, node: NodeId, epoch: Epoch) -> bool:
        is_same = bool(self.serving) and self.serving == epoch
        return is_same and node not in self._engine.files.excluded

    def compares(self, end: Record | None) -> bool:
        """Whether a log that ends so is a beginning of this one."""
        return cast("SqliteFiles", self._engine.files).stands(end)

    def _shipped_end(self) -> int:
        """While the own disk syncs, so that the slower of the two decides and not their sum."""
        return len(self._engine.files.log)

    # ---- what is said of it

    def report(self, node: NodeId, connection: int, report: Report) -> None:
        engine, session = self._engine, self._sessions.get(node)
        if session is None or session.connection != connection:
            return
        session.heard_at_s = engine.world.now_s
        engine.witnesses.on_reported(engine, node, session.epoch)
        if not report.acknowledges:
            session.is_acknowledging = False
            self._held.pop(node, None)
            return
        engine.witnesses.on_counted(engine, node, session.incarnation)
        if not session.is_acknowledging:
            session.is_acknowledging = True
            engine.witnesses.on_attached(node)
        is_applied = engine.ack_on is AckOn.APPLIED
        self._held[node] = report.applied if is_applied else report.received
        engine.release()

    def acknowledged_by(self, count: int) -> int:
        held = sorted(self._held.values(), reverse=True)
        return held[count - 1] if len(held) >= count else 0

    def holders(self, sequence: int) -> list[NodeId]:
        return [node for node, held in self._held.items() if held >= sequence]

    def _say_alive(self) -> None:
        late_s = self._engine.world.now_s - SILENCE_S
        for node in [each.node for each in self._sessions.values() if each.heard_at_s < late_s]:
            self._part(node)
        super()._say_alive()


class PullReceiver(Receiver):
    """The replica's side. `confirmed` is the epoch of whose history this log is a beginning, as an
    upstream has found since this node rested last: before that nothing is applied."""

    def __init__(self, engine: "ModelServer") -> None:
        super().__init__(engine)
        self.confirmed = Epoch(0)
        self._is_parted = False

    def observed(self) -> Replication:
        """What it was told to acknowledge counts, not what it does at the moment: one that waits
        for space goes on by itself."""
        is_well = self.error is None and self.trouble is None and not self._engine.disk.is_full
        return Replication(
            upstream=self.upstream,
            is_receiving=self.is_connected,
            is_applying=self.upstream is not None and is_well,
            acknowledges=self.is_acknowledging and self.upstream is not None and not self.error,
            error=self.error or self.trouble,
            is_diverged=self._is_parted,
        )

    @property
    def trouble(self) -> str | None:
        """Why nothing more is applied."""
        return cast("SqliteFiles", self._engine.files).unfit

    @property
    def may_apply(self) -> bool:
        is_confirmed = self.upstream is not None and self.confirmed == self._epoch
        return is_confirmed and not self.trouble and not self._engine.disk.is_full

    def start(self, upstream: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        """Of the same epoch and upstream, only what a report means is changed."""
        is_same = self.upstream == upstream and self._epoch == epoch and self._connection
        if not is_same or self.error is not None:
            super().start(upstream, epoch, acknowledge=acknowledge)
        elif acknowledge != self.is_acknowledging:
            self.is_acknowledging = acknowledge
            self.report()

    def forget(self) -> None:
        super().forget()
        self.confirmed = Epoch(0)
        self._is_parted = False

    # ---- a session

    def on_let_in(self, connection: int) -> None:
        engine = self._engine
        if connection != self._connection or self.upstream is None:
            return
        files = cast("SqliteFiles", engine.files)
        if files.synced < len(files.log):
            return  # Its end is not durable yet: the next attempt shows it.
        incarnation = files.incarnation or Incarnation("")
        greeting = Greeting(self._epoch, incarnation, files.last)
        self._say("prove", greeting)

    def on_attached(self, connection: int) -> None:
        if connection != self._connection:
            return
        super().on_attached(connection)
        self.confirmed = self._epoch
        self._engine.schedule_apply()
        self.report()

    def on_ended(self, connection: int) -> None:
        """The source ends or refuses the session; that may pass."""
        if connection == self._connection and self.error is None:
            self.is_connected = False
            self._engine.world.after(AGAIN_S, self._engine.process, self._again, connection)

    def on_parted(self, connection: int, source_end: Record | None) -> None:
        """Where the source's log is a beginning of this one it may still get the rest."""
        if connection != self._connection:
            return
        files = cast("SqliteFiles", self._engine.files)
        is_unknown = source_end is not None and source_end.sequence <= files.first
        if is_unknown or files.stands(source_end):
            self._engine.world.trace.sometimes("ahead of its source")
            return
        self.on_diverged(connection)
        self._is_parted = True

    def on_purged(self, connection: int) -> None:
        if connection == self._connection:
            self.is_connected = False
            self.error = "the source has removed what follows this log"
            self._engine.world.trace.sometimes("log purged at its source")

    def on_alive(self, connection: int, sent: int) -> None:
        super().on_alive(connection, sent)
        if connection == self._connection:
            self._engine.schedule_apply()
            self.report()

    def acknowledge(self, end: int) -> None:
        del end
        self.report()

    def report(self) -> None:
        """So much is durable here, and so much applied."""
        engine = self._engine
        if not self.is_connected or self.upstream is None:
            return
        report = self.reported()
        if report.acknowledges:
            engine.witnesses.on_acknowledge(engine, engine.fleet[self.upstream], self._epoch)
        self._say("report", report)

    def reported(self) -> Report:
        files, is_full = self._engine.files, self._engine.disk.is_full
        acknowledges = self.is_acknowledging and not is_full
        return Report(files.synced, min(files.applied, files.synced), acknowledges)

    def _say(self, what: str, message: Greeting | Report) -> None:
        engine = self._engine
        if self.upstream is None:
            return
        source = cast("SqliteModel", engine.fleet[self.upstream])
        action = getattr(source.sender, what)
        engine.network.stream(
            engine.node, source.process, "acks", action, engine.node, self._connection, message
        )

    def _again(self, connection: int) -> None:
        if connection == self._connection and not self.is_connected:
            self._connect()
