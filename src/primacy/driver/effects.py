"""What the driver's core asks of the world. It is a generator that yields these, one at a time; who
runs it carries them out, over blocking sockets or asyncio, and sends back the result.

    Connect  -> None, or `OSError` (a timeout is one)
    Send     -> None, or `OSError`: some of it may have been sent
    Receive  -> the bytes that arrived, b"" when the other end has closed; `TimeoutError`, `OSError`
    Close    -> None, always
    Pause    -> None
"""

from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

from primacy.model import Address


class Connect(NamedTuple):
    host: Address
    within_s: float


class Send(NamedTuple):
    data: bytes
    within_s: float


class Receive(NamedTuple):
    within_s: float


class Close(NamedTuple):
    pass


class Pause(NamedTuple):
    seconds: float


Effect: TypeAlias = Connect | Send | Receive | Close | Pause
T = TypeVar("T")
Steps: TypeAlias = Generator[Effect, bytes, T]
