"""The control protocol: what the agent and its SQLite server say to each other. Pure.

    agent                               server (a unix socket of mode 0600)
    number, request   --------------->
                      <---------------  number, reply        each is answered once, in any order

Each frame of `primacy.wire` holds one msgpack array: a number that the agent chose, and a message.
Many requests may be under way: `Observe` is answered while a `Reign` is. See
`docs/protocols/control.md`.

Promises  What decodes is within the limits below. Messages grow by fields with defaults only. A
          request that this release does not know is answered with a failure, under its number.
Does not  Authenticate: whoever can open the socket's file owns the server.
"""

from enum import Enum
from typing import TypeAlias, TypeVar

import msgspec

from primacy.errors import Conflict, Corrupt, OutcomeUnknown, PrimacyError, Rejected, Unavailable
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.log.record import ORIGIN_POINT, Point
from primacy.replication.pull.acks import AckOn
from primacy.replication.pull.messages import Hop
from primacy.wire import encode_frame

CONTROL_VERSION = 1

REQUEST_BYTES_MAX = 64 << 10
REPLY_BYTES_MAX = 1 << 20


# ---- words --------------------------------------------------------------------------------------


class RoleNow(Enum):
    """What a server is to the cluster."""

    RESTING = "resting"
    """It answers reads from what is applied, and receives nothing. So it starts."""
    FOLLOWING = "following"
    """It has been told whom to follow; `Shown.upstream` says how that goes."""
    REIGNING = "reigning"
    """It is the primary of an epoch, its doors open or not."""


class Doors(Enum):
    """Whether clients may write."""

    CLOSED = "closed"
    OPEN = "open"
    CLOSING = "closing"
    """Refused already, and a commit is still in flight."""


class Writes(Enum):
    """What has become of a reign's writer."""

    NONE = "none"
    """There is no reign."""
    TAKING = "taking"
    IN_DOUBT = "in doubt"
    """Transactions are in the log, and whether they stand is not for this server to say. The reign
    is over: kill the server."""
    BROKEN = "broken"
    """The disk failed, or a write met a damaged page of the file: the process ends by itself."""


class Receiving(Enum):
    """How the receiver fares, as docs/protocols/pull.md has it."""

    STOPPED = "stopped"
    """It receives nothing: it was not asked to, or could not apply (`Shown.trouble`)."""
    CONNECTING = "connecting"
    STREAMING = "streaming"
    REJECTED = "rejected"
    """Turned away; it tries again. `refusal` names why."""
    DIVERGED = "diverged"
    """This log holds what the upstream's history does not. It rests."""
    PURGED = "purged"
    """The upstream no longer has what follows this log. It rests."""


# ---- requests -----------------------------------------------------------------------------------


class Observe(msgspec.Struct, frozen=True, tag="observe"):
    """-> `Shown`. At once, whatever else is under way."""


class Follow(msgspec.Struct, frozen=True, kw_only=True, tag="follow"):
    """-> `Done`. Receive from `upstream` and apply, from now on. Answered before it is connected.

    Following already: the upstream changes, or only what `acknowledge` says; after a divergence it
    is tried again. `Conflict` while it reigns, while something else is under way, below an epoch
    that was followed or reigned before, and for a copy of no use (`Shown.must_clone`)."""

    upstream: NodeId
    upstream_door: str
    """HOST:PORT of its door for replicas."""
    epoch: Epoch
    """The primary's: the upstream must serve exactly this one. Durably noted before."""
    incarnation: Incarnation
    """Of this node."""
    acknowledge: bool
    leader_door: str = ""
    """HOST:PORT of the primary's door for clients, which are told where to write."""
    apply_until: int = 0
    """Apply nothing behind this index; 0: all. For a comparison at one place."""


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True, tag="acknowledge"):
    """-> `Done`. Whether what is received counts at the upstream. Said to it before the answer, and
    kept for its next connection. `Conflict` unless it follows."""

    wanted: bool


class Rest(msgspec.Struct, frozen=True, tag="rest"):
    """-> `Done` with the index of the log's durable end, which moves no more. Receive and apply
    nothing; give up a `Drain` or the replay of a `Reign` (it is answered with a `Conflict`).
    Resting already: the same answer. `Conflict` once it reigns."""


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """-> `Done` with the applied index. Apply all that the log holds: it is the history. `Conflict`
    unless it rests; `Unavailable` after `within_s`: what was applied stays so."""

    within_s: float = 86_400.0


class Reign(msgspec.Struct, frozen=True, kw_only=True, tag="reign"):
    """-> `Done` with the index of the epoch's own record, once it is durable here. Doors closed.

    First all that the log holds is applied. Exclusions of earlier reigns end, the count of
    acknowledgements is to be set anew (`SetAcks`), and replicas may attach before the answer. The
    same epoch again: the same answer. `Conflict` unless it rests, and below an epoch that is in the
    log or was followed before."""

    epoch: Epoch


class SetAcks(msgspec.Struct, frozen=True, kw_only=True, tag="set-acks"):
    """-> `Done`. From now on a commit waits for `acks` of those that are attached, acknowledge, and
    are not excluded. `Conflict` without a reign, and where fewer are asked for while commits wait,
    unless `may_release`."""

    acks: int
    ack_on: AckOn = AckOn.RECEIVED
    may_release: bool = False


class OpenDoors(msgspec.Struct, frozen=True, tag="open-doors"):
    """-> `Done`. Take writes, for the first time in this epoch or again. `Conflict` without a
    reign, before its record is durable, before `SetAcks`, and once it has ended."""


class CloseDoors(msgspec.Struct, frozen=True, kw_only=True, tag="close-doors"):
    """-> `Done` with the log's end: no commit is in flight, and none begins before `OpenDoors`.
    Transactions that clients hold open are undone. `Unavailable` where a commit still waits after
    `within_s`: the doors are as before. Asked again meanwhile, it joins the first call."""

    within_s: float


class Demote(msgspec.Struct, frozen=True, kw_only=True, tag="demote"):
    """-> `Done`. Give the reign up; it rests then. Clients are cut off. `Conflict` unless the doors
    are closed, the log ends at `index`, and no commit waits: kill the server instead. Resting
    already: `Done`, if the log ends there."""

    index: int
    """What `CloseDoors` answered."""


class Marker(msgspec.Struct, frozen=True, tag="marker"):
    """-> `Done` with the index of a marker's record. It is not waited for. Where a commit or a
    client's transaction is in the way: the log's end, which is as good."""


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """-> `Done` with the index of a heartbeat's record, which is its number, once it is
    acknowledged as any commit. `Conflict` while the doors are closed."""


class Exclude(msgspec.Struct, frozen=True, kw_only=True, tag="exclude"):
    """-> `Done`. `node` is not attached, cannot attach, and nothing that it ever reported counts.
    Until `Admit` or the next reign."""

    node: NodeId


class Admit(msgspec.Struct, frozen=True, kw_only=True, tag="admit"):
    """-> `Done`. Undo `Exclude`. What counts is what it reports from now on."""

    node: NodeId


class Cut(msgspec.Struct, frozen=True, kw_only=True, tag="cut"):
    """-> `Done` with the log's end. Remove the log's tail behind `after`, durably. `Conflict`
    unless it rests, and where some of the tail is applied: `Rewind` takes that back first."""

    after: int


class Rewind(msgspec.Struct, frozen=True, kw_only=True, tag="rewind"):
    """-> `Done` with the log's end. Take back what is applied behind `to`, row by row, in one
    commit, and then `Cut` the log there. `Conflict` unless it rests, and with the reason where it
    has no inverse or the file is not as the log has it: nothing was changed then."""

    to: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """-> `Copied`, which may take minutes. A copy of the database file at `path`, which is
    replaced. The log behind it is held under `name` until `Release`, over restarts too. `Conflict`
    while it rests: nobody knows whose history that is."""

    name: str
    """The last part of `path`."""
    path: str
    bytes_per_s: int = 0
    """At most so fast; 0: as fast as the disk."""


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """-> `Done`. The log is no longer held for the copy of that name, whether it was or not; a copy
    that is still being made is given up."""

    name: str


class TableSums(msgspec.Struct, frozen=True, kw_only=True, tag="table-sums"):
    """-> `Sums` of these tables in one snapshot. `at` not 0: `Conflict` unless exactly so much is
    applied (see `Follow.apply_until`)."""

    tables: tuple[str, ...]
    at: int = 0


Request: TypeAlias = (
    Observe
    | Follow
    | Acknowledge
    | Rest
    | Drain
    | Reign
    | SetAcks
    | OpenDoors
    | CloseDoors
    | Demote
    | Marker
    | Beat
    | Exclude
    | Admit
    | Cut
    | Rewind
    | Snapshot
    | Release
    | TableSums
)


# ---- replies ------------------------------------------------------------------------------------


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """This server as a receiver."""

    state: Receiving
    node: NodeId | None
    """None while STOPPED."""
    epoch: Epoch
    """That it follows."""
    acknowledges: bool
    """What is received counts there, or will by itself: as soon as it is attached, or once what it
    waits for has passed (`Shown.trouble`)."""
    reason: str = ""
    """Why the state is what it is, in words."""
    refusal: str = ""
    """While REJECTED: the name of a `pull.messages.Refusal`."""
    end: Point = ORIGIN_POINT
    """Where the upstream's log ended when it last said so."""
    lag_transactions: int = 0
    lag_bytes: int = 0
    lag_s: float = 0.0
    """By the upstream's clock."""
    path: tuple[Hop, ...] = ()
    """From the primary to this node."""
    parted_after: Point | None = None
    """While DIVERGED: the last point of both logs; None where it is not known."""
    purged_to: Point | None = None
    """While PURGED: behind which its log begins."""


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver at this server's door."""

    node: NodeId
    incarnation: Incarnation
    peer: str
    received: Point
    applied: Point | None
    """None: it has not said yet."""
    acknowledges: bool
    lag_transactions: int = 0
    lag_bytes: int = 0
    lag_s: float = 0.0


class Shown(msgspec.Struct, frozen=True, kw_only=True, tag="shown"):
    """All that the server knows of itself, at one moment of its event loop."""

    cluster: str
    node: NodeId
    version: int = CONTROL_VERSION
    role: RoleNow
    under_way: str = ""
    """What changes the role at this moment: `reign`, `drain`, `rest`, ... Empty: nothing."""
    epoch: Epoch = Epoch(0)
    """Of the reign; 0 where there is none."""
    row: int = 0
    """The index of that epoch's own record; 0 before it is durable."""
    first: Point
    """Behind it the log begins."""
    end: Point
    durable: Point
    """All up to here is on disk: received."""
    applied: Point
    position_text: str
    """The durable end as a GTID set, for people."""
    doors: Doors = Doors.CLOSED
    writes: Writes = Writes.NONE
    writes_reason: str = ""
    """Why they ended: while IN_DOUBT or BROKEN."""
    acks: int = 0
    """That a commit waits for; 0 as well before `SetAcks`."""
    ack_on: AckOn = AckOn.RECEIVED
    attached: tuple[Attached, ...] = ()
    """Who gets this log now."""
    excluded: tuple[NodeId, ...] = ()
    waiting_commits: int = 0
    """For acknowledgements, in a reign."""
    waits_at: int = 0
    """The index of the one that waits longest; 0: none."""
    upstream: Upstream | None = None
    """While it follows."""
    trouble: str = ""
    """Why nothing more is applied, or received into the log. Empty: all is well."""
    must_clone: bool = False
    """The trouble is that this copy does not fit the log: it is of no use any more. Shown in every
    role, also after a `Drain` or `Reign` that failed by it, until a `Cut` or `Rewind`."""
    log_failure: str = ""
    """A write or sync failed: nobody knows what the disk holds until the log is opened again."""
    log_damage: str = ""
    """A record could not be read for a replica: in which file, and where. Others may be served."""
    heartbeat: int = 0
    """The number of the newest heartbeat applied since the start; 0: none yet."""
    heartbeat_age_s: float = 0.0
    """Since then."""
    disk_stuck_s: float = 0.0
    """How long the log's disk has not finished what it was last asked for; 0: it does nothing."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It holds now. `index` where the request says what it means."""

    index: int = 0


class Copied(msgspec.Struct, frozen=True, kw_only=True, tag="copied"):
    """A copy stands and is durable."""

    point: Point
    """That its position row has: a log for it begins there (`Log.begin`)."""
    gtids: str
    """Everything up to there, as text of a `GtidSet`."""
    size_bytes: int


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """Of one table: equal tables have equal ones."""

    table: str
    rows: int
    digest: str


class Sums(msgspec.Struct, frozen=True, kw_only=True, tag="sums"):
    """In the order in which they were asked for. A table that is not there has -1 rows."""

    point: Point
    """What is applied in the snapshot."""
    sums: tuple[Sum, ...]


class ErrorBranch(Enum):
    """Of `primacy.errors`: what the caller may do about it."""

    UNAVAILABLE = "unavailable"
    OUTCOME_UNKNOWN = "outcome-unknown"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It does not hold; `raised` makes the error of the tree again."""

    branch: ErrorBranch
    what: str
    hint: str


Reply: TypeAlias = Shown | Done | Copied | Sums | Failed


# ---- bytes --------------------------------------------------------------------------------------

_SAME_RELEASE = "Run the same release on both ends: restart the older one."

_KINDS: dict[ErrorBranch, type[PrimacyError]] = {
    ErrorBranch.UNAVAILABLE: Unavailable,
    ErrorBranch.OUTCOME_UNKNOWN: OutcomeUnknown,
    ErrorBranch.CONFLICT: Conflict,
    ErrorBranch.REJECTED: Rejected,
}


class _Numbered(msgspec.Struct, frozen=True, array_like=True):
    number: int
    message: msgspec.Raw


M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_numbered: "msgspec.msgpack.Decoder[_Numbered]" = msgspec.msgpack.Decoder(_Numbered)
_requests: "msgspec.msgpack.Decoder[Request]" = msgspec.msgpack.Decoder(Request)
_replies: "msgspec.msgpack.Decoder[Reply]" = msgspec.msgpack.Decoder(Reply)


def request_frame(number: int, request: Request) -> bytes:
    return encode_frame(_encoder.encode((number, request)), size_max=REQUEST_BYTES_MAX)


def reply_frame(number: int, reply: Reply) -> bytes:
    return encode_frame(_encoder.encode((number, reply)), size_max=REPLY_BYTES_MAX)


def request_in(payload: bytes) -> tuple[int, Request | Failed]:
    """`Failed` is the reply to what this release does not understand. `Corrupt` for what has not
    even a number: the connection is of no use."""
    numbered = _decoded(payload, _numbered)
    try:
        return numbered.number, _decoded(bytes(numbered.message), _requests)
    except Corrupt as error:
        return numbered.number, failed(error)


def reply_in(payload: bytes) -> tuple[int, Reply]:
    """`Corrupt` for what no server says."""
    numbered = _decoded(payload, _numbered)
    return numbered.number, _decoded(bytes(numbered.message), _replies)


def failed(error: PrimacyError) -> Failed:
    """The error as a reply: of its branch what the caller may do is kept, not its own class."""
    branch = next(branch for branch, kind in _KINDS.items() if isinstance(error, kind))
    return Failed(branch, error.what, error.hint)


def raised(reply: Failed) -> PrimacyError:
    """The error of the tree again, to be raised."""
    return _KINDS[reply.branch](reply.what, hint=reply.hint)


def _decoded(payload: bytes, decoder: "msgspec.msgpack.Decoder[M]") -> M:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # A `ValidationError` is the first.
        raise Corrupt(
            f"a message of the control protocol cannot be read: {error}", hint=_SAME_RELEASE
        ) from error
