"""Text that may leave the host: known secrets and whatever looks like a password are blacked out.
Pure.

Promises  No known secret, whole or in part of a line, is left; nor the value of a key that names
          one (`password = ...`, `IDENTIFIED BY '...'`).
Does not  Know what a secret in free text looks like: what nobody named is not found.
"""

import re
from collections.abc import Iterable

REMOVED = "[removed]"

SECRET_MIN = 6
"""Shorter strings are words: blacking out `a` would leave nothing to read."""

_NAMES = r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api_?key|private_?key)[\w.-]*"
_VALUE = r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s,;}\]]+)"""
_KEYED = re.compile(rf"(?i)(\b{_NAMES}[\"']?\s*[=:]\s*)(?!\s*$){_VALUE}")
_SQL = re.compile(
    r"(?i)\b(IDENTIFIED\s+BY(?:\s+PASSWORD)?\s+|PASSWORD\s*\(\s*)('[^'\n]*'|\"[^\"\n]*\")"
)
_OPTION = re.compile(rf"(?i)\s*({_NAMES})\s*=\s*(.+)$")
_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s/:@]+:)[^\s/@]+(@)")

_PATHS = re.compile(r"(?i)_file[\"']?\s*[=:]\s*$")
"""`secret_file = "..."` names a file, which is no secret."""


class Redactor:
    """Longest first, so that a secret that contains another leaves nothing of it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        wanted = {each for each in secrets if len(each) >= SECRET_MIN}
        ordered = sorted(wanted, key=lambda each: (-len(each), each))
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, given: str) -> str:
        cleaned = self._known.sub(REMOVED, given) if self._known else given
        cleaned = _KEYED.sub(_without_value, cleaned)
        cleaned = _SQL.sub(lambda found: found[1] + REMOVED, cleaned)
        cleaned = _URL.sub(lambda found: found[1] + REMOVED + found[2], cleaned)
        return self._known.sub(REMOVED, cleaned) if self._known else cleaned


def secrets_in(file: str) -> list[str]:
    """What a file that is kept as a secret holds: one line, or an option file's telling keys."""
    lines = [line.strip() for line in file.strip().splitlines()]
    if len(lines) == 1 and "=" not in lines[0]:
        return lines
    return [found[2].strip("\"' ") for line in lines if (found := _OPTION.match(line))]


def _without_value(found: re.Match[str]) -> str:
    return found[0] if _PATHS.search(found[1]) else f'{found[1]}"{REMOVED}"'
