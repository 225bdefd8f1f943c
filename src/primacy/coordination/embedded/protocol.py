"""What clients of the store and its members say to each other: numbered requests and answers.

Promises  Every request gets one response with its number, except `WatchKeys`, which gets many until
          one of them is a `Failure`. Numbers are the client's and mean nothing beyond a connection.
"""

import msgspec

from primacy.coordination.api import WatchBatch
from primacy.coordination.embedded.commands import Answer, OpenSession, Write
from primacy.coordination.embedded.requests import Read, ReadStatus, RenewLease
from primacy.errors import Corrupt
from primacy.model import Revision

PROGRESS_S = 0.2
"""A watch hears this often that nothing happened."""

SILENCE_MAX_S = 1.0
"""A watch that has heard nothing for this long looks for another member. The shortest lease: what
a watch of a host that froze or was cut off misses is known by then."""


class WatchKeys(msgspec.Struct, frozen=True, tag=True):
    """Tell all changes from `from_revision` on. The first answer comes at once."""

    key: str
    is_prefix: bool
    from_revision: Revision


class CancelWatch(msgspec.Struct, frozen=True, tag=True):
    """End the watch that request `number` began. It is answered by the watch's own `Failure`."""

    number: int


class Watched(msgspec.Struct, frozen=True, tag=True):
    batch: WatchBatch


class Request(msgspec.Struct, frozen=True, array_like=True):
    number: int
    body: Read | RenewLease | ReadStatus | OpenSession | Write | WatchKeys | CancelWatch


class Response(msgspec.Struct, frozen=True, array_like=True):
    number: int
    body: Answer | Watched


_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_RESPONSES: msgspec.msgpack.Decoder[Response] = msgspec.msgpack.Decoder(Response)


def payload_of(message: Request | Response) -> bytes:
    return _ENCODER.encode(message)


def request_in(payload: bytes) -> Request:
    """`Corrupt` where the bytes are no request."""
    try:
        return _REQUESTS.decode(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(f"not a request: {error}", hint="Is this a client of the store?") from error


def response_in(payload: bytes) -> Response:
    """`Corrupt` where the bytes are no response."""
    try:
        return _RESPONSES.decode(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(f"not a response: {error}", hint="Is this a member of the store?") from error
