"""The driver for asyncio: the same session, the same rules, awaited."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from primacy.driver.connection import monotonic_s, nonce
from primacy.driver.effects import Close, Connect, Effect, Pause, Receive, Send, Steps
from primacy.driver.parameters import Given
from primacy.driver.rows import RowFactory
from primacy.driver.scripts import statements_in
from primacy.driver.session import Session
from primacy.driver.shown import ShownResults, ShownSession
from primacy.driver.target import Target, target_of
from primacy.engines.sqlite.protocol import Access, Value

T = TypeVar("T")

READ_AHEAD_MAX = 1 << 20
"""Bytes that wait for a slow reader; then the socket is not read."""


class _Stream(asyncio.Protocol):
    """What has arrived, until it is taken."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.news = asyncio.Event()
        self.is_over = False
        self.error: Exception | None = None
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.news.set()
        if len(self.buffer) > READ_AHEAD_MAX and isinstance(self._transport, asyncio.Transport):
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over, self.error = True, exc
        self.news.set()
        self.may_write.set()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def take(self) -> bytes:
        data = bytes(self.buffer)
        self.buffer.clear()
        if not self.is_over:
            self.news.clear()
            if isinstance(self._transport, asyncio.Transport) and len(data) > READ_AHEAD_MAX:
                self._transport.resume_reading()
        return data


class AsyncRunner:
    """Carries out the core's effects on the running event loop."""

    def __init__(self) -> None:
        self._stream: _Stream | None = None
        self._transport: asyncio.Transport | None = None

    async def run(self, steps: Steps[T]) -> T:
        """A cancelled call closes its connection: the core hears of it."""
        try:
            effect = next(steps)
            while True:
                try:
                    told = await self._carry_out(effect)
                except BaseException as error:  # noqa: BLE001 - thrown on: the core raises it again.
                    effect = steps.throw(error)
                else:
                    effect = steps.send(told)
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._stream = self._transport = None

    async def _carry_out(self, effect: Effect) -> bytes:
        match effect:
            case Connect(host, within_s):
                self.close()
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(within_s):
                    transport, stream = await loop.create_connection(_Stream, host.host, host.port)
                self._transport, self._stream = transport, stream
            case Send(data, within_s):
                transport, stream = self._connected()
                transport.write(data)
                async with asyncio.timeout(within_s):
                    await stream.may_write.wait()
            case Receive(within_s):
                return await self._receive(within_s)
            case Close():
                self.close()
            case Pause(seconds):
                await asyncio.sleep(seconds)  # noqa: TID251 - the edge: here the core's time passes.
        return b""

    async def _receive(self, within_s: float) -> bytes:
        _, stream = self._connected()
        if within_s > 0:
            async with asyncio.timeout(within_s):
                await stream.news.wait()
        elif not stream.news.is_set():
            raise TimeoutError("nothing has arrived")
        data = stream.take()
        if not data and stream.error is not None:
            raise ConnectionError(str(stream.error))
        return data

    def _connected(self) -> tuple[asyncio.Transport, _Stream]:
        if self._transport is None or self._stream is None:
            raise ConnectionError("not connected")
        return self._transport, self._stream


class AsyncConnection(ShownSession):
    """One session with the cluster; one call at a time.

    As a context manager it commits, or rolls back after an error, and stays open, as the blocking
    one; `close` ends it.
    """

    def __init__(self, target: Target, *, isolation_level: str | None = "") -> None:
        """Use `connect_async`, which connects as well."""
        self._session = Session(
            target, isolation_level=isolation_level, now_s=monotonic_s, nonce=nonce
        )
        self._runner = AsyncRunner()
        self._is_busy = False
        self.row_factory: RowFactory | None = None

    async def open(self) -> None:
        await self.run(self._session.core.open())

    def cursor(self) -> "AsyncCursor":
        return AsyncCursor(self, self._session)

    async def execute(
        self, sql: str, parameters: Given = (), *, idempotency_key: str = ""
    ) -> "AsyncCursor":
        return await self.cursor().execute(sql, parameters, idempotency_key=idempotency_key)

    async def executemany(
        self, sql: str, rows: Iterable[Given], *, idempotency_key: str = ""
    ) -> "AsyncCursor":
        return await self.cursor().executemany(sql, rows, idempotency_key=idempotency_key)

    async def executescript(self, script: str) -> "AsyncCursor":
        return await self.cursor().executescript(script)

    async def batch(
        self, statements: Sequence[tuple[str, Given]], *, idempotency_key: str = ""
    ) -> "AsyncCursor":
        """All statements or none, in one round trip; the cursor has the last one's rows."""
        cursor = self.cursor()
        await cursor.take_batch(statements, idempotency_key)
        return cursor

    async def begin(self, *, read_only: bool = False) -> None:
        await self.run(self._session.begin(Access.READ if read_only else Access.WRITE))

    async def commit(self) -> None:
        await self.run(self._session.commit())

    async def rollback(self) -> None:
        await self.run(self._session.rollback())

    async def close(self) -> None:
        await self.run(self._session.core.close())

    @property
    def isolation_level(self) -> str | None:
        """Settled when the connection is opened."""
        return self._session.isolation_level

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        if kind is None:
            await self.commit()
        else:
            await self.rollback()
        return False

    async def run(self, steps: Steps[T]) -> T:
        """For cursors: carry out the steps of one call."""
        if self._is_busy:
            steps.close()
            raise self._session.core.busy()
        self._is_busy = True
        try:
            return await self._runner.run(steps)
        finally:
            self._is_busy = False


class AsyncCursor(ShownResults):
    """Rows arrive in pages as they are fetched: `async for`, or the fetches."""

    def __init__(self, connection: AsyncConnection, session: Session) -> None:
        super().__init__(session, connection.row_factory)
        self.connection = connection

    async def execute(self, sql: str, parameters: Given = (), *, idempotency_key: str = "") -> Self:
        await self.connection.run(
            self._session.execute(self._results, sql, parameters, key=idempotency_key)
        )
        return self

    async def executemany(
        self, sql: str, rows: Iterable[Given], *, idempotency_key: str = ""
    ) -> Self:
        await self.connection.run(
            self._session.execute_many(self._results, sql, rows, key=idempotency_key)
        )
        return self

    async def executescript(self, script: str) -> Self:
        await self.connection.commit()
        level, self._session.isolation_level = self._session.isolation_level, None
        try:
            for sql in statements_in(script):
                await self.execute(sql)
        finally:
            self._session.isolation_level = level
        return self

    async def take_batch(self, statements: Sequence[tuple[str, Given]], key: str) -> None:
        done = await self.connection.run(self._session.batch(statements, key=key))
        self._session.take(self._results, done)
        self._results.rowcount = done.rows_affected

    async def fetchone(self) -> Any:  # Any: what the row factory makes.
        row = await self.connection.run(self._session.row(self._results))
        return None if row is None else self._made(row)

    async def fetchmany(self, size: int | None = None) -> list[Any]:  # Any: as fetchone.
        found: list[Any] = []
        for _ in range(self.arraysize if size is None else size):
            row = await self.fetchone()
            if row is None:
                break
            found.append(row)
        return found

    async def fetchall(self) -> list[Any]:  # Any: as fetchone.
        return [row async for row in self]

    async def __aiter__(self) -> AsyncIterator[Any]:  # Any: as fetchone.
        while (row := await self.connection.run(self._session.row(self._results))) is not None:
            yield self._made(row)

    async def close(self) -> None:
        if not self._results.is_closed:
            await self.connection.run(self._session.discard(self._results))
            self._results.is_closed = True


async def connect_async(
    url: str, *, isolation_level: str | None = "", **options: Value
) -> AsyncConnection:
    """As `connect`."""
    connection = AsyncConnection(target_of(url, **options), isolation_level=isolation_level)
    await connection.open()
    return connection
