"""The cluster's secret: what its file must be."""

import stat
from collections.abc import Iterator
from pathlib import Path

from primacy.config.problems import Problem

SECRET_BYTES = 32


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
