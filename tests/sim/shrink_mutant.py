"""Shrink the run in which a planted bug is found, and replay what is left of it.

    python -m tests.sim.shrink_mutant NAME SEED [--within-s S] [--out FILE]
    python -m tests.sim.shrink_mutant NAME SEED --choices FILE

`primacy sim shrink` does the same for the genuine parts; a planted bug has to be named.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.sim.mutants import MUTANTS

from primacy.cli.simulate import shrunk_lines
from primacy.errors import Rejected
from primacy.sim.choices import decoded, encoded
from primacy.sim.run import Assembly, run_seed
from primacy.sim.shrink import Effort, Outcome, shrink_seed

DURATION_S = 60.0


def assembly_of(name: str) -> Assembly:
    if name not in MUTANTS:
        sys.exit(f"no such bug: {name}; there are {', '.join(MUTANTS)}")
    return MUTANTS[name]


def tell(name: str, outcome: Outcome, effort: Effort) -> None:
    sys.stderr.write(f"{effort.runs_count:4} runs, {name}: {outcome.record}\n")
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("seed", type=int)
    parser.add_argument("--within-s", type=float, default=120.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--choices", type=Path, help="replay these, with all events of note")
    options = parser.parse_args()
    assembly = assembly_of(options.name)
    if options.choices is not None:
        told = decoded(options.choices.read_bytes(), str(options.choices))
        verdict = run_seed(options.seed, 0.0, assembly=assembly, choices=told, listener=print)
        sys.stdout.write(f"{verdict}\n")
        return 0 if verdict.broken is None else 1
    deadline_s = time.monotonic() + options.within_s
    try:
        first, smallest, effort = shrink_seed(
            options.seed,
            DURATION_S,
            is_time_left=lambda: time.monotonic() < deadline_s,
            assembly=assembly,
            on_smaller=tell,
        )
    except Rejected as rejected:
        sys.exit(str(rejected))
    path = options.out or Path(f"{options.name}-{options.seed}.choices.json")
    path.write_bytes(encoded(smallest.record))
    sys.stdout.write("\n".join(shrunk_lines(first, smallest, effort)))
    sys.stdout.write(
        f"\nsaved in {path}; {sys.argv[0]} {options.name} {options.seed} --choices {path}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
