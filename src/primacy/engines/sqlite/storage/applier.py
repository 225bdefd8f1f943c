"""A replica's side: the log's records become rows again, in groups of one COMMIT.

Promises  What it applies is what the primary had: each row is found, once, with the old values
          that the record has; each schema and each repeated statement is compared. Anything else
          raises (`ApplyFailed`), and then the file is as it was before the group. The position row
          is in the same commit as the data. Records at or below the position are passed over.
Assumes   One thread; nobody else writes to the file.
Does not  Fire triggers or foreign keys for rows: their work stands in the log. Use virtual tables:
          it writes their shadow tables, so a connection that did use one has a stale copy of it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import apsw
import msgspec

from primacy.engines.sqlite.storage import counters, others, position
from primacy.engines.sqlite.storage.connection import (
    VALUE_BYTES_MAX,
    StorageSettings,
    open_applier,
)
from primacy.engines.sqlite.storage.failures import (
    RECLONE,
    ApplyFailed,
    ChangedByOthers,
    MissingRow,
    RowDiffers,
    RowExists,
    SchemaMismatch,
    StatementDiffers,
)
from primacy.engines.sqlite.storage.frozen import FrozenTime, SeededChance
from primacy.engines.sqlite.storage.images import (
    DATA,
    Counters,
    Ddl,
    Insert,
    Row,
    Rows,
    Statement,
    Step,
    decode,
    decode_table,
)
from primacy.engines.sqlite.storage.inverse import inverse_of
from primacy.engines.sqlite.storage.recording import Recording
from primacy.engines.sqlite.storage.tables import Binding, TableSql
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.replication.log.record import Header, Kind, Point
from primacy.runtime.files import DiskFull, free_bytes

BATCH_MAX = 500
"""Rows of one shape that SQLite gets in one call. Beyond, nothing is gained."""

WAL_INDEX_BYTES = 64 << 10
"""With less free than its index of the WAL grows by, SQLite says that reading or writing failed."""

MAKE_SPACE = "Make space on the disk of the node's state directory: it goes on by itself then."

KNOWN_MAX = 1_000
"""Maps of tables that are remembered: their numbers change with a primary's schema."""


class Applier:
    """See the head of this module."""

    def __init__(self, path: Path, settings: StorageSettings) -> None:
        self._time = FrozenTime()
        self._chance = SeededChance(blob_bytes_max=VALUE_BYTES_MAX)
        self._settings = settings
        self._directory = path.parent
        self._is_spoilt = False
        """Somebody else has written to the file, or may have."""
        self._connection = open_applier(path, settings, vfs=self._time.name)
        self._chance.register(self._connection)
        position.prepare(self._connection)
        self._cursor = self._connection.cursor()
        self.position: Point = position.read(self._connection)
        self._recording = Recording(self._connection, images=settings.images)
        self._tables: dict[str, TableSql] = {}
        self._known: dict[bytes, tuple[int, TableSql]] = {}
        self._is_repeating = True
        self._batch_max = BATCH_MAX
        self._pending_sql = ""
        self._pending: list[Binding] = []
        self._suspect: tuple[Header, TableSql, Row] | None = None
        """The row at hand, when they are applied one by one to find one that does not fit."""
        self._at: Header
        self._see_schema()
        self._for_rows()

    @property
    def schema_hash(self) -> int:
        return self._recording.schema.hash

    def close(self) -> None:
        self._connection.close()

    def apply(self, records: Sequence[tuple[Header, bytes]]) -> None:
        """All of them or none. `ApplyFailed` and its kinds: this copy must be cloned again."""
        done = self.position.index
        if records and records[0][0].index > done:
            todo = records
        else:
            todo = [each for each in records if each[0].index > done]
        if not todo:
            return
        steps = [decode(payload) if header.kind in DATA else [] for header, payload in todo]
        try:
            self._apply_group(todo, steps)
        except ChangedByOthers:
            raise
        except ApplyFailed:
            self._batch_max = 1  # Row by row it can say which one it is.
            try:
                self._apply_group(todo, steps)
            finally:
                self._batch_max = BATCH_MAX
            raise

    def rewind(self, records: Sequence[tuple[Header, bytes]], *, to: Point) -> None:
        """Takes back all that the log has behind `to`, by inverse rows, in one commit.

        `records`: exactly those, oldest first. `NotInvertible` where one of them has no inverse,
        `ApplyFailed` where the file is not as they left it; then nothing was done.
        """
        self._check_tail(records, to)
        steps = [inverse_of(decode(data)) if h.kind in DATA else [] for h, data in records]
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            self._check_alone()
            for (header, _), its_steps in zip(reversed(records), reversed(steps), strict=True):
                self._at = header
                if its_steps:
                    self._check_schema()
                for step in its_steps:
                    self._take_back(step)
            position.write(self._cursor.execute, to)
            self._cursor.execute("COMMIT")
        except BaseException as error:
            self._give_up()
            if isinstance(error, apsw.Error):
                raise self._translated(error) from error
            raise
        self.position = to

    def _check_tail(self, records: Sequence[tuple[Header, bytes]], to: Point) -> None:
        indices = [header.index for header, _ in records]
        ends_here = bool(records) and records[-1][0].point == self.position
        if not ends_here or indices != list(range(to.index + 1, self.position.index + 1)):
            raise Conflict(
                f"{len(records)} records are not the tail of the log between {to} and "
                f"{self.position}",
                hint="Read the log from the point to rewind to, up to the database's position.",
            )

    def _take_back(self, step: Step) -> None:
        if not isinstance(step, Rows):
            self._apply_record([step])
            return
        has_counters = self._recording.schema.has_counters
        before = counters.read(self._connection) if has_counters else {}
        self._batch_max = 1  # A row that does not fit is named at once.
        try:
            self._apply_rows(step)
            self._flush()
        finally:
            self._batch_max = BATCH_MAX
        after = counters.read(self._connection) if has_counters else {}
        if (moved := counters.moved(after, before)) is not None:
            counters.apply(self._connection, moved)  # A row that came back moved them.

    def _apply_group(
        self, todo: Sequence[tuple[Header, bytes]], steps: Sequence[list[Step]]
    ) -> None:
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            self._check_alone()
            after = self.position
            index, epoch = after.index, after.epoch
            for (header, _), its_steps in zip(todo, steps, strict=True):
                if header.index != index + 1 or header.epoch < epoch:
                    raise _gap(header, index)
                index, epoch = header.index, header.epoch
                if its_steps:
                    self._at = header
                    self._apply_record(its_steps)
            self._flush()
            reached = todo[-1][0].point
            position.write(self._cursor.execute, reached)
            self._cursor.execute("COMMIT")
        except BaseException as error:
            self._give_up()
            if isinstance(error, apsw.Error):
                raise self._translated(error) from error
            raise
        self.position = reached

    def _check_alone(self) -> None:
        if not self._recording.sees_others() and not self._is_spoilt:
            return
        self._is_spoilt = True
        others.check(self._connection, self.position)
        self._is_spoilt = False

    def _apply_record(self, steps: list[Step]) -> None:
        is_ddl = self._at.kind is Kind.DDL
        if not is_ddl:
            self._check_schema()
        for step in steps:
            match step:
                case Rows():
                    self._apply_rows(step)
                case Statement():
                    self._repeat(step)
                case Ddl():
                    self._define(step)
                case Counters():
                    self._flush()
                    counters.apply(self._connection, step)
        if is_ddl:
            self._check_schema()

    def _check_schema(self) -> None:
        if self._at.schema_hash != self._recording.schema.hash:
            raise SchemaMismatch(
                f"record {_name(self._at)} is for schema {self._at.schema_hash:016x}, "
                f"this file has {self._recording.schema.hash:016x}",
                hint=RECLONE,
            )

    # Rows.

    def _apply_rows(self, step: Rows) -> None:
        if self._is_repeating:
            self._for_rows()
        pending, batch_max = self._pending, self._batch_max
        tables = list(map(self._table, step.tables))
        number, table = tables[0] if tables else (-1, self._numbered(-1, tables))
        for row in step.rows:
            if row.table != number:
                number, table = row.table, self._numbered(row.table, tables)
            if type(row) is Insert:
                sql = table.insert
                binding = row.values if table.is_as_logged else table.inserted(row)
            else:
                sql, binding = table.of(row)
            if sql is not self._pending_sql or len(pending) >= batch_max:
                self._flush()
                self._pending_sql = sql
            pending.append(binding)
            if batch_max == 1:
                self._suspect = (self._at, table, row)

    def _numbered(self, number: int, tables: list[tuple[int, TableSql]]) -> TableSql:
        found = dict(tables).get(number)
        if found is None:
            what = f"record {_name(self._at)} has rows of table {number}, and no map of it"
            raise SchemaMismatch(what, hint=RECLONE)
        return found

    def _flush(self) -> None:
        """What was put together, and that each of it changed one row."""
        pending = self._pending
        if not pending:
            return
        before = self._connection.total_changes()
        try:
            if len(pending) == 1:
                self._cursor.execute(self._pending_sql, pending[0])
            else:
                self._cursor.executemany(self._pending_sql, pending)
        except apsw.ConstraintError as error:
            raise RowExists(f"{self._which()} does not fit: {error}", hint=RECLONE) from error
        changed = self._connection.total_changes() - before
        if changed != len(pending):
            raise self._missing(changed=changed)
        pending.clear()

    def _missing(self, *, changed: int) -> ApplyFailed:
        if self._suspect is not None:
            _, table, row = self._suspect
            key = table.key(row.rowid, None if isinstance(row, Insert) else row.old)
            if self._connection.execute(table.exists, key).fetchall():
                what = f"{self._which()} has other values here than on the primary"
                return RowDiffers(what, hint=RECLONE)
        what = f"{self._which()} is not here ({changed} of {len(self._pending)} changed)"
        return MissingRow(what, hint=RECLONE)

    def _which(self) -> str:
        if self._suspect is None:
            return f"a row of record {_name(self._at)} or shortly before it"
        header, table, row = self._suspect
        return f"row {row.rowid} of {table.table.name} in record {_name(header)}"

    def _table(self, raw: msgspec.Raw) -> tuple[int, TableSql]:
        """The number that the record gives it, and its SQL."""
        data = bytes(raw)
        found = self._known.get(data)
        if found is None:
            named = decode_table(raw)
            table = self._tables.get(named.name)
            if table is None:
                what = f"record {_name(self._at)} names table {named.name}, which is not here"
                raise SchemaMismatch(what, hint=RECLONE)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            found = self._known[data] = (named.number, table)
        return found

    # What is run again.

    def _repeat(self, step: Statement) -> None:
        self._flush()
        if not self._is_repeating:
            self._for_statements()
        events = self._recording.events
        self._recording.capture.cut(0)
        self._time.now_ms = step.now_ms
        self._chance.reseed(step.seed)
        self._connection.set_last_insert_rowid(step.last_insert_rowid)
        try:
            self._connection.execute(step.sql, step.params).fetchall()
        except apsw.ConstraintError as error:
            raise StatementDiffers(
                f"a statement of record {_name(self._at)} fails here: {error}: {step.sql[:80]!r}",
                hint=RECLONE,
            ) from error
        changed, digest = self._connection.changes(), self._recording.digest(0)
        if (changed, digest) != (step.rows_affected, step.rows_digest):
            raise StatementDiffers(
                f"a statement of record {_name(self._at)} changed {len(events)} rows, {changed} of "
                f"them itself, digest {digest:08x}; on the primary {step.rows_affected} itself, "
                f"digest {step.rows_digest:08x}: {step.sql[:80]!r}",
                hint=RECLONE,
            )

    def _define(self, step: Ddl) -> None:
        self._flush()
        if self._is_repeating:
            self._for_rows()
        self._connection.execute(step.sql).fetchall()
        self._recording.load_schema()
        self._recording.capture.stop()
        self._see_schema()

    # Between the two ways.

    def _for_rows(self) -> None:
        self._recording.capture.stop()
        self._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        self._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
        self._is_repeating = False

    def _for_statements(self) -> None:
        """As on the primary; the hook watches what it changes."""
        self._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
        foreign_keys = int(self._settings.foreign_keys)
        self._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, foreign_keys)
        self._recording.capture.start(self._recording.schema.tables)
        self._is_repeating = True

    def _see_schema(self) -> None:
        tables: Iterable[tuple[str, TableSql]] = (
            (name, TableSql(table)) for name, table in self._recording.schema.tables.items()
        )
        self._tables = dict(tables)
        self._known.clear()

    def _give_up(self) -> None:
        if self._connection.in_transaction:
            self._cursor.execute("ROLLBACK")
        self._pending.clear()
        self._suspect = None
        self._pending_sql = ""
        self._recording.forget_all()
        self._see_schema()
        self._for_rows()

    def _translated(self, error: apsw.Error) -> Exception:
        what = f"the group behind {self.position} could not be applied: {error}"
        match error:
            case apsw.FullError():
                return DiskFull(what, hint=MAKE_SPACE)
            case apsw.IOError() if free_bytes(self._directory) < WAL_INDEX_BYTES:
                return DiskFull(what, hint=MAKE_SPACE)
            case apsw.BusyError() | apsw.NoMemError():
                return Unavailable(what, hint="Nothing of it was: it is tried again.")
            case apsw.IOError():
                return ApplyFailed(what, hint=f"The disk failed. {RECLONE}")
            case apsw.CorruptError() | apsw.NotADBError():
                return Rejected(f"the database file is damaged: {error}", hint=RECLONE)
            case _:
                return ApplyFailed(
                    f"the group behind {self.position} does not fit this file: {error}",
                    hint=RECLONE,
                )


def _name(header: Header) -> str:
    return f"{header.epoch}/{header.index}"


def _gap(header: Header, after: int) -> Conflict:
    return Conflict(
        f"record {_name(header)} does not follow record {after}",
        hint="Read the log again from the position of the database.",
    )
