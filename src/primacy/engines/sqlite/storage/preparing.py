"""Preparing a statement without running it: what it names, gives back, and may do."""

import apsw

from primacy.engines.sqlite.storage.images import Params
from primacy.engines.sqlite.storage.rules import Caller, Rules
from primacy.engines.sqlite.storage.statements import Facts, words_of
from primacy.errors import Rejected

_OE_ROLLBACK = 1
"""How a program says: undo the whole transaction."""
_HALTING = frozenset({"Halt", "HaltIfNull"})


def prepare(connection: apsw.Connection, rules: Rules, sql: str, params: Params) -> Facts:
    """`Rejected` for what a client may not do, and for more or less than one statement.

    Not from the cache of statements: the authorizer must be asked, whoever prepared it before.
    """
    if not words_of(sql):
        raise Rejected("there is no statement in it", hint="Send one statement of SQL.")
    told: list[tuple[str, bool, bool, tuple[str, ...]]] = []

    def stop(cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        columns = tuple(str(column[0]) for column in cursor.get_description())
        told.append((sql, cursor.is_readonly, bool(cursor.is_explain), columns))
        return False

    cursor = connection.cursor()
    cursor.exec_trace = stop
    rules.actions, rules.refusal = [], None
    try:
        cursor.execute(sql, params, can_cache=False)
    except apsw.ExecTraceAbort:
        pass  # As `stop` asks: what was to be learned is known before anything runs.
    except apsw.AuthError as error:
        refusal = rules.refusal
        if refusal is None:
            raise
        raise Rejected(refusal.what, hint=refusal.hint) from error
    finally:
        actions, rules.actions = rules.actions, None
        cursor.close(force=True)  # The abort has been seen.
    first, is_readonly, is_explain, columns = told[0]
    if words_of(sql[len(first) :]):
        raise Rejected(
            f"more than one statement: behind the first stands {sql[len(first) :].strip()[:40]!r}",
            hint="Send them one by one; a batch has a list of them.",
        )
    return Facts(
        sql=sql,
        actions=tuple(actions or ()),
        is_readonly=is_readonly,
        is_explain=is_explain,
        columns=columns,
    )


def check_program(connection: apsw.Connection, rules: Rules, sql: str, params: Params) -> None:
    """`Rejected` if a conflict may undo the whole transaction: those of other clients are in it."""
    with rules.as_caller(Caller.OWN):
        program = list(connection.execute(sql, params, explain=1, can_cache=False))
    for _, opcode, p1, p2, *_ in program:
        if opcode in _HALTING and p1 != 0 and p2 == _OE_ROLLBACK:
            raise Rejected(
                "a conflict in it would roll back more than its own transaction (ON CONFLICT "
                "ROLLBACK, OR ROLLBACK or RAISE(ROLLBACK))",
                hint="Use ABORT instead: it undoes the statement, and the client may roll back.",
            )
