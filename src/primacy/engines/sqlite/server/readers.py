"""Queries: snapshots of what is committed, in threads of their own, beside the writer.

Promises  At most `count` queries, cursors and read-only transactions at a time; more wait, in
          order, until their deadline. Each sees one state of the database from first row to last.
Assumes   One event loop owns it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from primacy.engines.sqlite.protocol import PAGE_BYTES, PAGE_ROWS_MAX, Parameters, Row, Run
from primacy.engines.sqlite.server.running import weight_of
from primacy.engines.sqlite.storage.connection import StorageSettings, open_reader
from primacy.errors import Rejected, Unavailable

T = TypeVar("T")


class Page:
    """Some rows of a result."""

    __slots__ = ("columns", "is_last", "rows")

    def __init__(self, columns: list[str] | None, rows: list[Row], *, is_last: bool) -> None:
        self.columns = columns
        self.rows = rows
        self.is_last = is_last


class Reader:
    """One connection and its thread. Whoever has leased it is its only user."""

    def __init__(self, path: Path, settings: StorageSettings, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection = self._threads.submit(open_reader, path, settings).result()
        self._cursor: apsw.Cursor | None = None
        self._columns: list[str] | None = None
        self.busy_since_s: float | None = None
        """On the loop's clock; None: nothing runs that anybody waits for."""

    async def run(self, run: Run) -> Page:
        """The first page of the last statement."""
        return await self._in_thread(lambda: self._run(run))

    async def more(self, rows_max: int) -> Page:
        return await self._in_thread(lambda: self._page(rows_max))

    async def begin(self) -> None:
        """One snapshot until `reset`: taken by the first read."""
        await self._in_thread(lambda: self._execute("BEGIN", []))

    async def reset(self) -> None:
        """Let go of the snapshot."""
        await self._in_thread(self._reset)

    def reset_then(self, done: Callable[[], None]) -> None:
        """The same without waiting: `done` is called in the event loop."""
        loop = asyncio.get_running_loop()
        future = self._threads.submit(self._reset)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done))

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.interrupt()
        self._threads.submit(self._connection.close, True).result()  # noqa: FBT003 - by force.
        self._threads.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        self.busy_since_s = loop.time()
        try:
            return await loop.run_in_executor(self._threads, work)
        finally:
            self.busy_since_s = None

    # ---- in its thread ---------------------------------------------------------------------

    def _run(self, run: Run) -> Page:
        page = Page(None, [], is_last=True)
        for statement in run.statements:
            if len(statement.rows) > 1:
                raise Rejected(
                    "a query is run once, not for many rows of parameters", hint="Send it alone."
                )
            for parameters in statement.rows:
                self._finish_cursor()
                self._execute(statement.sql, parameters)
                page = self._page(PAGE_ROWS_MAX)
        return page

    def _execute(self, sql: str, parameters: Parameters) -> None:
        cursor = self._connection.cursor()
        described: list[list[str]] = []

        def note(cursor: apsw.Cursor, _text: str, _bindings: object) -> bool:
            described.append([str(each[0]) for each in cursor.get_description()])
            if len(described) > 1:
                raise Rejected("more than one statement in one query", hint="Send them one by one.")
            return True

        cursor.exec_trace = note
        cursor.execute(sql, parameters)
        self._cursor = cursor
        self._columns = described[0] or None if described else None

    def _page(self, rows_max: int) -> Page:
        cursor = self._cursor
        columns, self._columns = self._columns, None
        rows: list[Row] = []
        if cursor is None:
            return Page(columns, rows, is_last=True)
        size = 0
        for row in cursor:
            rows.append(row)
            size += weight_of(row)
            if size >= PAGE_BYTES or len(rows) >= min(rows_max, PAGE_ROWS_MAX):
                return Page(columns, rows, is_last=False)
        self._cursor = None
        return Page(columns, rows, is_last=True)

    def _finish_cursor(self) -> None:
        if self._cursor is not None:
            self._cursor.close(True)  # noqa: FBT003 - by force: its rows are not wanted.
            self._cursor = None

    def _reset(self) -> None:
        self._finish_cursor()
        if not self._connection.get_autocommit():
            self._connection.execute("ROLLBACK")


class Readers:
    """All readers of a server."""

    def __init__(self, path: Path, settings: StorageSettings, *, count: int) -> None:
        self._all = [Reader(path, settings, name=f"reader-{place}") for place in range(count)]
        self._free = deque(self._all)
        self._waiting: deque[asyncio.Future[Reader]] = deque()

    async def lease(self, *, within_s: float) -> Reader:
        """`Unavailable`: all are busy for so long. Give it back with `release`."""
        if self._free:
            return self._free.popleft()
        future: asyncio.Future[Reader] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(within_s):
                return await future
        except (TimeoutError, asyncio.CancelledError) as error:
            if future.done() and not future.cancelled():  # It came at the very moment.
                self._give(future.result())
            if isinstance(error, asyncio.CancelledError):
                raise
            raise Unavailable(
                f"all {len(self._all)} readers were busy for {within_s:.1f} s",
                hint="Fetch cursors to their end or close them, or raise limits.readers.",
            ) from error

    def release(self, reader: Reader) -> None:
        """The next may have it once its snapshot has ended."""
        reader.reset_then(lambda: self._give(reader))

    def interrupt_older(self, limit_s: float) -> None:
        """Queries that have run for so long."""
        now_s = asyncio.get_running_loop().time()
        for reader in self._all:
            if reader.busy_since_s is not None and now_s - reader.busy_since_s > limit_s:
                reader.interrupt()

    def close(self) -> None:
        for reader in self._all:
            reader.close()

    def _give(self, reader: Reader) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(reader)
                return
        self._free.append(reader)
