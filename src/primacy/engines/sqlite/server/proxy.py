"""The router's PROXY header (version 2) in front of a client's first byte: who the client is. Pure.

Does not  Decide anything by it: it is shown, no account is bound to an address.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

from primacy.errors import Corrupt

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_HEAD = struct.Struct("!12sBBH")
BODY_BYTES_MAX = 512


def header_in(data: bytes) -> tuple[str, int] | None:
    """The client's address and how many bytes the header takes: empty and 0 where there is none.
    None: it may be one, and is not complete. `Corrupt`: it is a broken one."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        return "", 0
    if len(data) < _HEAD.size:
        return None
    _, version, family, size = _HEAD.unpack_from(data)
    if version >> 4 != 2 or size > BODY_BYTES_MAX:
        raise Corrupt("a PROXY header that is not of version 2", hint="Check the router.")
    if len(data) < _HEAD.size + size:
        return None
    body = data[_HEAD.size : _HEAD.size + size]
    return _address(family, body), _HEAD.size + size


def _address(family: int, body: bytes) -> str:
    if family >> 4 == 1 and len(body) >= 12:
        return f"{IPv4Address(body[:4])}:{struct.unpack_from('!H', body, 8)[0]}"
    if family >> 4 == 2 and len(body) >= 36:
        return f"[{IPv6Address(body[:16])}]:{struct.unpack_from('!H', body, 32)[0]}"
    return ""
