"""What both kinds of connections and cursors do, as steps: when transactions begin, what a
statement is, which rows have arrived. Sans-IO; the rules are those of Python's sqlite3.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from primacy.driver.core import Asked, Core
from primacy.driver.effects import Steps
from primacy.driver.exceptions import InterfaceError, ProgrammingError, misused
from primacy.driver.line import Clock
from primacy.driver.parameters import Given, parameters_of, rows_of
from primacy.driver.rows import Described
from primacy.driver.target import Target, Wanted
from primacy.engines.sqlite.keywords import (
    CHANGES_ROWS,
    READS,
    Control,
    control_of,
    first_word,
    is_blank,
)
from primacy.engines.sqlite.protocol import Access, Done, Parameters, Row, ServerRole, Statement
from primacy.engines.sqlite.tokens import created_ms_of
from primacy.errors import Rejected

ISOLATION_LEVELS = ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE")


class Results:
    """What a cursor holds of its last statement."""

    def __init__(self) -> None:
        self.columns: list[str] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.is_closed = False
        self.rows: deque[Row] = deque()
        self.cursor = 0
        """The server's number for the rest of the rows; 0: all are here."""
        self.generation = 0

    @property
    def description(self) -> Described | None:
        if self.columns is None:
            return None
        return tuple((each, None, None, None, None, None, None) for each in self.columns)

    def reset(self) -> None:
        self.columns, self.rowcount, self.cursor = None, -1, 0
        self.rows.clear()

    def take(self, done: Done, *, generation: int) -> None:
        self.columns, self.cursor, self.generation = done.columns, done.cursor, generation
        self.rows.extend(done.rows)

    def check_open(self) -> None:
        if self.is_closed:
            raise ProgrammingError("the cursor is closed", hint="Make another one.")


class Session:
    """One connection of the database API, whoever waits for it."""

    def __init__(
        self,
        target: Target,
        *,
        isolation_level: str | None,
        now_s: Clock,
        nonce: Callable[[], bytes],
    ) -> None:
        self.core = Core(target, now_s=now_s, nonce=nonce)
        self.isolation_level = checked_level(isolation_level)
        self.total_changes = 0
        self._last_rowid = 0
        """Of the last row that this connection inserted: an upsert that only updates leaves it."""
        self._open: weakref.ref[Results] | None = None
        """Whose rows the server still holds. It holds them for one cursor of a connection."""

    def execute(self, results: Results, sql: str, given: Given, *, key: str = "") -> Steps[None]:
        _check_sql(sql)
        yield from self.discard(results)
        control = control_of(sql)
        if control is not None and control[0] in _ENDS_AND_BEGINS:
            self._check_no_key(key, "a statement about transactions")
            yield from self._obey(control[0])
            return
        if is_blank(sql):
            return  # SQLite does nothing.
        word = first_word(sql)
        done = yield from self._run(sql, [parameters_of(given)], word=word, key=key)
        self.take(results, done)
        if word in CHANGES_ROWS or (word == "WITH" and done.rows_affected >= 0):
            results.rowcount = done.rows_affected
            self.total_changes += max(0, done.rows_affected)
        if word in ("INSERT", "REPLACE"):
            results.lastrowid = self._last_rowid

    def execute_many(
        self, results: Results, sql: str, given: Iterable[Given], *, key: str = ""
    ) -> Steps[None]:
        _check_sql(sql)
        yield from self.discard(results)
        word = first_word(sql)
        if word not in CHANGES_ROWS and word != "WITH":
            raise ProgrammingError(
                "executemany() runs INSERT, UPDATE, DELETE and REPLACE only",
                hint="Use execute().",
            )
        rows = rows_of(given)
        if not rows:
            results.rowcount = 0
            return
        done = yield from self._run(sql, rows, word=word, key=key)
        results.rowcount = done.rows_affected
        self.total_changes += max(0, done.rows_affected)

    def batch(self, statements: Sequence[tuple[str, Given]], *, key: str = "") -> Steps[Done]:
        """All or none, in one round trip. Inside a transaction: part of it."""
        made = [Statement(_check_sql(sql), [parameters_of(given)]) for sql, given in statements]
        if not made:
            raise ProgrammingError("a batch of no statements", hint="Pass at least one.")
        for each in made:
            if control_of(each.sql) is not None:
                raise ProgrammingError(
                    f"a batch is one transaction: {first_word(each.sql)} cannot stand in it",
                    hint="Leave it out.",
                )
        is_read = all(first_word(each.sql) in READS for each in made)
        self._check_key(key)
        yield from self._settle()
        return (yield from self.core.run(Asked(statements=made, is_read=is_read, key=key)))

    def begin(self, access: Access) -> Steps[None]:
        if self.core.is_in_transaction:
            raise ProgrammingError(
                "a transaction is open: they do not nest", hint="Use SAVEPOINT inside of it."
            )
        yield from self._settle()
        yield from self.core.run(Asked(statements=(), begin=access))

    def commit(self) -> Steps[None]:
        yield from self._settle()
        yield from self.core.end(is_commit=True)

    def rollback(self) -> Steps[None]:
        yield from self._settle()
        yield from self.core.end(is_commit=False)

    def row(self, results: Results) -> Steps[Row | None]:
        """The next one. None: there is none."""
        results.check_open()
        while not results.rows and results.cursor:
            yield from self._fetch(results)
        return results.rows.popleft() if results.rows else None

    def discard(self, results: Results) -> Steps[None]:
        """Forget what is left of the last statement."""
        results.check_open()
        if results.cursor:
            yield from self.core.forget_cursor(results.cursor, generation=results.generation)
        results.reset()

    def take(self, results: Results, done: Done) -> None:
        """What a statement answered, and where the rest of it is."""
        results.take(done, generation=self.core.generation)
        self._open = weakref.ref(results) if results.cursor else None

    # ---- inside ----------------------------------------------------------------------------

    def _fetch(self, results: Results) -> Steps[None]:
        done = yield from self.core.fetch(results.cursor, generation=results.generation)
        results.cursor = done.cursor
        results.rows.extend(done.rows)

    def _settle(self) -> Steps[None]:
        """Before another statement: fetch what the server holds for an earlier cursor, whose caller
        may read on. A cursor that nobody has any more is passed over."""
        earlier, self._open = self._open() if self._open is not None else None, None
        if earlier is None or earlier.generation != self.core.generation:
            return
        while earlier.cursor:
            yield from self._fetch(earlier)

    def _run(self, sql: str, rows: list[Parameters], *, word: str, key: str) -> Steps[Done]:
        self._check_key(key)
        yield from self._settle()
        is_read = word in READS
        begin = Access.NONE
        if (
            self.isolation_level is not None
            and word in CHANGES_ROWS
            and not key
            and not self.core.is_in_transaction
        ):
            begin = Access.WRITE
        asked = Asked(statements=[Statement(sql, rows)], begin=begin, is_read=is_read, key=key)
        done = yield from self.core.run(asked)
        self._last_rowid = done.last_rowid or self._last_rowid
        return done

    def _obey(self, control: Control) -> Steps[None]:
        match control:
            case Control.BEGIN:
                yield from self.begin(self._access)
            case Control.COMMIT | Control.ROLLBACK if not self.core.is_in_transaction:
                raise ProgrammingError(
                    f"cannot {control.value}: no transaction is active", hint="BEGIN one first."
                )
            case Control.COMMIT:
                yield from self.commit()
            case _:
                yield from self.rollback()

    @property
    def _access(self) -> Access:
        """What BEGIN means here: a replica takes no writes, and a reader wants none."""
        greeting = self.core.greeting
        if greeting is None:
            is_writer = self.core.target.wanted is Wanted.PRIMARY
        else:
            is_writer = greeting.role is ServerRole.PRIMARY
        return Access.WRITE if is_writer else Access.READ

    def _check_key(self, key: str) -> None:
        if not key:
            return
        try:
            created_ms_of(key)
        except Rejected as error:
            raise misused(error) from None
        if self.core.is_in_transaction:
            self._check_no_key(key, "a part of a transaction")

    def _check_no_key(self, key: str, what: str) -> None:
        if key:
            raise ProgrammingError(
                f"an idempotency key covers a transaction of its own, not {what}",
                hint="Use batch(), or execute() outside of a transaction.",
            )


_ENDS_AND_BEGINS = frozenset({Control.BEGIN, Control.COMMIT, Control.ROLLBACK})


def checked_level(level: str | None) -> str | None:
    if level is not None and level.upper() not in ISOLATION_LEVELS:
        raise InterfaceError(
            f"isolation_level = {level!r}",
            hint="It is None, or one of '', 'DEFERRED', 'IMMEDIATE', 'EXCLUSIVE'.",
        )
    return level


def _check_sql(sql: object) -> str:
    if not isinstance(sql, str):
        raise ProgrammingError(
            f"the statement is of type {type(sql).__name__}", hint="Pass the SQL as str."
        )
    if "\0" in sql:
        raise ProgrammingError("the statement contains a null character", hint="Remove it.")
    return sql
