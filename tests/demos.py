"""`primacy demo`, as a stranger runs it."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

WITHIN_S = 540
"""About 15 s for each fault, and as much again for a busy machine."""
CLEANS_UP_WITHIN_S = 60

RESULT = {"fault", "outage_s", "acknowledged", "lost", "late", "primary", "healthy", "steps"}


def demo(*arguments: str) -> tuple[int, dict[str, object], str]:
    """One that takes too long is asked to end, so that it cleans up and shows how far it got."""
    with subprocess.Popen(
        [sys.executable, "-m", "primacy.cli.main", "demo", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            answer, timeline = running.communicate(timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            running.terminate()
            _, timeline = running.communicate(timeout=CLEANS_UP_WITHIN_S)
            pytest.fail(f"not within {WITHIN_S} s: {timeline[-6000:]}")
    told: dict[str, object] = json.loads(answer)
    return running.returncode, told, timeline


def nothing_is_lost_by(engine: str, faults: Sequence[str], profile: str, *more: str) -> None:
    """And nothing is late, and all is well afterwards."""
    asked = ("--engine", engine, "--fault", ",".join(faults), "--profile", profile)
    code, told, timeline = demo(*asked, *more)
    assert code == 0, timeline[-6000:]
    assert (told["engine"], told["profile"], told["ok"]) == (engine, profile, True)
    results = told["results"]
    assert isinstance(results, list)
    assert [each["fault"] for each in results] == list(faults)
    for each in results:
        assert set(each) == RESULT
        assert (each["lost"], each["late"], each["healthy"]) == (0, 0, True)
        assert each["acknowledged"] > 0


def a_promoted_laggard_fails(engine: str) -> None:
    """The control: a demo that could not fail would show nothing."""
    code, told, timeline = demo("--engine", engine, "--fault", "laggard", "--promote-laggard")
    assert code != 0, timeline[-3000:]
    assert told["ok"] is False
    results = told["results"]
    assert isinstance(results, list)
    assert results, timeline[-3000:]
    assert results[0]["lost"] > 0, timeline[-3000:]
