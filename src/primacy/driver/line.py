"""One connection to one server: bytes to messages, and a question to its answer. Sans-IO.

Promises  An answer belongs to the request that was asked. Whatever makes the connection useless
          raises `Lost`: the answer is then not known.
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

from primacy.driver.effects import Effect, Receive, Send, Steps
from primacy.driver.exceptions import DataError
from primacy.engines.sqlite.protocol import (
    ANSWER_BYTES_MAX,
    REQUEST_BYTES_MAX,
    CloseCursor,
    Done,
    End,
    Failure,
    Fetch,
    FromClient,
    FromServer,
    Greeting,
    Run,
    frame_of,
    from_server,
)
from primacy.errors import Corrupt, Rejected
from primacy.wire import FrameDecoder

M = TypeVar("M")
Clock = Callable[[], float]


class Lost(Exception):
    """The connection ended, or is of no use any more."""


class NotSent(Lost):
    """... before anything of the request was sent."""


class Line:
    """Use it until something raises; then close the connection and forget it."""

    def __init__(self, now_s: Clock) -> None:
        self._now_s = now_s
        self._decoder = FrameDecoder(size_max=ANSWER_BYTES_MAX)
        self._inbox: deque[FromServer] = deque()
        self.greeting: Greeting | None = None
        """Set when the login is done."""

    def send(self, message: FromClient, *, deadline_s: float) -> Steps[None]:
        """`DataError`: too large, and nothing was sent."""
        try:
            frame = frame_of(message, size_max=REQUEST_BYTES_MAX)
        except Rejected as error:
            raise DataError(error.what, hint=error.hint) from error
        try:
            yield Send(frame, self._left_s(deadline_s))
        except OSError as error:
            raise Lost(f"sending failed: {error}") from error

    def receive(self, *, deadline_s: float) -> Steps[FromServer]:
        """The next message. `Lost`: it will not come."""
        while not self._inbox:
            try:
                data = yield Receive(self._left_s(deadline_s))
            except TimeoutError as error:
                raise Lost("no answer came in time") from error
            except OSError as error:
                raise Lost(f"the connection failed: {error}") from error
            self._take(data)
        return self._inbox.popleft()

    def expect(self, kind: type[M], *, deadline_s: float) -> Generator[Effect, bytes, M | Failure]:
        """A message of that kind, or a failure of the connection."""
        message = yield from self.receive(deadline_s=deadline_s)
        if isinstance(message, kind | Failure):
            return message
        raise Lost(f"the server sent {type(message).__name__} instead of {kind.__name__}")

    def ask(self, request: Run | End | Fetch, *, deadline_s: float) -> Steps[Done | Failure]:
        yield from self._look()
        yield from self.send(request, deadline_s=deadline_s)
        while True:
            message = yield from self.receive(deadline_s=deadline_s)
            match message:
                case Failure(number=0):
                    raise Lost(message.what)
                case Done() | Failure() if message.number == request.number:
                    return message
                case _:
                    raise Lost(f"the server sent {type(message).__name__} out of turn")

    def forget_cursor(self, cursor: int, *, deadline_s: float) -> Steps[None]:
        yield from self.send(CloseCursor(cursor), deadline_s=deadline_s)

    def _look(self) -> Steps[None]:
        """Has the server closed the connection while it was idle? Then nothing was sent."""
        try:
            data = yield Receive(0.0)
        except TimeoutError:
            return
        except OSError as error:
            raise NotSent(f"the connection failed: {error}") from error
        try:
            self._take(data)
        except Lost as lost:
            raise NotSent(str(lost)) from lost
        if self._inbox:
            said = self._inbox.popleft()
            raise NotSent(said.what if isinstance(said, Failure) else "the server spoke unasked")

    def _take(self, data: bytes) -> None:
        if not data:
            raise Lost("the server closed the connection")
        try:
            self._inbox.extend(from_server(each) for each in self._decoder.feed(data))
        except Corrupt as error:
            raise Lost(error.what) from error

    def _left_s(self, deadline_s: float) -> float:
        return max(0.001, deadline_s - self._now_s())
