"""A pair of files for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.engines.sqlite.storage.pair import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()
