"""Work on the whole file that no log needs to know."""

import apsw

from primacy.engines.sqlite.storage.recording import Recording
from primacy.errors import Rejected


def vacuum(connection: apsw.Connection, recording: Recording) -> None:
    """`Rejected` where a table's rowids are SQLite's to choose: VACUUM may choose them anew, and
    the log names rows by them."""
    tables = recording.schema.tables.values()
    loose = sorted(each.name for each in tables if not each.is_keyed and each.map.alias is None)
    if loose:
        raise Rejected(
            f"VACUUM could renumber the rows of {', '.join(loose[:5])} "
            f"({len(loose)} tables without an INTEGER PRIMARY KEY)",
            hint="Give them one, or let a clone of the node make a compact copy.",
        )
    if connection.in_transaction:
        raise Rejected("VACUUM runs outside of groups", hint="End the group first.")
    limit = connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)  # It attaches the copy that it makes.
    recording.capture.stop()
    try:
        connection.execute("VACUUM")
    finally:
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, limit)
        recording.load_schema()
