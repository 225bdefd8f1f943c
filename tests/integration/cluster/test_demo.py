"""`primacy demo`, as a stranger runs it, and the control that shows that it can fail."""

import json
import subprocess
import sys

WITHIN_S = 280


def demo(*arguments: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "primacy.cli.main", "demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    told: dict[str, object] = json.loads(done.stdout)
    return done.returncode, told, done.stderr


def test_no_fault_of_the_demo_loses_a_write() -> None:
    code, told, timeline = demo("--engine", "mariadb", "--fault", "all")
    assert code == 0, timeline[-3000:]
    assert (told["engine"], told["profile"], told["ok"]) == ("mariadb", "default", True)
    results = told["results"]
    assert isinstance(results, list)
    assert [each["fault"] for each in results] == ["crash", "host", "switchover", "laggard"]
    for each in results:
        assert set(each) == {
            "fault",
            "outage_s",
            "acknowledged",
            "lost",
            "late",
            "primary",
            "healthy",
            "steps",
        }
        assert (each["lost"], each["late"], each["healthy"]) == (0, 0, True)
        assert each["acknowledged"] > 0


def test_a_laggard_that_is_promoted_on_purpose_fails_the_demo() -> None:
    code, told, timeline = demo("--fault", "laggard", "--promote-laggard")
    assert code != 0, timeline[-3000:]
    assert told["ok"] is False
    results = told["results"]
    assert isinstance(results, list)
    assert results, timeline[-3000:]
    assert results[0]["lost"] > 0, timeline[-3000:]
