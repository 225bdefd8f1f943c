"""One client after its login: requests in order, each answered once.

    idle --Run, End, Fetch--> busy --answer--> idle          a request that comes meanwhile waits
      |
      +-- in a transaction: its requests go to the writer (write) or to one reader (read)

Promises  When the client is gone, what it had begun and not committed is undone, and what it waited
          for is withdrawn. No answer leaves past the deadline page.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, assert_never

import apsw

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import (
    Access,
    Branch,
    Cancel,
    CloseCursor,
    Done,
    End,
    Failure,
    Fetch,
    Row,
    Run,
)
from primacy.engines.sqlite.server.failures import ERRORS, failure_of
from primacy.engines.sqlite.server.jobs import Answer, Job, Left
from primacy.engines.sqlite.server.pipeline import Pipeline
from primacy.engines.sqlite.server.readers import Page, Reader, Readers
from primacy.engines.sqlite.server.requests import check_controls, check_whole, framed, may_read
from primacy.engines.sqlite.server.running import pages_of
from primacy.engines.sqlite.server.spec import Limits
from primacy.engines.sqlite.server.state import ServerState
from primacy.errors import PrimacyError, Rejected, Unavailable

WAITING_MAX = 64
"""Requests of one client that wait for its earlier ones."""

Request = Run | End | Fetch


class Client(Protocol):
    """The connection."""

    def send(self, frame: bytes) -> None: ...

    def close(self) -> None:
        """Once what was sent has left."""
        ...

    def cut(self, why: str) -> None:
        """At once: what was not sent yet never is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What all sessions of a server share."""

    state: ServerState
    readers: Readers
    limits: Limits
    clock: Clock
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    """A task that the server owns. Any: what asyncio itself says of a coroutine."""


class _In(Enum):
    """Which transaction is open."""

    NOTHING = 0
    WRITE = 1
    READ = 2


class Session:
    """Owned by the event loop."""

    def __init__(self, client: Client, around: Around) -> None:
        self._client = client
        self._around = around
        self._pending: deque[Request] = deque()
        self._current: Request | None = None
        self._is_in = _In.NOTHING
        self._pipeline: Pipeline | None = None
        """Of the write transaction that is open."""
        self._job: Job | None = None
        self._task: asyncio.Task[None] | None = None
        self._reader: Reader | None = None
        self._cursor = 0
        self._pages: deque[list[Row]] = deque()
        self._last_cursor = 0
        self._cancelled: set[int] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._read_until_s = 0.0
        self._is_gone = False

    # ---- from the connection ---------------------------------------------------------------

    def hear(self, message: Run | End | Fetch | CloseCursor | Cancel) -> None:
        match message:
            case Cancel():
                self._cancel(message.number)
            case CloseCursor() if self._current is None and not self._pending:
                self._close_cursor(message.cursor)
            case CloseCursor():
                pass  # The next request closes it as well.
            case Run() | End() | Fetch():
                if len(self._pending) >= WAITING_MAX:
                    self._client.cut(f"more than {WAITING_MAX} requests wait for their answers")
                    return
                self._pending.append(message)
                self._next()
            case _:
                assert_never(message)

    def leave(self) -> None:
        """The connection is over."""
        self._is_gone = True
        self._pending.clear()
        if self._patience is not None:
            self._patience.cancel()
        if self._job is not None:
            self._job.is_withdrawn = True
        if self._pipeline is not None:
            self._pipeline.inbox.put_held(Left(self))
        if self._reader is not None:
            self._reader.interrupt()
        if self._task is not None:
            self._task.cancel()
        else:
            self._let_go()

    # ---- one request -----------------------------------------------------------------------

    def _next(self) -> None:
        if self._current is not None or not self._pending or self._is_gone:
            return
        request = self._pending.popleft()
        self._current = request
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        try:
            if request.number in self._cancelled:
                self._cancelled.discard(request.number)
                raise Unavailable("the request was cancelled", hint="Nothing was applied.")
            self._dispatch(request)
        except PrimacyError as error:
            self._fail(error)

    def _dispatch(self, request: Request) -> None:
        match request:
            case Fetch():
                self._fetch(request)
            case End():
                self._end(request)
            case Run():
                self._run(request)
            case _:
                assert_never(request)

    def _run(self, run: Run) -> None:
        check_whole(run)
        check_controls(run, is_in_write=self._is_in is _In.WRITE)
        if run.key and (self._is_in is not _In.NOTHING or run.begin is not Access.NONE):
            raise Rejected("a key covers a transaction of its own", hint="Send it alone.")
        if run.begin is not Access.NONE and self._is_in is not _In.NOTHING:
            raise Rejected("a transaction is open: they do not nest", hint="End it first.")
        match self._is_in:
            case _In.WRITE:
                self._forget_pages()
                self._submit(run)
            case _In.READ:
                self._start(self._read(run))
            case _In.NOTHING if run.begin is Access.READ:
                self._start(self._begin_read(run))
            case _In.NOTHING if run.begin is Access.WRITE:
                self._write(run)
            case _In.NOTHING:
                if run.is_read or (not run.key and may_read(run)):
                    self._start(self._read(run))
                else:
                    self._write(run)
            case _:
                assert_never(self._is_in)

    def _end(self, end: End) -> None:
        match self._is_in:
            case _In.WRITE:
                self._forget_pages()
                self._submit(end)
            case _In.READ:
                self._end_read(end.number)
            case _In.NOTHING:
                raise Rejected("no transaction is open", hint="BEGIN one first.")
            case _:
                assert_never(self._is_in)

    # ---- the writer ------------------------------------------------------------------------

    def _write(self, run: Run) -> None:
        """A cursor of an earlier query ends: it would only keep an old snapshot."""
        self._forget_pages()
        self._let_go()
        self._submit(run)

    def _submit(self, request: Run | End) -> None:
        state = self._around.state
        pipeline = self._pipeline if self._is_in is _In.WRITE else state.pipeline
        if pipeline is None or not state.may_answer():
            self._give_up_transaction()
            self._answer(self._not_primary(request.number))
            return
        within_s = request.within_ms / 1000 if isinstance(request, Run) else 86_400.0
        deadline_s = self._around.clock.now_s() + within_s
        job = Job(request, deadline_s, answer=self._answered, owner=self)
        if self._is_in is _In.WRITE:
            is_taken = pipeline.inbox.put_held(job)
        else:
            is_taken = pipeline.inbox.put(job)
        if not is_taken:
            self._give_up_transaction()
            self._answer(self._too_many(pipeline, request.number))
            return
        self._job = job
        if job.begins:
            self._pipeline = pipeline

    def _give_up_transaction(self) -> None:
        """The doors have closed under it: it is undone, if it was not yet."""
        if self._pipeline is not None:
            self._pipeline.inbox.put_held(Left(self))
        self._is_in, self._pipeline = _In.NOTHING, None

    def _answered(self, answer: Answer) -> None:
        """By the pipeline, in the event loop."""
        self._job = None
        is_in = answer.is_in_transaction
        self._is_in = _In.WRITE if is_in else _In.NOTHING
        if not is_in:
            self._pipeline = None
        if isinstance(answer, Done) and answer.rows:
            answer = self._first_page(answer)
        self._answer(answer)

    def _first_page(self, done: Done) -> Done:
        first, *rest = pages_of(done.rows)
        if rest:
            self._last_cursor += 1
            self._cursor = self._last_cursor
            self._pages.extend(rest)
        return Done(
            done.number,
            done.columns,
            first,
            self._cursor,
            done.rows_affected,
            done.last_rowid,
            done.token,
            done.is_in_transaction,
        )

    def _not_primary(self, number: int) -> Failure:
        state = self._around.state
        return Failure(
            number,
            Branch.NOT_PRIMARY,
            f"{state.node} takes no writes: it is not the primary",
            f"Ask {state.leader}." if state.leader else "Ask the primary (`primacy status`).",
            leader=state.leader,
        )

    def _too_many(self, pipeline: Pipeline, number: int) -> Failure:
        if pipeline.inbox.is_refusing:
            return self._not_primary(number)
        what = f"{pipeline.inbox.waiting_count} requests wait for the writer already"
        return Failure(number, Branch.UNAVAILABLE, what, "Try again, with fewer at a time.")

    # ---- readers ---------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:  # Any: as in `Around.spawn`.
        self._task = self._around.spawn(self._carry(work))

    async def _carry(self, work: Coroutine[Any, Any, None]) -> None:  # Any: as in `Around.spawn`.
        try:
            await work
        except ERRORS as error:
            if self._is_in is not _In.READ:
                self._let_go()
            self._fail(error)
        finally:
            self._task = None
            if self._is_gone:
                self._let_go()

    async def _read(self, run: Run) -> None:
        number, state = run.number, self._around.state
        deadline_s = self._around.clock.now_s() + run.within_ms / 1000
        if self._is_in is not _In.READ:
            state.check_fresh(run.fresh_ms)
            await state.wait_for(run.after, deadline_s=deadline_s)
            await self._lease(run)
        reader = self._reader
        if reader is None:  # Unreachable: it was leased, or the transaction has one.
            return
        self._forget_pages()
        token = state.token()
        try:
            page = await reader.run(run)
        except apsw.ReadOnlyError as error:
            if run.is_read or self._is_in is _In.READ:
                raise Rejected(
                    "it would change something, in a request for reads only",
                    hint="Send it outside of a read-only transaction.",
                ) from error
            self._let_go()
            self._submit(run)
            return
        self._give_page(number, page, token)

    async def _begin_read(self, run: Run) -> None:
        state = self._around.state
        deadline_s = self._around.clock.now_s() + run.within_ms / 1000
        state.check_fresh(run.fresh_ms)
        await state.wait_for(run.after, deadline_s=deadline_s)
        reader = await self._lease(run)
        await reader.begin()
        self._is_in = _In.READ
        self._read_until_s = self._around.clock.now_s() + self._around.limits.read_total_s
        page = await reader.run(run)
        self._give_page(run.number, page, state.token())

    def _end_read(self, number: int) -> None:
        self._forget_pages()
        self._let_go()
        self._is_in = _In.NOTHING
        self._answer(Done(number, None, [], 0, -1, 0, "", is_in_transaction=False))

    async def _lease(self, run: Run) -> Reader:
        if self._reader is None:
            self._reader = await self._around.readers.lease(within_s=run.within_ms / 1000)
        else:
            await self._reader.reset()  # An open cursor's snapshot would be too old.
        self._read_until_s = self._around.clock.now_s() + self._around.limits.read_total_s
        return self._reader

    def _give_page(self, number: int, page: Page, token: str) -> None:
        if page.is_last:
            self._cursor = 0
            if self._is_in is not _In.READ:
                self._let_go()
        elif self._cursor == 0:
            self._last_cursor += 1
            self._cursor = self._last_cursor
        is_in = self._is_in is not _In.NOTHING
        self._answer(Done(number, page.columns, page.rows, self._cursor, -1, 0, token, is_in))

    def _fetch(self, fetch: Fetch) -> None:
        if fetch.cursor != self._cursor or not self._cursor:
            raise Unavailable(
                f"cursor {fetch.cursor} is closed",
                hint="A later query, the end of its transaction, or its time limit has closed it.",
            )
        if self._pages:
            rows = self._pages.popleft()
            self._cursor = self._cursor if self._pages else 0
            is_in = self._is_in is not _In.NOTHING
            self._answer(Done(fetch.number, None, rows, self._cursor, -1, 0, "", is_in))
        else:
            self._start(self._fetch_more(fetch))

    async def _fetch_more(self, fetch: Fetch) -> None:
        if self._reader is not None:
            page = await self._reader.more(max(1, fetch.rows_max))
            self._give_page(fetch.number, page, "")

    def _close_cursor(self, cursor: int) -> None:
        if cursor == self._cursor and self._is_in is not _In.READ and self._reader is not None:
            self._forget_pages()
            self._let_go()
        elif cursor == self._cursor:
            self._forget_pages()

    def _forget_pages(self) -> None:
        self._pages.clear()
        self._cursor = 0

    def _let_go(self) -> None:
        """Give the reader back. Its snapshot ends."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._around.readers.release(reader)

    # ---- answers and limits ----------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        if self._current is None:
            return
        is_in = self._is_in is not _In.NOTHING
        self._answer(failure_of(error, self._current.number, is_in_transaction=is_in))

    def _answer(self, answer: Answer) -> None:
        self._current = None
        if self._is_gone:
            return
        is_refusal = isinstance(answer, Failure) and answer.branch is Branch.NOT_PRIMARY
        if not is_refusal and not self._around.state.may_answer():
            self._client.cut("the deadline page does not permit an answer")
            return
        self._client.send(framed(answer))
        if answer.number == 0:
            self._client.close()
            return
        if self._reader is not None:
            self._watch_reader()
        self._next()

    def _watch_reader(self) -> None:
        """An idle cursor or read-only transaction ends."""
        loop = asyncio.get_running_loop()
        left_s = self._read_until_s - self._around.clock.now_s()
        idle_s = self._around.limits.read_idle_s
        self._patience = loop.call_later(max(0.0, min(left_s, idle_s)), self._expire_read)

    def _expire_read(self) -> None:
        if self._current is None and self._reader is not None:
            was_transaction = self._is_in is _In.READ
            self._is_in = _In.NOTHING
            self._forget_pages()
            self._let_go()
            if was_transaction:
                self._client.cut("a read-only transaction was idle, or took, too long")

    def _cancel(self, number: int) -> None:
        if any(each.number == number for each in self._pending):
            self._cancelled.add(number)
        if self._current is None or self._current.number != number:
            return
        if self._job is not None:
            pipeline = self._pipeline or self._around.state.pipeline
            if pipeline is not None:
                pipeline.committer.interrupt(self._job)
        elif self._reader is not None:
            self._reader.interrupt()
