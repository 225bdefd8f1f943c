"""Whole runs by recorded choices: the same digest, fewer faults, and what the commands say."""

import json
from pathlib import Path

import msgspec
import pytest
from tests.sim.mutants import MUTANTS

from primacy.cli.main import exit_code_of
from primacy.cli.shrinking import Shrinking
from primacy.clock import SystemClock
from primacy.sim.choices import Mishaps, decoded, encoded
from primacy.sim.run import Assembly, run_seed

PLANTED = "opened-before-row"
SEEDS_MAX = 40
FAULTS_MIN = 4
"""Fewer would prove little of a shrinker."""
RUNS_MAX = 100
"""By the counting clock, which goes on by two or three for each run."""


@pytest.mark.parametrize("seed", [2, 4, 5])
def test_a_run_told_its_own_choices_is_the_same_event_by_event(seed: int) -> None:
    drawn = run_seed(seed, 30.0)
    told = run_seed(seed, 0.0, choices=decoded(encoded(drawn.choices), "memory"))
    assert (told.digest, told.events_count) == (drawn.digest, drawn.events_count)
    assert told.choices == drawn.choices
    assert told.counters == drawn.counters


def test_the_command_of_a_run_names_its_duration_unless_it_is_the_usual() -> None:
    assert run_seed(4, 3.0).replay_command == "primacy sim replay 4 --seconds 3 --trace"
    usual = run_seed(4, 60.0, until_s=1.0)
    assert usual.replay_command == "primacy sim replay 4 --trace"


def test_a_fault_that_is_left_out_does_not_happen_and_the_others_do() -> None:
    drawn = run_seed(5, 30.0).choices
    struck = [each for each in drawn.strikes if each.node is not None]
    assert len(struck) > 3
    fewer = msgspec.structs.replace(drawn, strikes=(*struck[:1], *struck[2:]))
    lines: list[str] = []
    run_seed(5, 0.0, choices=fewer, listener=lines.append)
    seen = [(line.split()[0], line.split()[-1]) for line in lines if " FAULT " in line]
    assert seen == [(f"{each.at_s:.6f}", each.fault) for each in fewer.strikes]


def test_messages_are_lost_as_told_and_no_others() -> None:
    drawn = next(
        verdict.choices
        for verdict in (run_seed(seed, 5.0) for seed in range(1, 30))
        if any(each.kind == "loss" for each in verdict.choices.mishaps or ())
    )
    fewer = msgspec.structs.replace(drawn, mishaps=(Mishaps(kind="loss", numbers=(2, 5)),))
    told = run_seed(drawn.seed, 0.0, choices=fewer)
    assert told.choices.mishaps == fewer.mishaps
    assert told.counters["message lost"] == 2


def test_other_luck_is_another_run() -> None:
    drawn = run_seed(4, 12.0)
    other = run_seed(4, 0.0, choices=msgspec.structs.replace(drawn.choices, salt=1))
    assert other.digest != drawn.digest


def failing_seed(assembly: Assembly) -> int:
    """The first in which the bug is found after some faults: which one changes with the code."""
    for seed in range(1, SEEDS_MAX):
        verdict = run_seed(seed, 60.0, assembly=assembly)
        if verdict.broken is not None and len(verdict.choices.strikes) >= FAULTS_MIN:
            return seed
    raise AssertionError(f"{PLANTED} was found in none of {SEEDS_MAX} seeds")


class CountingClock(SystemClock):
    """A second passes each time that somebody looks: deadlines are counts here."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        self._now_s += 1.0
        return self._now_s


def test_a_planted_bug_is_shrunk_to_one_fault_or_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assembly = MUTANTS[PLANTED]
    seed = failing_seed(assembly)
    path = tmp_path / "smallest.json"
    clock = CountingClock()
    shrinking = Shrinking(seed, path, clock, within_s=RUNS_MAX, replay="replay it")
    shrinking.run(60.0, assembly=assembly)
    first, smallest = shrinking.first, shrinking.smallest
    assert decoded(path.read_bytes(), "file") == smallest.record
    assert f"{len(smallest.record.nodes)} nodes" in shrinking.lines()[1]
    assert shrinking.as_json()["faults_before"] == len(first.record.strikes)
    assert "breaks at" in capsys.readouterr().err
    assert smallest.broken == first.broken
    assert len(first.record.strikes) >= FAULTS_MIN
    assert len(smallest.record.strikes) <= 2
    assert len(smallest.record.clients) < len(first.record.clients)
    assert smallest.record.duration_s < first.record.duration_s
    again = run_seed(seed, 60.0, assembly=assembly, choices=smallest.record)
    assert again.broken is not None
    assert (again.broken.name, again.at_s) == (smallest.broken, smallest.at_s)
    assert run_seed(seed, 60.0, choices=smallest.record).broken is None


def test_a_file_of_choices_is_replayed_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "choices.json"
    choices = run_seed(4, 12.0).choices
    path.write_bytes(encoded(choices))
    assert exit_code_of(["sim", "replay", "4", "--choices", str(path)]) == 0
    said = capsys.readouterr()
    assert "nothing broke" in said.out
    assert said.err == ""
    path.write_bytes(encoded(msgspec.structs.replace(choices, broken="election-safety")))
    assert exit_code_of(["sim", "replay", "4", "--choices", str(path)]) == 0
    assert "was saved with election-safety broken; now it is nothing" in capsys.readouterr().err
    assert exit_code_of(["sim", "replay", "5", "--choices", str(path)]) == 2
    assert "seed 4, not of 5" in capsys.readouterr().err
    path.write_text("{}")
    assert exit_code_of(["sim", "replay", "4", "--choices", str(path)]) == 2
    assert "holds no choices" in capsys.readouterr().err


def test_a_fault_or_a_client_that_is_unknown_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = json.loads(encoded(run_seed(4, 4.0).choices))
    path = tmp_path / "choices.json"
    for part, entry, said in [
        ("strikes", {"number": 0, "at_s": 1.0, "fault": "flood", "node": "a"}, "flood"),
        ("clients", {"name": "nobody", "start_s": 0.0}, "nobody"),
    ]:
        path.write_text(json.dumps(choices | {part: [entry]}))
        assert exit_code_of(["sim", "replay", "4", "--choices", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_a_seed_that_breaks_nothing_has_nothing_to_shrink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "choices.json"
    assert exit_code_of(["sim", "shrink", "4", "--seconds", "5", "--out", str(path)]) == 2
    assert "seed 4 broke nothing" in capsys.readouterr().err
    assert not path.exists()
