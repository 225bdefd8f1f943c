"""The operator changes the durability policy again and again, under every fault of the simulator.

Each node goes by its own clock, so that for moments they disagree: as after a record that some have
read and others have not. No loss is ever allowed, so that every acknowledged write must survive.

    python tests/sim/policies.py [--seeds N] [--first-seed S]
"""

import argparse
import sys
from dataclasses import replace

from primacy.cluster.agent import Agent
from primacy.cluster.view import View
from primacy.replication.records import DurabilityPolicy
from primacy.sim.node import Parts
from primacy.sim.report import Verdict
from primacy.sim.run import Assembly, genuine, run_seed
from primacy.sim.settings import Setup

DURATION_S = 60.0
EACH_S = 5.0
"""Shorter than many a transition takes under faults: some are overtaken half way."""

RESTS_AFTER_S = 40.0
"""The run must end as its own setup says."""


def changing(acks: tuple[int, ...]) -> Assembly:
    """A cluster whose policy goes round: each number of acknowledgements, with and without
    patience."""

    class Restless(Agent):
        def _view(self) -> View:
            view = super()._view()
            now_s = self._clock.now_s()
            if now_s >= RESTS_AFTER_S:
                return view
            turn = int(now_s / EACH_S)
            record = DurabilityPolicy(
                request_id=str(turn),
                acks=acks[turn % len(acks)],
                on_timeout="degrade" if turn // len(acks) % 2 else "block",
                timeout_s=1.0,
                degrade_failover="refuse",
            )
            return replace(view, store=replace(view.store, policy=record))

    def assembly(setup: Setup) -> Parts:
        return replace(genuine(setup), agent=Restless)

    return assembly


def verdicts(first_seed: int, count: int, acks: tuple[int, ...]) -> list[Verdict]:
    """The seeds' runs; of those that break, `broken` says how."""
    return [
        run_seed(seed, DURATION_S, assembly=changing(acks))
        for seed in range(first_seed, first_seed + count)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    options = parser.parse_args()
    worst = 0
    for acks in ((1,), (1, 0)):
        for verdict in verdicts(options.first_seed, options.seeds, acks):
            if verdict.broken is not None:
                worst = 1
                sys.stdout.write(f"acks {acks}: {verdict}\n")
            sys.stdout.flush()
        sys.stdout.write(f"acks {acks}: {options.seeds} seeds\n")
    return worst


if __name__ == "__main__":
    sys.exit(main())
