"""What can be said of a request before anybody runs it, and an answer as a frame. Pure."""

from primacy.engines.sqlite.keywords import MAY_READ, READS, Control, control_of, first_word
from primacy.engines.sqlite.protocol import (
    Access,
    Branch,
    Done,
    Failure,
    FromServer,
    Kind,
    Run,
    frame_of,
)
from primacy.errors import Rejected


def framed(answer: FromServer) -> bytes:
    try:
        return frame_of(answer)
    except Rejected as error:  # A row of several large values.
        number = answer.number if isinstance(answer, Done | Failure) else 0
        is_in = isinstance(answer, Done) and answer.is_in_transaction
        return frame_of(
            Failure(
                number,
                Branch.REJECTED,
                f"a row is too large: {error.what}",
                "Read large values one at a time.",
                kind=Kind.DATA,
                is_in_transaction=is_in,
            )
        )


def may_read(run: Run) -> bool:
    words = [first_word(each.sql) for each in run.statements]
    if len(words) == 1:
        return words[0] in MAY_READ
    return all(word in READS for word in words)


def check_controls(run: Run, *, is_in_write: bool) -> None:
    """Transactions are begun and ended by messages; savepoints are statements inside of one."""
    for each in run.statements:
        control = control_of(each.sql)
        if control is None:
            continue
        if control[0] in (Control.BEGIN, Control.COMMIT, Control.ROLLBACK):
            raise Rejected(
                f"{control[0].value.upper()} stands among the statements of a request",
                hint="A transaction is begun and ended by the messages for it.",
            )
        if not is_in_write and run.begin is not Access.WRITE:
            raise Rejected("there is no transaction for a savepoint", hint="BEGIN one first.")


def check_whole(run: Run) -> None:
    """`Rejected`: a request that could be no transaction."""
    if not run.statements and not run.begin.value:
        raise Rejected("a request without a statement", hint="Send at least one.")
