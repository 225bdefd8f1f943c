"""What a running server says about itself, read in one go and turned into an `Observation`.

`read_status` blocks and belongs into a session's thread; everything after it is pure.

Promises  A position never claims more than the server has: the sequence is read before the epoch
          rows, and the epoch is that of the newest row at or below the sequence. What a replica
          wrote by itself does not count.
Assumes   The session's account may write to primacy.health and bypasses `read_only`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from primacy.engines.api import Observation, Replication, Sending, ServerState
from primacy.engines.mariadb.accounts import node_of_account
from primacy.engines.mariadb.connection import Connection, Row, rows
from primacy.engines.mariadb.errant import Author, errant
from primacy.engines.mariadb.errors import DIVERGED, UPSTREAM_AWAY
from primacy.engines.mariadb.gtid import Gtid, parse_list, sequence_of
from primacy.engines.notes import Notes
from primacy.model import Epoch, Incarnation, NodeId, Position

_HEALTH = "UPDATE primacy.health SET n = n + 1 WHERE id = 1"
_POSITIONS = (
    "SELECT @@global.gtid_binlog_pos AS logged, @@global.gtid_slave_pos AS replicated,"
    " @@global.gtid_binlog_state AS state, @@global.server_id AS server_id,"
    " @@global.read_only AS is_read_only,"
    " @@global.rpl_semi_sync_slave_enabled AS acknowledges_next"
)
_STATUS = (
    "SELECT VARIABLE_NAME AS name, VARIABLE_VALUE AS value FROM information_schema.GLOBAL_STATUS"
    " WHERE VARIABLE_NAME IN ('RPL_SEMI_SYNC_MASTER_STATUS', 'RPL_SEMI_SYNC_MASTER_CLIENTS',"
    " 'RPL_SEMI_SYNC_MASTER_WAIT_SESSIONS', 'RPL_SEMI_SYNC_SLAVE_STATUS')"
)
_RECEIVERS = (
    "SELECT USER AS name, COUNT(*) AS count FROM information_schema.PROCESSLIST"
    " WHERE COMMAND LIKE 'Binlog Dump%' OR (COMMAND = 'Killed' AND USER LIKE 'primacy\\_repl\\_%')"
    " GROUP BY USER"
)
"""A connection that was killed may live on for a while; until it is gone it acknowledges."""
_EPOCHS = "SELECT epoch, node, sequence FROM primacy.epochs ORDER BY epoch"
_LOCKED = (
    "SELECT User AS name FROM mysql.global_priv"
    " WHERE JSON_VALUE(Priv, '$.account_locked') = 1 AND User LIKE 'primacy\\_repl\\_%'"
)


@dataclass(frozen=True, slots=True)
class EpochRow:
    """Where an epoch begins in this log."""

    epoch: Epoch
    node: NodeId
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """SHOW SLAVE STATUS, as far as it matters."""

    host: str
    port: int
    user: str
    io_running: str
    sql_running: str
    received_text: str
    """Gtid_IO_Pos: empty after a restart, until a thread has started."""
    io_error_code: int
    io_error: str
    sql_error_code: int
    sql_error: str

    @property
    def is_io_stopped(self) -> bool:
        return self.io_running == "No"

    @property
    def is_sql_stopped(self) -> bool:
        return self.sql_running == "No"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One reading of a running server."""

    logged_text: str
    """gtid_binlog_pos"""
    replicated_text: str
    """gtid_slave_pos"""
    author: Author
    written: tuple[Gtid, ...]
    """gtid_binlog_state: the last transaction of each server's life that stands in the log."""
    is_read_only: bool
    epochs: tuple[EpochRow, ...]
    heartbeat: int
    upstream: Upstream | None
    receivers: Mapping[NodeId, int]
    """How many connections each node has."""
    strangers: frozenset[str]
    """Accounts that read the log and are no node's."""
    excluded: frozenset[NodeId]
    sends_semi_sync: bool
    acknowledging_count: int
    waiting_commits: int
    acknowledges: bool
    """In effect now: the receiver has started so, and runs or tries to."""
    acknowledges_next: bool
    """The switch: whether it will say so when it connects again, which it does by itself."""

    @property
    def log_end(self) -> int:
        """The last sequence that this server has used."""
        return max(sequence_of(self.logged_text), sequence_of(self.replicated_text))

    @property
    def newest_row(self) -> EpochRow | None:
        """Of those that stand in the log; one may have been written since it was read."""
        begun = [row for row in self.epochs if row.sequence <= self.log_end]
        return max(begun, key=lambda row: row.epoch, default=None)

    @property
    def errant(self) -> tuple[Gtid, ...]:
        """The last transactions that this server wrote by itself under another node's epoch."""
        newest = self.newest_row
        if newest is None:
            return ()
        found = errant(self.written, self.author, newest.node, newest.sequence)
        return tuple(sorted(found, key=lambda each: each.sequence))

    @property
    def errant_words(self) -> str:
        return f"{self.errant[-1]} was written on this replica itself"

    @property
    def applied_sequence(self) -> int:
        """In a server's own log stands all that it wrote and all that it applied."""
        own = self.errant
        if not own:
            return self.log_end
        return max((each.sequence for each in self.written if each not in own), default=0)

    @property
    def received_sequence(self) -> int:
        upstream = self.upstream
        received = 0 if upstream is None else sequence_of(upstream.received_text)
        return max(received, self.applied_sequence)

    def position_of(self, sequence: int) -> Position:
        """With the epoch of the newest applied row at or below `sequence`."""
        begun = [row.epoch for row in self.epochs if row.sequence <= sequence]
        return Position(max(begun, default=Epoch(0)), sequence)


def check_health(connection: Connection) -> None:
    """A durable write that no replica sees and no acknowledgement holds up."""
    rows(connection, "SET SESSION sql_log_bin = 0")
    rows(connection, _HEALTH)


def read_status(connection: Connection, node: NodeId) -> Status:
    """Six short queries on one connection, to the server of `node`."""
    upstream = read_upstream(connection)  # Before the own log: received is never below applied.
    positions = rows(connection, _POSITIONS)[0]
    epochs = read_epochs(connection)
    beats = rows(connection, "SELECT n FROM primacy.heartbeat WHERE id = 1")
    counters = {str(row["name"]): str(row["value"]) for row in rows(connection, _STATUS)}
    attached = {str(row["name"]): _number(row, "count") for row in rows(connection, _RECEIVERS)}
    nodes = {account: node_of_account(account) for account in attached}
    locked = [node_of_account(str(row["name"])) for row in rows(connection, _LOCKED)]
    return Status(
        logged_text=str(positions["logged"] or ""),
        replicated_text=str(positions["replicated"] or ""),
        author=Author.of(node, _number(positions, "server_id")),
        written=tuple(parse_list(str(positions["state"] or ""))),
        is_read_only=bool(positions["is_read_only"]),
        epochs=epochs,
        heartbeat=_number(beats[0], "n") if beats else 0,
        upstream=upstream,
        receivers={node: attached[name] for name, node in nodes.items() if node is not None},
        strangers=frozenset(name for name, node in nodes.items() if node is None),
        excluded=frozenset(node for node in locked if node is not None),
        sends_semi_sync=counters.get("RPL_SEMI_SYNC_MASTER_STATUS") == "ON",
        acknowledging_count=int(counters.get("RPL_SEMI_SYNC_MASTER_CLIENTS", "0")),
        waiting_commits=int(counters.get("RPL_SEMI_SYNC_MASTER_WAIT_SESSIONS", "0")),
        acknowledges=counters.get("RPL_SEMI_SYNC_SLAVE_STATUS") == "ON",
        acknowledges_next=bool(positions["acknowledges_next"]),
    )


def read_epochs(connection: Connection) -> tuple[EpochRow, ...]:
    """The history of the cluster, as far as it was applied here."""
    return tuple(
        EpochRow(Epoch(_number(row, "epoch")), NodeId(str(row["node"])), _number(row, "sequence"))
        for row in rows(connection, _EPOCHS)
    )


def read_upstream(connection: Connection) -> Upstream | None:
    """None where this server follows nobody."""
    found = rows(connection, "SHOW SLAVE STATUS")
    if not found:
        return None
    row = found[0]
    return Upstream(
        host=str(row["Master_Host"]),
        port=_number(row, "Master_Port"),
        user=str(row["Master_User"]),
        io_running=str(row["Slave_IO_Running"]),
        sql_running=str(row["Slave_SQL_Running"]),
        received_text=str(row["Gtid_IO_Pos"] or ""),
        io_error_code=_number(row, "Last_IO_Errno"),
        io_error=str(row["Last_IO_Error"] or ""),
        sql_error_code=_number(row, "Last_SQL_Errno"),
        sql_error=str(row["Last_SQL_Error"] or ""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the engine knows and the server does not say."""

    notes: Notes
    incarnation: Incarnation | None
    needs_salvage: bool
    upstream: NodeId | None
    """Who the upstream's address belongs to."""
    refusal: str | None
    """Why the last attempt to follow found this log diverged."""
    salvage_failure: str | None = None
    """Why what only the relay log holds could not be applied."""
    heartbeat_age_s: float
    has_old_data: bool


def observation(status: Status, known: Known) -> Observation:
    """What the brain is shown of a server that answers."""
    return Observation(
        state=ServerState.RUNNING,
        incarnation=known.incarnation,
        is_read_only=status.is_read_only,
        received=status.position_of(status.received_sequence),
        applied=status.position_of(status.applied_sequence),
        position_text=status.logged_text or status.replicated_text,
        sealed_epoch=known.notes.sealed_epoch,
        following_epoch=known.notes.following_epoch,
        replication=_replication(status, known),
        is_errant=_is_errant(status, known),
        sending=Sending(
            acks=1 if status.sends_semi_sync else 0,
            receivers=frozenset(status.receivers),
            connections=status.receivers,
            strangers=status.strangers,
            acknowledging_count=status.acknowledging_count,
            excluded=status.excluded,
            waiting_commits=status.waiting_commits,
        ),
        is_cut=known.notes.is_cut,
        is_torn=known.notes.is_torn,
        has_old_data=known.has_old_data,
        needs_salvage=known.needs_salvage,
        heartbeat=status.heartbeat,
        heartbeat_age_s=known.heartbeat_age_s,
        starts=known.notes.starts,
    )


def _replication(status: Status, known: Known) -> Replication:
    upstream = status.upstream
    is_errant = _is_errant(status, known)
    said = (status.errant_words if is_errant else None, known.refusal, known.salvage_failure)
    errors = list(dict.fromkeys(each for each in said if each is not None))
    if upstream is None:
        return Replication(
            upstream=known.upstream,
            error="; ".join(errors) or None,
            is_diverged=known.refusal is not None or is_errant,
        )
    is_away = upstream.io_error_code in UPSTREAM_AWAY or 2000 <= upstream.io_error_code < 3000
    if upstream.io_error_code and not is_away and upstream.io_running != "Yes":
        errors.append(f"{upstream.io_error_code}: {upstream.io_error}")
    if upstream.sql_error_code:
        errors.append(f"{upstream.sql_error_code}: {upstream.sql_error}")
    codes = {upstream.io_error_code, upstream.sql_error_code}
    is_receiving = upstream.io_running == "Yes"
    # A receiver that was stopped, by a seal or half way into a `follow`, is attached to nobody,
    # whatever the server remembers.
    is_attached = bool(errors) or not upstream.is_io_stopped
    return Replication(
        upstream=known.upstream if is_attached else None,
        is_receiving=is_receiving,
        is_applying=upstream.sql_running == "Yes",
        acknowledges=_may_acknowledge(status, upstream),
        error="; ".join(errors) or None,
        is_diverged=known.refusal is not None
        or is_errant
        or (bool(errors) and bool(codes & DIVERGED)),
    )


def _is_errant(status: Status, known: Known) -> bool:
    """A node that leads writes for itself: its own epoch row is in its log a moment before it is
    in its tables."""
    return bool(status.errant) and not known.notes.led_epoch


def _may_acknowledge(status: Status, upstream: Upstream) -> bool:
    """In effect now, or from its next connection on, which it makes by itself: a member that is
    locked out, or whose link breaks, is not silent before its switch is off. A stopped receiver
    stays so until `follow` starts it, which sets the switch first."""
    if upstream.is_io_stopped:
        return False
    return status.acknowledges or status.acknowledges_next


def _number(row: Row, name: str) -> int:
    return int(str(row[name] or 0))
