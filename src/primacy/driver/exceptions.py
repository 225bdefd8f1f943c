"""The driver's errors: the classes of the Python database API, in primacy's own tree as well.

    Error
    +- InterfaceError            the driver was used wrongly
    +- DatabaseError
       +- DataError              a value does not fit
       +- IntegrityError         a constraint
       +- ProgrammingError       the statement or its parameters are wrong
       +- NotSupportedError
       +- InternalError
       +- OperationalError
          +- StatementRefused    as written it can never succeed: no such table, syntax
          +- Unavailable         nothing was applied: the same call may succeed later
          +- OutcomeUnknown      it may have been applied
          +- Conflict            somebody else moved first, or a limit ended the transaction

So `except primacy.errors.OutcomeUnknown` and `except OperationalError` both catch what they say.
"""

from primacy import errors
from primacy.engines.sqlite.protocol import Branch, Failure, Kind


class Warning(Exception):  # noqa: A001 - PEP 249 names it so.
    """Never raised: the database API wants the name."""


class Error(errors.PrimacyError):
    """Base of all. `sqlite_errorcode` and `sqlite_errorname` as in Python's sqlite3, where the
    error is SQLite's; else 0 and empty."""

    def __init__(self, what: str, *, hint: str, code: int = 0, name: str = "") -> None:
        super().__init__(what, hint=hint)
        self.sqlite_errorcode = code
        self.sqlite_errorname = name


class InterfaceError(Error, errors.Rejected):
    pass


class DatabaseError(Error):
    pass


class DataError(DatabaseError, errors.Rejected):
    pass


class OperationalError(DatabaseError):
    pass


class IntegrityError(DatabaseError, errors.Rejected):
    pass


class InternalError(DatabaseError, errors.Rejected):
    pass


class ProgrammingError(DatabaseError, errors.Rejected):
    pass


class NotSupportedError(DatabaseError, errors.Rejected):
    pass


class StatementRefused(OperationalError, errors.Rejected):
    pass


class Unavailable(OperationalError, errors.Unavailable):
    pass


class OutcomeUnknown(OperationalError, errors.OutcomeUnknown):
    pass


class Conflict(OperationalError, errors.Conflict):
    pass


_BY_KIND: dict[Kind, type[Error]] = {
    Kind.PROGRAMMING: ProgrammingError,
    Kind.DATA: DataError,
    Kind.NOT_SUPPORTED: NotSupportedError,
    Kind.INTERNAL: InternalError,
}

_BY_BRANCH: dict[Branch, type[Error]] = {
    Branch.UNAVAILABLE: Unavailable,
    Branch.NOT_PRIMARY: Unavailable,
    Branch.OUTCOME_UNKNOWN: OutcomeUnknown,
    Branch.CONFLICT: Conflict,
}

_BY_PRIMARY_CODE: dict[int, type[Error]] = {
    2: InternalError,  # SQLITE_INTERNAL
    11: DatabaseError,  # SQLITE_CORRUPT
    12: InternalError,  # SQLITE_NOTFOUND
    18: DataError,  # SQLITE_TOOBIG
    19: IntegrityError,  # SQLITE_CONSTRAINT
    20: IntegrityError,  # SQLITE_MISMATCH
    21: InterfaceError,  # SQLITE_MISUSE
    25: InterfaceError,  # SQLITE_RANGE
    26: DatabaseError,  # SQLITE_NOTADB
}


def raised_by(failure: Failure) -> Error:
    """The error that a caller sees for what the server answered."""
    made = _BY_KIND.get(failure.kind) or _BY_BRANCH.get(failure.branch)
    if made is None:
        made = _BY_PRIMARY_CODE.get(failure.code & 0xFF, StatementRefused)
    return made(failure.what, hint=failure.hint, code=failure.code, name=failure.name)


def misused(error: errors.Rejected) -> ProgrammingError:
    """What the lower rooms refuse of a caller's tokens and keys, as the database API wants it."""
    return ProgrammingError(error.what, hint=error.hint)
