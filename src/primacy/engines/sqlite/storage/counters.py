"""sqlite_sequence: the counters of AUTOINCREMENT, which move where no hook sees it.

An insert that OR IGNORE dropped moves one; DROP TABLE removes one. So a transaction that may have
moved any carries their rows before and after.
"""

import apsw

from primacy.engines.sqlite.storage.images import Counter, Counters, Value

State = dict[int, tuple[Value, Value]]
"""By rowid: the table's name and the counter."""


def read(connection: apsw.Connection) -> State:
    """Ask only where there is such a table: a schema with AUTOINCREMENT has it."""
    rows = connection.execute("SELECT rowid, name, seq FROM sqlite_sequence")
    return {rowid: (name, seq) for rowid, name, seq in rows}


def moved(before: State, after: State) -> Counters | None:
    changed = [
        Counter(rowid, before.get(rowid), after.get(rowid))
        for rowid in sorted(before.keys() | after.keys())
        if before.get(rowid) != after.get(rowid)
    ]
    return Counters(changed) if changed else None


def apply(connection: apsw.Connection, step: Counters) -> None:
    """Whatever replaying the rows made of them, they are then as the primary's were."""
    for counter in step.counters:
        connection.execute("DELETE FROM sqlite_sequence WHERE rowid = ?", (counter.rowid,))
        if counter.new is not None:
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", counter.new[:1])
    for counter in step.counters:
        if counter.new is not None:
            connection.execute(
                "INSERT INTO sqlite_sequence(rowid, name, seq) VALUES(?, ?, ?)",
                (counter.rowid, *counter.new),
            )
