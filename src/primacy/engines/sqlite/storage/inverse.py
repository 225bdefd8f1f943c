"""Taking transactions back: the rows of a change, reversed. Pure.

Promises  Applied to a database that is as the change left it, the inverse leads to what was before
          it: rows, rowids and counters. The rows are compared as they go, as with any change.
Assumes   Full images. A change with statements or DDL has no inverse (`NotInvertible`).
"""

from collections.abc import Iterable, Iterator

from primacy.engines.sqlite.storage.failures import NotInvertible
from primacy.engines.sqlite.storage.images import (
    Cell,
    Counter,
    Counters,
    Ddl,
    Delete,
    Insert,
    Row,
    Rows,
    Statement,
    Step,
    Update,
)

_CLONE = "Clone the node again instead; the transactions have been saved as SQL."


def inverse_of(steps: Iterable[Step]) -> list[Step]:
    """What undoes a whole change, in order."""
    return [_reversed_step(step) for step in reversed(list(steps))]


def _reversed_step(step: Step) -> Step:
    match step:
        case Rows():
            return Rows(step.tables, list(_reversed_rows(step)))
        case Counters():
            turned = (Counter(each.rowid, each.new, each.old) for each in step.counters)
            return Counters(list(turned))
        case Statement():
            raise NotInvertible(
                f"a statement stands in the log without its rows: {step.sql[:80]!r}", hint=_CLONE
            )
        case Ddl():
            raise NotInvertible(
                f"a change of the schema has no inverse: {step.sql[:80]!r}", hint=_CLONE
            )


def _reversed_rows(step: Rows) -> Iterator[Row]:
    maps = step.maps
    for row in reversed(step.rows):
        match row:
            case Insert():
                yield Delete(row.table, row.rowid, row.values)
            case Delete(old=None) | Update(old=None):
                raise NotInvertible(
                    f"the log has no old image of row {row.rowid} of {maps[row.table].name}",
                    hint=f"images = full would keep it. {_CLONE}",
                )
            case Delete():
                yield Insert(row.table, row.rowid, row.old or ())
            case Update():
                yield _reversed_update(row)


def _reversed_update(row: Update) -> Update:
    before: tuple[Cell, ...] = row.old or ()
    after = list(before)
    for at, value in zip(row.columns, row.values, strict=True):
        after[at] = value
    return Update(
        table=row.table,
        rowid=row.rowid_new,
        rowid_new=row.rowid,
        old=tuple(after),
        columns=row.columns,
        values=tuple(before[at] for at in row.columns),
    )
