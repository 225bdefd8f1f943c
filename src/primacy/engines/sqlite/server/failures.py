"""Errors of SQLite, of the storage and of the log as answers to a client. The one place."""

import apsw

from primacy.engines.sqlite.protocol import Branch, Failure, Kind
from primacy.errors import Conflict, OutcomeUnknown, PrimacyError, Unavailable

WRITES_RESUME = "Free space on its disk; writes go on by themselves then. Reads go on meanwhile."

_TRANSIENT = {
    apsw.SQLITE_BUSY: "Try again.",
    apsw.SQLITE_LOCKED: "Try again.",
    apsw.SQLITE_INTERRUPT: "It was cancelled, or took too long: nothing was applied.",
    apsw.SQLITE_FULL: WRITES_RESUME,
    apsw.SQLITE_NOMEM: "Try again with less.",
    apsw.SQLITE_ABORT: "Try again.",
}
"""Nothing was applied, and the same may succeed later."""

ERRORS = (apsw.Error, PrimacyError, KeyError, TypeError, ValueError, OverflowError)
"""What running a client's statement may raise: SQLite's errors, refusals of the storage, and what
apsw says of parameters that do not fit (a name that is missing, text that is not UTF-8)."""


def failure_of(error: BaseException, number: int, *, is_in_transaction: bool = False) -> Failure:
    match error:
        case apsw.BindingsError():
            return _made(number, str(error), is_in_transaction, kind=Kind.PROGRAMMING)
        case apsw.Error():
            return _of_sqlite(error, number, is_in_transaction=is_in_transaction)
        case PrimacyError():
            branch = _branch_of(error)
            return Failure(
                number, branch, error.what, error.hint, is_in_transaction=is_in_transaction
            )
        case KeyError():
            what = f"there is no value for the parameter :{error.args[0] if error.args else ''}"
            return _made(number, what, is_in_transaction, kind=Kind.PROGRAMMING)
        case UnicodeError():
            what = f"text that is not UTF-8 cannot be sent: {error}"
            return _made(number, what, is_in_transaction, kind=Kind.DATA)
        case _:
            return _made(number, str(error), is_in_transaction, kind=Kind.PROGRAMMING)


def _of_sqlite(error: apsw.Error, number: int, *, is_in_transaction: bool) -> Failure:
    code = int(getattr(error, "extendedresult", 0) or 0)
    name = str(
        apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code, "")
    )
    hint = _TRANSIENT.get(code & 0xFF)
    return Failure(
        number,
        Branch.REJECTED if hint is None else Branch.UNAVAILABLE,
        str(error),
        hint or "Nothing of it was applied.",
        code,
        name,
        is_in_transaction=is_in_transaction,
    )


def _branch_of(error: PrimacyError) -> Branch:
    match error:
        case Unavailable():
            return Branch.UNAVAILABLE
        case OutcomeUnknown():
            return Branch.OUTCOME_UNKNOWN
        case Conflict():
            return Branch.CONFLICT
        case _:
            return Branch.REJECTED


def _made(number: int, what: str, is_in_transaction: bool, *, kind: Kind) -> Failure:  # noqa: FBT001 - as the message has it.
    hint = "Change the statement or its parameters."
    return Failure(
        number, Branch.REJECTED, what, hint, kind=kind, is_in_transaction=is_in_transaction
    )
