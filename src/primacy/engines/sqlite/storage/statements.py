"""What a statement does, and how it may stand in the log: decided once for each text. Pure.

It is not parsed. SQLite says what it names (the authorizer's actions, functions hidden in defaults
and triggers included), and its words say the little that the authorizer does not.

Promises  `is_replayable`: with time, chance and the last rowid held still, running the text again
          over the same data changes the same rows, if SQLite visits them in the same order.
          `is_order_free`: in any order, and only such a statement is logged as one, unless nothing
          else can carry it.
Does not  Trust itself blindly: a replayed statement's rows are compared by a digest.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import apsw

from primacy.engines.sqlite.storage.images import Params
from primacy.engines.sqlite.storage.rules import PRAGMAS_WRITTEN, Action
from primacy.engines.sqlite.storage.schema import OWN, SEQUENCE, Schema
from primacy.errors import Rejected


class Form(Enum):
    READ = "reads"
    WRITE = "writes rows"
    DEFINE = "changes the schema"
    CREATE_FROM_QUERY = "creates a table from a query"
    RUN_AGAIN = "is run on every node and has no rows: ANALYZE, REINDEX, a PRAGMA in the header"
    SAVEPOINT = "opens or ends a savepoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What preparing a statement told."""

    sql: str
    actions: tuple[Action, ...]
    is_readonly: bool
    is_explain: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to carry out and log one text of SQL."""

    form: Form
    columns: tuple[str, ...] = ()
    written: frozenset[str] = frozenset()
    is_replayable: bool = False
    is_order_free: bool = False
    why_not_replayable: str = ""
    is_opaque: bool = False
    """It writes a table whose rows cannot be captured: the statement form or nothing."""
    is_counting: bool = False
    """It may move a counter of AUTOINCREMENT."""
    is_virtual: bool = False
    """It writes a virtual table, whose module keeps rows back until a savepoint."""
    may_end_group: bool = False
    """Something says ROLLBACK as a conflict clause, perhaps: look at the program."""
    reads_time: bool = False
    draws: bool = False
    is_simple: bool = False
    """It writes rows of ordinary tables, and asks and answers nothing."""
    is_single_row: bool = False
    """Such a one that inserts one row of plain values: nothing can be wrong with it afterwards."""
    savepoint: tuple[str, str] = ("", "")
    """The deed (BEGIN, RELEASE, ROLLBACK) and the name."""


_DEFINING = frozenset(
    {
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
        apsw.SQLITE_ALTER_TABLE,
    }
)
_WRITING = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})

_TIME = frozenset(
    re.findall(
        r"\w+",
        "date time datetime julianday unixepoch strftime timediff current_timestamp current_date "
        "current_time",
    )
)
_CHANCE = frozenset({"random", "randomblob"})
_SAME_EVERYWHERE = (
    _TIME
    | _CHANCE
    | {"->", "->>"}
    | frozenset(
        re.findall(
            r"\w+",
            "abs char coalesce concat concat_ws format printf glob hex ifnull iif if instr "
            "length octet_length like likelihood likely unlikely lower upper ltrim rtrim trim "
            "max min nullif quote replace round sign soundex substr substring typeof unicode "
            "unhex zeroblob count last_insert_rowid json json_array json_array_length "
            "json_extract json_insert json_object json_patch json_quote json_remove json_replace "
            "json_set json_type json_valid",
        )
    )
)
"""No floating point that a library of the host computes, nothing of one connection or one file,
no aggregate whose result depends on the order."""

_TOKENS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?(?:\*/|\Z)
        | [A-Za-z_][A-Za-z_0-9$]*""",
    re.X | re.S,
)
_SINGLE_ROW = re.compile(
    r"\s*INSERT\s+INTO\s+[\w\"]+\s*(?:\([\w\", ]+\)\s*)?VALUES\s*\([\w\s?:@$,.'+]*\)\s*;?\s*", re.I
)
"""Parameters, numbers, simple strings: no operator that makes text of bytes, no parenthesis."""

_OF_A_ZONE = re.compile(r"localtime|utc", re.I)

_NO_PLACE_HERE = {
    "VACUUM": (
        "VACUUM runs alone, outside of transactions",
        "Leave it: what rows gave free is used again.",
    ),
    "BEGIN": ("BEGIN stands in a transaction already", "Use SAVEPOINT for a part of it."),
}
_ENDS_IT = ("COMMIT, END and ROLLBACK are not SQL here", "End the transaction by the session.")


def words_of(sql: str) -> list[str]:
    """Its keywords and names in upper case, without strings and comments."""
    found = (match.group() for match in _TOKENS.finditer(sql))
    return [word.upper() for word in found if word[0].isalpha() or word[0] == "_"]


def plan_of(facts: Facts, schema: Schema) -> Plan:
    """`Rejected` for what has no place inside a transaction of a client."""
    words = words_of(facts.sql)
    form = _form(facts, words)
    match form:
        case Form.SAVEPOINT:
            return Plan(form=form, savepoint=_savepoint(facts.actions))
        case Form.READ:
            return Plan(form=form, columns=facts.columns, reads_time=True, draws=True)
        case Form.DEFINE | Form.CREATE_FROM_QUERY | Form.RUN_AGAIN:
            return Plan(form=form, columns=facts.columns, reads_time=True, draws=True)
        case Form.WRITE:
            return _written(facts, words, schema)


def _savepoint(actions: Iterable[Action]) -> tuple[str, str]:
    action = next(each for each in actions if each.code == apsw.SQLITE_SAVEPOINT)
    if action.second.lower().startswith(OWN):
        raise Rejected(
            f"names that begin with {OWN} belong to primacy", hint="Choose another name."
        )
    return action.first, action.second


def _form(facts: Facts, words: list[str]) -> Form:
    codes = {action.code for action in facts.actions}
    if facts.is_explain:
        return Form.READ
    if words and words[0] in _NO_PLACE_HERE:
        what, hint = _NO_PLACE_HERE[words[0]]
        raise Rejected(what, hint=hint)
    if apsw.SQLITE_TRANSACTION in codes:
        raise Rejected(_ENDS_IT[0], hint=_ENDS_IT[1])
    if apsw.SQLITE_SAVEPOINT in codes:
        return Form.SAVEPOINT
    if apsw.SQLITE_CREATE_TABLE in codes and apsw.SQLITE_SELECT in codes:
        return Form.CREATE_FROM_QUERY if words[0] == "CREATE" else Form.DEFINE
    if words and words[0] in ("ANALYZE", "REINDEX"):
        return Form.RUN_AGAIN
    if codes & _DEFINING:
        return Form.DEFINE
    if any(map(_is_header_pragma, facts.actions)):
        return Form.RUN_AGAIN
    return Form.READ if facts.is_readonly else Form.WRITE


def _is_header_pragma(action: Action) -> bool:
    is_pragma = action.code == apsw.SQLITE_PRAGMA and action.first.lower() in PRAGMAS_WRITTEN
    return is_pragma and action.second != ""


def _written(facts: Facts, words: list[str], schema: Schema) -> Plan:
    written = frozenset(each.first for each in facts.actions if each.code in _WRITING)
    _check_written(facts.actions)
    functions = {each.second.lower() for each in facts.actions if each.code == apsw.SQLITE_FUNCTION}
    inside = {each.inside.lower() for each in facts.actions if each.inside}
    texts = [facts.sql, *(schema.texts.get(name, "") for name in sorted(inside))]
    why_not = _why_not_replayable(facts.actions, functions, texts, schema)
    tables = [schema.tables[name] for name in written if name in schema.tables]
    is_opaque = any(table.is_opaque for table in tables)
    is_counting = SEQUENCE in written or any(table.has_counter for table in tables)
    is_virtual = any(name.lower() in schema.virtual for name in written)
    asks = facts.columns or not functions.isdisjoint(_TIME | _CHANCE | {"last_insert_rowid"})
    is_simple = not (is_opaque or is_counting or is_virtual or asks)
    return Plan(
        form=Form.WRITE,
        columns=facts.columns,
        written=written,
        is_replayable=not why_not,
        why_not_replayable=why_not,
        is_order_free=not why_not and not inside and _is_order_free(words, functions),
        is_opaque=is_opaque,
        is_counting=is_counting,
        is_virtual=is_virtual,
        is_simple=is_simple,
        is_single_row=is_simple
        and not (functions or inside or schema.has_conflict_clauses or schema.has_deferred_keys)
        and len(tables) == 1
        and tables[0].is_plain
        and _SINGLE_ROW.fullmatch(facts.sql) is not None,
        may_end_group=schema.has_conflict_clauses or "ROLLBACK" in words,
        reads_time=not functions.isdisjoint(_TIME),
        draws=not functions.isdisjoint(_CHANCE),
    )


def _check_written(actions: Iterable[Action]) -> None:
    for action in actions:
        if action.code not in _WRITING:
            continue
        if action.first.lower().startswith("sqlite_stat"):
            raise Rejected("statistics belong to ANALYZE", hint="Run ANALYZE to renew them.")
        is_seq = action.code == apsw.SQLITE_UPDATE and action.second.lower() == "seq"
        if action.first == SEQUENCE and action.code != apsw.SQLITE_DELETE and not is_seq:
            raise Rejected(
                f"of {SEQUENCE} only `seq` can be set and rows can be deleted",
                hint="Insert into the table itself: SQLite makes its counter.",
            )


def _why_not_replayable(
    actions: Iterable[Action], functions: set[str], texts: list[str], schema: Schema
) -> str:
    """Empty if it gives the same again."""
    if unknown := functions - _SAME_EVERYWHERE:
        return f"it calls {', '.join(sorted(unknown))}"
    for action in actions:
        name = action.first.lower()
        if name in schema.virtual and action.code != apsw.SQLITE_FUNCTION:
            return f"{action.first} is a virtual table"
        if action.code == apsw.SQLITE_READ and name != SEQUENCE and name.startswith("sqlite_"):
            return f"it reads {action.first}"
        if action.code == apsw.SQLITE_PRAGMA:
            return "it reads a pragma"
    for text in texts:
        words = words_of(text)
        if words.count("LIMIT") > _ordered(words):
            return "it has LIMIT without ORDER BY"
        if not functions.isdisjoint(_TIME) and _OF_A_ZONE.search(text):
            return "it uses the time zone of the host"
    return ""


def _ordered(words: list[str]) -> int:
    return sum(1 for each in pairwise(words) if each == ("ORDER", "BY"))


def _is_order_free(words: list[str], functions: set[str]) -> bool:
    """The rows of VALUES have an order; others get no choice that depends on which comes first."""
    if "SELECT" in words:
        return False
    match words[0]:
        case "INSERT" | "REPLACE":
            return True
        case "UPDATE":
            is_one_table = "FROM" not in words and words[1] != "OR"
            return is_one_table and functions.isdisjoint(_CHANCE)
        case "DELETE":
            return functions.isdisjoint(_CHANCE)
        case _:
            return False


def zone_in(params: Params) -> bool:
    """Whether a parameter may bring the host's time zone in: 'localtime' as a modifier."""
    values = params.values() if isinstance(params, dict) else params
    return any(isinstance(each, str) and _OF_A_ZONE.search(each) for each in values)
