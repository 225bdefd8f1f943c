"""Statements that change the schema, or that every node runs for itself.

Inside, SQLite writes rows that a replica's own run of the same text writes too: they are left out.
Two exceptions: what CREATE TABLE ... AS filled in stands in the log as rows, since a query may give
another order elsewhere; and so do rows of other tables that DROP TABLE took along by foreign keys.
"""

from collections.abc import Callable

import apsw

from primacy.engines.sqlite.storage.images import INSERT, Ddl, quoted
from primacy.engines.sqlite.storage.recording import Recording
from primacy.engines.sqlite.storage.rules import Caller, Rules
from primacy.engines.sqlite.storage.schema import OWN, Schema
from primacy.engines.sqlite.storage.statements import Form
from primacy.errors import Rejected


def define(
    recording: Recording,
    connection: apsw.Connection,
    rules: Rules,
    *,
    form: Form,
    sql: str,
    run: Callable[[], None],
) -> None:
    """Takes down what a replica has to do. The caller undoes it on an error."""
    mark, before = len(recording.events), recording.schema
    run()
    inside = recording.events[mark:]
    recording.capture.cut(mark)  # With any problem: these rows are the replica's own to make.
    with rules.as_caller(Caller.OWN):
        recording.load_schema()
        recording.see_counters()
    after = recording.schema
    _check_own_names(before, after, rules.caller)
    if form is Form.CREATE_FROM_QUERY:
        _take_down_filled(recording, connection, before)
    elif form is Form.RUN_AGAIN or after.texts != before.texts or after.hash != before.hash:
        if len(after.tables) < len(before.tables):
            kept = {each.number for each in before.tables.values() if each.name in after.tables}
            recording.events += [row for row in inside if type(row) is tuple and row[1] in kept]
        recording.events.append(Ddl(sql))


def _check_own_names(before: Schema, after: Schema, caller: Caller) -> None:
    """ALTER TABLE ... RENAME TO can give one too, and does not tell the authorizer."""
    if caller is Caller.CLIENT and _own(before) != _own(after):
        raise Rejected(
            f"names that begin with {OWN} belong to primacy", hint="Choose another name."
        )


def _own(schema: Schema) -> set[str]:
    return {name for name in schema.texts if name.startswith(OWN)}


def _take_down_filled(recording: Recording, connection: apsw.Connection, before: Schema) -> None:
    made = [each for each in recording.schema.tables.values() if each.name not in before.tables]
    for table in made:  # None for IF NOT EXISTS of one that does.
        recording.events.append(Ddl(recording.schema.texts[table.name.lower()]))
        name, rowid = quoted(table.name), quoted(table.rowid_name)
        rows = connection.execute(f"SELECT {rowid}, * FROM {name} ORDER BY {rowid}")
        recording.events += [(INSERT, table.number, rowid, values) for rowid, *values in rows]
