"""The node's own server, as the rest of the engine talks to it.

Four connections, each for one purpose, so that what may block never blocks the others:

    observe   the health write and the status           left behind when it hangs
    command   everything that changes the server         left behind when it hangs
    beat      replicated heartbeats                      waits with its commit
    marker    marker rows                                waits with its commit
"""

import asyncio

from primacy.clock import Clock
from primacy.engines.mariadb.accounts import ADMIN, login
from primacy.engines.mariadb.connection import Ask, Connection, Session, T, Target, rows
from primacy.engines.mariadb.observe import Status, check_health, read_status
from primacy.engines.mariadb.settings import MariaDbSettings

HEALTH_WRITE_EVERY_S = 0.3
"""Each durable write costs an fsync; a look in between only reads."""

BLOCKED_COMMIT_S = 24 * 3600.0
"""A commit may wait for its acknowledgement as long as an operator's night."""


class LocalServer:
    """Statements for the server of this node, over its unix socket."""

    def __init__(self, settings: MariaDbSettings, clock: Clock) -> None:
        self._timing = settings.timing
        self._node = settings.node
        self.clock = clock
        login_ = login(settings.cluster_secret, ADMIN)

        def target(read_s: float) -> Target:
            return Target(
                login=login_,
                where=settings.layout.socket,
                connect_s=settings.timing.connect_s,
                read_s=read_s,
            )

        health, command = target(self._timing.health_s * 2), target(self._timing.command_s * 2)
        self._asking_health = asyncio.Lock()
        self._wrote_at_s = float("-inf")
        self._observing = Session("observe", health)
        self._commanding = Session("command", command)
        self._helping = Session("second command", command)
        self.beating = Session("heartbeat", target(BLOCKED_COMMIT_S), keeps_waiting=True)
        self.marking = Session("marker", target(BLOCKED_COMMIT_S), keeps_waiting=True)

    @property
    def left_behind_count(self) -> int:
        """Threads that hang, or have hung, in a call whose deadline has passed."""
        return sum(each.left_behind_count for each in self._sessions())

    async def health(self) -> Status:
        """A durable local write, unless one has just gone through, then the status. `Unavailable`
        past the health deadline."""

        async with self._asking_health:  # A second question would cut the first one's connection.
            is_write_due = self.clock.now_s() - self._wrote_at_s >= HEALTH_WRITE_EVERY_S

            def ask(connection: Connection) -> Status:
                if is_write_due:
                    check_health(connection)
                return read_status(connection, self._node)

            status = await self._observing.run(ask, within_s=self._timing.health_s)
            if is_write_due:
                self._wrote_at_s = self.clock.now_s()
            return status

    async def status(self) -> Status:
        """The status alone, in the order of the commands."""

        def ask(connection: Connection) -> Status:
            return read_status(connection, self._node)

        return await self._commanding.run(ask, within_s=self._timing.command_s)

    async def run(self, ask: Ask[T], *, within_s: float | None = None) -> T:
        """One step of a command."""
        return await self._commanding.run(ask, within_s=within_s or self._timing.command_s)

    def begin(self, ask: Ask[T]) -> "asyncio.Future[T]":
        """Start a step of a command; `end` gets its answer."""
        return self._commanding.begin(ask)

    async def end(self, answer: "asyncio.Future[T]") -> T:
        """The answer of a step that `begin` has started."""
        return await self._commanding.end(answer, within_s=self._timing.command_s)

    async def execute(self, *statements: str) -> None:
        """Statements without an answer, in order, on the command connection."""

        def ask(connection: Connection) -> None:
            for statement in statements:
                rows(connection, statement)

        await self.run(ask)

    async def aside(self, ask: Ask[T]) -> T:
        """A step while the command connection waits for its answer."""
        return await self._helping.run(ask, within_s=self._timing.command_s)

    def forget_connections(self) -> None:
        """The server has gone, or is about to."""
        for session in self._sessions():
            session.reset()

    def _sessions(self) -> tuple[Session, ...]:
        return (self._observing, self._commanding, self._helping, self.beating, self.marking)
