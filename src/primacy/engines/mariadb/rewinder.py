"""Carries out a rewind, step by step; `rewinding` says what has a reverse and what is compared."""

from dataclasses import dataclass

from primacy.engines.api import Diverged
from primacy.engines.mariadb.accounts import MAINTENANCE, login
from primacy.engines.mariadb.clone import ask_checksums
from primacy.engines.mariadb.connection import Connection, Session, Target
from primacy.engines.mariadb.diverged import read_from
from primacy.engines.mariadb.following import Follower
from primacy.engines.mariadb.gtid import before
from primacy.engines.mariadb.logs import binary_logs, undo
from primacy.engines.mariadb.replica import Receiver, are_threads_down
from primacy.engines.mariadb.rewinding import (
    check_tables,
    checksums,
    obstacle,
    stand_at,
)
from primacy.engines.mariadb.server import LocalServer
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.errors import Conflict
from primacy.model import NodeId, Position

COMPARE_S = 120.0
"""To read all touched tables once: `TABLE_BYTES_MAX` bounds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """What is about to be reversed."""

    first_sequence: int
    shared_gtid: str
    """The last transaction that both histories have."""
    stands_at: Position
    tables: frozenset[str]


class Rewinder:
    """The local server, once it runs, read-only and attached to nobody."""

    def __init__(
        self,
        settings: MariaDbSettings,
        server: LocalServer,
        receiver: Receiver,
        follower: Follower,
    ) -> None:
        self._settings = settings
        self._server = server
        self._receiver = receiver
        self._follower = follower
        where = login(settings.cluster_secret, MAINTENANCE)
        self._session = Session(
            "compare",
            Target(
                login=where,
                where=settings.layout.socket,
                connect_s=settings.timing.connect_s,
                read_s=COMPARE_S,
            ),
        )

    async def prepare(self, found: Diverged) -> Rewind:
        """Nothing is changed. `Conflict` where it must not be done, with the reason."""
        status = await self._server.status()
        if not status.is_read_only or status.sends_semi_sync:
            raise Conflict("this server leads", hint="Only a replica to be is rewound.")
        if status.upstream is not None and not are_threads_down(status.upstream):
            raise Conflict("it is attached to a primary", hint="Its log may still grow.")
        reading = await read_from(self._settings, found.parts_at - 1)
        shared = [each for each in reading.changes if each.gtid.sequence == found.parts_at - 1]
        lost = [each for each in reading.changes if each.gtid.sequence >= found.parts_at]
        if not shared or not lost:
            raise Conflict(
                f"the log does not have both sides of sequence {found.parts_at}",
                hint="Clone the node.",
            )
        why = obstacle(lost, reading)
        if why:
            raise Conflict(f"these transactions cannot be reversed: {why}", hint="Clone the node.")
        tables = frozenset(table for each in lost for table in each.tables)

        def check(connection: Connection) -> None:
            check_tables(connection, tables, reading)

        await self._session.run(check, within_s=self._settings.timing.command_s)
        return Rewind(
            first_sequence=found.parts_at,
            shared_gtid=str(shared[-1].gtid),
            stands_at=status.position_of(found.parts_at - 1),
            tables=tables,
        )

    async def reverse(self, rewind: Rewind) -> None:
        """From here on the data are torn until the end. Errors: those of the two programs."""
        programs, layout = self._settings.programs, self._settings.layout
        options = f"--defaults-file={self._receiver.client_options()}"
        await undo(
            programs.binlog,
            binary_logs(layout.data),
            start=before(rewind.first_sequence),
            into=[programs.client, options, "--binary-mode"],
        )

        def stand(connection: Connection) -> None:
            stand_at(connection, rewind.shared_gtid)

        await self._server.run(stand)

    async def compare(self, rewind: Rewind, primary: NodeId) -> None:
        """Follow to one place of the primary's log, and compare what was touched. `Conflict` where
        anything differs."""
        theirs = await ask_checksums(self._settings, primary, sorted(rewind.tables))
        await self._follower.follow_until(primary, theirs.gtid)

        def ask(connection: Connection) -> dict[str, int]:
            return checksums(connection, rewind.tables)

        own = await self._session.run(ask, within_s=COMPARE_S)
        different = sorted(each for each in rewind.tables if own[each] != theirs.values.get(each))
        if different:
            raise Conflict(
                f"after the rewind {', '.join(different)} differ(s) from {primary}",
                hint="Clone the node.",
            )
