"""The server's errors in the words of primacy's tree. The number and the words are kept.

Unavailable      it does not answer, refuses connections, or a lock was not free in time
OutcomeUnknown   the connection was lost while a statement ran
Conflict         the server is not in the state that the statement needs
Rejected         a person must act: a privilege, a password
"""

import pymysql

from primacy.errors import Conflict, OutcomeUnknown, PrimacyError, Rejected, Unavailable

LOCK_WAIT_TIMEOUT = 1205
DEADLOCK = 1213
NO_SUCH_THREAD = 1094
NOT_A_SLAVE = 1200
READ_ONLY = 1290
OUT_OF_ORDER_SEQUENCE = 1950

ACCOUNT_LOCKED = 4151
"""Of a peer that keeps this node out of its sync set for the moment."""

_NOT_NOW = frozenset(
    {LOCK_WAIT_TIMEOUT, DEADLOCK, ACCOUNT_LOCKED, 1040, 1053, 1129, 2002, 2003, 2006}
)
_LOST = frozenset({0, 2013, 1927, 1317})
_A_PERSON = frozenset({1044, 1045, 1142, 1143, 1227, 1698})

UPSTREAM_AWAY = frozenset({1040, 1045, 1053, 1129, 1130, 1158, 1159, 1160, 1161, 1927, 4151})
"""What a receiver shows while its upstream is down, full, or keeps it out (a locked account, a
cut-off member): with the client's own 2000-2999 no error of this node's log. It tries again."""

DIVERGED = frozenset({1236, OUT_OF_ORDER_SEQUENCE, 1062, 1032})
"""From a replication thread: this log is no prefix of the upstream's."""


def code_of(error: pymysql.MySQLError) -> int:
    """The server's number; 0 where the driver gives none, as for a connection that was lost."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def translated(error: pymysql.MySQLError) -> PrimacyError:
    """The same error in our tree."""
    code = code_of(error)
    words = str(error.args[1]) if len(error.args) > 1 else str(error)
    what = f"MariaDB error {code}: {words}"
    if code in _NOT_NOW:
        problem: PrimacyError = Unavailable(what, hint="Try again.")
    elif code in _LOST:
        problem = OutcomeUnknown(what, hint="The statement may have run. Observe, then decide.")
    elif code in _A_PERSON:
        problem = Rejected(what, hint="The accounts of primacy were changed in this server.")
    else:
        problem = Conflict(what, hint="The server is in another state than expected. Observe it.")
    problem.__cause__ = error
    return problem
