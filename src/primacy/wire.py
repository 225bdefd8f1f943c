"""Frames: how bytes on a TCP connection become payloads. See `docs/formats/wire.md`.

Promises  A payload comes out exactly as it went in, or `Corrupt` is raised; what exceeds the
          limit is refused before it is received.
Does not  Know what a payload means: the caller encodes and decodes it with msgspec.
"""

import struct
import zlib

from primacy.errors import Corrupt, Rejected

VERSION = 1

FRAME_BYTES_MAX = 20 << 20
"""Above the largest thing that members send: an append of one largest transaction."""

_HEADER = struct.Struct("<IBI")
_CHECKED = struct.Struct("<IB")


def encode_frame(*parts: bytes, size_max: int = FRAME_BYTES_MAX) -> bytes:
    """One payload, given in parts so that a large one is copied once. `Rejected` above `size_max`:
    the other end would close the connection."""
    length = sum(map(len, parts))
    if length > size_max:
        raise Rejected(
            f"a message of {length} bytes exceeds the limit of {size_max}",
            hint="Send it in smaller parts.",
        )
    checked = _CHECKED.pack(length, VERSION)
    checksum = zlib.crc32(checked)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join((checked, checksum.to_bytes(4, "little"), *parts))


class FrameDecoder:
    """Feed it what arrives, in pieces of any size. After an error the connection must be closed."""

    def __init__(self, *, size_max: int = FRAME_BYTES_MAX) -> None:
        self._size_max = size_max
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def allow(self, size_max: int) -> None:
        """From now on: the other end has shown who it is."""
        self._size_max = size_max

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now, in order. `Corrupt` for what is no frame of ours."""
        buffer = self._buffer
        buffer += data
        payloads: list[bytes] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            length, version, checksum = _HEADER.unpack_from(buffer, start)
            self._check_header(length, version)
            end = start + _HEADER.size + length
            if len(buffer) < end:
                break
            payload = bytes(memoryview(buffer)[start + _HEADER.size : end])
            head = _CHECKED.pack(length, version)
            if zlib.crc32(payload, zlib.crc32(head)) != checksum:
                raise Corrupt(
                    f"a frame of {length} bytes has a wrong checksum",
                    hint="Close the connection and open a new one; if it happens again, check "
                    "the network hardware and what stands between the two ends.",
                )
            payloads.append(payload)
            start = end
        if start:
            del buffer[:start]
        return payloads

    def _check_header(self, length: int, version: int) -> None:
        if version != VERSION:
            raise Corrupt(
                f"a frame has version {version}, this primacy speaks version {VERSION}",
                hint="Run the same release on both ends, and check that the port is primacy's.",
            )
        if length > self._size_max:
            raise Corrupt(
                f"a frame announces {length} bytes, the limit is {self._size_max}",
                hint="Close the connection, and check that the other end is primacy.",
            )
