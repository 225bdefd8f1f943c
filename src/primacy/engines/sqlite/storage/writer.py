"""The only connection that writes to a primary's file: runs SQL, and says what it changed.

    begin -> (transaction: execute ..., then change)* -> commit(position)    one group, one COMMIT
                                                      -> rollback

Promises  `change()` holds all that its transaction did to the data and the schema, and nothing that
          was undone. A failed statement leaves the others of its transaction; a failed transaction
          leaves the others of its group, unless SQLite itself undid all (`GroupLost`).
Assumes   One thread. The records of a group are durable before `commit`.
Does not  Know a log or a client. SQLite's own errors leave it as they are (`apsw.Error`).
"""

import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

from primacy.clock import Clock
from primacy.engines.sqlite.storage import maintenance, others, position
from primacy.engines.sqlite.storage.connection import VALUE_BYTES_MAX, StorageSettings, open_writer
from primacy.engines.sqlite.storage.failures import ChangedByOthers, GroupLost
from primacy.engines.sqlite.storage.frozen import Stillness
from primacy.engines.sqlite.storage.images import Params
from primacy.engines.sqlite.storage.recording import Change, Mark, Recording
from primacy.engines.sqlite.storage.rules import Caller, Rules
from primacy.engines.sqlite.storage.running import ROWS_MAX, Result, Runner
from primacy.engines.sqlite.storage.statements import Form, Plan
from primacy.errors import NotFound, Rejected, Unavailable
from primacy.replication.log.record import Point

_OPEN, _RELEASE, _UNDO = "SAVEPOINT _primacy_t", "RELEASE _primacy_t", "ROLLBACK TO _primacy_t"
_OPEN_PART, _RELEASE_PART = "SAVEPOINT _primacy_s", "RELEASE _primacy_s"
_UNDO_PART = "ROLLBACK TO _primacy_s"
_REQUEST = "_primacy_r"
"""Of `request()`. No client can name it."""

_BEGINS, _RELEASES = "BEGIN", "RELEASE"
"""Deeds of a savepoint, in the authorizer's words; the third is ROLLBACK."""


class Transaction:
    """One client's, inside the group. An error on the way out undoes it."""

    def __init__(
        self, open_it: Callable[[], None], close: Callable[[], None], undo: Callable[[], None]
    ) -> None:
        self._open, self._close, self._undo = open_it, close, undo

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._close()
        else:
            self._undo()


class Writer:
    """See the head of this module."""

    def __init__(
        self, path: Path, settings: StorageSettings, *, clock: Clock, seeds: random.Random
    ) -> None:
        self._stillness = Stillness(
            now_ms=lambda: int(clock.wall_s() * 1000),
            seeds=seeds,
            blob_bytes_max=VALUE_BYTES_MAX,
        )
        self._rules = Rules()
        self._connection = open_writer(
            path, settings, rules=self._rules, vfs=self._stillness.time.name
        )
        self._stillness.chance.register(self._connection)
        with self._rules.as_caller(Caller.OWN):
            position.prepare(self._connection)
            self._recording = Recording(self._connection, images=settings.images)
            self.position: Point = position.read(self._connection)
        self._runner = Runner(
            self._connection,
            self._recording,
            self._rules,
            settings=settings,
            stillness=self._stillness,
        )
        self._execute = self._connection.cursor().execute
        self._start: Mark | None = None
        self._savepoints: list[tuple[str, Mark]] = []
        self._change: Change | None = None
        self._is_broken = False

    @property
    def is_in_group(self) -> bool:
        return bool(self._connection.in_transaction)

    @property
    def schema_hash(self) -> int:
        return self._recording.schema.hash

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """From any thread: stops what runs now. A statement that writes takes its group along."""
        self._connection.interrupt()

    # The group.

    def begin(self) -> None:
        if self._is_broken:
            raise Unavailable(
                "a COMMIT failed behind a durable record: what the file holds is not known",
                hint="Restart this server: it replays its log.",
            )
        self._execute("BEGIN IMMEDIATE")
        with self._rules.as_caller(Caller.OWN):
            if self._recording.sees_others():
                self._check_alone()
            self._recording.begin_group()

    def _check_alone(self) -> None:
        try:
            others.check(self._connection, self.position)
        except ChangedByOthers:
            self._execute("ROLLBACK")
            self._is_broken = True
            raise

    def commit(self, position_reached: Point) -> None:
        """Ends the group. After an error the writer is of no more use: the log goes further."""
        try:
            with self._rules.as_caller(Caller.OWN):
                position.write(self._execute, position_reached)
            self._execute("COMMIT")
        except apsw.Error as error:
            self._is_broken = True
            raise Unavailable(
                f"the group up to {position_reached} is in the log, and its COMMIT failed: {error}",
                hint="Restart this server: it replays its log. Look for a full or broken disk.",
            ) from error
        self.position = position_reached

    def rollback(self) -> None:
        """Undoes the whole group; also after `GroupLost`."""
        if self.is_in_group:
            self._execute("ROLLBACK")
        self._start, self._change = None, None
        self._savepoints.clear()
        self._runner.forget_plans()
        with self._rules.as_caller(Caller.OWN):
            self._recording.forget_all()

    # One client's transaction.

    def transaction(self) -> Transaction:
        return Transaction(self._open, self._close, self._undo)

    def run(self, sql: str, params: Params = (), *, rows_max: int = ROWS_MAX) -> Result:
        """A transaction of one statement: one savepoint is enough. Then ask `change()`."""
        is_single_row = self._runner.simple.get(sql)
        if is_single_row is not None:
            return self._run_simple(sql, params, is_single_row=is_single_row)
        plan = self._runner.plan(sql, params)
        if plan.form is Form.SAVEPOINT:
            raise Rejected("a savepoint needs a transaction around it", hint="Open one first.")
        self._open()
        try:
            result = self._runner.carry_out(plan, sql, params, rows_max=rows_max)
            self._close()
        except BaseException:
            self._undo()
            raise
        return result

    def _run_simple(self, sql: str, params: Params, *, is_single_row: bool) -> Result:
        """The same, and nothing of it that such a statement does not need: it is most of them."""
        connection, execute, recording = self._connection, self._execute, self._recording
        if self._start is not None or not connection.in_transaction:
            raise self._misplaced()
        if is_single_row:
            self._insert_single(sql, params)
            return Result((), [], 1, connection.last_insert_rowid())
        execute(_OPEN)
        try:
            execute(sql, params)
            if recording.capture.problem is not None:
                self._runner.check_captured()
            if recording.schema.has_deferred_keys:
                self._check_deferred_keys()
            self._change = recording.take()
            execute(_RELEASE)
        except BaseException as error:
            self._check_in_group(error)
            execute(_UNDO)
            execute(_RELEASE)
            recording.capture.cut(0)
            raise
        return Result((), [], connection.changes(), connection.last_insert_rowid())

    def _insert_single(self, sql: str, params: Params) -> None:
        """Without a savepoint: where it fails, SQLite undoes the one row itself."""
        recording = self._recording
        try:
            self._execute(sql, params)
        except BaseException as error:
            self._check_in_group(error)
            recording.capture.cut(0)
            raise
        try:
            if recording.capture.problem is not None:
                self._runner.check_captured()
            self._change = recording.take()
        except BaseException as error:
            self._execute("ROLLBACK")  # By `is_single_row` it cannot be; and then this is safe.
            raise GroupLost(
                f"a row could not be logged after it was written: {error}",
                hint="Roll back, and run the others again.",
            ) from error

    def execute(self, sql: str, params: Params = (), *, rows_max: int = ROWS_MAX) -> Result:
        """One statement of the open transaction. What fails is undone alone."""
        plan = self._runner.plan(sql, params)
        if plan.form is Form.SAVEPOINT:
            return self._move_savepoint(plan, sql)
        if plan.form is Form.READ:
            return self._runner.carry_out(plan, sql, params, rows_max=rows_max)
        return self._part(lambda: self._runner.carry_out(plan, sql, params, rows_max=rows_max))

    def execute_own(self, sql: str, params: Params = ()) -> Result:
        """The same for primacy itself, which alone may name its tables."""
        with self._rules.as_caller(Caller.OWN):
            return self._part(lambda: self._runner.carry_out_own(sql, params))

    def request(self) -> Transaction:
        """Several statements of the open transaction that are undone together. Savepoints that are
        opened inside stay; those from before are not to be touched."""
        return Transaction(self._open_request, self._close_request, self._undo_request)

    def write_blob(self, table: str, column: str, rowid: int, offset: int, data: bytes) -> None:
        """Incremental: the value keeps its size."""
        self._part(lambda: self._runner.write_blob(table, column, rowid, offset, data))

    def change(self) -> Change | None:
        """What the transaction that has just ended wrote. `None`: nothing."""
        change, self._change = self._change, None
        return change

    def vacuum(self) -> None:
        """Outside of groups. `Rejected` where it would renumber rows that the log names."""
        with self._rules.as_caller(Caller.OWN):
            maintenance.vacuum(self._connection, self._recording)

    def _open(self) -> None:
        if self._start is not None or not self._connection.in_transaction:
            raise self._misplaced()
        self._execute(_OPEN)
        self._connection.set_last_insert_rowid(0)  # The last one was another client's.
        self._start = self._recording.mark()
        self._change = None

    def _misplaced(self) -> Rejected:
        return Rejected(
            "no group is open" if self._start is None else "a transaction is open already",
            hint="begin(), then one transaction after the other.",
        )

    def _close(self) -> None:
        try:
            self._check_deferred_keys()
            self._change = self._recording.take()
            self._execute(_RELEASE)
        except BaseException:
            self._undo()
            raise
        self._start = None
        if self._savepoints:
            self._savepoints.clear()

    def _undo(self) -> None:
        """Of the open transaction; nothing where it has been undone."""
        start, self._start = self._start, None
        if start is None:
            return
        self._savepoints.clear()
        self._check_in_group()
        self._execute(_UNDO)
        self._execute(_RELEASE)
        self._back_to(start)

    def _open_request(self) -> None:
        if self._start is None:
            raise Rejected("no transaction is open", hint="Enter transaction() first.")
        self._execute(f"SAVEPOINT {_REQUEST}")
        self._savepoints.append((_REQUEST, self._recording.mark()))

    def _close_request(self) -> None:
        at = self._request_at()
        if at == len(self._savepoints) - 1:  # Else its end would end those that are to stay.
            self._execute(f"RELEASE {_REQUEST}")
        del self._savepoints[at]

    def _undo_request(self) -> None:
        if self._start is None:
            return  # It went with its transaction.
        at = self._request_at()
        self._execute(f"ROLLBACK TO {_REQUEST}")
        self._execute(f"RELEASE {_REQUEST}")
        self._back_to(self._savepoints[at][1])
        del self._savepoints[at:]

    def _request_at(self) -> int:
        """Where the open request stands among the savepoints; -1 without one."""
        names = [name for name, _ in self._savepoints]
        return names.index(_REQUEST) if _REQUEST in names else -1

    def _part(self, deed: Callable[[], Result]) -> Result:
        if self._start is None:
            raise Rejected("no transaction is open", hint="Enter transaction() first.")
        mark = self._recording.mark()
        self._execute(_OPEN_PART)
        try:
            result = deed()
        except BaseException as error:
            self._check_in_group(error)
            self._execute(_UNDO_PART)
            self._execute(_RELEASE_PART)
            self._back_to(mark)
            raise
        self._execute(_RELEASE_PART)
        return result

    def _back_to(self, mark: Mark) -> None:
        with self._rules.as_caller(Caller.OWN):
            if self._recording.back_to(mark):
                self._runner.forget_plans()

    def _check_in_group(self, error: BaseException | None = None) -> None:
        if not self._connection.in_transaction:
            self._start = None
            raise GroupLost(
                f"SQLite undid all transactions of the open group: {error}",
                hint="Roll back, and run the others again.",
            ) from error

    def _check_deferred_keys(self) -> None:
        """Else the COMMIT of the whole group would fail, behind the durable record."""
        if self._recording.schema.has_deferred_keys and self._runner.has_violations():
            raise Rejected(
                "FOREIGN KEY constraint failed: a deferred one, at the end of the transaction",
                hint="Insert the parent rows, or delete the children, before it ends.",
            )

    def _move_savepoint(self, plan: Plan, sql: str) -> Result:
        deed, name = plan.savepoint[0], plan.savepoint[1].lower()
        at = next(
            (
                at
                for at in range(len(self._savepoints) - 1, -1, -1)
                if self._savepoints[at][0] == name
            ),
            None,
        )
        if self._start is None:
            raise Rejected("a savepoint needs a transaction around it", hint="Open one first.")
        if deed != _BEGINS and at is None:
            raise NotFound(f"there is no savepoint {name}", hint="Open it in this transaction.")
        if at is not None and deed != _BEGINS and at < self._request_at():
            raise Rejected(
                f"the savepoint {name} is older than this request, which is undone as a whole",
                hint="Send RELEASE or ROLLBACK TO as a request of its own.",
            )
        self._execute(sql)
        if at is None or deed == _BEGINS:
            self._savepoints.append((name, self._recording.mark()))
        elif deed == _RELEASES:
            del self._savepoints[at:]
        else:
            self._back_to(self._savepoints[at][1])
            del self._savepoints[at + 1 :]
        return Result((), [], 0, self._connection.last_insert_rowid())
