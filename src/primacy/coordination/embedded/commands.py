"""What the store's log holds, and what applying it answers. Values, and their check at the door.

Promises  A command that passes `problem_with` is within every limit of a single request.
Does not  Know time: a lease's end is a command (`Expire`) that the leader proposes.
"""

from enum import Enum
from typing import NewType

import msgspec

from primacy.coordination.api import (
    KEY_BYTES_MAX,
    RANGE_ITEMS_MAX,
    TXN_PARTS_MAX,
    VALUE_BYTES_MAX,
    Compare,
    Delete,
    Field,
    Lease,
    LeaseId,
    Op,
    Put,
    Range,
    RangeResult,
    StoreStatus,
    Txn,
    TxnResult,
    WatchBatch,
)
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId

SessionId = NewType("SessionId", int)
"""The log index of the entry that opened the session: never used again."""

TXN_BYTES_MAX = 4 << 20
"""Keys, values and operands of one transaction together: what one log entry may weigh."""

LEASE_TTL_MIN_S = 1.0
"""Below this an election of the store's own leader does not fit into a lease."""

LEASE_TTL_MAX_S = 86_400.0
"""One day. A claim that nobody renews must end while somebody still remembers it."""


# ---- commands -------------------------------------------------------------------------------


class Commit(msgspec.Struct, frozen=True, tag=True):
    txn: Txn


class Grant(msgspec.Struct, frozen=True, tag=True):
    ttl_s: float


class Revoke(msgspec.Struct, frozen=True, tag=True):
    lease: LeaseId


Body = Commit | Grant | Revoke
"""What takes effect once, however often it is sent."""


class OpenSession(msgspec.Struct, frozen=True, tag=True):
    """Register a client. Sent twice it opens two; the one that nobody uses is evicted."""


class Write(msgspec.Struct, frozen=True, tag=True):
    """One write of one session. The same (session, sequence) is executed at most once."""

    session: SessionId
    sequence: int
    done_below: int
    """The client needs no answer below this sequence any more, and will send none of them again."""
    body: Body


class Renew(msgspec.Struct, frozen=True, tag=True):
    """All renewals that arrived in one tick: one entry. A lease may stand here more than once."""

    leases: tuple[LeaseId, ...]


class Expire(msgspec.Struct, frozen=True, tag=True):
    """End the lease, unless a renewal later than `renewal` was applied."""

    lease: LeaseId
    renewal: LogIndex


Command = OpenSession | Write | Renew | Expire


# ---- replies --------------------------------------------------------------------------------


class Refusal(Enum):
    """Why a request was not carried out; each has one error at the client."""

    NOT_LEADER = "not-leader"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    """The entry may or may not survive: ask again under the same session and sequence."""
    REJECTED = "rejected"
    LEASE_LOST = "lease-lost"
    COMPACTED = "compacted"
    SESSION_UNKNOWN = "session-unknown"
    """Evicted, or never opened. Whether an earlier attempt took effect is not known any more."""
    ANSWER_GONE = "answer-gone"
    """The client has said that it needs this answer no more. Nothing was executed now."""


class Failure(msgspec.Struct, frozen=True, tag=True):
    refusal: Refusal
    what: str = ""
    hint: str = ""
    leader: NodeId | None = None
    """Of NOT_LEADER."""
    asked: int = 0
    oldest: int = 0
    """Both of COMPACTED: the oldest revision is what a watch may start from."""


class Committed(msgspec.Struct, frozen=True, tag=True):
    result: TxnResult


class Granted(msgspec.Struct, frozen=True, tag=True):
    lease: Lease


class Revoked(msgspec.Struct, frozen=True, tag=True):
    pass


class SessionOpened(msgspec.Struct, frozen=True, tag=True):
    session: SessionId


class Renewed(msgspec.Struct, frozen=True, tag=True):
    """The lease stood when its renewal was applied."""

    lease: Lease


class StatusRead(msgspec.Struct, frozen=True, tag=True):
    status: StoreStatus


Outcome = Committed | Granted | Revoked | Failure
"""Of a `Body`: what a session keeps for a retry."""

StoreReply = Committed | Granted | Revoked | SessionOpened | Renewed | RangeResult | StatusRead
"""What a client that was not refused hears."""

Answer = StoreReply | Failure


class Applied(msgspec.Struct, frozen=True):
    """What applying one entry did."""

    reply: Outcome | SessionOpened | tuple[Renewed | Failure, ...] | None = None
    """None for a no-op and an `Expire`; for `Renew` one answer for each lease, in its order."""
    batch: WatchBatch | None = None
    """The changes, where there were any."""
    renewed: tuple[LeaseId, ...] = ()
    """The leases whose last renewal (or grant) is this entry."""


# ---- bytes ----------------------------------------------------------------------------------

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encoded(command: Command) -> bytes:
    return _ENCODER.encode(command)


def decoded(data: bytes) -> Command:
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise InvariantBroken("log-holds-commands", f"an entry cannot be read: {error}") from error


# ---- the check at the door ------------------------------------------------------------------


def rejected(what: str, hint: str) -> Failure:
    return Failure(Refusal.REJECTED, what, hint)


def problem_with(body: Body, *, ttl_min_s: float = LEASE_TTL_MIN_S) -> Failure | None:
    """Why this can never succeed as written; None where nothing speaks against it."""
    match body:
        case Commit(txn):
            return _problem_with_txn(txn)
        case Grant(ttl_s):
            if ttl_min_s <= ttl_s <= LEASE_TTL_MAX_S:
                return None
            return rejected(
                f"a lease of {ttl_s} s was asked for",
                f"A ttl lies between {ttl_min_s} and {LEASE_TTL_MAX_S:.0f} s.",
            )
        case Revoke():
            return None


def problem_with_range(op: Range) -> Failure | None:
    if len(op.key.encode()) > KEY_BYTES_MAX:
        return rejected("a key is too long", f"A key has at most {KEY_BYTES_MAX} bytes of UTF-8.")
    if not op.key and not op.is_prefix:
        return rejected("a key is empty", "Only a prefix may be empty: it means every key.")
    if not 1 <= op.limit <= RANGE_ITEMS_MAX:
        return rejected(
            f"a range asks for {op.limit} items", f"Ask for 1 to {RANGE_ITEMS_MAX} at once."
        )
    return None


def _problem_with_txn(txn: Txn) -> Failure | None:
    parts = len(txn.compares) + len(txn.then) + len(txn.otherwise)
    if parts > TXN_PARTS_MAX:
        return rejected(f"a transaction has {parts} parts", f"At most {TXN_PARTS_MAX}: split it.")
    weight = 0
    for compare in txn.compares:
        if (problem := _problem_with_compare(compare)) is not None:
            return problem
        weight += len(compare.operand) if isinstance(compare.operand, bytes) else 0
    for op in (*txn.then, *txn.otherwise):
        if (problem := _problem_with_op(op)) is not None:
            return problem
        weight += len(op.value) if isinstance(op, Put) else 0
    if weight > TXN_BYTES_MAX:
        return rejected(
            f"a transaction weighs {weight} bytes", f"At most {TXN_BYTES_MAX}: split it."
        )
    return None


def _problem_with_compare(compare: Compare) -> Failure | None:
    if isinstance(compare.operand, bytes) != (compare.field is Field.VALUE):
        return rejected(
            f"{compare.field.value} of {compare.key!r} is compared with the wrong type",
            "VALUE is compared with bytes, every other field with a number.",
        )
    return problem_with_range(Range(compare.key))


def _problem_with_op(op: Op) -> Failure | None:
    match op:
        case Put(key, value):
            if len(value) > VALUE_BYTES_MAX:
                return rejected(
                    f"the value of {key!r} has {len(value)} bytes", f"At most {VALUE_BYTES_MAX}."
                )
            return problem_with_range(Range(key))
        case Delete(key, is_prefix):
            return problem_with_range(Range(key, is_prefix))
        case Range():
            return problem_with_range(op)
