"""Whole runs with the model of the SQLite engine."""

import msgspec
import pytest
from tests.sim.mutants import SQLITE

from primacy.sim.run import ENGINES, replay, run_seed, run_seeds
from primacy.sim.settings import draw


@pytest.mark.parametrize("seed", [2, 5, 12])
def test_nothing_breaks(seed: int) -> None:
    verdict = run_seed(seed, 60.0, engine="sqlite")
    assert verdict.broken is None, str(verdict)
    assert verdict.commits_count > 0


def test_the_same_seed_runs_the_same_way_twice_and_by_its_own_record() -> None:
    first, second = (run_seed(4, 20.0, engine="sqlite") for _ in range(2))
    assert (first.digest, first.counters) == (second.digest, second.counters)
    told = msgspec.json.decode(msgspec.json.encode(first.choices), type=type(first.choices))
    assert told.engine == "sqlite"
    assert replay(4, choices=told).digest == first.digest
    assert run_seed(4, 20.0).digest != first.digest


def test_a_planted_bug_is_found_and_comes_with_the_command_that_replays_it() -> None:
    planted = SQLITE["tail-committed-at-start"]
    runs = (run_seed(seed, 60.0, engine="sqlite", assembly=planted) for seed in range(1, 6))
    verdict = next(run for run in runs if run.broken is not None)
    assert verdict.broken is not None
    assert verdict.broken.name == "tail-waits-for-its-role"
    assert f"primacy sim replay {verdict.seed} --engine sqlite --trace" in str(verdict)


def test_a_budget_of_seeds_is_counted_by_engine() -> None:
    report = run_seeds(1, 2, 10.0, engine="sqlite", workers=1)
    assert (report.engine, report.verdicts_count, report.is_clean) == ("sqlite", 2, True)
    assert "relay log salvaged" not in report.never_seen


def test_every_engine_that_a_seed_can_be_drawn_for_has_a_model() -> None:
    for name in ENGINES:
        assert draw(1, name).engine == name
