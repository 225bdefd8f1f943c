"""A server that is killed at random points of a load, its log or its WAL cut at a random byte."""

from pathlib import Path

import pytest
from tests.integration.sqlite.crashing import crash_often

from primacy.engines.sqlite.storage.connection import Logging

pytestmark = pytest.mark.integration

KILLS = {Logging.ROW: 20, Logging.STATEMENT: 15, Logging.MIXED: 15}
"""Fifty; `make soak-sqlite` takes five hundred."""


@pytest.mark.parametrize("logging", list(Logging))
def test_what_is_recovered_is_what_the_log_says_and_what_clients_were_told(
    tmp_path: Path, logging: Logging
) -> None:
    kills = KILLS[logging]
    counts = crash_often(tmp_path, kills=kills, seed=kills, logging=logging)
    assert counts["kills"] + counts["kills while it started"] >= kills
    assert counts["WALs cut"] > 0
    assert counts["logs damaged"] > 0
