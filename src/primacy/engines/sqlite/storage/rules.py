"""What SQL of a client may do: SQLite's authorizer, asked for each thing that a statement names.

It refuses what would reach around the log (another file, a temporary table, a library, a pragma
that changes what statements mean) and hides primacy's own tables; and it writes down what it was
asked: from that `statements.py` learns what a statement does, functions in defaults included.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import apsw

from primacy.engines.sqlite.storage.schema import OWN


class Caller(Enum):
    CLIENT = "client"
    OWN = "primacy itself"


@dataclass(frozen=True, slots=True)
class Action:
    """One question of the authorizer. `inside`: the trigger or view that asks."""

    code: int
    first: str
    second: str
    database: str
    inside: str


@dataclass(frozen=True, slots=True)
class Refusal:
    what: str
    hint: str


PRAGMAS_READ = frozenset(
    re.findall(
        r"\w+",
        "application_id auto_vacuum cache_size collation_list compile_options data_version "
        "database_list encoding foreign_key_check foreign_key_list foreign_keys freelist_count "
        "function_list index_info index_list index_xinfo integrity_check journal_mode "
        "max_page_count module_list page_count page_size pragma_list quick_check "
        "recursive_triggers schema_version synchronous table_info table_list table_xinfo "
        "user_version",
    )
)
PRAGMAS_WITH_ARGUMENT = frozenset(
    re.findall(
        r"\w+",
        "foreign_key_check foreign_key_list index_info index_list index_xinfo integrity_check "
        "quick_check table_info table_list table_xinfo",
    )
)
PRAGMAS_WRITTEN = frozenset({"application_id", "user_version"})
"""In the database's header, so in the log too."""

MODULES = frozenset(
    re.findall(
        r"\w+",
        "fts3 fts4 fts5 fts4aux fts5vocab rtree rtree_i32 geopoly",
    )
)

_NAMED_IN_TEMP = frozenset(
    {
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
    }
)
"""As in CREATE TABLE temp.x, which has no word of its own to the authorizer."""

_TEMPORARY = frozenset(
    {
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
    }
)


class Rules:
    """Callable as apsw wants it. `actions` is a list while somebody listens."""

    def __init__(self) -> None:
        self.caller = Caller.CLIENT
        self.actions: list[Action] | None = None
        self.refusal: Refusal | None = None

    @contextmanager
    def as_caller(self, caller: Caller) -> Iterator[None]:
        before, self.caller = self.caller, caller
        try:
            yield
        finally:
            self.caller = before

    def __call__(
        self,
        code: int,
        first: str | None,
        second: str | None,
        database: str | None,
        inside: str | None,
    ) -> int:
        action = Action(code, first or "", second or "", database or "", inside or "")
        if self.actions is not None:
            self.actions.append(action)
        if self.caller is Caller.OWN:
            return apsw.SQLITE_OK
        refusal = refused(action, has_argument=second is not None)
        if refusal is None:
            return apsw.SQLITE_OK
        self.refusal = self.refusal or refusal
        return apsw.SQLITE_DENY


def refused(action: Action, *, has_argument: bool) -> Refusal | None:
    """Why a client may not; `None` if it may."""
    code = action.code
    if code == apsw.SQLITE_PRAGMA:
        return _refused_pragma(action.first.lower(), action.second, has_argument=has_argument)
    if code in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
        return Refusal("ATTACH and DETACH reach files that are not replicated", "Use one database.")
    if code in _TEMPORARY or (action.database == "temp" and code in _NAMED_IN_TEMP):
        return Refusal(
            "temporary tables, views and triggers live in one server and are not replicated",
            "Create an ordinary table, or use WITH in the query.",
        )
    if code == apsw.SQLITE_CREATE_VTABLE and action.second.lower() not in MODULES:
        return Refusal(
            f"virtual tables of module {action.second} are not replicated",
            f"These are: {', '.join(sorted(MODULES))}.",
        )
    if code == apsw.SQLITE_DROP_TABLE and action.first.lower().startswith("sqlite_stat"):
        return Refusal("statistics belong to ANALYZE", "Run ANALYZE to renew them.")
    if code in (apsw.SQLITE_ANALYZE, apsw.SQLITE_REINDEX):
        return None  # Without a name they go over all tables.
    named = action.second if code == apsw.SQLITE_ALTER_TABLE else action.first
    if named.lower().startswith(OWN) or (
        code in (apsw.SQLITE_CREATE_TRIGGER, apsw.SQLITE_CREATE_INDEX)
        and action.second.lower().startswith(OWN)
    ):
        return Refusal(f"names that begin with {OWN} belong to primacy", "Choose another name.")
    return None


def _refused_pragma(name: str, argument: str, *, has_argument: bool) -> Refusal | None:
    if name in PRAGMAS_WRITTEN or name in PRAGMAS_WITH_ARGUMENT:
        return None
    if name in PRAGMAS_READ and not has_argument:
        return None
    if name in PRAGMAS_READ:
        return Refusal(
            f"PRAGMA {name} = {argument} would change one server alone",
            "It is a setting of the cluster: change it there.",
        )
    return Refusal(
        f"PRAGMA {name} is not allowed",
        f"These are: {', '.join(sorted(PRAGMAS_READ | PRAGMAS_WITH_ARGUMENT))}.",
    )
