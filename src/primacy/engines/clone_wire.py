"""What goes through every engine's clone door: frames, and how both ends show that they know the
cluster's secret. What is asked for and given behind that is each engine's own.

    receiver                         donor
    Hello(node, nonce, ...) ->
                            <-       Challenge(nonce)
    Proof(mac)              ->
                            <-       Header(mac, total_bytes)     both know the cluster's secret
                            <-       what the Hello asks for
                            <-       empty frame, Trailer(ok, words) where that was a stream

Frames are a length of four bytes, big endian, and that many bytes. Control frames are JSON.
A stream that ends without a Trailer is no copy. Format: `docs/formats/clone.md`.

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
    """Who asks. `nonce` is hexadecimal. Engines add what is asked for: the proofs cover it."""

    format: int = 1
    cluster: str
    node: str
    nonce: str


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
    """How a stream ended, at the donor."""

    is_ok: bool
    words: str = ""


S = TypeVar("S", bound=msgspec.Struct)


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


async def receive(
    reader: asyncio.StreamReader, kind: type[S], *, within_s: float, limit: int = CONTROL_BYTES_MAX
) -> S:
    """`Unavailable` where nothing comes, `Rejected` for anything but a `kind`."""
    content = await receive_piece(reader, limit=limit, within_s=within_s)
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Rejected(
            f"the clone door spoke in another way: {error}", hint="Is that port a clone door?"
        ) from error


async def receive_piece(
    reader: asyncio.StreamReader, *, within_s: float, limit: int = PIECE_BYTES
) -> bytes:
    """One frame; empty at the end of a stream."""
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
