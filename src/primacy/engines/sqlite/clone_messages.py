"""What a SQLite node asks a clone door for, and what it is answered. Pure.

    receiver                          donor
    Request(ticket, offset)  ->                                 Hello, Challenge, Proof, Header: as
                             <-       Status(ticket, done)      `engines/clone_wire.py`; a Status
                             <-       Status(offer)             each second while the copy is made
                             <-       pieces from offer.offset on
                             <-       empty frame, Trailer(ok, words, digest)
    Received(ticket)         ->                                 the copy may go

A receiver whose connection was cut asks again with the ticket and what it has. With `compare` it
asks for checksums instead: the Header is followed by `control.Sums`, or by nothing.
Format: `docs/formats/clone.md`.
"""

import msgspec

from primacy.engines import clone_wire
from primacy.replication.log.record import Point

OFFER_BYTES_MAX = 8 << 20
"""An offer names every epoch that the history ever had."""

SUMS_BYTES_MAX = 1 << 20

DIGEST_BYTES = 32
"""Of BLAKE2b over the whole file."""


class Request(clone_wire.Hello, frozen=True, kw_only=True):
    """Of a node that wants a copy of the database, or the rest of one."""

    ticket: str = ""
    """Of the copy that it has begun to fetch; empty: none."""
    offset: int = 0
    """So many bytes of it are here already."""
    compare: tuple[str, ...] = ()
    """No copy: the checksums of these tables at one point."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that stands on the donor's disk."""

    point: Point
    """Its position row says the same: the receiver's log begins there."""
    gtids: str
    """Everything up to there."""
    size_bytes: int
    offset: int
    """Of the first piece. 0 where the ticket was not known any more."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How far the donor is with making the copy."""

    ticket: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    offer: Offer | None = None
    words: str = ""
    """Why there will be none. Nothing follows."""


class Trailer(clone_wire.Trailer, frozen=True, kw_only=True):
    digest: str = ""
    """Of the file from its first byte to its last, in hexadecimal."""


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """It is whole, on the receiver's disk."""

    ticket: str
