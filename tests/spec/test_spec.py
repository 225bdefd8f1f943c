"""The specifications hold at their bounds; with any of their rules switched off they do not."""

import os
from pathlib import Path

import pytest
from tests.spec.configurations import INVARIANTS, PASSES, VARIANTS
from tests.spec.tlc import NO_ERROR, VIOLATED, configuration, run

IS_SOAK = os.environ.get("SPEC_BOUNDS") == "soak"
WITHIN_S = 12 * 3600.0 if IS_SOAK else 300.0

pytestmark = pytest.mark.spec


@pytest.mark.parametrize("name", PASSES)
def test_passes(name: str, tmp_path: Path, figures: list[str]) -> None:
    bounds = PASSES[name]
    config = configuration(
        bounds.all_constants(is_soak=IS_SOAK), INVARIANTS[bounds.spec], constraint=bounds.story
    )
    outcome = run(bounds.spec, config, tmp_path, within_s=WITHIN_S, is_long=IS_SOAK)
    assert outcome.status == NO_ERROR, outcome.output
    figures.append(f"holds     {name:<42} {outcome.figures}")


@pytest.mark.parametrize("rule", VARIANTS)
def test_rejects(rule: str, tmp_path: Path, figures: list[str]) -> None:
    breaks, bounds = VARIANTS[rule]
    config = configuration(bounds.all_constants(rule), (breaks,), constraint=bounds.story)
    outcome = run(bounds.spec, config, tmp_path, within_s=WITHIN_S)
    assert (outcome.status, outcome.broken) == (VIOLATED, breaks), outcome.output
    figures.append(f"rejected  without {rule:<34} {outcome.figures}  {outcome.broken}")
