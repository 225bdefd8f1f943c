"""One connection to a source: its session on a real socket and a real disk.

Promises  Records are appended in the order in which they came, by one thread; all that came while a
          sync ran goes into the next. After `silence` nothing is said, and nothing begins that
          writes; what the disk was just doing is finished by it (`LogWriter.idle`).
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar, assert_never

from primacy.clock import Clock
from primacy.errors import Conflict, Corrupt, InvariantBroken, Rejected
from primacy.replication.log.record import Point
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.link import Link
from primacy.replication.pull.messages import (
    RECORDS,
    Beat,
    Refusal,
    Welcome,
    from_source,
    message_frame,
)
from primacy.replication.pull.receiver import (
    Arriving,
    Came,
    Compared,
    Ended,
    Ending,
    Heard,
    LookUp,
    Lost,
    Noticed,
    ReceiverEffect,
    ReceiverEvent,
    ReceiverSession,
    Stored,
    Tell,
    Ticked,
    Trusted,
    TurnedAway,
)
from primacy.runtime.files import DiskFull

T = TypeVar("T")

OnGrowth = Callable[[bytes, int, Point], None]
"""(records, the index before them, the new end): in the event loop, in order, as soon as they can
be read; durable or not. A cascade's own door takes them."""


class ReceivedLog(Protocol):
    """What a receiver needs of a log; `replication.log.log.Log` is one. Blocking."""

    @property
    def first(self) -> Point: ...
    @property
    def end(self) -> Point: ...
    @property
    def durable(self) -> Point: ...
    def point(self, index: int) -> Point | None: ...
    def append_received(self, data: bytes) -> Point: ...
    def sync(self) -> Point: ...


class LogWriter:
    """The one thread that writes to the log while a receiver follows."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "pull-disk")
        self._under_way: asyncio.Future[object] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Cancelled: the work goes on, and `idle` waits for it."""
        future = asyncio.wrap_future(self._thread.submit(work))
        self._under_way = future  # type: ignore[assignment]  # A Future of T is one of an object.
        return await asyncio.shield(future)

    async def idle(self) -> None:
        """Until the thread does nothing. How that ended is told by the next call."""
        if self._under_way is not None and not self._under_way.done():
            await asyncio.wait([self._under_way])
        if self._under_way is not None:
            self._under_way.cancelled() or self._under_way.exception()

    def close(self) -> None:
        self._thread.shutdown(wait=True)


class Pull:
    """From the connection to its end; a new one for each attempt."""

    def __init__(  # noqa: PLR0913 - all that a connection touches, once
        self,
        session: ReceiverSession,
        log: ReceivedLog,
        writer: LogWriter,
        *,
        clock: Clock,
        limits: PullLimits,
        on_growth: OnGrowth,
        on_durable: Callable[[Point], None],
        on_news: Callable[[Welcome | Beat], None],
    ) -> None:
        self._session = session
        self._log = log
        self._writer = writer
        self._clock = clock
        self._limits = limits
        self._on_growth = on_growth
        self._on_durable = on_durable
        self._on_news = on_news
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._ended: asyncio.Future[Ending] = self._loop.create_future()
        self._tasks: asyncio.TaskGroup | None = None
        self._wakes_at_s = float("inf")
        self._known_bytes = 0
        """That had come when the link last woke."""
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        """For the disk; what it is writing included."""
        self._stored_bytes = 0
        self._arrived = asyncio.Event()

    async def run(self, host: str, port: int) -> Ending:
        """Connect, and go on until the session ends. Raises what the own disk raises."""
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await self._loop.create_connection(lambda: Link(self), host, port)
        except (OSError, TimeoutError) as error:
            return Lost(f"{host}:{port} cannot be reached: {str(error) or 'no answer'}")
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                storing = tasks.create_task(self._store(), name="pull-store")
                ending = await self._ended
                storing.cancel()
        finally:
            self.silence()
        return ending

    def silence(self) -> None:
        """Nothing is said or written on behalf of this connection any more."""
        self._session.stop()
        self._waiting.clear()
        if self._link is not None:
            self._link.abort()
        self._finish(Lost("it was stopped"))

    def step(self, event: ReceiverEvent) -> None:
        self._perform(self._session.step(self._clock.now_s(), event))
        wake_at_s = self._session.wake_at_s
        if self._link is not None and wake_at_s < self._wakes_at_s:
            self._wakes_at_s = wake_at_s
            self._link.wake_in(wake_at_s - self._clock.now_s())

    # ---- the connection ----------------------------------------------------------------------

    def opened(self, link: Link) -> None:
        self._link = link
        if self._ended.done():
            link.abort()
            return
        link.send(message_frame(self._session.hello))
        self.step(Ticked())

    def came(self, _link: Link, payload: bytes) -> None:
        if payload[:1] == RECORDS:
            self.step(Came())
            if not self._ended.done():
                self._take(payload[1:])
            return
        try:
            message = from_source(payload)
        except Corrupt as error:
            self._finish(Lost(error.what))
            return
        self.step(Heard(message))

    def woke(self, link: Link) -> None:
        self._wakes_at_s = float("inf")
        if link.received_bytes > self._known_bytes:
            self._known_bytes = link.received_bytes
            self.step(Arriving())
        self.step(Ticked())

    def closed(self, _link: Link, reason: str) -> None:
        self._finish(Lost(reason))

    def _perform(self, effects: Sequence[ReceiverEffect]) -> None:
        link = self._link
        if link is None:
            return  # Nothing is connected, so nothing was promised.
        for effect in effects:
            match effect:
                case Tell():
                    link.send(message_frame(effect.message))
                case LookUp():
                    self._group().create_task(self._compare(effect.indexes))
                case Trusted():
                    link.allow(self._limits.payload_bytes_max)
                case Noticed():
                    self._on_news(effect.news)
                case Ended():
                    self._finish(effect.ending)
                case _:
                    assert_never(effect)

    def _finish(self, ending: Ending) -> None:
        self._session.stop()
        if not self._ended.done():
            self._ended.set_result(ending)

    def _group(self) -> asyncio.TaskGroup:
        if self._tasks is None:
            raise InvariantBroken("tasks-have-an-owner", "a session steps while nobody runs it")
        return self._tasks

    # ---- the own log -------------------------------------------------------------------------

    async def _compare(self, indexes: tuple[int, ...]) -> None:
        log = self._log

        def look() -> Compared:
            return Compared(log.first, tuple(log.point(index) for index in indexes))

        try:
            compared = await self._writer.run(look)
        except Rejected as error:
            self._finish(TurnedAway(Refusal.BROKEN, f"the own log cannot be read: {error.what}"))
            return
        self.step(compared)

    def _take(self, records: bytes) -> None:
        self._waiting.append(records)
        self._waiting_bytes += len(records)
        self._arrived.set()
        if self._waiting_bytes > self._limits.waiting_bytes and self._link is not None:
            self._link.pause()

    async def _store(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._waiting = self._waiting, []
            size_bytes = sum(map(len, batch))
            try:
                durable = await self._writer.run(partial(self._write, batch))
            except DiskFull as error:
                self._finish(TurnedAway(Refusal.DISK, error.what))
                return
            except (Conflict, Rejected) as error:
                self._finish(TurnedAway(Refusal.BROKEN, error.what))
                return
            self._waiting_bytes -= size_bytes
            self._stored_bytes += size_bytes
            if self._waiting_bytes <= self._limits.waiting_bytes and self._link is not None:
                self._link.resume()
            self._on_durable(durable)
            self.step(Stored(durable, self._stored_bytes))

    def _write(self, batch: Sequence[bytes]) -> Point:
        """In the writer's thread. Those below get the records while this disk syncs."""
        log = self._log
        for records in batch:
            after = log.end.index
            end = log.append_received(records)
            self._loop.call_soon_threadsafe(self._on_growth, records, after, end)
        return log.sync()
