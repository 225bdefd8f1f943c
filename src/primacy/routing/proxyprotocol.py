"""PROXY protocol version 2: who the client is, in front of a connection's first byte.

A router sends it to the database, so that accounts bound to a host still work, and to a peer
router, with one more field (type 0xE0) that says what the client asked for. That field also
marks the connection as forwarded; a router never forwards such a connection again.

Source: HAProxy's "The PROXY protocol", section 2.2.
"""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from primacy.errors import Rejected
from primacy.model import Epoch
from primacy.routing.route import Intent

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEADER_BYTES = 16
BODY_BYTES_MAX = 512
"""Addresses and a few fields. A longer header is no header of ours."""

FORWARDED_TYPE = 0xE0
"""PP2_TYPE_MIN_CUSTOM: for applications to use among themselves."""

_VERSION_AND_PROXY = 0x21
_TCP4, _TCP6 = 0x11, 0x21
_FORWARDED = struct.Struct("!BQ")
_INTENTS = {Intent.RW: 1, Intent.RO: 2}


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of the client's own connection: numeric addresses, of one family."""

    client: tuple[str, int]
    door: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the sending router knew."""

    intent: Intent
    epoch: Epoch
    """0 where the connection is not for the primary."""


@dataclass(frozen=True, slots=True)
class Header:
    ends: Ends
    forwarded: Forwarded | None
    byte_count: int
    """How much of the input it took."""


def encode(ends: Ends, forwarded: Forwarded | None = None) -> bytes:
    client, door = _address(ends.client[0]), _address(ends.door[0])
    if client.version != door.version:
        client, door = _as_v6(client), _as_v6(door)
    body = client.packed + door.packed + struct.pack("!HH", ends.client[1], ends.door[1])
    if forwarded is not None:
        said = _FORWARDED.pack(_INTENTS[forwarded.intent], forwarded.epoch)
        body += struct.pack("!BH", FORWARDED_TYPE, len(said)) + said
    family = _TCP4 if client.version == 4 else _TCP6
    return SIGNATURE + struct.pack("!BBH", _VERSION_AND_PROXY, family, len(body)) + body


def decode(data: bytes) -> Header | None:
    """None: the header is not complete yet. `Rejected`: it is none of ours."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise _bad("the signature is missing")
    if len(data) < HEADER_BYTES:
        return None
    version, family, size = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if version != _VERSION_AND_PROXY or family not in (_TCP4, _TCP6):
        raise _bad(f"version {version:#x} and family {family:#x} are not TCP over IP")
    if size > BODY_BYTES_MAX:
        raise _bad(f"{size} bytes are more than {BODY_BYTES_MAX}")
    if len(data) < HEADER_BYTES + size:
        return None
    return _decoded_body(data[HEADER_BYTES : HEADER_BYTES + size], is_v4=family == _TCP4)


def _decoded_body(body: bytes, *, is_v4: bool) -> Header:
    width, family = (4, socket.AF_INET) if is_v4 else (16, socket.AF_INET6)
    fixed = 2 * width + 4
    if len(body) < fixed:
        raise _bad("its addresses are cut short")
    client, door = (
        socket.inet_ntop(family, body[:width]),
        socket.inet_ntop(family, body[width : 2 * width]),
    )
    client_port, door_port = struct.unpack_from("!HH", body, 2 * width)
    return Header(
        Ends((client, client_port), (door, door_port)),
        _forwarded(body[fixed:]),
        HEADER_BYTES + len(body),
    )


def _forwarded(fields: bytes) -> Forwarded | None:
    at = 0
    while at + 3 <= len(fields):
        kind, size = struct.unpack_from("!BH", fields, at)
        value = fields[at + 3 : at + 3 + size]
        at += 3 + size
        if kind != FORWARDED_TYPE:
            continue
        if len(value) != _FORWARDED.size:
            raise _bad("the router's own field has the wrong length")
        intent, epoch = _FORWARDED.unpack(value)
        for each, number in _INTENTS.items():
            if number == intent:
                return Forwarded(each, Epoch(epoch))
        raise _bad(f"intent {intent} is unknown")
    return None


def _address(text: str) -> IPv4Address | IPv6Address:
    """Without a scope; an IPv4 address that a dual-stack socket shows as IPv6 becomes itself."""
    found = ip_address(text.split("%", 1)[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _as_v6(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)


def _bad(why: str) -> Rejected:
    return Rejected(
        f"not a PROXY header of version 2: {why}",
        hint="Only the routers of this cluster may connect to the peer door.",
    )
