"""This node as a primary: epoch row, acknowledgements, doors, markers, heartbeats.

Source    docs/engines/mariadb.md: what ends a waiting commit, and how `read_only` blocks.
"""

from collections.abc import Collection

from primacy.engines.mariadb.accounts import OWN_PREFIX, replication_account
from primacy.engines.mariadb.connection import Connection, integer, rows, value
from primacy.engines.mariadb.gtid import sequence_of
from primacy.engines.mariadb.observe import Status
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.errors import Conflict, InvariantBroken, OutcomeUnknown, Rejected, Unavailable
from primacy.model import Epoch, NodeId

ACKS_MAX = 1
"""The server knows one acknowledgement, from any semi-synchronous replica; there is no N."""
MARKER_WAIT_S = 0.1
"""For the marker row to reach the log. Where commits wait before it, the log's end serves."""
POLL_S = 0.005
GONE_WAIT_S = 5.0
"""For a killed connection of a replica to disappear."""
ACKNOWLEDGER_WAIT_S = 1.0
"""For a replica that has just been recorded to start acknowledging; then the call is repeated."""
WAITING_STATE = "Waiting for semi-sync ACK from slave"

_LOG_END = "SELECT @@global.gtid_binlog_pos"
_BLOCKERS = (
    "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER NOT LIKE 'primacy\\_%%'"
    " AND USER <> 'system user' AND ID <> CONNECTION_ID() AND COALESCE(STATE, '') <> %s"
)
_HOSTS_OF = "SELECT Host AS host FROM mysql.global_priv WHERE User = %s"


class Source:
    """The sending side of the local server."""

    def __init__(self, settings: MariaDbSettings, server: LocalServer) -> None:
        self._settings = settings
        self._server = server
        self._closed_at: int | None = None
        """The log's end at the last `close_doors`; None while the doors may be open."""
        self._are_doors_closing = False

    async def write_epoch_row(self, epoch: Epoch, status: Status) -> int:
        """The row carries its own sequence, which the statement demands: the server refuses it
        if anything was written in between."""
        sequence = status.log_end + 1
        node = self._settings.node

        def ask(connection: Connection) -> int:
            rows(connection, f"SET SESSION gtid_seq_no = {sequence}")
            rows(
                connection,
                "INSERT INTO primacy.epochs (epoch, node, sequence) VALUES (%s, %s, %s)",
                epoch,
                node,
                sequence,
            )
            return sequence_of(str(value(connection, "SELECT @@last_gtid")))

        written = await self._server.run(ask)
        if written != sequence:
            raise InvariantBroken(
                "epoch-row-names-its-place", f"epoch {epoch} stands at {written}, not {sequence}"
            )
        return written

    async def be_silent(self, status: Status) -> None:
        """Neither waits for acknowledgements nor gives them; doors closed."""
        if status.sends_semi_sync and status.waiting_commits:
            raise Conflict(
                f"{status.waiting_commits} commits of an earlier epoch still wait",
                hint="Kill the server: switching off would answer them with OK.",
            )
        await self._server.execute(
            "SET GLOBAL read_only = 1",
            "SET GLOBAL rpl_semi_sync_master_enabled = 0",
            "SET GLOBAL rpl_semi_sync_slave_enabled = 0",
        )
        self._closed_at = None
        self._are_doors_closing = False

    async def set_acks(self, acks: int, *, may_release: bool) -> None:
        if not 0 <= acks <= ACKS_MAX:
            raise Rejected(
                f"acks = {acks}: MariaDB waits for at most {ACKS_MAX} acknowledgement",
                hint="The sqlite engine keeps any number.",
            )
        if acks == 0 and not may_release:
            status = await self._server.status()
            if status.sends_semi_sync and status.waiting_commits:
                raise Conflict(
                    f"{status.waiting_commits} commits wait for an acknowledgement",
                    hint="Switching off would answer them with OK.",
                )
        await self._server.execute(f"SET GLOBAL rpl_semi_sync_master_enabled = {acks}")

    async def open_doors(self) -> None:
        """`Unavailable` while commits would wait and no replica acknowledges yet.

        A replica that received a commit before it began to acknowledge never acknowledges it, and
        then nothing new reaches the log: the first write must find somebody who acknowledges.
        """
        await self._somebody_acknowledges()
        self._closed_at = None
        self._are_doors_closing = False
        await self._server.execute("SET GLOBAL read_only = 0")

    async def _somebody_acknowledges(self) -> None:
        clock = self._server.clock
        deadline_s = clock.now_s() + ACKNOWLEDGER_WAIT_S
        while True:
            if await self._server.run(_is_acknowledged):
                return
            if clock.now_s() >= deadline_s:
                raise Unavailable(
                    "no replica acknowledges yet, so the first write would wait for ever",
                    hint="The doors open when one does.",
                )
            await clock.sleep(POLL_S)

    async def close_doors(self) -> int:
        """Bounded by `close_doors_s`, and by the lock timeout of the attempt that runs then."""
        self._are_doors_closing = True
        try:
            end = await self._close_doors()
        except BaseException:
            self._are_doors_closing = False
            raise
        self._closed_at = end
        return end

    async def _close_doors(self) -> int:
        await self._own_writes_end()
        clock = self._server.clock
        deadline_s = clock.now_s() + self._settings.timing.close_doors_s
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._server.execute(
                    "SET SESSION lock_wait_timeout = 1", "SET GLOBAL read_only = 1"
                )
                return await self._quiet_end()
            except Unavailable as error:
                if clock.now_s() >= deadline_s or not await self._may_kill_blockers():
                    await self._server.execute("SET GLOBAL read_only = 0")
                    raise Unavailable(
                        f"the doors could not be closed in {attempt} attempts: {error.what}",
                        hint="They are open as before. Long statements or waiting commits hold"
                        " them.",
                    ) from error
                await self._server.aside(_kill_blockers)

    async def _own_writes_end(self) -> None:
        """A heartbeat or marker that is under way counts as a commit in flight."""
        clock = self._server.clock
        deadline_s = clock.now_s() + self._settings.timing.close_doors_s
        while self._server.beating.is_busy or self._server.marking.is_busy:
            if clock.now_s() >= deadline_s:
                raise Unavailable(
                    "a heartbeat of this primary still waits for its acknowledgement",
                    hint="No replica acknowledges: a switchover would lose nothing but time.",
                )
            await clock.sleep(POLL_S)

    async def _quiet_end(self) -> int:
        """The log's end, with nothing in flight: read twice, unchanged, and nobody waits."""
        first = await self._server.status()
        second = await self._server.status()
        is_quiet = (
            second.is_read_only
            and not second.waiting_commits
            and first.logged_text == second.logged_text
        )
        if not is_quiet:
            raise Unavailable(
                "the log still moves although the doors are closed",
                hint="An account with READ ONLY ADMIN writes. Take that privilege away.",
            )
        return second.applied_sequence

    async def _may_kill_blockers(self) -> bool:
        """A commit that waits for its acknowledgement is no blocker to kill: that commits it."""
        status = await self._server.health()
        return not status.waiting_commits

    async def demote(self) -> None:
        status = await self._server.status()
        if self._closed_at is None or not status.is_read_only:
            raise Conflict("the doors are not closed", hint="Call close_doors first.")
        if status.waiting_commits or status.applied_sequence != self._closed_at:
            raise Conflict(
                f"the log moved from {self._closed_at} to {status.applied_sequence},"
                f" {status.waiting_commits} commits wait",
                hint="Kill the server: switching off would answer them with OK.",
            )
        await self._server.execute("SET GLOBAL rpl_semi_sync_master_enabled = 0")

    async def write_marker(self) -> int:
        """See the contract; the row itself may still wait for its acknowledgement."""
        before = await self._log_end()
        try:
            await self._server.marking.run(_mark, within_s=MARKER_WAIT_S)
        except (Unavailable, OutcomeUnknown):
            return max(before, await self._log_end())
        return await self._log_end()

    async def beat(self) -> None:
        if self._are_doors_closing:
            raise Conflict("the doors are closed", hint="A closed primary writes nothing.")
        await self._server.beating.run(_beat, within_s=self._settings.timing.health_s)

    async def exclude(self, node: NodeId) -> None:
        self._settings.peer(node)
        account = replication_account(node)
        await self._set_lock(account, "LOCK")
        await self._end_sessions(account)

    async def _end_sessions(self, account: str) -> None:
        """Kill them all, and see them gone."""
        clock = self._server.clock
        deadline_s = clock.now_s() + GONE_WAIT_S
        while await self._server.run(lambda connection: _cut(connection, account)):
            if clock.now_s() >= deadline_s:
                raise Unavailable(
                    f"a connection of {account} is still there after {GONE_WAIT_S:.0f} s",
                    hint="It was killed. Call again.",
                )
            await clock.sleep(POLL_S)

    async def admit(self, node: NodeId) -> None:
        self._settings.peer(node)
        await self._set_lock(replication_account(node), "UNLOCK")

    async def cut_strangers(self, accounts: Collection[str]) -> frozenset[str]:
        """See the contract. Accounts of primacy itself are cut and not locked: whoever holds their
        passwords has the cluster."""
        loud: set[str] = set()
        quiet: set[str] = set()
        for account in sorted(accounts):
            before = await self._server.run(_acknowledging_count)
            if not account.startswith(OWN_PREFIX):
                await self._lock_stranger(account, "LOCK")
            await self._end_sessions(account)
            after = await self._server.run(_acknowledging_count)
            (loud if after < before else quiet).add(account)
        if not loud:  # One that comes and goes was just away: better too many than that one.
            return frozenset(quiet)
        for account in sorted(quiet):
            await self._lock_stranger(account, "UNLOCK")
        return frozenset(loud)

    async def _lock_stranger(self, account: str, lock: str) -> None:
        """Under all hosts that it may come from; local to this server."""

        def ask(connection: Connection) -> None:
            rows(connection, "SET SESSION sql_log_bin = 0")
            try:
                for row in rows(connection, _HOSTS_OF, account):
                    rows(connection, f"ALTER USER %s@%s ACCOUNT {lock}", account, row["host"])
            finally:
                rows(connection, "SET SESSION sql_log_bin = 1")

        await self._server.run(ask)

    async def _set_lock(self, account: str, lock: str) -> None:
        """Local to this server: not in the binary log, where it would reach the replicas."""
        await self._server.execute(
            "SET SESSION sql_log_bin = 0",
            f"ALTER USER '{account}'@'%' ACCOUNT {lock}",
            "SET SESSION sql_log_bin = 1",
        )

    async def _log_end(self) -> int:
        def ask(connection: Connection) -> int:
            return sequence_of(str(value(connection, _LOG_END) or ""))

        return await self._server.run(ask)


def _mark(connection: Connection) -> None:
    rows(connection, "UPDATE primacy.marker SET n = n + 1 WHERE id = 1")


def _beat(connection: Connection) -> None:
    rows(connection, "UPDATE primacy.heartbeat SET n = n + 1 WHERE id = 1")


def _kill_blockers(connection: Connection) -> None:
    for row in rows(connection, _BLOCKERS, WAITING_STATE):
        _kill(connection, int(str(row["id"])))


def _cut(connection: Connection, account: str) -> int:
    """Kill every connection of an account. Returns how many there still were."""
    found = rows(
        connection, "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = %s", account
    )
    for row in found:
        _kill(connection, int(str(row["id"])))
    return len(found)


def _kill(connection: Connection, thread: int) -> None:
    # The thread may end by itself meanwhile; a statement that says so in one step does not exist.
    if integer(
        connection, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = %s", thread
    ):
        rows(connection, f"KILL {thread}")


def _is_acknowledged(connection: Connection) -> bool:
    """Whether a commit would find somebody who acknowledges, or wait for nobody."""
    is_off = _semi_sync(connection).get("Rpl_semi_sync_master_status") != "ON"
    return is_off or _acknowledging_count(connection) > 0


def _acknowledging_count(connection: Connection) -> int:
    return int(_semi_sync(connection).get("Rpl_semi_sync_master_clients", "0"))


def _semi_sync(connection: Connection) -> dict[str, str]:
    return {
        str(row["Variable_name"]): str(row["Value"])
        for row in rows(connection, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_%'")
    }
