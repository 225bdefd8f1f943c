"""The life of the server: start it in the right role, wait until it answers, end it.

A start may cut. `--init-rpl-role=SLAVE` removes from the binary log what a crashed primary had
written and nobody acknowledged; `MASTER` keeps it. So SLAVE is given only to a server that led
and shall not go on leading; a replica always starts as MASTER, which cuts nothing, for what it
has applied came from a primary.
"""

import msgspec

from primacy.clock import Clock
from primacy.engines.api import ServerState
from primacy.engines.mariadb.connection import Connection, integer, rows
from primacy.engines.mariadb.directory import Directory
from primacy.engines.mariadb.gtid import parse_list
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.notes import NoteFile
from primacy.engines.process import ServerProcess
from primacy.errors import Conflict, OutcomeUnknown, Unavailable
from primacy.model import Epoch, Position
from primacy.runtime.threads import to_its_end


class Lifecycle:
    """Starts and ends the server of one node."""

    def __init__(
        self,
        settings: MariaDbSettings,
        *,
        directory: Directory,
        notes: NoteFile,
        process: ServerProcess,
        server: LocalServer,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._notes = notes
        self._process = process
        self._server = server
        self._clock = clock
        self.is_starting = False
        """Between the launch and the first answer: silent, and not hung."""

    async def start(self, *, as_primary: bool) -> None:
        """STOPPED -> RUNNING. Where a server runs, only what an earlier call left undone."""
        state, why = self._directory.state()
        if state is not ServerState.STOPPED:
            raise Conflict(
                f"there is nothing to start: {why}", hint="`initialise` or `clone` it first."
            )
        self.is_starting = True
        try:
            if not self._process.is_alive():
                await self._launch(as_primary=as_primary)
            await self._process.ready(
                lambda: self._server.run(_answers),
                within_s=self._settings.timing.start_s,
                clock=self._clock,
                last_words=self._directory.last_words,
                log=self._settings.layout.server_log,
            )
            await self._take_clone_position()
        finally:
            self.is_starting = False

    async def _launch(self, *, as_primary: bool) -> None:
        self._server.forget_connections()
        notes = self._notes.notes
        is_to_be_cut = notes.led_epoch > 0 and not as_primary
        starts = notes.starts + 1
        is_cut = notes.is_cut or is_to_be_cut
        self._notes.save(
            msgspec.structs.replace(notes, is_cut=is_cut, starts=starts, following_epoch=Epoch(0))
        )
        await to_its_end(self._directory.prepare)
        role = "SLAVE" if is_to_be_cut else "MASTER"
        await self._process.start(
            [
                self._settings.programs.server,
                f"--defaults-file={self._settings.layout.config_file}",
                f"--init-rpl-role={role}",
                f"--server-id={self._settings.server_id_of_start(starts)}",
            ]
        )

    async def stop(self) -> None:
        """SIGTERM for a replica; SIGKILL for a source whose commits wait, or one that hangs."""
        if not self._process.is_alive():
            return
        try:
            status = await self._server.health()
        except (Unavailable, OutcomeUnknown):
            await self.kill()
            return
        if status.sends_semi_sync and status.waiting_commits:
            await self.kill()  # A clean stop would commit what nobody acknowledged.
            return
        self._server.forget_connections()
        await self._process.stop(within_s=self._settings.timing.stop_s)
        self._server.forget_connections()

    async def kill(self) -> None:
        await self._process.kill()
        self._server.forget_connections()

    async def _take_clone_position(self) -> None:
        """A clone brings data and no log: tell the server which transactions it has."""
        mark = self._directory.mark()
        if mark is None or not mark.pending_gtid:
            return
        await self._server.execute(
            "RESET MASTER",
            f"SET GLOBAL gtid_binlog_state = '{mark.pending_gtid}'",
            f"SET GLOBAL gtid_slave_pos = '{mark.pending_gtid}'",
        )
        epoch = await self._server.run(_newest_epoch)
        sequence = max((each.sequence for each in parse_list(mark.pending_gtid)), default=0)
        base = Position(Epoch(epoch), sequence)
        await to_its_end(self._directory.forget_pending_gtid, base)


def _newest_epoch(connection: Connection) -> int:
    return integer(connection, "SELECT COALESCE(MAX(epoch), 0) FROM primacy.epochs")


def _answers(connection: Connection) -> int:
    rows(connection, "SELECT 1")
    return integer(connection, "SELECT COUNT(*) FROM primacy.epochs")
