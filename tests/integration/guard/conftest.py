"""A stubborn database: ignores SIGTERM, and has a child of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from primacy.engines.guardchild import GuardSpec
from primacy.engines.guarding import guard_spec

STUBBORN = ("/bin/sh", "-c", "trap '' TERM HUP; sleep 100000 & wait; sleep 100000")
"""A program that any user may execute, which the interpreter of a virtual environment is not."""


@pytest.fixture
def page_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="primacy-test-", dir="/dev/shm") as directory:
        yield Path(directory) / "page"


@pytest.fixture
def stubborn_spec(tmp_path: Path, page_path: Path) -> GuardSpec:
    return guard_spec(
        STUBBORN,
        state_dir=tmp_path,
        page_path=page_path,
        log_path=tmp_path / "database.log",
        user="nobody" if os.geteuid() == 0 else None,
        environment={"PATH": "/usr/bin:/bin"},
    )
