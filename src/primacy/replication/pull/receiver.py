"""The receiver's side of one session: is this the right source, what came, how far it is. Pure.

Promises  Records are taken only from a source that has proven the secret, is of exactly the epoch
          that this node follows, and whose log has this log's last point. Nothing is reported as
          received that the host has not said to be durable. After `stop` nothing is reported.
Assumes   The node has durably noted "below this epoch refused" before it follows it. The host has
          made its own log durable before the session, and hands in what it hears in order.
Does not  Check records: the log does, when they are appended.

    GREETING --Challenge--> PROVING --Welcome--> STREAMING
                               |                     |
                               | Parted              |
                               v                     v
                           COMPARING ------------> ENDED (lost, refused, behind, parted, gone)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from primacy.errors import InvariantBroken
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.log.record import Point
from primacy.replication.pull.comparing import Search
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import (
    PROTOCOL,
    AskPoints,
    Beat,
    Challenge,
    FromReceiver,
    FromSource,
    Gone,
    Hello,
    Hop,
    Parted,
    Points,
    Proof,
    Refusal,
    Refused,
    Report,
    Welcome,
    receiver_proof,
    source_proof,
)
from primacy.replication.topology import is_cycle
from primacy.runtime.proofs import is_proof


class SessionState(Enum):
    """Where a session stands."""

    GREETING = "the source is to show who it is"
    PROVING = "the source is to judge this log"
    COMPARING = "where do the two logs part?"
    STREAMING = "records come"
    ENDED = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """Who asks whom, and under which epoch."""

    cluster: str
    secret: bytes
    node: NodeId
    incarnation: Incarnation
    epoch: Epoch
    upstream: NodeId
    log_version: int


# ---- how a session ends ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection, or its sense. Try again."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The source, or this node, refuses. Try again, slowly: it may change."""

    refusal: Refusal
    reason: str


@dataclass(frozen=True, slots=True)
class IsBehind:
    """The source's log is a prefix of this one. It may still get the rest: try again."""

    source_end: Point


@dataclass(frozen=True, slots=True)
class HasParted:
    """This log holds what the source's history does not. Trying again cannot help."""

    common: Point | None
    """The last point of both; None where neither log reaches back so far."""
    own_end: Point
    source_end: Point


@dataclass(frozen=True, slots=True)
class WasPurged:
    """The source no longer has what follows this log."""

    first: Point


Ending = Lost | TurnedAway | IsBehind | HasParted | WasPurged

# ---- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of the source's."""

    message: FromSource


@dataclass(frozen=True, slots=True)
class Came:
    """Records came; the host has put them where they wait for the disk."""


@dataclass(frozen=True, slots=True)
class Arriving:
    """A part of something came: all of a long record may take longer than `silence_s`."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The log is durable up to `point`; `size_bytes` of it came in this session."""

    point: Point
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The database has everything up to `point`, durably."""

    point: Point


@dataclass(frozen=True, slots=True)
class Switched:
    """Reports count as acknowledgements from now on, or do not."""

    acknowledges: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """Own points, as `LookUp` asked for them, and where the own log begins."""

    first: Point
    points: tuple[Point | None, ...]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed; early, late or twice does no harm."""


ReceiverEvent = Heard | Came | Arriving | Stored | Applied | Switched | Compared | Ticked

# ---- effects --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    message: FromReceiver


@dataclass(frozen=True, slots=True)
class LookUp:
    """Read these points of the own log, then `Compared`."""

    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trusted:
    """The source knows the secret: its frames may be large from now on. It sends none before it
    has this side's proof, so none can have come already."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """This log is a prefix of the source's, and records come; or where the source ends now, and how
    far this node is behind it."""

    news: Welcome | Beat


@dataclass(frozen=True, slots=True)
class Ended:
    ending: Ending


ReceiverEffect = Tell | LookUp | Trusted | Noticed | Ended


class ReceiverSession:
    """One connection to a source."""

    def __init__(  # noqa: PLR0913 - all that a session knows from the beginning
        self,
        following: Following,
        *,
        nonce: str,
        point: Point,
        applied: Point,
        acknowledges: bool,
        limits: PullLimits,
        now_s: float,
    ) -> None:
        """`point` is the durable end of the own log."""
        self.state = SessionState.GREETING
        self.hello = Hello(
            protocol=PROTOCOL,
            log_version=following.log_version,
            cluster=following.cluster,
            node=following.node,
            incarnation=following.incarnation,
            nonce=nonce,
            epoch=following.epoch,
            point=point,
        )
        self._following = following
        self._limits = limits
        self._received = point
        self._applied = applied
        self._size_bytes = 0
        self._acknowledges = acknowledges
        self._parted: Parted | None = None
        self._search: Search | None = None
        self._own: dict[int, Point | None] = {}
        self._asked: tuple[int, ...] = ()
        self._heard_at_s = now_s
        self._report_at_s = now_s + limits.heartbeat_s

    def step(self, now_s: float, event: ReceiverEvent) -> Sequence[ReceiverEffect]:
        if self.state is SessionState.ENDED:
            return ()
        match event:
            case Heard():
                self._heard_at_s = now_s
                return self._on_message(now_s, event.message)
            case Came() | Arriving():
                return self._on_bytes(now_s, event)
            case Stored():
                self._received = event.point
                self._size_bytes = event.size_bytes
                return self._report(now_s)
            case Applied():
                self._applied = event.point
                return self._report(now_s)
            case Switched():
                self._acknowledges = event.acknowledges
                return self._report(now_s)
            case Compared():
                return self._on_compared(event)
            case Ticked():
                return self._on_tick(now_s)
            case _:
                assert_never(event)

    @property
    def wake_at_s(self) -> float:
        match self.state:
            case SessionState.ENDED:
                return float("inf")
            case SessionState.STREAMING:
                return min(self._report_at_s, self._heard_at_s + self._limits.silence_s)
            case SessionState.GREETING | SessionState.PROVING | SessionState.COMPARING:
                return self._heard_at_s + self._limits.silence_s
            case _:
                assert_never(self.state)

    def stop(self) -> None:
        """From now on nothing is said, whatever happens."""
        self.state = SessionState.ENDED

    # ---- who is there ------------------------------------------------------------------------

    def _on_message(self, now_s: float, message: FromSource) -> Sequence[ReceiverEffect]:
        match (self.state, message):
            case (_, Refused()):
                return self._end(TurnedAway(message.refusal, message.reason))
            case (SessionState.GREETING, Challenge()):
                return self._on_challenge(message)
            case (SessionState.PROVING, Welcome()):
                return self._on_welcome(now_s, message)
            case (SessionState.PROVING, Parted()):
                return self._on_parted(message)
            case (SessionState.PROVING | SessionState.STREAMING, Gone()):
                return self._end(WasPurged(message.first))
            case (SessionState.COMPARING, Points()):
                return self._on_points(message)
            case (SessionState.STREAMING, Beat()):
                return self._on_beat(message)
            case _:
                return self._lost(f"{type(message).__name__} came where {self.state.value}")

    def _on_challenge(self, challenge: Challenge) -> Sequence[ReceiverEffect]:
        own = self._following
        expected = source_proof(own.secret, self.hello, challenge.node, challenge.nonce)
        if not is_proof(challenge.proof, expected):
            reason = f"the source {challenge.node} does not know the secret of cluster"
            return self._end(TurnedAway(Refusal.SECRET, f"{reason} {own.cluster!r}"))
        if challenge.node != own.upstream:
            return self._lost(f"{challenge.node} answers at the address of {own.upstream}")
        self.state = SessionState.PROVING
        proof = Proof(proof=receiver_proof(own.secret, self.hello, challenge))
        return [Trusted(), Tell(proof)]

    def _on_welcome(self, now_s: float, welcome: Welcome) -> Sequence[ReceiverEffect]:
        own = self._following
        if welcome.epoch != own.epoch:
            refusal = Refusal.OLD_EPOCH if welcome.epoch < own.epoch else Refusal.NEW_EPOCH
            reason = f"{own.upstream} is of epoch {welcome.epoch}, {own.node} follows {own.epoch}"
            return self._end(TurnedAway(refusal, reason))
        if welcome.point != self.hello.point:
            return self._lost(f"{own.upstream} welcomed another log: {welcome.point}")
        if self._is_cycle(welcome.path):
            return self._end(self._cycle(welcome.path))
        self.state = SessionState.STREAMING
        return [Noticed(welcome), *self._report(now_s)]

    def _is_cycle(self, path: tuple[Hop, ...]) -> bool:
        return is_cycle(self._following.node, [each.node for each in path])

    def _cycle(self, path: tuple[Hop, ...]) -> TurnedAway:
        way = " > ".join(each.node for each in path)
        return TurnedAway(Refusal.CYCLE, f"{self._following.upstream} gets its log by way of {way}")

    # ---- where do the logs part? -------------------------------------------------------------

    def _on_parted(self, parted: Parted) -> Sequence[ReceiverEffect]:
        self._parted = parted
        self.state = SessionState.COMPARING
        return [LookUp(())]  # First: where does the own log begin?

    def _on_compared(self, compared: Compared) -> Sequence[ReceiverEffect]:
        parted = self._parted
        if self.state is not SessionState.COMPARING or parted is None:
            return ()
        if self._search is None:
            low = max(compared.first.index, parted.first.index)
            high = min(self.hello.point.index, parted.end.index)
            if low > high:  # What this log keeps begins behind the source's end.
                return self._end(IsBehind(parted.end))
            self._search = Search(low, high)
            return self._ask(self._search)
        self._own = dict(zip(self._asked, compared.points, strict=True))
        return [Tell(AskPoints(indexes=self._asked))]

    def _on_points(self, message: Points) -> Sequence[ReceiverEffect]:
        search, parted = self._search, self._parted
        if search is None or parted is None or len(message.points) != len(self._own):
            return self._lost("points came that nobody asked for")
        if not search.learn(self._own, dict(zip(self._own, message.points, strict=True))):
            return self._lost("one of the logs moved while they were compared")
        return self._ask(search)

    def _ask(self, search: Search) -> Sequence[ReceiverEffect]:
        self._asked = search.ask()
        if self._asked:
            return [LookUp(self._asked)]
        parted = self._parted
        if parted is None:
            raise InvariantBroken("compared-after-parting", "a search without a reason")
        if search.common == parted.end:
            return self._end(IsBehind(parted.end))
        if search.common == self.hello.point:
            return self._lost("the source's log moved while it was compared")
        return self._end(HasParted(search.common, self.hello.point, parted.end))

    # ---- streaming ---------------------------------------------------------------------------

    def _on_bytes(self, now_s: float, event: Came | Arriving) -> Sequence[ReceiverEffect]:
        if self.state is SessionState.STREAMING:
            self._heard_at_s = now_s
        elif isinstance(event, Came):
            return self._lost("records came before the source was known")
        return ()

    def _on_beat(self, beat: Beat) -> Sequence[ReceiverEffect]:
        if self._is_cycle(beat.path):
            return self._end(self._cycle(beat.path))
        return [Noticed(beat)]

    def _report(self, now_s: float) -> Sequence[ReceiverEffect]:
        if self.state is not SessionState.STREAMING:
            return ()
        self._report_at_s = now_s + self._limits.heartbeat_s
        applied = min(self._applied, self._received)
        report = Report(
            received=self._received,
            applied=applied,
            size_bytes=self._size_bytes,
            acknowledges=self._acknowledges,
        )
        return [Tell(report)]

    def _on_tick(self, now_s: float) -> Sequence[ReceiverEffect]:
        if now_s >= self._heard_at_s + self._limits.silence_s:
            return self._lost(f"the source was silent for {self._limits.silence_s:.1f} s")
        if self.state is SessionState.STREAMING and now_s >= self._report_at_s:
            return self._report(now_s)
        return ()

    def _lost(self, reason: str) -> Sequence[ReceiverEffect]:
        return self._end(Lost(reason))

    def _end(self, ending: Ending) -> Sequence[ReceiverEffect]:
        self.state = SessionState.ENDED
        return [Ended(ending)]
