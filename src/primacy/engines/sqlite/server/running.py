"""One client transaction inside a group: its statements, and the answer. In the writer's thread."""

from dataclasses import dataclass

from primacy.engines.sqlite.protocol import (
    PAGE_BYTES,
    PAGE_ROWS_MAX,
    Done,
    Parameters,
    Row,
    Run,
    Value,
)
from primacy.engines.sqlite.server.kept import Kept, KeptAnswer
from primacy.engines.sqlite.storage.recording import Change
from primacy.engines.sqlite.storage.running import Result
from primacy.engines.sqlite.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last statement answered; of several executions the rows affected are summed."""

    answer: KeptAnswer
    change: Change | None


def run_alone(writer: Writer, run: Run, kept: Kept) -> Outcome:
    """A transaction of its own. What it raises has undone it."""
    simple = _only(run)
    if simple is not None and not run.key:
        result = writer.run(*simple)
        return Outcome(_answer(result), writer.change())
    with writer.transaction():
        known = kept.answer_to(writer, run) if run.key else None
        answer = known or run_inside(writer, run)
        if run.key and known is None:
            kept.keep(writer, run, answer)
    return Outcome(answer, writer.change())


def run_inside(writer: Writer, run: Run) -> KeptAnswer:
    """All statements in the open transaction."""
    last: Result | None = None
    affected = 0
    for statement in run.statements:
        affected = 0
        for parameters in statement.rows:
            last = writer.execute(statement.sql, parameters)
            affected += max(0, last.rows_affected)
    if last is None:
        return KeptAnswer(None, [], 0, 0)
    return _answer(last, affected=affected)


def run_undoably(writer: Writer, run: Run) -> KeptAnswer:
    """Inside an interactive transaction: a failure undoes this request only."""
    if _only(run) is not None or not run.statements:
        return run_inside(writer, run)  # The storage undoes one statement by itself.
    with writer.request():
        return run_inside(writer, run)


def done_of(
    answer: KeptAnswer, number: int, *, token: str, is_in_transaction: bool = False
) -> Done:
    """All rows in one answer: the session makes pages of them."""
    return Done(
        number,
        answer.columns,
        answer.rows,
        0,
        answer.rows_affected,
        answer.last_rowid,
        token,
        is_in_transaction,
    )


def weight_of(row: tuple[Value, ...]) -> int:
    """About how many bytes it takes in an answer."""
    return 9 * len(row) + sum(len(each) for each in row if isinstance(each, str | bytes))


def pages_of(rows: list[Row]) -> list[list[Row]]:
    """At least one; each but the last about full."""
    pages: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        weight = weight_of(row)
        if pages[-1] and (size + weight > PAGE_BYTES or len(pages[-1]) >= PAGE_ROWS_MAX):
            pages.append([])
            size = 0
        pages[-1].append(row)
        size += weight
    return pages


def _only(run: Run) -> tuple[str, Parameters] | None:
    """Of a request that is one execution of one statement."""
    if len(run.statements) == 1 and len(run.statements[0].rows) == 1:
        return run.statements[0].sql, run.statements[0].rows[0]
    return None


def _answer(result: Result, *, affected: int | None = None) -> KeptAnswer:
    return KeptAnswer(
        list(result.columns) if result.columns else None,
        result.rows,
        result.rows_affected if affected is None else affected,
        result.last_insert_rowid,
    )
