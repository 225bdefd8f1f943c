"""Carrying out one statement on the writer's connection, and deciding how it stands in the log."""

from itertools import islice

import apsw
import msgspec

from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.engines.sqlite.storage.defining import define
from primacy.engines.sqlite.storage.frozen import Stillness
from primacy.engines.sqlite.storage.images import UPDATE, Params, Statement, Value, quoted
from primacy.engines.sqlite.storage.preparing import check_program, prepare
from primacy.engines.sqlite.storage.recording import Recording
from primacy.engines.sqlite.storage.rules import Rules
from primacy.engines.sqlite.storage.schema import OWN
from primacy.engines.sqlite.storage.statements import Form, Plan, plan_of, zone_in
from primacy.errors import Rejected

ROWS_MAX = 100_000
"""What one query may return here; larger results belong to a reader, in pieces."""

PLANS_MAX = 2_000
"""Texts of SQL that are remembered. An application with parameters has some hundreds."""

_FLUSH = ("SAVEPOINT _primacy_f", "RELEASE _primacy_f")
"""Virtual tables write what they hold back when a savepoint opens."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """What one statement answered."""

    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]
    rows_affected: int
    last_insert_rowid: int


class Runner:
    """Its caller opens savepoints, and undoes what raises."""

    def __init__(
        self,
        connection: apsw.Connection,
        recording: Recording,
        rules: Rules,
        *,
        settings: StorageSettings,
        stillness: Stillness,
    ) -> None:
        self._connection = connection
        self._recording = recording
        self._rules = rules
        self._settings = settings
        self._stillness = stillness
        self._cursor = connection.cursor()
        self._plans: dict[str, Plan] = {}
        self.simple: dict[str, bool] = {}
        """Texts that need nothing but to be run: rows in the log, no answer, no clock. And whether
        such a one inserts a single row, which SQLite undoes by itself when it fails."""

    def forget_plans(self) -> None:
        """The schema has changed."""
        self._plans.clear()
        self.simple.clear()

    def plan(self, sql: str, params: Params) -> Plan:
        plan = self._plans.get(sql)
        if plan is None:
            facts = prepare(self._connection, self._rules, sql, params)
            plan = plan_of(facts, self._recording.schema)
            if plan.may_end_group:
                check_program(self._connection, self._rules, sql, params)
            if len(self._plans) >= PLANS_MAX:
                self.forget_plans()
            self._plans[sql] = plan
            if plan.is_simple and self._settings.logging is Logging.ROW:
                self.simple[sql] = plan.is_single_row
        return plan

    def carry_out(self, plan: Plan, sql: str, params: Params, *, rows_max: int) -> Result:
        match plan.form:
            case Form.WRITE:
                return self._write(plan, sql, params, rows_max)
            case Form.READ | Form.SAVEPOINT:
                self._freeze(plan)
                rows = self._rows(sql, params, rows_max)
                return Result(plan.columns, rows, 0, self._connection.last_insert_rowid())
            case Form.DEFINE | Form.CREATE_FROM_QUERY | Form.RUN_AGAIN:
                return self._define(plan, sql, params)

    def carry_out_own(self, sql: str, params: Params) -> Result:
        """Rows of primacy's own tables, always as rows. `Rules` must know who calls."""
        if sql.lstrip()[:6].upper() == "CREATE":
            return self._define(Plan(form=Form.DEFINE), sql, params)
        cursor = self._connection.execute(sql, params)
        rows = [tuple(row) for row in islice(cursor, ROWS_MAX)]
        self.check_captured()
        changes = self._connection.changes()
        return Result((), rows, changes, self._connection.last_insert_rowid())

    def write_blob(self, table: str, column: str, rowid: int, offset: int, data: bytes) -> Result:
        found = self._recording.schema.tables.get(table)
        if found is None or table.startswith(OWN) or found.is_opaque or found.is_keyed:
            raise Rejected(
                f"{table!r} has no values that can be written in part",
                hint="Use an ordinary table with a rowid, and without VIRTUAL columns.",
            )
        opened = self._connection.blob_open("main", table, column, rowid, writeable=True)
        with opened as blob:
            blob.seek(offset)
            blob.write(data)
        at = found.map.columns.index(column)
        value = self._connection.execute(
            f"SELECT {quoted(column)} FROM {quoted(table)} WHERE {quoted(found.rowid_name)} = ?",
            (rowid,),
        ).get
        capture = self._recording.capture
        for _, row, old in capture.blob_rows[:1]:
            self._recording.events.append((UPDATE, found.number, row, row, old, [at], [value]))
        capture.blob_rows.clear()
        self.check_captured()
        return Result((), [], 1, self._connection.last_insert_rowid())

    def has_violations(self) -> bool:
        """Of deferred foreign keys, now."""
        return bool(self._connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0])

    def _write(self, plan: Plan, sql: str, params: Params, rows_max: int) -> Result:
        connection, events = self._connection, self._recording.events
        mark = len(events)
        self._freeze(plan)
        if plan.is_opaque:
            self._check_opaque(plan, params)
        last = connection.last_insert_rowid()
        if plan.columns:
            rows = self._rows(sql, params, rows_max)
        else:
            self._cursor.execute(sql, params)
            rows = []
        if plan.is_virtual:
            for each in _FLUSH:
                self._cursor.execute(each)
        self.check_captured(plan)
        changes = connection.changes()
        if len(events) > mark and self._goes_as_statement(plan, params, len(events) - mark):
            digest = self._digest(mark)
            del events[mark:]
            self._recording.capture.opaque_count = 0
            events.append(
                Statement(
                    sql,
                    _plain(params),
                    self._stillness.now_ms if plan.reads_time else 0,
                    self._stillness.seed if plan.draws else 0,
                    last,
                    changes,
                    digest,
                )
            )
        if plan.is_counting:
            self._recording.note_counters()
        return Result(plan.columns, rows, changes, connection.last_insert_rowid())

    def _digest(self, since: int) -> int:
        try:
            return self._recording.digest(since)
        except UnicodeDecodeError as error:
            raise _unloggable(error) from error

    def _freeze(self, plan: Plan) -> None:
        self._stillness.next_statement(reads_time=plan.reads_time, draws=plan.draws)

    def _rows(self, sql: str, params: Params, rows_max: int) -> list[tuple[Value, ...]]:
        cursor = self._connection.cursor()
        try:
            rows = list(islice(cursor.execute(sql, params), rows_max + 1))
        finally:
            cursor.close(force=True)  # What is left is not wanted.
        if len(rows) > rows_max:
            raise Rejected(
                f"the answer has more than {rows_max} rows",
                hint="Ask for fewer: LIMIT, or WHERE with the last key.",
            )
        return rows

    def check_captured(self, plan: Plan | None = None) -> None:
        capture = self._recording.capture
        problem = capture.problem
        if problem is None and (capture.opaque_count == 0 or (plan and plan.is_opaque)):
            return
        raise problem if isinstance(problem, Rejected) else _unloggable(problem) from problem

    def _check_opaque(self, plan: Plan, params: Params) -> None:
        why = plan.why_not_replayable
        if not why and plan.reads_time and zone_in(params):
            why = "it uses the time zone of the host"
        if not why and self._recording.schema.has_deferred_keys and self.has_violations():
            why = "a deferred foreign key is violated at the moment"
        if why:
            raise Rejected(
                "it writes a table with a VIRTUAL generated column, which the log carries only as "
                f"a statement, and {why}",
                hint="Make the column STORED, or write the statement without that.",
            )

    def _goes_as_statement(self, plan: Plan, params: Params, rows_count: int) -> bool:
        if plan.is_opaque:
            return True
        logging = self._settings.logging
        if logging is Logging.ROW or not plan.is_order_free:
            return False
        if logging is Logging.MIXED and rows_count < self._settings.mixed_rows_min:
            return False
        has_zone = plan.reads_time and zone_in(params)
        return not has_zone and not self._recording.schema.has_deferred_keys

    def _define(self, plan: Plan, sql: str, params: Params) -> Result:
        self._freeze(plan)
        rows: list[tuple[Value, ...]] = []

        def run() -> None:
            rows.extend(self._rows(sql, params, ROWS_MAX))

        self._rules.refusal = None
        define(
            self._recording,
            self._connection,
            self._rules,
            form=plan.form,
            sql=sql,
            run=run,
        )
        self.forget_plans()
        return Result(plan.columns, rows, 0, self._connection.last_insert_rowid())


def _unloggable(problem: Exception | None) -> Rejected:
    return Rejected(
        "a row cannot be logged: it holds text that is not UTF-8, or its table has a VIRTUAL "
        f"column that the statement reaches in a way of its own ({problem})",
        hint="Store such bytes as a BLOB; make the generated column STORED.",
    )


def _plain(params: Params) -> list[Value] | dict[str, Value]:
    """As the log holds them: buffers are bytes, a bool is a number."""
    if isinstance(params, dict):
        return {key: _plain_value(value) for key, value in params.items()}
    return [_plain_value(value) for value in params]


def _plain_value(value: object) -> Value:
    match value:
        case None | float() | str() | bytes():
            return value
        case int():
            return int(value)
        case bytearray() | memoryview():
            return bytes(value)
        case _:
            raise Rejected(
                f"a parameter of type {type(value).__name__} has no form in the log",
                hint="Use None, int, float, str or bytes.",
            )
