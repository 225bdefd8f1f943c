"""What a receiver and its source say to each other. See `docs/formats/pull.md`.

A payload of `primacy.wire` is one message in MessagePack behind the byte 0, or raw records of the
log behind the byte 1: from the source only, exactly as they stand in its log.

    receiver                          source
    Hello(who, epoch, point) ->
                             <-       Challenge(nonce, proof)       the source knows the secret
    Proof                    ->                                     so does the receiver
                             <-       Welcome | Parted | Gone | Refused
    Report                   <->      records, Beat

After Parted the receiver asks for points of the source's log until it knows where the two part.
"""

from enum import Enum
from typing import TypeVar

import msgspec

from primacy.errors import Corrupt
from primacy.model import Epoch, Incarnation, Member, NodeId
from primacy.replication.log.record import Point, header_at, length_at
from primacy.runtime.proofs import proof_of
from primacy.wire import encode_frame

PROTOCOL = 1

MESSAGE, RECORDS = b"\x00", b"\x01"

MESSAGE_BYTES_MAX = 64 * 1024
"""Of everything that is no record. A receiver never sends more, and is cut if it does."""

STRANGER_BYTES_MAX = 4096
"""Of a message before both ends have shown that they know the secret."""

PATH_MAX = 32
"""Hops from the primary. A longer path is a mistake of a plan."""

POINTS_MAX = 64
"""Asked for in one message: at 64 each, five questions find a place among 2^30 records."""


class Hop(msgspec.Struct, frozen=True, array_like=True):
    """One node on the way from the primary, and how far it is behind the one before it."""

    node: NodeId
    transactions: int = 0
    size_bytes: int = 0
    delay_s: float = 0.0


class Refusal(Enum):
    """Why a source serves a receiver nothing."""

    CLUSTER = "it belongs to another cluster"
    SECRET = "it does not know the cluster's secret"
    VERSION = "it speaks another version of the protocol or of the log"
    OLD_EPOCH = "the source is of an older epoch than the one it follows"
    NEW_EPOCH = "the source is of a later epoch than the one it follows"
    NOT_SERVING = "the source does not serve at the moment"
    EXCLUDED = "it is excluded: it may not acknowledge"
    FULL = "the source serves as many as it can"
    CYCLE = "the path would lead back to the receiver"
    DISK = "the receiver's disk is full"
    BROKEN = "what the source sent does not continue this log"


PASSING = frozenset(
    {Refusal.OLD_EPOCH, Refusal.NEW_EPOCH, Refusal.NOT_SERVING, Refusal.EXCLUDED, Refusal.FULL}
)
"""Refusals that end by themselves as a cluster moves on: worth asking again soon."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """Who asks, in which of its lives, whom it believes to follow, and how far its log goes."""

    protocol: int
    log_version: int
    """The newest version of records that it can read."""
    cluster: str
    node: NodeId
    incarnation: Incarnation
    nonce: str
    epoch: Epoch
    """The one that it follows: the source must be of exactly this one."""
    point: Point
    """Its last durable record."""

    @property
    def member(self) -> Member:
        return Member(self.node, self.incarnation)


class Challenge(msgspec.Struct, frozen=True, kw_only=True, tag="challenge"):
    """The source's own nonce, and its proof: what it says from here on can be believed."""

    node: NodeId
    nonce: str
    proof: str


class Proof(msgspec.Struct, frozen=True, kw_only=True, tag="proof"):
    proof: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The receiver's log is a prefix of this one: records follow."""

    epoch: Epoch
    point: Point
    """The one of the Hello, as it stands in the source's log."""
    end: Point
    path: tuple[Hop, ...]
    """From the primary to the source, the source included."""


class Parted(msgspec.Struct, frozen=True, kw_only=True, tag="parted"):
    """The receiver's point does not stand in this log. Its range, to look for a common one."""

    first: Point
    end: Point


class AskPoints(msgspec.Struct, frozen=True, kw_only=True, tag="ask-points"):
    indexes: tuple[int, ...]


class Points(msgspec.Struct, frozen=True, kw_only=True, tag="points"):
    """In the order in which they were asked for; None where the log does not have it."""

    points: tuple[Point | None, ...]


class Gone(msgspec.Struct, frozen=True, kw_only=True, tag="gone"):
    """What would continue the receiver's log was purged here."""

    first: Point
    """The log begins behind this one."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The session ends. Before the source's proof this is only a hint for people."""

    refusal: Refusal
    reason: str


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """The source is there; how far its log goes, and how far this receiver is behind it."""

    end: Point
    size_bytes: int
    delay_s: float
    path: tuple[Hop, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """How far the receiver got; cumulative, so that a later one replaces all before it."""

    received: Point
    """Durable in its log."""
    applied: Point
    """Durable in its database."""
    size_bytes: int
    """Of the records of this session that are durable."""
    acknowledges: bool
    """Whether this counts as an acknowledgement. Where not, it only makes room."""


FromReceiver = Hello | Proof | AskPoints | Report
FromSource = Challenge | Welcome | Parted | Points | Gone | Refused | Beat

_ENCODER = msgspec.msgpack.Encoder()
_FROM_RECEIVER: msgspec.msgpack.Decoder[FromReceiver] = msgspec.msgpack.Decoder(FromReceiver)
_FROM_SOURCE: msgspec.msgpack.Decoder[FromSource] = msgspec.msgpack.Decoder(FromSource)

M = TypeVar("M", FromReceiver, FromSource)


def message_frame(message: FromReceiver | FromSource) -> bytes:
    return encode_frame(MESSAGE, _ENCODER.encode(message), size_max=MESSAGE_BYTES_MAX)


def records_frame(records: bytes) -> bytes:
    """The caller bounds `records`: it reads a batch, or one record that is longer."""
    return encode_frame(RECORDS, records, size_max=len(records) + 1)


def last_point(records: bytes) -> Point:
    """Of whole records, as a log gave them."""
    place = following = 0
    while following < len(records):
        place, following = following, following + length_at(records, following)
    return header_at(records, place).point


def from_receiver(payload: bytes) -> FromReceiver:
    """`Corrupt` for all that no receiver says; records among it."""
    return _decoded(payload, _FROM_RECEIVER)


def from_source(payload: bytes) -> FromSource:
    """`Corrupt` for all that no source says. Records are taken out before."""
    return _decoded(payload, _FROM_SOURCE)


def _decoded(payload: bytes, decoder: msgspec.msgpack.Decoder[M]) -> M:
    if payload[:1] != MESSAGE:
        raise Corrupt(
            f"a payload of kind {payload[:1]!r} came out of turn", hint="Is that port a pull door?"
        )
    try:
        return decoder.decode(memoryview(payload)[1:])
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"not a message of the pull protocol: {error}", hint="Is that port a pull door?"
        ) from error


def source_proof(secret: bytes, hello: Hello, node: NodeId, nonce: str) -> str:
    """Made by the source for this Hello and no other."""
    return proof_of(secret, "pull-source", _ENCODER.encode([hello, node, nonce]))


def receiver_proof(secret: bytes, hello: Hello, challenge: Challenge) -> str:
    """Made by the receiver for this Challenge and no other."""
    return proof_of(secret, "pull-receiver", _ENCODER.encode([hello, challenge]))
