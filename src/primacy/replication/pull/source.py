"""The source's side of one session: who is there, may it have the log, what to send next. Pure.

Promises  Nothing of the log goes to anybody who has not proven the secret, who follows another
          epoch, or whose log is no prefix of this one. At most `window_bytes` (and one batch) are
          on their way; a receiver that stops reporting stops receiving, and nobody else notices.
Assumes   The host hands in what it reads in the order in which it was asked for, ends the session
          when its reign ends or its node is excluded, and passes nothing on after `Close`.
Does not  Count acknowledgements: `Counted` says what was reported, `acks.py` decides what it means.

    GREETING --Hello--> PROVING --Proof--> LOOKING --the point stands here--> STREAMING
                                              |                                   |
                                              | it does not                       |
                                              v                                   v
                                          COMPARING ------- anything else ----> CLOSED
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from primacy.model import Epoch, Member, NodeId
from primacy.replication.log.record import Point
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import (
    PATH_MAX,
    POINTS_MAX,
    PROTOCOL,
    AskPoints,
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
from primacy.runtime.proofs import is_proof


class SourceState(Enum):
    """Where a session stands."""

    GREETING = "nobody has said who it is"
    PROVING = "it has said who it is, and is to prove it"
    LOOKING = "its point is looked up in the log"
    COMPARING = "its log parts from this one: it looks for the place"
    STREAMING = "it gets the log"
    CLOSED = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this node is, to everybody."""

    cluster: str
    node: NodeId
    secret: bytes
    log_version: int
    """Of the records that this log may hold."""


@dataclass(frozen=True, slots=True)
class Reign:
    """What is served: the history of one epoch, and the way on which it came here."""

    epoch: Epoch
    path: tuple[Hop, ...]
    """From the primary to this node, this node included."""


# ---- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the receiver's."""

    message: FromReceiver


@dataclass(frozen=True, slots=True)
class Looked:
    """The log's range at this moment, and the points that were asked for."""

    first: Point
    end: Point
    points: tuple[Point | None, ...]


@dataclass(frozen=True, slots=True)
class Grew:
    """The log ends at `end` now."""

    end: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `Fetch` asked for has been handed to the connection."""

    end: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FetchedNothing:
    """What `Fetch` asked for was purged before it was read."""

    first: Point


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed; early, late or twice does no harm."""


SourceEvent = Said | Looked | Grew | Fetched | FetchedNothing | Ticked

# ---- effects --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    message: FromSource


@dataclass(frozen=True, slots=True)
class Look:
    """Read these points of the log, then `Looked`."""

    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send whole records behind `after`, about `bytes_max` of them, then `Fetched`."""

    after: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class SendBeat:
    """Tell the receiver where the log ends, and how far it is behind."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The receiver holds this much."""

    report: Report


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over, for this reason."""

    reason: str
    is_told: bool = False
    """The receiver is told why: what was said last still goes out."""


SourceEffect = Say | Look | Fetch | SendBeat | Counted | Close


class SourceSession:
    """One connection of a receiver."""

    def __init__(
        self,
        identity: Identity,
        reign: Reign | None,
        *,
        nonce: str,
        excluded: AbstractSet[NodeId],
        limits: PullLimits,
        now_s: float,
    ) -> None:
        """`excluded` is the door's own set, as it is at each moment."""
        self.state = SourceState.GREETING
        self.hello: Hello | None = None
        self.last_report: Report | None = None
        self.sent = 0
        """The index of the last record that was handed to the connection."""
        self.sent_bytes = 0
        self._identity = identity
        self._reign = reign
        self._nonce = nonce
        self._excluded = excluded
        self._limits = limits
        self._challenge: Challenge | None = None
        self._end = 0
        self._is_proven = False
        self._is_fetching = False
        self._heard_at_s = self._began_s = now_s
        self._beat_at_s = now_s + limits.heartbeat_s

    def step(self, now_s: float, event: SourceEvent) -> Sequence[SourceEffect]:
        if self.state is SourceState.CLOSED:
            return ()
        match event:
            case Said():
                self._heard_at_s = now_s
                return self._on_message(event.message)
            case Looked():
                return self._on_looked(now_s, event)
            case Grew():
                self._end = max(self._end, event.end)
                return self._fetch()
            case Fetched():
                self._is_fetching = False
                self.sent, self.sent_bytes = event.end, self.sent_bytes + event.size_bytes
                return self._fetch()
            case FetchedNothing():
                return self._gone(event.first)
            case Ticked():
                return self._on_tick(now_s)
            case _:
                assert_never(event)

    @property
    def member(self) -> Member | None:
        """Who it has proven to be."""
        return self.hello.member if self.hello is not None and self._is_proven else None

    @property
    def is_streaming(self) -> bool:
        return self.state is SourceState.STREAMING

    @property
    def unreported_bytes(self) -> int:
        """Sent, and not yet known to be durable there."""
        return self.sent_bytes - (self.last_report.size_bytes if self.last_report else 0)

    @property
    def wake_at_s(self) -> float:
        match self.state:
            case SourceState.CLOSED:
                return float("inf")
            case SourceState.GREETING | SourceState.PROVING:
                return self._began_s + self._limits.stranger_s
            case SourceState.STREAMING:
                return min(self._beat_at_s, self._heard_at_s + self._limits.silence_s)
            case SourceState.LOOKING | SourceState.COMPARING:
                return self._heard_at_s + self._limits.silence_s
            case _:
                assert_never(self.state)

    def end(self, reason: str, refusal: Refusal | None = None) -> Sequence[SourceEffect]:
        """The host's own decision: the reign is over, the node is excluded, the door closes."""
        if self.state is SourceState.CLOSED:
            return ()
        if refusal is None:
            return [self._close(reason)]
        return [Say(Refused(refusal=refusal, reason=reason)), self._close(reason, is_told=True)]

    # ---- who is there ------------------------------------------------------------------------

    def _on_message(self, message: FromReceiver) -> Sequence[SourceEffect]:
        match (self.state, message):
            case (SourceState.GREETING, Hello()):
                return self._on_hello(message)
            case (SourceState.PROVING, Proof()):
                return self._on_proof(message)
            case (SourceState.COMPARING, AskPoints()):
                if 0 < len(message.indexes) <= POINTS_MAX:
                    return [Look(message.indexes)]
                return [self._close(f"it asked for {len(message.indexes)} points")]
            case (SourceState.STREAMING, Report()):
                return self._on_report(message)
            case _:
                name = type(message).__name__
                return [self._close(f"{name} does not belong where {self.state.value}")]

    def _on_hello(self, hello: Hello) -> Sequence[SourceEffect]:
        own = self._identity
        if hello.protocol != PROTOCOL:
            return self.end(
                f"{hello.node} speaks version {hello.protocol} of the pull protocol, {own.node} "
                f"speaks {PROTOCOL}: run the same release on both",
                Refusal.VERSION,
            )
        if hello.cluster != own.cluster:
            return self.end(
                f"{hello.node} is of cluster {hello.cluster!r}, {own.node} of {own.cluster!r}",
                Refusal.CLUSTER,
            )
        self.hello = hello
        self.state = SourceState.PROVING
        proof = source_proof(own.secret, hello, own.node, self._nonce)
        self._challenge = Challenge(node=own.node, nonce=self._nonce, proof=proof)
        return [Say(self._challenge)]

    def _on_proof(self, message: Proof) -> Sequence[SourceEffect]:
        hello, own, challenge = self.hello, self._identity, self._challenge
        if hello is None or challenge is None:
            return [self._close("a proof before a greeting")]
        if not is_proof(message.proof, receiver_proof(own.secret, hello, challenge)):
            return self.end(f"{hello.node} does not know the cluster's secret", Refusal.SECRET)
        self.state, self._is_proven = SourceState.LOOKING, True
        refusal = self._refusal(hello)
        if refusal is not None:
            return self.end(refusal[1], refusal[0])
        return [Look((hello.point.index,))]

    def _refusal(self, hello: Hello) -> tuple[Refusal, str] | None:
        own, reign = self._identity, self._reign
        if hello.log_version < own.log_version:
            reason = f"{hello.node} reads records up to version {hello.log_version}, this log has "
            return Refusal.VERSION, f"{reason}version {own.log_version}: upgrade {hello.node}"
        if hello.node in self._excluded:
            return Refusal.EXCLUDED, f"{hello.node} is excluded at {own.node} until it is admitted"
        if reign is None:
            return Refusal.NOT_SERVING, f"{own.node} serves no epoch at the moment"
        if reign.epoch < hello.epoch:
            reason = f"{own.node} is of epoch {reign.epoch}, {hello.node} follows {hello.epoch}"
            return Refusal.OLD_EPOCH, reason
        if reign.epoch > hello.epoch:
            reason = f"{own.node} is of epoch {reign.epoch}, {hello.node} follows {hello.epoch}"
            return Refusal.NEW_EPOCH, reason
        if hello.node in [each.node for each in reign.path] or len(reign.path) > PATH_MAX:
            way = " > ".join(each.node for each in reign.path)
            return Refusal.CYCLE, f"{own.node} gets its log by way of {way}"
        return None

    # ---- may it have the log -----------------------------------------------------------------

    def _on_looked(self, now_s: float, looked: Looked) -> Sequence[SourceEffect]:
        if self.state is SourceState.COMPARING:
            return [Say(Points(points=looked.points))]
        hello, reign = self.hello, self._reign
        if self.state is not SourceState.LOOKING or hello is None or reign is None:
            return [self._close("the log was looked at out of turn")]
        self._end = max(self._end, looked.end.index)
        if hello.point.index < looked.first.index:
            return self._gone(looked.first)
        if looked.points != (hello.point,):
            self.state = SourceState.COMPARING
            return [Say(Parted(first=looked.first, end=looked.end))]
        self.state = SourceState.STREAMING
        self.sent = hello.point.index
        self._beat_at_s = now_s + self._limits.heartbeat_s
        welcome = Welcome(epoch=reign.epoch, point=hello.point, end=looked.end, path=reign.path)
        return [Say(welcome), *self._fetch()]

    # ---- streaming ---------------------------------------------------------------------------

    def _fetch(self) -> Sequence[SourceEffect]:
        room = self._limits.window_bytes - self.unreported_bytes
        is_due = self.state is SourceState.STREAMING and not self._is_fetching
        if not is_due or self.sent >= self._end or room <= 0:
            return ()
        self._is_fetching = True
        return [Fetch(self.sent, min(room, self._limits.batch_bytes))]

    def _on_report(self, report: Report) -> Sequence[SourceEffect]:
        last = self.last_report
        is_possible = (
            report.received.index <= self.sent
            and report.size_bytes <= self.sent_bytes
            and report.applied.index <= report.received.index
        )
        is_forward = last is None or (
            report.received >= last.received
            and report.applied.index >= last.applied.index
            and report.size_bytes >= last.size_bytes
        )
        if not is_possible or not is_forward:
            return [
                self._close(
                    f"its report of {report.received} ({report.size_bytes} bytes), applied "
                    f"{report.applied}, cannot be: {self.sent} ({self.sent_bytes} bytes) was sent"
                )
            ]
        self.last_report = report
        return [Counted(report), *self._fetch()]

    def _on_tick(self, now_s: float) -> Sequence[SourceEffect]:
        limits = self._limits
        if self.state in (SourceState.GREETING, SourceState.PROVING):
            if now_s >= self._began_s + limits.stranger_s:
                return [self._close("it did not say and prove who it is")]
            return ()
        if now_s >= self._heard_at_s + limits.silence_s:
            return [self._close(f"it was silent for {limits.silence_s:.1f} s")]
        if self.state is SourceState.STREAMING and now_s >= self._beat_at_s:
            self._beat_at_s = now_s + limits.heartbeat_s
            return [SendBeat()]
        return ()

    def _gone(self, first: Point) -> Sequence[SourceEffect]:
        reason = f"what it needs was purged: the log begins behind {first.position}"
        return [Say(Gone(first=first)), self._close(reason, is_told=True)]

    def _close(self, reason: str, *, is_told: bool = False) -> Close:
        self.state = SourceState.CLOSED
        return Close(reason, is_told)
