"""The clients' door: greeting, login, frames. One asyncio.Protocol for each connection.

Promises  Speaks first. What is no frame, no message, or beyond a limit is answered in words where
          that is possible, and ends that connection alone. Silence before the login ends it too.
Does not  Encrypt: it listens where it is told to.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import cast

from primacy.engines.sqlite.protocol import (
    LOGIN_BYTES_MAX,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    REQUEST_BYTES_MAX,
    Branch,
    Challenge,
    Failure,
    FromClient,
    FromServer,
    Greeting,
    Login,
    Proof,
    ServerRole,
    Welcome,
    frame_of,
    from_client,
    said_at_login,
)
from primacy.engines.sqlite.scram import Verifier, signature_for, unknown_user
from primacy.engines.sqlite.server.proxy import header_in
from primacy.engines.sqlite.server.session import Around, Session
from primacy.engines.sqlite.server.spec import Spec
from primacy.errors import PrimacyError, Rejected
from primacy.model import Address
from primacy.runtime.listening import listening
from primacy.runtime.tcp import set_options
from primacy.telemetry import Event, Sink
from primacy.wire import FrameDecoder

WRITE_BUFFER_MAX = 1 << 20
"""Of one connection that does not read: then none of its requests is looked at."""


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, door: "Door") -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(size_max=REQUEST_BYTES_MAX)
        self._head: bytes | None = b""
        """What may still be a PROXY header; None: it is behind us."""
        self._greeting: Greeting | None = None
        self._login: Login | None = None
        self._challenge: Challenge | None = None
        self._session: Session | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.client = ""

    # ---- asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one only in kind.
        self._transport = transport
        set_options(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX)
        peer = transport.get_extra_info("peername")
        self.client = f"{peer[0]}:{peer[1]}" if peer else ""
        refusal = self._door.admit(self)
        if refusal:
            self._refuse(Branch.UNAVAILABLE, refusal, "Try again later, or raise connections_max.")
            return
        self._greeting = self._door.greeting()
        self._say(self._greeting)
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(self._door.login_s, self._on_silence)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if self._patience is not None:
            self._patience.cancel()
        if self._session is not None:
            self._session.leave()
        self._door.forget(self)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            data = self._behind_header(data)
            for payload in self._decoder.feed(data):
                if self._transport is None or self._transport.is_closing():
                    return
                self._check_size(len(payload))
                self._hear(from_client(payload))
            self._check_size(self._decoder.buffered_bytes)
        except PrimacyError as error:
            self._door.note("sql-client-refused", self.client, error.what)
            self._refuse(Branch.REJECTED, error.what, error.hint)

    # ---- for the session -------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def cut(self, why: str) -> None:
        """Nothing more reaches the client. What waits to be sent is dropped."""
        if self._transport is not None:
            self._door.note("sql-client-cut", self.client, why)
            self._transport.abort()

    # ---- inside ----------------------------------------------------------------------------

    def end(self, branch: Branch, what: str, hint: str) -> None:
        """Of a server that stops or is demoted."""
        self._refuse(branch, what, hint)

    def _behind_header(self, data: bytes) -> bytes:
        if self._head is None:
            return data
        self._head += data
        found = header_in(self._head)
        if found is None:
            return b""
        client, size = found
        self.client = client or self.client
        rest, self._head = self._head[size:], None
        return rest

    def _check_size(self, size: int) -> None:
        if self._session is None and size > LOGIN_BYTES_MAX:
            raise Rejected(
                f"{size} bytes before the login, at most {LOGIN_BYTES_MAX} are read",
                hint="Log in first, and check that the client speaks this protocol.",
            )

    def _hear(self, message: FromClient) -> None:
        match message:
            case Login() if self._login is None:
                self._on_login(message)
            case Proof() if self._challenge is not None and self._session is None:
                self._on_proof(message)
            case Login() | Proof():
                raise Rejected("a second login on one connection", hint="Open another one.")
            case _ if self._session is None:
                raise Rejected("a request before the login", hint="Log in first.")
            case _:
                self._session.hear(message)

    def _on_login(self, login: Login) -> None:
        self._login = login
        self._door.check_login(login)
        verifier = self._door.verifier_of(login.user)
        if verifier is None:
            self._welcome(b"")
            return
        self._challenge = Challenge(verifier.salt, verifier.iterations)
        self._say(self._challenge)

    def _on_proof(self, proof: Proof) -> None:
        login, challenge, greeting = self._login, self._challenge, self._greeting
        if login is None or challenge is None or greeting is None:
            return  # Unreachable: the challenge is made from both.
        verifier = self._door.verifier_of(login.user)
        signature = None
        if verifier is not None:
            said = said_at_login(greeting, login, challenge)
            signature = signature_for(verifier, proof.proof, said=said)
        if signature is None and not login.user:
            raise Rejected(
                "this server has users, and none was named",
                hint="Name one in the URL: primacy://USER:PASSWORD@HOST/DATABASE.",
            )
        if signature is None:
            raise Rejected(
                f"wrong user or password for {login.user!r}",
                hint="Check both; users are lines of the server's users file.",
            )
        self._welcome(signature)

    def _welcome(self, signature: bytes) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._session = Session(self, self._door.around)
        self._say(Welcome(signature))

    def _on_silence(self) -> None:
        self._refuse(
            Branch.UNAVAILABLE,
            f"no login within {self._door.login_s:.0f} s",
            "Log in at once after the greeting.",
        )

    def _refuse(self, branch: Branch, what: str, hint: str) -> None:
        """In words, and then it is over."""
        if self._transport is not None:
            self._say(Failure(0, branch, what, hint, leader=self._door.leader))
            self._transport.close()

    def _say(self, message: FromServer) -> None:
        self.send(frame_of(message))


class Door:
    """`async with` listens. It knows the connections, and nothing of their transactions."""

    def __init__(
        self,
        spec: Spec,
        users: Mapping[str, Verifier] | None,
        around: Around,
        *,
        nonce: Callable[[int], bytes],
        events: Sink,
    ) -> None:
        """`users` None: everybody who reaches the port may connect."""
        self.around = around
        self.login_s = spec.limits.login_s
        self.refused_count = 0
        self._spec = spec
        self._users = users
        self._nonce = nonce
        self._events = events
        self._secret = hashlib.sha256(nonce(NONCE_BYTES)).digest()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def leader(self) -> str:
        return self.around.state.leader

    def admit(self, connection: Connection) -> str:
        """Why not; empty: it may stay."""
        if len(self._connections) >= self._spec.limits.connections_max:
            self.refused_count += 1
            return f"{len(self._connections)} clients are connected, which is the limit"
        self._connections.add(connection)
        return ""

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def greeting(self) -> Greeting:
        state = self.around.state
        is_open = state.role is ServerRole.PRIMARY and state.may_answer()
        return Greeting(
            PROTOCOL_VERSION,
            self._spec.cluster,
            self._spec.database,
            self._spec.node,
            state.applied.epoch,
            ServerRole.PRIMARY if is_open else ServerRole.REPLICA,
            state.leader,
            self._nonce(NONCE_BYTES),
            self._users is not None,
        )

    def check_login(self, login: Login) -> None:
        if login.version != PROTOCOL_VERSION:
            raise Rejected(
                f"the client speaks version {login.version}, this server {PROTOCOL_VERSION}",
                hint="Run the same release on both ends.",
            )
        if login.database not in ("", self._spec.database):
            raise Rejected(
                f"there is no database {login.database!r} here",
                hint=f"This server has {self._spec.database!r}.",
            )

    def verifier_of(self, user: str) -> Verifier | None:
        """None: no login is needed. Of an unknown user one that nothing fits."""
        if self._users is None:
            return None
        return self._users.get(user) or unknown_user(user, secret=self._secret)

    def note(self, name: str, client: str, why: str) -> None:
        self.refused_count += name == "sql-client-refused"
        self._events(Event(name, {"client": client, "why": why[:200]}))

    def end_all(self, branch: Branch, what: str, hint: str) -> None:
        for connection in self._connections.copy():
            connection.end(branch, what, hint)

    async def __aenter__(self) -> "Door":
        loop = asyncio.get_running_loop()
        address = Address(self._spec.host, self._spec.port)
        with listening(address):
            self._server = await loop.create_server(
                lambda: Connection(self), address.host, address.port, backlog=1024
            )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.end_all(Branch.UNAVAILABLE, "the server stops", "Connect again.")
