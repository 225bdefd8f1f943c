"""What goes through a clone door: who is there, then a backup in pieces, then how it ended.

    receiver                         donor
    Hello(node, nonce)      ->
                            <-       Challenge(nonce)
    Proof(mac)              ->
                            <-       Header(mac, total_bytes)     both know the cluster's secret
                            <-       pieces of the backup
                            <-       empty frame, Trailer(ok, words)

A receiver that was rewound asks for a comparison instead (`Hello.compare`): the Header is followed
by Checksums, or by nothing where they cannot be given.

Frames are a length of four bytes, big endian, and that many bytes. Control frames are JSON.
A stream that ends without a Trailer is no backup.

Does not: hide the data from the network. The secret never crosses it; the rows do, in clear.
"""

import asyncio
import struct
from typing import TypeVar

import msgspec

from primacy.errors import Rejected, Unavailable
from primacy.runtime.proofs import proof_of

CONTROL_BYTES_MAX = 16 * 1024
PIECE_BYTES = 256 * 1024
_LENGTH = struct.Struct(">I")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a clone. `nonce` is hexadecimal."""

    format: int = 1
    cluster: str
    node: str
    nonce: str
    compare: tuple[str, ...] = ()
    """Not a clone: the checksums of these tables at one position of the donor's log."""


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The donor's own nonce."""

    nonce: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver knows the secret."""

    mac: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The donor knows it too, and begins. `total_bytes` is an estimate for people."""

    mac: str
    total_bytes: int


class Trailer(msgspec.Struct, frozen=True, kw_only=True):
    """How the backup ended, at the donor."""

    is_ok: bool
    words: str = ""


class Checksums(msgspec.Struct, frozen=True, kw_only=True):
    """Of whole tables, as they were right after one transaction."""

    gtid: str
    values: dict[str, int]


C = TypeVar("C", Hello, Challenge, Proof, Header, Trailer, Checksums)


def mac(secret: bytes, who: str, hello: Hello, challenge: Challenge) -> str:
    """`who` is `receiver` or `donor`, so that neither proof can be sent back as the other."""
    said = msgspec.json.encode([who, hello, challenge])
    return proof_of(secret, "clone", said)


async def send(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    await send_piece(writer, msgspec.json.encode(message))


async def send_piece(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Waits while the other side is slower."""
    writer.write(_LENGTH.pack(len(piece)))
    writer.write(piece)
    await writer.drain()


async def receive(reader: asyncio.StreamReader, kind: type[C], *, within_s: float) -> C:
    """`Unavailable` where nothing comes, `Rejected` for anything but a `kind`."""
    content = await receive_piece(reader, limit=CONTROL_BYTES_MAX, within_s=within_s)
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Rejected(
            f"the clone door spoke in another way: {error}", hint="Is that port a clone door?"
        ) from error


async def receive_piece(
    reader: asyncio.StreamReader, *, within_s: float, limit: int = PIECE_BYTES
) -> bytes:
    """One frame; empty at the end of the backup."""
    try:
        async with asyncio.timeout(within_s):
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > limit:
                raise Rejected(
                    f"a frame of {length} bytes, at most {limit} are allowed",
                    hint="Is that port a clone door?",
                )
            return await reader.readexactly(length)
    except TimeoutError as error:
        raise Unavailable(
            f"the clone was silent for {within_s:.0f} s", hint="Try again."
        ) from error
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Unavailable("the clone's connection was lost", hint="Try again.") from error
