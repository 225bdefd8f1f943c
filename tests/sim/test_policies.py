"""The operator changes the durability policy under faults: seeds that once found a bug."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOUND = {
    (2, (1, 0)): "opened with acks = 0 while a replica still acknowledged by an older record",
    (14, (1, 0)): "promoted with an applier that had stopped: it held the record and never opened",
    (5, (1,)): "none yet: the policy turns between block and degrade",
}
"""What each seed broke when it was met, by the code of that day."""


def policies() -> ModuleType:
    """The script beside this file: it is no package."""
    spec = importlib.util.spec_from_file_location("policies", Path(__file__).parent / "policies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seed", "acks"), FOUND)
def test_a_policy_that_changes_all_the_time_breaks_nothing(
    seed: int, acks: tuple[int, ...]
) -> None:
    (verdict,) = policies().verdicts(seed, 1, acks)
    assert verdict.broken is None, f"{verdict} (it once found: {FOUND[seed, acks]})"
    assert verdict.commits_count > 0
