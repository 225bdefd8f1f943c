"""A replica equals its primary after some thousands of statements that nobody chose."""

from pathlib import Path

import pytest
from tests.unit.engines.sqlite.storage.random_sql import run_many

from primacy.engines.sqlite.storage.connection import Logging
from primacy.engines.sqlite.storage.images import Images


@pytest.mark.parametrize("images", Images)
@pytest.mark.parametrize("logging", Logging)
def test_a_replica_equals_its_primary(tmp_path: Path, logging: Logging, images: Images) -> None:
    seed = 1 if images is Images.FULL else 2
    outcomes = run_many(tmp_path, statements=2600, seed=seed, logging=logging, images=images)
    assert outcomes["done"] > 1000
    assert outcomes["ConstraintError"] > 20
