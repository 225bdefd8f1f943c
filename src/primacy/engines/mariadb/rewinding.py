"""Take back what an old primary alone has, row by row, instead of copying all of its data again.

    which rows -> may they be reversed? -> note "torn" -> undo, latest first -> empty log that
    stands at the last shared transaction -> follow the primary to one place, without acknowledging
    -> the touched tables have the same checksums there and here -> note "torn" taken back

Promises  A rewind that does not reach its end leaves the note, and a node with the note is cloned.
          When it returns, the touched tables are equal to the primary's at the same transaction.
Assumes   Full row images (the server's settings say so; it is checked).
Does not  Look at tables that the reversed transactions did not touch: nothing wrote to them.
Source    docs/engines/mariadb.md: flashback, and what it does not reverse.
"""

from collections.abc import Collection, Sequence

from primacy.engines.mariadb.connection import Connection, integer, rows, value
from primacy.engines.mariadb.logs import Reading
from primacy.engines.mariadb.scanning import Change
from primacy.errors import Conflict

TRANSACTIONS_MAX = 1000
ROWS_MAX = 20_000
"""Beyond them a copy is as quick, and surer."""

TABLES_MAX = 50

TABLE_BYTES_MAX = 256 << 20
"""Of all touched tables: they are read whole, there and here, to be compared."""

_KINDS = (
    "SELECT ENGINE AS engine, DATA_LENGTH + INDEX_LENGTH AS bytes FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
)
_COLUMNS = (
    "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    " AND COALESCE(GENERATION_EXPRESSION, '') = ''"
)
_GENERATED = (
    "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    " AND COALESCE(GENERATION_EXPRESSION, '') <> ''"
)
_CASCADES = (
    "SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS"
    " WHERE UNIQUE_CONSTRAINT_SCHEMA = %s AND REFERENCED_TABLE_NAME = %s"
    " AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL'))"
)


def obstacle(lost: Sequence[Change], reading: Reading) -> str:
    """Why these transactions cannot be reversed, as far as the log says it. Empty: they can."""
    if not reading.is_whole:
        return "the log could not be read to its end"
    if len(lost) > TRANSACTIONS_MAX:
        return f"{len(lost)} transactions, at most {TRANSACTIONS_MAX} are reversed"
    row_count = sum(each.rows for each in lost)
    if row_count > ROWS_MAX:
        return f"{row_count} rows, at most {ROWS_MAX} are reversed"
    for each in lost:
        if each.obstacle:
            return f"{each.gtid} is {each.obstacle}"
        if not each.tables:
            return f"{each.gtid} changed no row that the log shows"
    touched = {table for each in lost for table in each.tables}
    if len(touched) > TABLES_MAX:
        return f"{len(touched)} tables, at most {TABLES_MAX} are compared afterwards"
    partial = sorted(table for table in touched if reading.columns.get(table, 0) == 0)
    if partial:
        return f"the log has not all columns of {', '.join(partial)}"
    return ""


def check_tables(connection: Connection, tables: Collection[str], reading: Reading) -> None:
    """`Conflict` where the tables, as they are now, forbid to reverse rows of theirs."""
    total_bytes = 0
    for table in sorted(tables):
        schema, name = parts_of(table)
        found = rows(connection, _KINDS, schema, name)
        if not found or str(found[0]["engine"]) != "InnoDB":
            raise _cannot(f"{table} is no InnoDB table now")
        total_bytes += int(str(found[0]["bytes"] or 0))
        columns = integer(connection, _COLUMNS, schema, name)
        if reading.columns.get(table) != columns or integer(connection, _GENERATED, schema, name):
            raise _cannot(f"{table} has {columns} columns, its rows in the log have others")
        if integer(connection, _CASCADES, schema, name):
            raise _cannot(f"foreign keys change other tables when {table} changes")
    if total_bytes > TABLE_BYTES_MAX:
        raise _cannot(f"the touched tables have {total_bytes >> 20} MB, too much to be compared")


def parts_of(table: str) -> tuple[str, str]:
    """`` `shop`.`t` `` -> shop, t."""
    schema, _, name = table[1:-1].partition("`.`")
    return schema.replace("``", "`"), name.replace("``", "`")


def stand_at(connection: Connection, gtid: str) -> None:
    """An empty log, and the position of the last transaction that both histories have."""
    rows(connection, "RESET MASTER")
    rows(connection, f"SET GLOBAL gtid_binlog_state = '{gtid}'")
    rows(connection, f"SET GLOBAL gtid_slave_pos = '{gtid}'")


# ---- the comparison


def checksums(connection: Connection, tables: Collection[str]) -> dict[str, int]:
    """Of the whole tables, as this connection's transaction sees them. `Conflict`: one is gone."""
    found: dict[str, int] = {}
    for table in sorted(tables):
        row = rows(connection, f"CHECKSUM TABLE {table}")[0]
        if row["Checksum"] is None:
            raise _cannot(f"{table} cannot be read")
        found[table] = int(str(row["Checksum"]))
    return found


def checksums_at_once(
    connection: Connection, tables: Collection[str]
) -> tuple[str, dict[str, int]]:
    """On a primary that goes on writing: the position of one moment, and the checksums of it."""
    rows(connection, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    rows(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    try:
        at = {
            str(row["Variable_name"]).lower(): str(row["Value"])
            for row in rows(connection, "SHOW STATUS LIKE 'binlog_snapshot_%'")
        }
        gtid = value(
            connection,
            "SELECT BINLOG_GTID_POS(%s, %s)",
            at["binlog_snapshot_file"],
            int(at["binlog_snapshot_position"]),
        )
        return str(gtid or ""), checksums(connection, tables)
    finally:
        rows(connection, "ROLLBACK")


def _cannot(why: str) -> Conflict:
    return Conflict(f"these transactions cannot be reversed: {why}", hint="Clone the node.")
