"""Answers that are kept for idempotency keys: in a table of the database, written in the
transaction that they answer, and so on every node that has the transaction.

    _primacy_requests   key, fingerprint of the request, answer
                        and under the empty key: every key that sorts before this text is forgotten

Promises  A request with a key takes effect at most once. A key that may have been forgotten is
          `OutcomeUnknown`, whatever any clock says: only the table counts.
Assumes   The writer's thread, inside a group. Keys begin with the time of their creation.
"""

from hashlib import blake2b

import msgspec

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import Row, Run
from primacy.engines.sqlite.storage.writer import Writer
from primacy.engines.sqlite.tokens import created_ms_of, first_key_at
from primacy.errors import Conflict, OutcomeUnknown, Rejected

ANSWER_BYTES_MAX = 64 << 10
"""Of one kept answer. Whoever asks with a key should ask for little."""

AHEAD_MAX_MS = 300_000
"""How far a client's clock may be ahead. A key from further ahead would be kept for too long."""

FORGET_EVERY_S = 60.0
FORGET_ROWS_MAX = 10_000
"""At a time: one transaction."""

_CREATE = (
    "CREATE TABLE IF NOT EXISTS _primacy_requests("
    "key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID"
)
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE name = '_primacy_requests'"
_FIND = "SELECT fingerprint, answer FROM _primacy_requests WHERE key = ?"
_KEEP = "INSERT INTO _primacy_requests VALUES (?, ?, ?)"
_SET_HORIZON = (
    "INSERT INTO _primacy_requests VALUES ('', x'', ?) "
    "ON CONFLICT (key) DO UPDATE SET answer = excluded.answer"
)
_BEYOND = (
    "SELECT key FROM _primacy_requests WHERE key > '' AND key < ? ORDER BY key LIMIT 1 OFFSET ?"
)
_OLDEST = "SELECT 1 FROM _primacy_requests WHERE key > '' AND key < ? LIMIT 1"
_FORGET = "DELETE FROM _primacy_requests WHERE key > '' AND key < ?"


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What is answered again. Fields are added with defaults only."""

    columns: list[str] | None
    rows: list[Row]
    rows_affected: int
    last_rowid: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeptAnswer).decode


class Kept:
    """Owned by the writer's thread."""

    def __init__(self, *, keep_s: float, clock: Clock) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._is_there = False
        self._forget_at_s = 0.0

    @property
    def is_missing(self) -> bool:
        """Whether `prepare` must run first, as a transaction of its own."""
        return not self._is_there

    def prepare(self, writer: Writer) -> None:
        if not writer.execute_own(_EXISTS, ()).rows:
            writer.execute_own(_CREATE, ())

    def is_prepared(self) -> None:
        """The transaction of `prepare` is committed."""
        self._is_there = True

    def answer_to(self, writer: Writer, run: Run) -> KeptAnswer | None:
        """The answer of an earlier attempt. None: this is the first; execute it, then `keep`."""
        found = writer.execute_own(_FIND, (run.key,)).rows
        if found:
            return _same(run, found[0])
        horizon = writer.execute_own(_FIND, ("",)).rows
        if horizon and run.key < _text(horizon[0][1]):
            raise OutcomeUnknown(
                f"the key {run.key!r} is older than the answers that are kept",
                hint="It was used in vain, or its answer is forgotten: read what it would have "
                "changed, then use a new key.",
            )
        ahead_ms = created_ms_of(run.key) - self._now_ms()
        if ahead_ms > AHEAD_MAX_MS:
            raise Rejected(
                f"the key {run.key!r} was created {ahead_ms / 1000:.0f} s in the future",
                hint="Set the clocks of client and server right.",
            )
        return None

    def keep(self, writer: Writer, run: Run, answer: KeptAnswer) -> None:
        raw = _encode(answer)
        if len(raw) > ANSWER_BYTES_MAX:
            raise Rejected(
                f"the answer to a request with a key has {len(raw)} bytes, "
                f"the limit is {ANSWER_BYTES_MAX}",
                hint="Return less from it.",
            )
        writer.execute_own(_KEEP, (run.key, _fingerprint(run), raw))

    @property
    def is_due(self) -> bool:
        """Whether it is time to `forget`, as a transaction of its own."""
        return self._clock.now_s() >= self._forget_at_s

    def forget(self, writer: Writer) -> None:
        """What is too old. The horizon moves with it: what is forgotten is known to be."""
        self._forget_at_s = self._clock.now_s() + FORGET_EVERY_S
        horizon = first_key_at(max(0, self._now_ms() - int(self._keep_s * 1000)))
        beyond = writer.execute_own(_BEYOND, (horizon, FORGET_ROWS_MAX)).rows
        if beyond:
            horizon = _text(beyond[0][0])
        elif not writer.execute_own(_OLDEST, (horizon,)).rows:
            return
        writer.execute_own(_SET_HORIZON, (horizon.encode(),))
        writer.execute_own(_FORGET, (horizon,))

    def _now_ms(self) -> int:
        return int(self._clock.wall_s() * 1000)


def _same(run: Run, row: Row) -> KeptAnswer:
    fingerprint, raw = row
    if fingerprint != _fingerprint(run):
        raise Conflict(
            f"the key {run.key!r} was used for another request",
            hint="Make a new key for each request, and keep it for that one.",
        )
    return _decode(raw if isinstance(raw, bytes) else b"")


def _fingerprint(run: Run) -> bytes:
    return blake2b(_encode(run.statements), digest_size=16).digest()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
