"""The listeners of one router: rw, ro and the peer door; each connection becomes a session.

Promises: past a limit a client is refused at once, in words; the peer door takes connections
from configured hosts only, each with a PROXY header of ours, within a time limit.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum

from primacy.errors import Rejected
from primacy.model import Address
from primacy.routing.pipe import ClientSide
from primacy.routing.proxyprotocol import Ends, decode
from primacy.routing.route import Intent
from primacy.routing.session import Arrival, Outcome, Session, Surroundings
from primacy.routing.words import Refusal
from primacy.runtime.listening import listening
from primacy.telemetry import Event, Sink

HEADER_TIMEOUT_S = 2.0
"""A peer router sends its header with the first packet."""

BACKLOG = 1024


class Door(Enum):
    RW = "rw"
    RO = "ro"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    connections_max: int = 1000
    """At all doors together, those that are held included."""
    held_max: int = 500
    """Waiting for a database at one time."""


@dataclass(slots=True)
class Counts:
    """Since the start of this router. The owner is the event loop's one thread."""

    opened: int = 0
    held: int = 0
    """No database was open to them when they came."""
    refused: int = 0
    cut: int = 0
    from_clients_bytes: int = 0
    to_clients_bytes: int = 0


class Doors:
    """Opens in `open`, closes with the stack that it was given."""

    def __init__(
        self,
        around: Surroundings,
        limits: DoorLimits,
        *,
        is_peer: Callable[[str], bool],
        tasks: asyncio.TaskGroup,
        events: Sink,
    ) -> None:
        self._around = around
        self._limits = limits
        self._is_peer = is_peer
        self._tasks = tasks
        self._events = events
        self._sessions: set[Session] = set()
        self.counts = Counts()

    @property
    def sessions(self) -> frozenset[Session]:
        return frozenset(self._sessions)

    @property
    def held_count(self) -> int:
        return sum(1 for session in self._sessions if not session.is_passing)

    def review(self) -> None:
        """The view has changed or aged: every session looks at once."""
        for session in tuple(self._sessions):
            session.review()

    async def open(self, door: Door, where: Address, stack: AsyncExitStack) -> Address:
        """Where it listens in the end: port 0 asks for any. `Rejected` where it cannot."""
        loop = asyncio.get_running_loop()
        hint = "Choose another address or port in the configuration file."
        with listening(where, door=f"the {door.value} door", hint=hint):
            server = await loop.create_server(
                lambda: _Entrance(self, door).side, where.host, where.port, backlog=BACKLOG
            )
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        return Address(where.host, port)

    def admit(self, side: ClientSide, arrival: Arrival) -> Session | None:
        """Begin a session; None where a limit refuses it."""
        limits = self._limits
        if len(self._sessions) >= limits.connections_max:
            self._turn_away(side, f"{limits.connections_max} connections are open")
            return None
        if self.held_count >= limits.held_max:
            self._turn_away(side, f"{limits.held_max} connections wait for a database")
            return None
        session = Session(side, arrival, self._around)
        self._sessions.add(session)
        self._tasks.create_task(self._serve(session))
        return session

    def is_welcome(self, door: Door, side: ClientSide) -> bool:
        """Whether the host at the other end may use this door."""
        if door is not Door.PEER or self._is_peer(ends_of(side).client[0]):
            return True
        self._events(Event("router-stranger", {"host": ends_of(side).client[0]}))
        return False

    def distrust(self, side: ClientSide, why: str) -> None:
        """Something came to the peer door that no router of this cluster sends."""
        self.counts.refused += 1
        self._events(Event("router-peer-refused", {"why": why}))
        side.abort()

    async def _serve(self, session: Session) -> None:
        self.counts.opened += 1
        try:
            outcome = await session.run()
            self._note(session, outcome)
        except Exception as error:  # noqa: BLE001 -- the supervisor: one session's bug is not all's
            self._events(Event("router-session-failed", {"error": repr(error)}))
        finally:
            self._sessions.discard(session)

    def _note(self, session: Session, outcome: Outcome) -> None:
        inbound, outbound = session.byte_counts
        self.counts.from_clients_bytes += inbound
        self.counts.to_clients_bytes += outbound
        self.counts.held += session.was_held
        if outcome.refused is not None:
            self.counts.refused += 1
            self._events(Event("router-refused", {"reason": outcome.refused}))
        elif outcome.cut is not None:
            self.counts.cut += 1
            self._events(Event("router-cut", {"reason": outcome.cut, "to_client": outbound}))

    def _turn_away(self, side: ClientSide, why: str) -> None:
        self.counts.refused += 1
        self._events(Event("router-full", {"why": why}))
        side.write(self._around.words(Refusal.TOO_MANY, f"primacy: {why} at this router"))
        side.close()


class _Entrance:
    """Between the accepted socket and its session."""

    def __init__(self, doors: Doors, door: Door) -> None:
        self._doors = doors
        self._door = door
        self._session: Session | None = None
        self._is_done = False
        self._timer: asyncio.TimerHandle | None = None
        self.side = ClientSide(self._on_news)

    def _on_news(self) -> None:
        if self._session is not None:
            self._session.wake()
        elif self.side.is_gone:
            self._end()
        elif not self._is_done:
            self._look()

    def _look(self) -> None:
        ends = ends_of(self.side)
        if self._door is not Door.PEER:
            self._enter(Arrival(Intent(self._door.value), ends, None))
            return
        if self._timer is None:
            if not self._doors.is_welcome(self._door, self.side):
                self._refuse("its host is none of the cluster's")
                return
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HEADER_TIMEOUT_S, self._refuse, "no header came in time")
        early = self.side.early
        if early:
            self._read_header(early)

    def _read_header(self, early: bytearray) -> None:
        try:
            header = decode(bytes(early))
        except Rejected as error:
            self._refuse(error.what)
            return
        if header is None:
            return
        if header.forwarded is None:
            self._refuse("the header does not come from a router")
            return
        del early[: header.byte_count]
        self._enter(Arrival(header.forwarded.intent, header.ends, header.forwarded))

    def _enter(self, arrival: Arrival) -> None:
        self._end()
        self._session = self._doors.admit(self.side, arrival)

    def _refuse(self, why: str) -> None:
        self._end()
        self._doors.distrust(self.side, why)

    def _end(self) -> None:
        self._is_done = True
        if self._timer is not None:
            self._timer.cancel()


def ends_of(side: ClientSide) -> Ends:
    """The socket's two addresses, without IPv6's scope and flow."""
    client = side.transport.get_extra_info("peername") or ("0.0.0.0", 0)
    door = side.transport.get_extra_info("sockname") or ("0.0.0.0", 0)
    return Ends((client[0], client[1]), (door[0], door[1]))
