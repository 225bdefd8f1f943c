"""Whole runs: seeds that once found a bug, the same seed twice, and a bug that must be found."""

from dataclasses import replace

import pytest
from tests.sim.mutants import MUTANTS

from primacy.cluster.actions import Claim, Plan
from primacy.cluster.agent import Agent
from primacy.cluster.view import View
from primacy.model import Revision
from primacy.sim.node import Parts
from primacy.sim.run import genuine, replay, run_seed, run_seeds
from primacy.sim.settings import Setup

FOUND = {
    2: "bootstrap: the first primary died before its first record, and that was the end",
    5: "two data nodes: the winner waited for a holder, the holder for the winner's record",
    17: "the simulator: a message to a dead agent brought it back to life",
    65: "a replica that was cut off acknowledged to a primary that had returned",
    69: "acks = 2: every possible holder of the epoch row stayed down",
    77: "a winner that died before its record left its bare epoch row on the others",
    90: "a replica whose agent was down acknowledged to a primary that had returned",
    113: "the same, on a partition",
    195: "the simulator: a connection that was given up counted once its node was let in again",
    1106: "a member whose relay log could not be applied never said how far it goes",
    1124: "an epoch row that was written and not heard of left its winner without its right",
    1472: "the simulator: the network went on to be slower than an election after the repair",
    5067: "no durability record: equals waited for one that is never promoted",
}
"""What each seed broke when it was met, by the code of that day."""


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_once_found_a_bug_breaks_nothing(seed: int) -> None:
    verdict = run_seed(seed, 60.0)
    assert verdict.broken is None, f"{verdict} (it once found: {FOUND[seed]})"
    assert verdict.commits_count > 0


def test_the_same_seed_runs_the_same_way_twice() -> None:
    first, second = run_seed(4, 25.0), run_seed(4, 25.0)
    assert (first.digest, first.events_count) == (second.digest, second.events_count)
    assert first.counters == second.counters


def test_looking_at_a_run_does_not_change_it() -> None:
    lines: list[str] = []
    watched = replay(4, duration_s=25.0, listener=lines.append)
    assert watched.digest == run_seed(4, 25.0).digest
    assert any("doors-open" in line for line in lines)


def test_a_run_can_be_stopped_at_a_moment() -> None:
    verdict = replay(4, duration_s=60.0, until_s=5.0)
    assert verdict.at_s == 5.0


def test_a_budget_of_seeds_is_run_in_order_and_counted() -> None:
    seen: list[int] = []
    report = run_seeds(1, 3, 12.0, on_verdict=lambda verdict: seen.append(verdict.seed), workers=2)
    assert seen == [1, 2, 3]
    assert report.verdicts_count == 3
    assert report.simulated_s >= 36.0
    assert any("per CPU second" in line for line in report.lines())


def test_a_planted_bug_is_found_and_comes_with_the_command_that_replays_it() -> None:
    planted = MUTANTS["opened-before-row"]
    runs = (run_seed(seed, 60.0, assembly=planted) for seed in range(1, 11))
    verdict = next(run for run in runs if run.broken is not None)
    assert verdict.broken is not None
    assert verdict.broken.name == "acks-come-from-the-recorded-set"
    assert f"primacy sim replay {verdict.seed} --trace" in str(verdict)


class IsOvertaken(Agent):
    """Every claim of a hand-over comes too late: the offer is not what it was."""

    async def _act(self, step: Plan, view: View) -> None:
        if isinstance(step.action, Claim) and step.action.kind == "switchover":
            late = replace(step.action, handover_mod=Revision(1))
            step = Plan(action=late, reason=step.reason)
        await super()._act(step, view)


def test_a_target_whose_claim_is_overtaken_can_go_on_following() -> None:
    """Sealed for an epoch that nobody claims it could follow nobody, and writes stayed blocked."""

    def assembly(setup: Setup) -> Parts:
        return replace(genuine(setup), agent=IsOvertaken)

    verdict = run_seed(2, 60.0, assembly=assembly)
    assert verdict.broken is None, str(verdict)
    assert "switchover" not in verdict.counters
