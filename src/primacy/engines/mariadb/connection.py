"""Kept connections to a MariaDB server, each in a thread of its own.

PyMySQL blocks; a server that was stopped with SIGSTOP blocks it for as long as its read timeout.
So a `Session` gives its statements to its own thread and waits for the answer, never longer than
the caller's deadline: the event loop is not held.

Promises  `run` returns or raises within `within_s`. After a deadline the thread is left behind
          with its connection (counted), or, where `keeps_waiting`, kept: until its statement has
          ended, further calls are refused, so that blocked commits do not pile up.
          A thread that is left behind is woken by cutting its connection.
"""

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, assert_never, cast

import pymysql
import pymysql.cursors

from primacy.engines.mariadb.accounts import Login
from primacy.engines.mariadb.errors import translated
from primacy.errors import PrimacyError, Unavailable
from primacy.model import Address

T = TypeVar("T")
Row = Mapping[str, object]
if TYPE_CHECKING:  # Generic in the stubs only.
    Connection: TypeAlias = pymysql.connections.Connection[pymysql.cursors.DictCursor]
else:
    Connection = pymysql.connections.Connection
Ask = Callable[[Connection], T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to, as whom, and how long one answer may take."""

    login: Login
    where: Path | Address
    connect_s: float
    read_s: float


def open_socket(target: Target) -> socket.socket:
    """Blocks for at most `connect_s`. Made here and not by PyMySQL, which leaks a refused one."""
    match target.where:
        case Path():
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            where: str | tuple[str, int] = str(target.where)
        case Address(host=host, port=port):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            opened = socket.socket(family, socket.SOCK_STREAM)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            where = (host, port)
        case _:
            assert_never(target.where)
    opened.settimeout(target.connect_s)
    try:
        opened.connect(where)
    except OSError as error:
        opened.close()
        raise Unavailable(
            f"no server answers at {target.where}: {error.strerror or error}", hint="Try again."
        ) from error
    return opened


def connect(target: Target, opened: socket.socket) -> Connection:
    """Blocks. A frozen server accepts and says nothing: the read timeout covers the handshake."""
    connection = pymysql.connect(
        user=target.login.user,
        password=target.login.password,
        autocommit=True,
        charset="utf8mb4",
        connect_timeout=target.connect_s,
        read_timeout=target.read_s,
        write_timeout=target.read_s,
        cursorclass=pymysql.cursors.DictCursor,
        ssl_disabled=True,  # Making an unused TLS context costs 28 ms, the rest of it 0.4 ms.
        defer_connect=True,
    )
    connection.connect(opened)
    return connection


def rows(connection: Connection, sql: str, *arguments: object) -> list[Row]:
    """Run one statement. `%s` in it is replaced only where there are arguments."""
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return cast(list[Row], list(cursor.fetchall()))  # The stubs do not know DictCursor's rows.


def value(connection: Connection, sql: str, *arguments: object) -> object:
    """The first column of the first row; None where there is no row."""
    found = rows(connection, sql, *arguments)
    return next(iter(found[0].values())) if found else None


def integer(connection: Connection, sql: str, *arguments: object) -> int:
    """A number; NULL and no row count as 0."""
    found = value(connection, sql, *arguments)
    return 0 if found is None else int(str(found))


class Session:
    """One kept connection for one purpose. Used from one event loop."""

    def __init__(self, purpose: str, target: Target, *, keeps_waiting: bool = False) -> None:
        self._purpose = purpose
        self._target = target
        self._keeps_waiting = keeps_waiting
        self._worker: _Worker | None = None
        self.left_behind_count = 0
        """Threads that were still blocked when their caller's deadline passed."""

    @property
    def is_busy(self) -> bool:
        """A statement of an earlier call has not ended."""
        return self._worker is not None and self._worker.is_busy

    async def run(self, ask: Ask[T], *, within_s: float) -> T:
        """Give `ask` the connection, in the session's thread.

        `Unavailable` on a deadline: a caller whose statement changes something looks again.
        """
        return await self.end(self.begin(ask), within_s=within_s)

    def begin(self, ask: Ask[T]) -> "asyncio.Future[T]":
        """The first half of `run`. The answer must be given to `end`."""
        if self._keeps_waiting and self.is_busy:
            raise Unavailable(
                f"the {self._purpose} connection still waits for its last answer",
                hint="A commit waits for an acknowledgement, or the server hangs.",
            )
        worker = self._worker
        if worker is None or worker.is_busy:
            self.reset()
            worker = self._worker = _Worker(self._purpose, self._target)
        return worker.ask(ask, asyncio.get_running_loop())

    async def end(self, answer: "asyncio.Future[T]", *, within_s: float) -> T:
        """The second half of `run`."""
        try:
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError as error:
            if not self._keeps_waiting:
                self.reset()
            raise Unavailable(
                f"the server did not answer the {self._purpose} connection in {within_s:.1f} s",
                hint="It hangs, or is overloaded.",
            ) from error
        except asyncio.CancelledError:
            if not self._keeps_waiting:
                self.reset()
            raise

    def reset(self) -> None:
        """Forget the connection; the next call makes a new one. The thread ends by itself."""
        if self._worker is None:
            return
        if self._worker.is_busy:
            self.left_behind_count += 1
        self._worker.retire()
        self._worker = None


@dataclass(frozen=True, slots=True)
class _Job:
    ask: Ask[object]
    answer: "asyncio.Future[object]"
    loop: asyncio.AbstractEventLoop


class _Worker:
    """A thread that owns one connection and serves one statement list after another."""

    def __init__(self, purpose: str, target: Target) -> None:
        self._target = target
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._socket: socket.socket | None = None
        self._served_count = 0
        self._given_count = 0
        self._thread = threading.Thread(target=self._serve, name=f"mariadb-{purpose}", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        return self._served_count < self._given_count

    def ask(self, ask: Ask[T], loop: asyncio.AbstractEventLoop) -> "asyncio.Future[T]":
        answer: asyncio.Future[object] = loop.create_future()
        self._given_count += 1
        self._jobs.put(_Job(ask, answer, loop))
        return cast("asyncio.Future[T]", answer)  # `ask` returns T, and nothing else sets it.

    def retire(self) -> None:
        """The thread ends; a blocked one is woken by cutting its connection."""
        self._jobs.put(None)
        opened = self._socket
        if self.is_busy and opened is not None:
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # Not connected, or closed by now: nothing holds the thread.

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            outcome, error = self._attempt(job.ask)
            self._served_count += 1  # Before the answer: whoever hears it finds no busy worker.
            try:
                job.loop.call_soon_threadsafe(_settle, job.answer, outcome, error)
            except RuntimeError:
                break  # The loop has closed: nobody waits any more.
        self._disconnect()

    def _attempt(self, ask: Ask[object]) -> tuple[object, Exception | None]:
        try:
            return ask(self._connected()), None
        except pymysql.MySQLError as error:
            problem = translated(error)
            if not isinstance(error, pymysql.ProgrammingError | pymysql.IntegrityError):
                self._disconnect()  # Lost, or in a state that is not worth finding out.
            return None, problem
        except PrimacyError as error:
            return None, error
        except Exception as error:  # noqa: BLE001 -- the thread's supervisor: raised at the caller
            self._disconnect()
            return None, error

    def _connected(self) -> Connection:
        if self._connection is None:
            self._socket = open_socket(self._target)
            try:
                self._connection = connect(self._target, self._socket)
            except BaseException:
                self._socket.close()
                raise
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.open:
            try:
                connection.close()
            except (pymysql.MySQLError, OSError):
                return  # It was lost before: there is nothing left to close.


def _settle(answer: "asyncio.Future[object]", outcome: object, error: Exception | None) -> None:
    if answer.done():
        return  # The caller's deadline has passed.
    if error is None:
        answer.set_result(outcome)
    else:
        answer.set_exception(error)
