"""The Python database API (PEP 249) over blocking sockets, as users of sqlite3 know it."""

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from primacy.driver import exceptions
from primacy.driver.dump import dumped
from primacy.driver.effects import Steps
from primacy.driver.parameters import Given
from primacy.driver.rows import RowFactory
from primacy.driver.scripts import statements_in
from primacy.driver.session import Session, checked_level
from primacy.driver.shown import ShownResults, ShownSession
from primacy.driver.sockets import BlockingRunner
from primacy.driver.target import Target, target_of
from primacy.engines.sqlite.protocol import NONCE_BYTES, Access, Cancel, Value, frame_of

T = TypeVar("T")


def monotonic_s() -> float:
    return time.monotonic()  # noqa: TID251 - the edge: the core takes time as an argument.


def nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


class Connection(ShownSession):
    """One session with the cluster. Not for several threads at once, except `interrupt`.

    As a context manager it commits, or rolls back after an error, and stays open (as sqlite3's).
    """

    Warning = exceptions.Warning
    Error = exceptions.Error
    InterfaceError = exceptions.InterfaceError
    DatabaseError = exceptions.DatabaseError
    DataError = exceptions.DataError
    OperationalError = exceptions.OperationalError
    IntegrityError = exceptions.IntegrityError
    InternalError = exceptions.InternalError
    ProgrammingError = exceptions.ProgrammingError
    NotSupportedError = exceptions.NotSupportedError

    def __init__(self, target: Target, *, isolation_level: str | None = "") -> None:
        """Connects. `Unavailable` where no server that is wanted answers in time."""
        self._session = Session(
            target, isolation_level=isolation_level, now_s=monotonic_s, nonce=nonce
        )
        self._runner = BlockingRunner()
        self.row_factory: RowFactory | None = None
        try:
            self.run(self._session.core.open())
        except BaseException:
            self._runner.close()
            raise

    # ---- the database API ------------------------------------------------------------------

    def cursor(self) -> "Cursor":
        return Cursor(self, self._session)

    def commit(self) -> None:
        """`OutcomeUnknown` where the answer is lost. No open transaction: nothing happens."""
        self.run(self._session.commit())

    def rollback(self) -> None:
        self.run(self._session.rollback())

    def close(self) -> None:
        """What is not committed is rolled back."""
        self.run(self._session.core.close())

    # ---- as sqlite3 ------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Given = (), *, idempotency_key: str = "") -> "Cursor":
        return self.cursor().execute(sql, parameters, idempotency_key=idempotency_key)

    def executemany(
        self, sql: str, rows: Iterable[Given], *, idempotency_key: str = ""
    ) -> "Cursor":
        return self.cursor().executemany(sql, rows, idempotency_key=idempotency_key)

    def executescript(self, script: str) -> "Cursor":
        return self.cursor().executescript(script)

    def iterdump(self) -> Iterator[str]:
        """The SQL that makes the database again; of one moment, inside `begin(read_only=True)`."""
        return dumped(self.execute)

    @property
    def isolation_level(self) -> str | None:
        """None: each statement is a transaction of its own. Else INSERT, UPDATE, DELETE and REPLACE
        begin one, and `commit` ends it; all its words mean the same here: the writer is held."""
        return self._session.isolation_level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        level = checked_level(level)
        if level is None:
            self.commit()
        self._session.isolation_level = level

    def interrupt(self) -> None:
        """From another thread: take back or interrupt what runs."""
        number = self._session.core.outstanding
        if number:
            self._runner.send_aside(frame_of(Cancel(number)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False

    # ---- beyond it -------------------------------------------------------------------------

    def begin(self, *, read_only: bool = False) -> None:
        """A transaction that holds the only writer, or a snapshot for reads."""
        self.run(self._session.begin(Access.READ if read_only else Access.WRITE))

    def batch(
        self, statements: Sequence[tuple[str, Given]], *, idempotency_key: str = ""
    ) -> "Cursor":
        """All statements or none, in one round trip; the cursor has the last one's rows."""
        cursor = self.cursor()
        cursor.take_batch(statements, idempotency_key)
        return cursor

    def run(self, steps: Steps[T]) -> T:
        """For cursors: carry out the steps of one call."""
        return self._runner.run(steps)


class Cursor(ShownResults):
    """Rows arrive in pages as they are fetched."""

    def __init__(self, connection: Connection, session: Session) -> None:
        super().__init__(session, connection.row_factory)
        self.connection = connection

    def execute(self, sql: str, parameters: Given = (), *, idempotency_key: str = "") -> Self:
        """With a key, a call that is repeated takes effect once and answers the same."""
        self._run(self._session.execute(self._results, sql, parameters, key=idempotency_key))
        return self

    def executemany(self, sql: str, rows: Iterable[Given], *, idempotency_key: str = "") -> Self:
        """In one round trip."""
        self._run(self._session.execute_many(self._results, sql, rows, key=idempotency_key))
        return self

    def executescript(self, script: str) -> Self:
        """Commits first, as sqlite3 does. Each statement is a transaction of its own, where the
        script does not begin one."""
        self.connection.commit()
        level, self._session.isolation_level = self._session.isolation_level, None
        try:
            for sql in statements_in(script):
                self.execute(sql)
        finally:
            self._session.isolation_level = level
        return self

    def take_batch(self, statements: Sequence[tuple[str, Given]], key: str) -> None:
        done = self._run(self._session.batch(statements, key=key))
        self._session.take(self._results, done)
        self._results.rowcount = done.rows_affected

    def fetchone(self) -> Any:  # Any: what the row factory makes.
        row = self._run(self._session.row(self._results))
        return None if row is None else self._made(row)

    def fetchmany(self, size: int | None = None) -> list[Any]:  # Any: what the row factory makes.
        found = []
        for _ in range(self.arraysize if size is None else size):
            row = self._run(self._session.row(self._results))
            if row is None:
                break
            found.append(self._made(row))
        return found

    def fetchall(self) -> list[Any]:  # Any: what the row factory makes.
        return list(self)

    def __iter__(self) -> Iterator[Any]:  # Any: what the row factory makes.
        while (row := self._run(self._session.row(self._results))) is not None:
            yield self._made(row)

    def __next__(self) -> Any:  # Any: what the row factory makes.
        row = self._run(self._session.row(self._results))
        if row is None:
            raise StopIteration
        return self._made(row)

    def close(self) -> None:
        if not self._results.is_closed:
            self._run(self._session.discard(self._results))
            self._results.is_closed = True

    def setinputsizes(self, _sizes: object) -> None:
        """The database API wants it; SQLite's values need no sizes."""

    def setoutputsize(self, _size: object, _column: object = None) -> None:
        """The database API wants it; values arrive whole."""

    def _run(self, steps: Steps[T]) -> T:
        return self.connection.run(steps)


def connect(url: str, *, isolation_level: str | None = "", **options: Value) -> Connection:
    """`primacy://USER:PASSWORD@HOST1,HOST2:PORT/DATABASE?option=value`. Options are those of
    `target.Target`; `target=replica` and `target=any` are for reads."""
    return Connection(target_of(url, **options), isolation_level=isolation_level)
