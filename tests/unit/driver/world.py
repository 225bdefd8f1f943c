"""A world without sockets for the driver's core: scripted servers, and a clock that only waits."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeVar

from primacy.driver.effects import Close, Connect, Effect, Pause, Receive, Send
from primacy.driver.session import Session
from primacy.driver.target import target_of
from primacy.engines.sqlite.protocol import (
    PROTOCOL_VERSION,
    Done,
    End,
    FromClient,
    FromServer,
    Greeting,
    Login,
    Run,
    ServerRole,
    Welcome,
    frame_of,
    from_client,
)
from primacy.model import Address
from primacy.wire import FrameDecoder

T = TypeVar("T")


class Gone(Exception):
    """Said by a script: the server closes the connection instead of answering."""


class Silent(Exception):
    """Said by a script: no answer ever comes."""


Answer = Callable[[FromClient], list[FromServer]]


def done(request: Run | End, *, is_in_transaction: bool = False, token: str = "") -> Done:
    return Done(request.number, None, [], 0, 1, 1, token, is_in_transaction)


@dataclass
class Server:
    """One server. `answers` are used up, one for each request; then it serves as a server does."""

    name: str
    role: ServerRole = ServerRole.PRIMARY
    leader: str = ""
    is_up: bool = True
    is_frozen: bool = False
    """Its kernel takes connections, and it says nothing."""
    answers: list[Answer | type[Exception]] = field(default_factory=list)
    heard: list[FromClient] = field(default_factory=list)
    accepted_count: int = 0
    is_in_transaction: bool = False

    def greeting(self) -> Greeting:
        return Greeting(
            PROTOCOL_VERSION,
            "shop",
            "db",
            self.name,
            1,
            self.role,
            self.leader,
            b"",
            needs_login=False,
        )

    def hear(self, message: FromClient) -> list[FromServer]:
        if isinstance(message, Login):
            return [Welcome(b"")]
        self.heard.append(message)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, type):
                raise answer
            return answer(message)
        match message:
            case Run():
                self.is_in_transaction |= message.begin.value != ""
                return [done(message, is_in_transaction=self.is_in_transaction)]
            case End():
                self.is_in_transaction = False
                return [done(message)]
            case _:
                return []

    @property
    def runs(self) -> list[Run]:
        return [each for each in self.heard if isinstance(each, Run)]


class World:
    """Carries out effects against the servers. Time passes only where something waits."""

    def __init__(self, *servers: Server) -> None:
        self.servers = {Address(each.name, 3307): each for each in servers}
        self.now_s = 0.0
        self._server: Server | None = None
        self._decoder = FrameDecoder()
        self._arrived = b""
        self._is_closed_by_server = False

    def session(
        self, *, hosts: str = "", options: str = "", isolation_level: str | None = None
    ) -> Session:
        hosts = hosts or ",".join(address.host for address in self.servers)
        return Session(
            target_of(f"primacy://{hosts}/db{options}"),
            isolation_level=isolation_level,
            now_s=lambda: self.now_s,
            nonce=lambda: b"n" * 16,
        )

    def close_by_server(self) -> None:
        """While nobody asks: an idle connection that dies."""
        self._is_closed_by_server = True
        if self._server is not None:
            self._server.is_in_transaction = False

    def run(self, steps: Generator[Effect, bytes, T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    told = self._carry_out(effect)
                except OSError as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(told)
        except StopIteration as end:
            result: T = end.value
            return result

    def _carry_out(self, effect: Effect) -> bytes:
        match effect:
            case Connect(host, within_s):
                return self._connect(host, within_s)
            case Send(data, _):
                return self._send(data)
            case Receive(within_s):
                return self._receive(within_s)
            case Close():
                self._server = None
            case Pause(seconds):
                self.now_s += seconds
        return b""

    def _connect(self, host: Address, within_s: float) -> bytes:
        server = self.servers.get(host)
        if server is None or not server.is_up:
            self.now_s += min(within_s, 0.001)
            raise ConnectionRefusedError("refused")
        server.accepted_count += 1
        server.is_in_transaction = False
        self._server, self._decoder = server, FrameDecoder()
        self._arrived = b"" if server.is_frozen else frame_of(server.greeting())
        self._is_closed_by_server = False
        return b""

    def _send(self, data: bytes) -> bytes:
        assert self._server is not None
        for payload in self._decoder.feed(data):
            try:
                for message in self._server.hear(from_client(payload)):
                    self._arrived += frame_of(message)
            except Gone:
                self.close_by_server()
            except Silent:
                pass
        return b""

    def _receive(self, within_s: float) -> bytes:
        arrived, self._arrived = self._arrived, b""
        if not arrived and not self._is_closed_by_server:
            self.now_s += within_s
            raise TimeoutError
        return arrived
