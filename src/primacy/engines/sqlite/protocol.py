"""The client's protocol: every message between a driver and the SQLite server. Pure.

    server                              client
    Greeting        ------------------>            the server speaks first
                    <------------------ Login
    Challenge       ------------------>            only where the server wants a password
                    <------------------ Proof
    Welcome         ------------------>
                    <------------------ Run, End, Fetch: each is answered once, in order
    Done or Failure ------------------>
                    <------------------ CloseCursor, Cancel: not answered

Each message is one frame of `primacy.wire` around one msgpack array. See `docs/protocols/sql.md`.

Promises  What decodes is within the limits below. Messages grow by fields with defaults only.
Does not  Encrypt. The login proves a password to each other without sending it (`scram.py`).
"""

from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from primacy.errors import Corrupt
from primacy.wire import encode_frame

PROTOCOL_VERSION = 1

REQUEST_BYTES_MAX = 16 << 20
"""One request: SQL and all its parameters."""

ANSWER_BYTES_MAX = 20 << 20
"""One answer: a page of rows, and at most one row beyond it, which the server bounds at 8 MiB."""

LOGIN_BYTES_MAX = 4096
"""A client's message before it has logged in."""

SQL_BYTES_MAX = 1 << 20

PAGE_BYTES = 256 << 10
PAGE_ROWS_MAX = 1000
"""Rows travel in pages: the next is sent when the client asks for it."""

STATEMENTS_MAX = 1000
EXECUTIONS_MAX = 100_000
"""Of one request: statements, and rows of parameters over all of them."""

SMALLER_PARTS = "Send it in smaller parts."

NONCE_BYTES = 16
KEY_BYTES_MAX = 200

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

if TYPE_CHECKING:
    Value: TypeAlias = int | float | str | bytes | None
else:
    Value = Any  # msgspec cannot tell str from bytes in a union: `_check_values` does.
Parameters: TypeAlias = list[Value] | dict[str, Value]
Row: TypeAlias = tuple[Value, ...]


class ServerRole(Enum):
    """What the server is at the moment of its greeting."""

    PRIMARY = "primary"
    """It takes writes: its doors are open."""
    REPLICA = "replica"
    """It answers reads."""


class Access(Enum):
    """How a transaction is begun."""

    NONE = ""
    """None is begun: alone, the request is a transaction of its own."""
    WRITE = "write"
    """It holds the only writer until it ends."""
    READ = "read"
    """One snapshot for all its reads."""


class Branch(Enum):
    """Which branch of `primacy.errors` an error belongs to: may it be sent again?"""

    UNAVAILABLE = "unavailable"
    NOT_PRIMARY = "not-primary"
    """Unavailable here; `leader` says where it may succeed."""
    OUTCOME_UNKNOWN = "outcome-unknown"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class Kind(Enum):
    """Which class of the Python database API an error is, where SQLite's code does not say it."""

    BY_CODE = ""
    PROGRAMMING = "programming"
    DATA = "data"
    NOT_SUPPORTED = "not-supported"
    INTERNAL = "internal"


# ---- from the server, before the login ----------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag="greeting"):
    version: int
    cluster: str
    database: str
    node: str
    epoch: int
    """The epoch of the newest record of its log."""
    role: ServerRole
    leader: str
    """Where the primary's door is, as HOST:PORT, where that is known; else empty."""
    nonce: bytes
    needs_login: bool


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag="challenge"):
    salt: bytes
    iterations: int


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    signature: bytes
    """Proves that the server knows the user. Empty where no login is needed."""


# ---- from the client ----------------------------------------------------------------------------


class Login(msgspec.Struct, frozen=True, array_like=True, tag="login"):
    version: int
    database: str
    """Empty: whatever the server has."""
    user: str
    nonce: bytes


class Proof(msgspec.Struct, frozen=True, array_like=True, tag="proof"):
    proof: bytes


class Statement(msgspec.Struct, frozen=True, array_like=True):
    sql: str
    rows: list[Parameters]
    """The statement is run once for each. Without parameters: one empty list."""


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Begin (where `begin` says so) and run statements, all of them or none. Outside of a
    transaction they are one; inside, a failure undoes this request only."""

    number: int
    statements: list[Statement]
    begin: Access = Access.NONE
    is_read: bool = False
    """It must change nothing: refused where it would."""
    after: str = ""
    """A token: wait until the transaction that it names can be seen."""
    fresh_ms: int | None = None
    """A read: at most so far behind the primary."""
    within_ms: int = 30_000
    """After so long in the queue it is not begun any more."""
    key: str = ""
    """An idempotency key (`tokens.py`). Only for a transaction of its own."""


class End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    number: int
    is_commit: bool


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="fetch"):
    number: int
    cursor: int
    rows_max: int = PAGE_ROWS_MAX


class CloseCursor(msgspec.Struct, frozen=True, array_like=True, tag="close-cursor"):
    cursor: int


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Of the request with that number: taken back where it waits, interrupted where it runs. The
    request itself is answered as ever."""

    number: int


# ---- answers ------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """Of the request's last statement."""

    number: int
    columns: list[str] | None
    """None: the statement has no result."""
    rows: list[Row]
    cursor: int
    """Not 0: there are more rows; ask for them by this number."""
    rows_affected: int
    """-1 where the statement changes no rows by its nature."""
    last_rowid: int
    token: str
    """Of the commit, or of what a read has seen at least: `node@epoch:index`."""
    is_in_transaction: bool


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    number: int
    """0: of the connection, which is closed after it."""
    branch: Branch
    what: str
    hint: str
    code: int = 0
    """SQLite's extended result code; 0: the error is not SQLite's."""
    name: str = ""
    kind: Kind = Kind.BY_CODE
    leader: str = ""
    is_in_transaction: bool = False


FromClient: TypeAlias = Login | Proof | Run | End | Fetch | CloseCursor | Cancel
FromServer: TypeAlias = Greeting | Challenge | Welcome | Done | Failure

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_from_client: "msgspec.msgpack.Decoder[FromClient]" = msgspec.msgpack.Decoder(FromClient)
_from_server: "msgspec.msgpack.Decoder[FromServer]" = msgspec.msgpack.Decoder(FromServer)


def frame_of(message: FromClient | FromServer, *, size_max: int = ANSWER_BYTES_MAX) -> bytes:
    """`Rejected` above `size_max`."""
    return encode_frame(_encoder.encode(message), size_max=size_max)


def from_client(payload: bytes) -> FromClient:
    """`Corrupt` for what is no message of a client, or exceeds a limit."""
    message = _decoded(payload, _from_client)
    if isinstance(message, Run):
        excess = excess_of(message)
        if excess is not None:
            raise Corrupt(excess, hint=SMALLER_PARTS)
        _check_values(message)
    return message


def from_server(payload: bytes) -> FromServer:
    """`Corrupt` for what is no message of a server."""
    return _decoded(payload, _from_server)


def said_at_login(greeting: Greeting, login: Login, challenge: Challenge) -> bytes:
    """What both ends prove to have heard."""
    return _encoder.encode(
        (
            greeting.cluster,
            greeting.node,
            greeting.nonce,
            login.database,
            login.user,
            login.nonce,
            challenge.salt,
            challenge.iterations,
        )
    )


def _decoded(payload: bytes, decoder: "msgspec.msgpack.Decoder[M]") -> M:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Corrupt(
            f"a message cannot be read: {error}",
            hint="Run the same release on both ends, and check that the port is primacy's.",
        ) from error


def excess_of(message: Run) -> str | None:
    """Which limit a request exceeds, in words. None: it is within all of them."""
    executions = sum(len(each.rows) for each in message.statements)
    longest = max((len(each.sql) for each in message.statements), default=0)
    for what, count, most in (
        ("statements", len(message.statements), STATEMENTS_MAX),
        ("rows of parameters", executions, EXECUTIONS_MAX),
        ("characters in one statement", longest, SQL_BYTES_MAX),
        ("characters in its idempotency key", len(message.key), KEY_BYTES_MAX),
    ):
        if count > most:
            return f"a request has {count} {what}, the limit is {most}"
    return None


_VALUE_TYPES = frozenset({int, float, str, bytes, type(None)})


def _check_values(message: Run) -> None:
    for statement in message.statements:
        for row in statement.rows:
            for value in row.values() if isinstance(row, dict) else row:
                if type(value) not in _VALUE_TYPES or (
                    type(value) is int and not INTEGER_MIN <= value <= INTEGER_MAX
                ):
                    raise Corrupt(
                        f"a parameter of type {type(value).__name__} is no value of SQLite's",
                        hint="Values are null, 64-bit integers, floats, strings and bytes.",
                    )
