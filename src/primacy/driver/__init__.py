"""The database driver (PEP 249): `primacy.connect`; for asyncio `primacy.connect_async`, in
`aio.py`. See `docs/guides/driver.md`. Needs msgspec and the standard library."""

import secrets
import time

from primacy.driver.connection import Connection as Connection
from primacy.driver.connection import Cursor as Cursor
from primacy.driver.connection import connect as connect
from primacy.driver.exceptions import Conflict as Conflict
from primacy.driver.exceptions import DatabaseError as DatabaseError
from primacy.driver.exceptions import DataError as DataError
from primacy.driver.exceptions import Error as Error
from primacy.driver.exceptions import IntegrityError as IntegrityError
from primacy.driver.exceptions import InterfaceError as InterfaceError
from primacy.driver.exceptions import InternalError as InternalError
from primacy.driver.exceptions import NotSupportedError as NotSupportedError
from primacy.driver.exceptions import OperationalError as OperationalError
from primacy.driver.exceptions import OutcomeUnknown as OutcomeUnknown
from primacy.driver.exceptions import ProgrammingError as ProgrammingError
from primacy.driver.exceptions import StatementRefused as StatementRefused
from primacy.driver.exceptions import Unavailable as Unavailable
from primacy.driver.exceptions import Warning as Warning  # noqa: A004 - PEP 249 names it so.
from primacy.driver.exceptions import misused
from primacy.driver.rows import Row as Row
from primacy.driver.rows import dict_row as dict_row
from primacy.engines.sqlite.tokens import key_at
from primacy.errors import Rejected

apilevel = "2.0"
threadsafety = 1
"""Threads may share the module, but not connections."""
paramstyle = "qmark"
"""`:name` with a dict works too, as in sqlite3."""

STRING = str
BINARY = bytes
NUMBER = float
DATETIME = str
ROWID = int
Binary = bytes


def idempotency_key(text: str = "", *, created_at_s: float | None = None) -> str:
    """For `execute(..., idempotency_key=)`. Make it once, before the first attempt, keep it, and
    repeat the call with the same one. With a text and a time of your own (an order's number and
    when it was placed) it can be made again after a crash, the same.
    """
    at_s = time.time() if created_at_s is None else created_at_s  # noqa: TID251 - the caller's edge.
    try:
        return key_at(int(at_s * 1000), text or secrets.token_hex(12))
    except Rejected as error:
        raise misused(error) from None
