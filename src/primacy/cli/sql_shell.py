"""What the SQL shell does with one statement or dot-command."""

import math
from collections.abc import Iterable

from primacy.cli.format import Json, console, say, say_json, table
from primacy.driver.connection import Connection, Cursor
from primacy.driver.dump import dumped, literal
from primacy.engines.sqlite.protocol import Row, Value
from primacy.errors import Rejected

ROWS_SHOWN_MAX = 1000
"""In a table, which is laid out as a whole. JSON and .dump have no end."""

VALUE_SHOWN_MAX = 200

HELP = """\
.dump [TABLE]     the SQL that makes the database, or one table, again
.help             this
.json on|off      rows as JSON, or as tables
.quit             leave; so does Ctrl-D
.schema [TABLE]   how tables, indexes, views and triggers were created
.server           the server that this shell is connected to
.tables           tables and views
Everything else is SQL and ends with a semicolon. Each statement is a transaction of its own,
until BEGIN; then COMMIT or ROLLBACK, soon: others wait for the writer."""


class Shell:
    def __init__(self, connection: Connection, *, is_json: bool) -> None:
        self._connection = connection
        self._is_json = is_json
        self.is_over = False

    @property
    def banner(self) -> str:
        return f"primacy sql, connected to {self._connection.server}"

    @property
    def prompt(self) -> str:
        return "primacy*> " if self._connection.in_transaction else "primacy> "

    def run(self, text: str) -> None:
        if text.startswith("."):
            self._command(text.split())
            return
        cursor = self._connection.execute(text)
        if cursor.description is not None:
            self._show(cursor)
        elif self._is_json:
            say_json({"rows_affected": max(0, cursor.rowcount)}, is_compact=True)
        elif cursor.rowcount >= 0:
            say(f"{cursor.rowcount} row{'' if cursor.rowcount == 1 else 's'} changed")
        cursor.close()

    def _command(self, words: list[str]) -> None:
        match words:
            case [".help"]:
                say(HELP)
            case [".quit" | ".exit"]:
                self.is_over = True
            case [".tables"]:
                self._tables()
            case [".schema"]:
                self._schema("")
            case [".schema", name]:
                self._schema(name)
            case [".dump"]:
                self._dump("")
            case [".dump", name]:
                self._dump(name)
            case [".server"]:
                say(self._connection.server)
            case [".json", "on" | "off" as state]:
                self._is_json = state == "on"
            case _:
                raise Rejected(f"{' '.join(words)} is no command", hint="See .help.")

    def _tables(self) -> None:
        for (name,) in self._ask(
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE "
            r"'sqlite\_%' ESCAPE '\' AND name NOT LIKE '\_primacy%' ESCAPE '\' ORDER BY name"
        ):
            say(str(name))

    def _schema(self, name: str) -> None:
        for (sql,) in self._ask(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND (tbl_name = "
            f"{literal(name)} OR {literal(name)} = '') "
            r"AND name NOT LIKE '\_primacy%' ESCAPE '\' ORDER BY tbl_name, rowid"
        ):
            say(f"{sql!s};")

    def _dump(self, only: str) -> None:
        """As of one moment."""
        was_open = self._connection.in_transaction
        if not was_open:
            self._connection.begin(read_only=True)
        try:
            for line in dumped(self._ask, only=only):
                say(line)
        finally:
            if not was_open:
                self._connection.rollback()

    def _ask(self, sql: str) -> Iterable[Row]:
        return self._connection.execute(sql)

    def _show(self, cursor: Cursor) -> None:
        names = [each[0] for each in cursor.description or ()]
        if self._is_json:
            for row in cursor:
                values = [as_json(value) for value in row]
                say_json(dict(zip(names, values, strict=True)), is_compact=True)
            return
        rows = cursor.fetchmany(ROWS_SHOWN_MAX)
        console().print(table(names, [[shown(value) for value in row] for row in rows]))
        if cursor.fetchone() is not None:
            say(f"only the first {ROWS_SHOWN_MAX} rows are shown: --json prints all")


def shown(value: Value) -> str:
    match value:
        case None | bytes():
            text = literal(value)
        case _:
            text = str(value)
    return text if len(text) <= VALUE_SHOWN_MAX else f"{text[:VALUE_SHOWN_MAX]}..."


def as_json(value: Value) -> Json:
    """Blobs as the SQL that means them. JSON has no infinity."""
    match value:
        case bytes():
            return literal(value)
        case float() if math.isinf(value):
            return literal(value)
        case _:
            return value
