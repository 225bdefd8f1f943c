"""This node as a receiver: stop receiving, drain, salvage, follow.

What was acknowledged may stand in the relay log alone, and the server throws its relay log away
when a thread is started while both are stopped, or when it is pointed elsewhere. So here:

- receiving stops while the applier runs, never the other way round; where the primary is silent,
  the receiver is woken from its wait for it, and has stopped only when the server says so;
- both threads down with an unapplied relay log: `salvage` reads it as files, before any start;
- nothing is re-pointed or reset before all that was received is applied.

Source    docs/engines/mariadb.md has the facts behind each step, as observed on 10.11.
"""

import asyncio
from dataclasses import replace

from primacy.engines.mariadb.accounts import MAINTENANCE, client_file, login
from primacy.engines.mariadb.connection import Connection, integer, rows
from primacy.engines.mariadb.gtid import before, sequence_of
from primacy.engines.mariadb.logs import Reading, read_logs, relay_logs, replay
from primacy.engines.mariadb.observe import Status, Upstream, read_upstream
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.notes import replace_durably
from primacy.engines.process import ServerProcess
from primacy.errors import Conflict, Unavailable
from primacy.model import Address
from primacy.telemetry import Event, Sink, Value

STOP_PATIENCE_S = 0.01
"""A receiver that has something to read stops at once. One whose primary is quiet or frozen stops
at its network timeout; killing its thread ends the read."""
FAREWELL_PATIENCE_S = 0.05
"""A receiver that acknowledged then opens another connection, to tell its primary to end the one it
had. A primary that lives has answered by then, and one that has died refuses at once."""
CUT_EVERY_S = 0.01
CUTS_MAX = 150
"""By then the server has given that up by itself (`rpl_semi_sync_slave_kill_conn_timeout`)."""
WAIT_STEP_S = 0.5
"""Of waiting for the applier: between the steps its errors are looked at."""
SEAL_DRAIN_S = 0.2
"""A healthy applier is through by then; else the relay log is read for epoch rows."""


class Receiver:
    """The replication threads of this node's server."""

    def __init__(
        self, settings: MariaDbSettings, server: LocalServer, process: ServerProcess, tell: Sink
    ) -> None:
        self._settings = settings
        self._server = server
        self._process = process
        self._tell = tell
        self._stuck: Reading | None = None

    @property
    def is_stuck(self) -> bool:
        """The last salvage failed, and how far the relay log goes is known all the same."""
        return self._stuck is not None

    def forget_stuck(self) -> None:
        self._stuck = None

    def with_stuck(self, status: Status) -> Status:
        """What a salvage could not apply was received, whatever the server has forgotten of it."""
        if self._stuck is None or not are_threads_down(status.upstream):
            return status
        return _with_epochs(_with_received(status, self._stuck), self._stuck)

    async def stop_receiving(self) -> None:
        """The IO thread ends; the SQL thread runs on, so that the relay log is kept."""
        upstream = await self._server.run(read_upstream)
        if upstream is None or upstream.is_io_stopped:
            return
        if upstream.is_sql_stopped:
            await self._server.execute("START SLAVE SQL_THREAD")  # Keeps the relay log in use.
        stopping = self._server.begin(_stop_receiver)
        if not await _ends(stopping, within_s=STOP_PATIENCE_S):
            await self._kill_receiver()
            if not await _ends(stopping, within_s=FAREWELL_PATIENCE_S):
                await self._cut_receiver(stopping, Address(upstream.host, upstream.port))
        await self._server.end(stopping)

    async def _cut_receiver(self, stopping: "asyncio.Future[None]", upstream: Address) -> None:
        """The thread reads and acknowledges nothing more, and waits for a host that says nothing.
        It has not ended before the server says so: this only wakes it, as its timeout would."""
        names: dict[str, Value] = {"node": self._settings.node, "upstream": str(upstream)}
        try:
            for _ in range(CUTS_MAX):
                await asyncio.to_thread(self._process.cut_outgoing, upstream)
                if await _ends(stopping, within_s=CUT_EVERY_S):
                    self._tell(Event("receiver-cut", names))
                    return
        except OSError as error:
            reason = error.strerror or str(error)
            self._tell(Event("receiver-not-cut", {**names, "reason": reason}))

    async def _kill_receiver(self) -> None:
        try:
            await self._server.aside(_kill_receiver)
        except Conflict:
            return  # The thread has ended meanwhile.

    async def sealed_status(self) -> Status:
        """After `stop_receiving`: with every epoch row that was received, applied or not."""
        status = await self._server.status()
        if status.received_sequence == status.applied_sequence and not status.errant:
            return status
        await self._wait_applied(status, within_s=SEAL_DRAIN_S)
        status = await self._server.status()
        if status.received_sequence == status.applied_sequence and not status.errant:
            return status
        reading = await self.read_unapplied(status)
        if status.errant and are_threads_down(status.upstream):  # The server has forgotten it.
            status = _with_received(status, reading)
        return _with_epochs(status, reading)

    async def drain(self, *, within_s: float) -> None:
        """Apply all that was received. `Unavailable`: it takes longer, or the applier fails."""
        deadline_s = self._server.clock.now_s() + within_s
        while True:
            status = await self._server.status()
            upstream = status.upstream
            if upstream is None or status.received_sequence == status.applied_sequence:
                return
            if upstream.is_sql_stopped:
                await self._revive_applier(upstream)
            left_s = deadline_s - self._server.clock.now_s()
            if left_s <= 0:
                behind = status.received_sequence - status.applied_sequence
                raise Unavailable(
                    f"{behind} received transactions are not applied after {within_s:.0f} s",
                    hint="The applier goes on. Call again.",
                )
            await self._wait_applied(status, within_s=min(left_s, WAIT_STEP_S))

    async def has_unapplied_relay_log(self) -> bool:
        """With both threads down: does the relay log hold what the tables do not?"""
        status = await self._server.status()
        if not are_threads_down(status.upstream):
            return False
        if not relay_logs(self._settings.layout.data):
            return False
        reading = await self.read_unapplied(status)
        return reading.last_sequence > status.applied_sequence

    async def read_unapplied(self, status: Status) -> Reading:
        """The relay log beyond what is applied."""
        files = relay_logs(self._settings.layout.data)
        reading = await read_logs(
            self._settings.programs.binlog, files, start=_applied_text(status)
        )
        if not reading.is_whole and not reading.transactions:
            reading = await read_logs(
                self._settings.programs.binlog, files
            )  # The logs begin later than what is applied.
        return reading

    async def salvage(self) -> None:
        """Apply the relay log as files, then let the server know: both its positions agree."""
        status = await self._server.status()
        if not are_threads_down(status.upstream) and status.upstream is not None:
            raise Conflict(
                "a replication thread runs, so the relay log is in use",
                hint="`drain` applies it.",
            )
        files = relay_logs(self._settings.layout.data)
        reading = await self.read_unapplied(status)
        if reading.last_sequence > status.applied_sequence:
            programs = self._settings.programs
            options = f"--defaults-file={await asyncio.to_thread(self.client_options)}"
            try:
                await replay(
                    programs.binlog,
                    files,
                    start=_applied_text(status),
                    into=[programs.client, options, "--binary-mode"],
                )
            except Unavailable:
                if not await self._holds(reading.last_sequence):
                    self._stuck = reading if reading.is_whole else None
                    raise  # Else only the end was torn, and nobody has acknowledged half an event.
        self._stuck = None
        await self.adopt_own_log()

    async def _holds(self, sequence: int) -> bool:
        """Everything up to there is applied."""
        return (await self._server.status()).applied_sequence >= sequence

    async def adopt_own_log(self) -> None:
        """Both threads down: what stands in the own log counts as replicated, unless this server
        wrote it by itself."""
        status = await self._server.status()
        if status.errant:
            return
        if sequence_of(status.logged_text) > sequence_of(status.replicated_text):
            await self._server.execute(f"SET GLOBAL gtid_slave_pos = '{status.logged_text}'")

    async def detach(self) -> None:
        """Forget the upstream. Everything received is applied first, or this raises."""
        upstream = await self._server.run(read_upstream)
        if upstream is None:
            return
        await self.settle()
        await self._server.execute("STOP SLAVE", "RESET SLAVE ALL")

    async def settle(self) -> None:
        """Stop receiving and apply the rest: then the relay log may go."""
        if await self.has_unapplied_relay_log():
            await self.salvage()
        await self.stop_receiving()
        await self.drain(within_s=self._settings.timing.drain_s)

    def client_options(self) -> str:
        """The option file for MariaDB's own programs, with the maintenance account."""
        layout = self._settings.layout
        path = layout.secrets / "maintenance.cnf"
        who = login(self._settings.cluster_secret, MAINTENANCE)
        content = client_file(who, socket=layout.socket, data=layout.data)
        if not path.exists() or path.read_bytes() != content:
            replace_durably(path, content)
        return str(path)

    async def _revive_applier(self, upstream: Upstream) -> None:
        """The applier stands still although something is left to apply."""
        if upstream.sql_error_code:
            raise Unavailable(
                f"the applier stopped: {upstream.sql_error_code}: {upstream.sql_error}",
                hint="This node cannot apply what it received. Clone it anew.",
            )
        if upstream.is_io_stopped:
            await self.salvage()
        else:
            await self._server.execute("START SLAVE SQL_THREAD")

    async def _wait_applied(self, status: Status, *, within_s: float) -> None:
        upstream = status.upstream
        if upstream is None or not upstream.received_text:
            return
        text = upstream.received_text

        def ask(connection: Connection) -> int:
            return integer(connection, "SELECT MASTER_GTID_WAIT(%s, %s)", text, within_s)

        await self._server.run(ask)


def are_threads_down(upstream: Upstream | None) -> bool:
    """There is an upstream, and neither thread runs: a start now would lose the relay log."""
    return upstream is not None and upstream.is_io_stopped and upstream.is_sql_stopped


def _applied_text(status: Status) -> str:
    if status.errant:
        return before(status.applied_sequence + 1)
    is_own_ahead = sequence_of(status.logged_text) > sequence_of(status.replicated_text)
    return status.logged_text if is_own_ahead else status.replicated_text


def _with_epochs(status: Status, reading: Reading) -> Status:
    known = {row.epoch for row in status.epochs}
    new = tuple(row for row in reading.epochs if row.epoch not in known)
    return replace(status, epochs=status.epochs + new)


def _with_received(status: Status, reading: Reading) -> Status:
    """What stands in the relay log was received, although it is not applied."""
    if status.upstream is None or reading.last_sequence <= status.received_sequence:
        return status
    received = str(max(reading.transactions, key=lambda each: each.sequence))
    return replace(status, upstream=replace(status.upstream, received_text=received))


async def _ends(answer: "asyncio.Future[None]", *, within_s: float) -> bool:
    done, _ = await asyncio.wait([answer], timeout=within_s)
    return bool(done)


def _stop_receiver(connection: Connection) -> None:
    rows(connection, "STOP SLAVE IO_THREAD")


def _kill_receiver(connection: Connection) -> None:
    found = rows(
        connection,
        "SELECT ID AS id FROM information_schema.PROCESSLIST"
        " WHERE USER = 'system user' AND COMMAND = 'Slave_IO'",
    )
    for row in found:
        rows(connection, f"KILL {int(str(row['id']))}")
