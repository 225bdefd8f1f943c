"""`primacy demo`, as a stranger runs it, and the control that shows that it can fail."""

import json
import random
import subprocess
import sys

import pytest

from primacy.cli.demo_faults.catalogue import named, programme

WITHIN_S = 540
"""About 15 s for each fault, and as much again for a busy machine."""
CLEANS_UP_WITHIN_S = 60

FIRST = ("crash", "host", "switchover", "laggard")
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


def nothing_is_lost_by(faults: list[str], profile: str, *more: str) -> None:
    code, told, timeline = demo("--fault", ",".join(faults), "--profile", profile, *more)
    assert code == 0, timeline[-6000:]
    assert (told["engine"], told["profile"], told["ok"]) == ("mariadb", profile, True)
    results = told["results"]
    assert isinstance(results, list)
    assert [each["fault"] for each in results] == faults
    for each in results:
        assert set(each) == RESULT
        assert (each["lost"], each["late"], each["healthy"]) == (0, 0, True)
        assert each["acknowledged"] > 0


def test_no_fault_of_processes_hosts_and_plans_loses_a_write() -> None:
    nothing_is_lost_by(list(FIRST), "default")


def test_no_further_fault_that_can_happen_here_loses_a_write() -> None:
    """One after another on one cluster; what needs root is left out elsewhere."""
    able = [
        named(each)
        for each in programme("all", engine="mariadb", rounds=1, chance=random.Random(1)).rounds
    ]
    nothing_is_lost_by([each for each in able if each not in FIRST], "fast")


def test_a_relay_cuts_as_well_where_nobody_is_root() -> None:
    """Every node in its place, and a router's clients with it: only what nodes hear is cut."""
    nothing_is_lost_by(["partition", "store-cut"], "fast", "--relay")


def test_a_laggard_that_is_promoted_on_purpose_fails_the_demo() -> None:
    code, told, timeline = demo("--fault", "laggard", "--promote-laggard")
    assert code != 0, timeline[-3000:]
    assert told["ok"] is False
    results = told["results"]
    assert isinstance(results, list)
    assert results, timeline[-3000:]
    assert results[0]["lost"] > 0, timeline[-3000:]
