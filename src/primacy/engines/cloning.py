"""Both ends of a clone door, as far as all engines have them: listening, and who is there.

Promises  Nothing is given to, or taken from, an end that has not shown that it knows the cluster's
          secret.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from primacy.engines import clone_wire as wire
from primacy.errors import PrimacyError, Rejected, Unavailable
from primacy.model import Address, NodeId
from primacy.runtime import proofs
from primacy.runtime.listening import listening
from primacy.telemetry import Event, Sink

H = TypeVar("H", bound=wire.Hello)

Give = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What both ends know."""

    cluster: str
    node: NodeId
    """Of this end."""
    secret: bytes = field(repr=False)
    peer_s: float
    """For each answer of the other end, while it has only to think."""
    silence_s: float
    """And while it has to work."""


def new_nonce() -> str:
    return secrets.token_hex(proofs.NONCE_BYTES)


# ---- the donor


@asynccontextmanager
async def clone_door(
    address: Address, give: Give, *, node: NodeId, events: Sink
) -> AsyncIterator[None]:
    """Open inside; whoever is still served at its end is cut off. `Rejected` where the port is
    taken."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await give(reader, writer)
        except PrimacyError as error:
            events(Event("clone-refused", {"node": node, "reason": error.what}))
        except OSError as error:
            events(Event("clone-broken", {"node": node, "reason": str(error)}))
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    with listening(address, door="the clone door"):
        listener = await asyncio.start_server(begin, address.host, address.port)
    try:
        yield
    finally:
        listener.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)


async def admitted(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: Ends, kind: type[H]
) -> tuple[H, wire.Challenge]:
    """Whoever is there knows the secret. `Rejected` where not."""
    hello = await wire.receive(reader, kind, within_s=ends.peer_s)
    challenge = wire.Challenge(nonce=new_nonce())
    await wire.send(writer, challenge)
    proof = await wire.receive(reader, wire.Proof, within_s=ends.peer_s)
    expected = wire.mac(ends.secret, "receiver", hello, challenge)
    if hello.cluster != ends.cluster or not proofs.is_proof(proof.mac, expected):
        raise Rejected(f"{hello.node!r} does not know the secret", hint="Check its secret.")
    return hello, challenge


def header(
    ends: Ends, hello: wire.Hello, challenge: wire.Challenge, *, total_bytes: int
) -> wire.Header:
    """The donor's proof, and how much there will be."""
    mac = wire.mac(ends.secret, "donor", hello, challenge)
    return wire.Header(mac=mac, total_bytes=total_bytes)


async def end_stream(writer: asyncio.StreamWriter, *, words: str) -> None:
    """No more pieces; `words` say what failed, where something did."""
    await wire.send_piece(writer, b"")
    await wire.send(writer, wire.Trailer(is_ok=not words, words=words))


# ---- the receiver


@asynccontextmanager
async def asking(
    door: Address, ends: Ends, hello: wire.Hello
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, int]]:
    """A connection to a door that knows the secret, and the size that it estimates. `Unavailable`
    where nobody answers, `Rejected` without the secret."""
    try:
        async with asyncio.timeout(ends.peer_s):
            reader, writer = await asyncio.open_connection(door.host, door.port)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"the clone door {door} does not answer", hint="Try again.") from error
    try:
        await wire.send(writer, hello)
        challenge = await wire.receive(reader, wire.Challenge, within_s=ends.peer_s)
        mac = wire.mac(ends.secret, "receiver", hello, challenge)
        await wire.send(writer, wire.Proof(mac=mac))
        answer = await wire.receive(reader, wire.Header, within_s=ends.silence_s)
        if not proofs.is_proof(answer.mac, wire.mac(ends.secret, "donor", hello, challenge)):
            raise Rejected("the donor does not know the secret", hint="Check the secret of both.")
        yield reader, writer, answer.total_bytes
    except ConnectionError as error:
        raise Unavailable("the clone's connection was lost", hint="Try again.") from error
    finally:
        writer.close()
