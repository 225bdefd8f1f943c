"""What can be said of a statement by its first word. Pure; driver and server ask alike.

Does not  Parse SQL: what a statement does is decided by SQLite, when it is prepared.
"""

import re
from enum import Enum


class Control(Enum):
    """Statements about transactions: they are not run, but obeyed."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"


CHANGES_ROWS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
"""What begins a transaction by itself, as in Python's sqlite3."""

READS = frozenset({"SELECT", "VALUES", "EXPLAIN"})
"""What can change nothing, whatever follows."""

MAY_READ = READS | {"WITH", "PRAGMA"}
"""What is tried where nothing can be changed, before it is given to the writer."""


_BLANKS = re.compile(r"(?:[\s;\ufeff]|--[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_WORD = re.compile(r"[^\W\d]+")


def first_word(sql: str) -> str:
    """In upper case. Empty where it begins with something else, as no statement does."""
    found = _WORD.match(sql, _blanks_end(sql))
    return found.group().upper() if found is not None else ""


def is_blank(sql: str) -> bool:
    """Nothing but spaces, comments and empty statements."""
    return _blanks_end(sql) == len(sql)


def control_of(sql: str) -> tuple[Control, str] | None:
    """What it says about transactions, and the savepoint's name; None: it is another statement."""
    word = first_word(sql)
    match word:
        case "BEGIN":
            return Control.BEGIN, ""
        case "COMMIT" | "END":
            return Control.COMMIT, ""
        case "SAVEPOINT" | "RELEASE" | "ROLLBACK":
            words = _words(_after_blanks(sql)[len(word) :])
            return _savepoint(word, words)
        case _:
            return None


def _savepoint(word: str, words: list[str]) -> tuple[Control, str]:
    """ROLLBACK [TRANSACTION] [TO [SAVEPOINT] name]; RELEASE [SAVEPOINT] name; SAVEPOINT name."""
    if word == "SAVEPOINT":
        return Control.SAVEPOINT, words[0] if words else ""
    if word == "RELEASE":
        return Control.RELEASE, _name(words)
    if words and words[0].upper() == "TRANSACTION":
        words = words[1:]
    if words and words[0].upper() == "TO":
        return Control.ROLLBACK_TO, _name(words[1:])
    return Control.ROLLBACK, ""


def _name(words: list[str]) -> str:
    if len(words) > 1 and words[0].upper() == "SAVEPOINT":
        return words[1]
    return words[0] if words else ""


def _words(text: str) -> list[str]:
    """Of the few that follow. A quoted name keeps its spaces and loses its quotes."""
    found: list[str] = []
    rest = _after_blanks(text)
    while rest and rest[0] != ";":
        quote = {'"': '"', "'": "'", "`": "`", "[": "]"}.get(rest[0])
        if quote is not None:
            end = rest.find(quote, 1)
            end = len(rest) if end < 0 else end
            found.append(rest[1:end])
            rest = rest[end + 1 :]
        else:
            end = 0
            while end < len(rest) and not rest[end].isspace() and rest[end] not in ";-/\"'`[":
                end += 1
            end = max(end, 1)
            found.append(rest[:end])
            rest = rest[end:]
        rest = _after_blanks(rest)
    return found


def _after_blanks(sql: str) -> str:
    """Without leading spaces, comments, byte order mark and empty statements."""
    return sql[_blanks_end(sql) :]


def _blanks_end(sql: str) -> int:
    found = _BLANKS.match(sql)
    return found.end() if found is not None else 0
