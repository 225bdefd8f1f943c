"""Attach to a primary: check that the own log is a prefix of its history, then point there.

Promises  A node whose log left the history of the primary is not attached: `Conflict`, and
          `observe` shows it as diverged.
Assumes   Each epoch has one writer, which wrote its epoch row first; so (epoch, sequence) says
          exactly where two logs part.
"""

from dataclasses import dataclass

from primacy.engines.mariadb.accounts import login, replication_account
from primacy.engines.mariadb.connection import Connection, Session, Target, rows
from primacy.engines.mariadb.gtid import sequence_of
from primacy.engines.mariadb.observe import EpochRow, Status, Upstream, read_epochs
from primacy.engines.mariadb.replica import Receiver, are_threads_down
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId, Position

HEARTBEAT_S = 0.5
"""Of an idle primary to its replicas; a quarter of `slave_net_timeout`."""
UNTIL_POLL_S = 0.05
"""The server has no statement that waits for a place and for the end of both threads."""


@dataclass(frozen=True, slots=True)
class History:
    """The log of a primary: where its epochs begin, and how far it goes."""

    epochs: tuple[EpochRow, ...]
    end: int

    def begins(self, epoch: Epoch) -> EpochRow | None:
        return next((row for row in self.epochs if row.epoch == epoch), None)

    def end_of(self, epoch: Epoch) -> int:
        """The last sequence that belongs to `epoch`, or to what came before the first one."""
        later = [row.sequence for row in self.epochs if row.epoch > epoch]
        return min(later) - 1 if later else self.end


@dataclass(frozen=True, slots=True)
class Attached:
    """How a node came to follow."""

    own: Position
    """Where its log ended."""
    theirs: History | None
    """The primary's; None where the node followed it already."""

    def is_void(self, position: Position) -> bool:
        """The primary's history does not reach it, so nobody will miss it here."""
        return self.theirs is not None and position.sequence > self.theirs.end_of(position.epoch)


@dataclass(frozen=True, slots=True)
class Refusal:
    """This node was told to follow `primary`, and its log is no prefix of that one's."""

    primary: NodeId
    why: str


def parting(own_epochs: tuple[EpochRow, ...], own: Position, theirs: History) -> str | None:
    """Why a log that ends at `own` is no prefix of `theirs`; None where it is one. Pure."""
    for row in own_epochs:
        if row.sequence <= own.sequence and theirs.begins(row.epoch) != row:
            return f"epoch {row.epoch} of {row.node} at {row.sequence} is not in its history"
    end = theirs.end_of(own.epoch)
    if own.sequence > end:
        return f"epoch {own.epoch} ends at {end} there, and at {own.sequence} here"
    return None


class Follower:
    """Points the local server to a primary."""

    def __init__(self, settings: MariaDbSettings, server: LocalServer, receiver: Receiver) -> None:
        self._settings = settings
        self._server = server
        self._receiver = receiver
        self._login = login(settings.cluster_secret, replication_account(settings.node))
        self.refusal: Refusal | None = None
        """Of the last `attach`; None once one went through."""

    def upstream_node(self, upstream: Upstream | None) -> NodeId | None:
        """Who the server follows, by its address; or would, had it not been refused."""
        if self.refusal is not None:
            return self.refusal.primary
        if upstream is None:
            return None
        for node, address in self._settings.peers.items():
            if (address.host, address.port) == (upstream.host, upstream.port):
                return node
        return None

    async def attach(self, primary: NodeId, *, acknowledge: bool) -> Attached:
        """Attached and both threads started when this returns."""
        self.refusal = None
        status = await self._server.status()
        upstream = status.upstream
        is_attached = (
            upstream is not None
            and self.upstream_node(upstream) == primary
            and not upstream.is_io_stopped
            and not upstream.is_sql_stopped
        )
        if is_attached:
            if {status.acknowledges, status.acknowledges_next} != {acknowledge}:
                await self._switch_acknowledging(acknowledge=acknowledge)
            return Attached(status.position_of(status.received_sequence), None)
        self._check_own(primary, status)  # What it received after that cannot be applied.
        await self._receiver.settle()
        status = await self._server.status()
        theirs = await self._check(primary, status)
        await self._point(primary, status, acknowledge=acknowledge)
        return Attached(status.position_of(status.received_sequence), theirs)

    async def follow_until(self, primary: NodeId, gtid: str) -> None:
        """Follow without acknowledging, to exactly that transaction; both threads are down then."""
        self.refusal = None
        clock, wanted = self._server.clock, sequence_of(gtid)
        deadline_s = clock.now_s() + self._settings.timing.drain_s
        await self._let_in(primary, deadline_s)
        status = await self._server.status()
        await self._check(primary, status)
        await self._point(primary, status, acknowledge=False, until=gtid)
        while True:
            status = await self._server.status()
            if sequence_of(status.replicated_text) >= wanted and are_threads_down(status.upstream):
                return
            upstream = status.upstream
            if upstream is not None and upstream.sql_error_code:
                raise Conflict(
                    f"{upstream.sql_error_code}: {upstream.sql_error}", hint="Clone the node."
                )
            if clock.now_s() >= deadline_s:
                raise Unavailable(
                    f"not at {gtid} within {self._settings.timing.drain_s:.0f} s",
                    hint="The primary is away, or writes more than this node can apply.",
                )
            await clock.sleep(UNTIL_POLL_S)

    async def _let_in(self, primary: NodeId, deadline_s: float) -> None:
        """A node that was a member has been locked out, and is let in once it shows no error."""
        while True:
            try:
                await self.history_of(primary)
            except Unavailable:
                if self._server.clock.now_s() >= deadline_s:
                    raise
                await self._server.clock.sleep(UNTIL_POLL_S)
            else:
                return

    async def history_of(self, primary: NodeId) -> History:
        """Ask the primary's server. `Unavailable` where it does not answer."""
        timing = self._settings.timing
        session = Session(
            f"history of {primary}",
            Target(
                login=self._login,
                where=self._settings.peer(primary),
                connect_s=timing.peer_s,
                read_s=timing.peer_s,
            ),
        )
        try:
            return await session.run(_read_history, within_s=timing.peer_s)
        finally:
            session.reset()

    async def _check(self, primary: NodeId, status: Status) -> History:
        self._check_own(primary, status)
        theirs = await self.history_of(primary)
        own = status.position_of(status.applied_sequence)
        why = parting(status.epochs, own, theirs)
        if why is not None:
            self.refusal = Refusal(primary, f"this log is no prefix of {primary}'s: {why}")
            raise Conflict(self.refusal.why, hint="Save what is diverged, then clone this node.")
        return theirs

    def _check_own(self, primary: NodeId, status: Status) -> None:
        if status.errant:
            why = status.errant_words
            self.refusal = Refusal(primary, why)
            raise Conflict(why, hint="Save what is diverged, then take it back or clone this node.")

    async def _point(
        self, primary: NodeId, status: Status, *, acknowledge: bool, until: str = ""
    ) -> None:
        address = self._settings.peer(primary)
        is_own_ahead = sequence_of(status.logged_text) > sequence_of(status.replicated_text)
        # STOP SLAVE first: `settle` has applied everything, so the relay log may go.
        statements = ["STOP SLAVE"] if status.upstream is not None else []
        if is_own_ahead:
            statements.append(f"SET GLOBAL gtid_slave_pos = '{status.logged_text}'")
        if status.sends_semi_sync and not status.waiting_commits:
            statements.append("SET GLOBAL rpl_semi_sync_master_enabled = 0")
        statements += _unlocking(status)
        statements += [
            "SET GLOBAL read_only = 1",
            f"SET GLOBAL rpl_semi_sync_slave_enabled = {int(acknowledge)}",
            f"CHANGE MASTER TO MASTER_HOST = '{address.host}', MASTER_PORT = {address.port},"
            f" MASTER_USER = '{self._login.user}', MASTER_PASSWORD = '{self._login.password}',"
            f" MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1,"
            f" MASTER_HEARTBEAT_PERIOD = {HEARTBEAT_S}",
            f"START SLAVE UNTIL master_gtid_pos = '{until}'" if until else "START SLAVE",
        ]
        await self._server.execute(*statements)

    async def _switch_acknowledging(self, *, acknowledge: bool) -> None:
        """It takes effect when the IO thread starts; the SQL thread runs meanwhile."""
        await self._server.execute(f"SET GLOBAL rpl_semi_sync_slave_enabled = {int(acknowledge)}")
        await self._receiver.stop_receiving()
        status = await self._server.status()
        if are_threads_down(status.upstream):
            raise Conflict(
                "the applier stopped meanwhile: starting a thread would lose the relay log",
                hint="`salvage`, then `follow` again.",
            )
        await self._server.execute("START SLAVE IO_THREAD")


def _unlocking(status: Status) -> list[str]:
    """Whom this server locked out while it was primary: who follows somebody excludes nobody, and
    as the next primary it is to keep nobody waiting. Local, as the locks are."""
    if not status.excluded:
        return []
    accounts = [replication_account(node) for node in sorted(status.excluded)]
    return [
        "SET SESSION sql_log_bin = 0",
        *(f"ALTER USER '{account}'@'%' ACCOUNT UNLOCK" for account in accounts),
        "SET SESSION sql_log_bin = 1",
    ]


def _read_history(connection: Connection) -> History:
    # The end first: an epoch row that is written meanwhile then lies beyond it.
    found = rows(
        connection,
        "SELECT @@global.gtid_binlog_pos AS logged, @@global.gtid_slave_pos AS replicated",
    )[0]
    end = max(sequence_of(str(found["logged"] or "")), sequence_of(str(found["replicated"] or "")))
    return History(read_epochs(connection), end)
