"""The cluster's secret, and the token of the HTTP API: what their files must be."""

import stat
from collections.abc import Iterator
from pathlib import Path

from primacy.config.problems import Problem

SECRET_BYTES = 32

TOKEN_CHARACTERS_MIN = 16
TOKEN_CHARACTERS_MAX = 512
"""A token shorter than this can be guessed; a longer one does not fit into a request's head."""


def secret_problems(path: Path) -> Iterator[Problem]:
    key, shown = "cluster.secret_file", repr(str(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        yield Problem(key, shown, f"{reason}. `primacy init` makes it; copy it to every host")
        return
    if mode & 0o077:
        yield Problem(key, shown, f"others may read it (mode {mode:04o}). Run: chmod 600 {path}")
    if len(content.strip()) != 2 * SECRET_BYTES or not set(content.strip()) <= set(
        "0123456789abcdef"
    ):
        yield Problem(key, shown, f"must hold {SECRET_BYTES} bytes as lower-case hex digits")


def token_in(path: Path) -> str:
    """Assumes that `token_problems` found none."""
    return path.read_text().strip()


def token_problems(path: Path, key: str) -> Iterator[Problem]:
    shown = repr(str(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        make = f"(umask 077; openssl rand -hex 32 > {path})"
        rule = f"{reason}. Copy it to every host, or make one: {make}"
        yield Problem(key, shown, rule)
        return
    if mode & 0o077:
        yield Problem(key, shown, f"others may read it (mode {mode:04o}). Run: chmod 600 {path}")
    is_plain = token.isascii() and token.isprintable() and " " not in token
    if not is_plain or not TOKEN_CHARACTERS_MIN <= len(token) <= TOKEN_CHARACTERS_MAX:
        rule = f"must be {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} characters without spaces"
        yield Problem(key, shown, rule)
