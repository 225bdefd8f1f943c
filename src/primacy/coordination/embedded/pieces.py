"""A snapshot of the store in pieces: small enough that none holds the loop. Pure.

Promises  What `pieces_of` writes, a `Restorer` reads back; a missing, foreign or surplus piece is
          refused with `Corrupt`. The format is in docs/protocols/lease.md.
Does not  Checksum: the snapshot file does that.
"""

from collections.abc import Iterator

import msgspec

from primacy.coordination.api import NO_LEASE, KeyValue
from primacy.coordination.embedded.keyspace import KeySpace
from primacy.coordination.embedded.leases import LeaseRecord, LeaseTable
from primacy.coordination.embedded.sessions import SessionRecord, Sessions
from primacy.errors import Corrupt
from primacy.model import LogIndex, Revision

FORMAT = 1
"""Raised when a piece changes; a member refuses what it does not know."""

PIECE_ITEMS_MAX = 1000
PIECE_BYTES_MAX = 256 << 10
"""A piece ends at whichever comes first: a millisecond or two of encoding."""


class Head(msgspec.Struct, frozen=True, tag=True):
    format: int
    index: LogIndex
    revision: Revision


class Keys(msgspec.Struct, frozen=True, tag=True):
    items: tuple[KeyValue, ...]


class Leases(msgspec.Struct, frozen=True, tag=True):
    records: tuple[LeaseRecord, ...]


class SessionPiece(msgspec.Struct, frozen=True, tag="Sessions"):
    records: tuple[SessionRecord, ...]


class Tail(msgspec.Struct, frozen=True, tag=True):
    """Last: without it the snapshot is cut."""

    keys_count: int
    leases_count: int
    sessions_count: int


Piece = Head | Keys | Leases | SessionPiece | Tail

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Piece] = msgspec.msgpack.Decoder(Piece)


def pieces_of(
    *,
    index: LogIndex,
    revision: Revision,
    keys: Iterator[KeyValue],
    leases: tuple[LeaseRecord, ...],
    sessions: Iterator[SessionRecord],
) -> Iterator[bytes]:
    """Takes values that nobody changes any more; encodes each piece when it is asked for."""
    keys_count = sessions_count = 0
    yield _ENCODER.encode(Head(FORMAT, index, revision))
    for items in _grouped(keys):
        keys_count += len(items)
        yield _ENCODER.encode(Keys(items))
    for first in range(0, len(leases), PIECE_ITEMS_MAX):
        yield _ENCODER.encode(Leases(leases[first : first + PIECE_ITEMS_MAX]))
    for record in sessions:
        sessions_count += record.is_first
        yield _ENCODER.encode(SessionPiece((record,)))
    yield _ENCODER.encode(Tail(keys_count, len(leases), sessions_count))


def _grouped(keys: Iterator[KeyValue]) -> Iterator[tuple[KeyValue, ...]]:
    group: list[KeyValue] = []
    group_bytes = 0
    for item in keys:
        group.append(item)
        group_bytes += len(item.key) + len(item.value)
        if len(group) == PIECE_ITEMS_MAX or group_bytes >= PIECE_BYTES_MAX:
            yield tuple(group)
            group, group_bytes = [], 0
    if group:
        yield tuple(group)


class Whole(msgspec.Struct, frozen=True):
    """A state read back."""

    index: LogIndex
    revision: Revision
    keys: KeySpace
    leases: LeaseTable
    sessions: Sessions


class Restorer:
    """Takes the pieces in order, one `add` each."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._tail: Tail | None = None
        self._keys = KeySpace()
        self._held: list[KeyValue] = []
        self._leases = LeaseTable()
        self._sessions = Sessions()

    def add(self, data: bytes) -> None:
        piece = self._next(data)
        match piece:
            case Head():
                if piece.format != FORMAT:
                    raise _corrupt(f"it has format {piece.format}, this version reads {FORMAT}")
                self._head = piece
            case Keys(items):
                self._keys.load(items)
                self._held += [item for item in items if item.lease != NO_LEASE]
            case Leases(records):
                for record in records:
                    self._leases.add(record)
            case SessionPiece(sessions):
                for session in sessions:
                    self._sessions.restore(session)
            case Tail():
                self._tail = piece

    def _next(self, data: bytes) -> Piece:
        try:
            piece = _DECODER.decode(data)
        except msgspec.DecodeError as error:
            raise _corrupt(f"a piece cannot be read: {error}") from error
        if (self._head is None) != isinstance(piece, Head) or self._tail is not None:
            raise _corrupt("its pieces are not in order")
        return piece

    def finished(self) -> Whole:
        if self._head is None or self._tail is None:
            raise _corrupt("its end is missing")
        counts = Tail(len(self._keys), len(self._leases), len(self._sessions))
        if counts != self._tail:
            raise _corrupt(f"it holds {counts} where it says {self._tail}")
        for item in self._held:
            if self._leases.get(item.lease) is None:
                raise _corrupt(f"key {item.key!r} hangs on lease {item.lease}, which is not there")
            self._leases.attach(item.lease, item.key)
        return Whole(
            self._head.index, self._head.revision, self._keys, self._leases, self._sessions
        )


def _corrupt(what: str) -> Corrupt:
    return Corrupt(
        f"the snapshot of the store is damaged: {what}",
        hint="Remove it and let this member take one from its peers.",
    )
