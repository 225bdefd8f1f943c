"""Shrink the run in which a planted bug is found, and replay what is left of it.

    python -m tests.sim.shrink_mutant NAME SEED [--within-s S] [--out FILE]
    python -m tests.sim.shrink_mutant NAME SEED --choices FILE

`primacy sim shrink` does the same for the genuine parts; a planted bug has to be named.
"""

import argparse
import sys
from pathlib import Path

from tests.sim.mutants import MUTANTS, engine_of

from primacy.cli.shrinking import Shrinking
from primacy.clock import SystemClock
from primacy.errors import Rejected
from primacy.sim.choices import decoded
from primacy.sim.run import Assembly, run_seed

DURATION_S = 60.0


def assembly_of(name: str) -> Assembly:
    if name not in MUTANTS:
        sys.exit(f"no such bug: {name}; there are {', '.join(MUTANTS)}")
    return MUTANTS[name]


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
    path = options.out or Path(f"{options.name}-{options.seed}.choices.json")
    replay = f"python -m tests.sim.shrink_mutant {options.name} {options.seed} --choices {path}"
    shrinking = Shrinking(
        options.seed, path, SystemClock(), within_s=options.within_s, replay=replay
    )
    try:
        shrinking.run(DURATION_S, engine=engine_of(options.name), assembly=assembly)
    except Rejected as rejected:
        sys.exit(str(rejected))
    sys.stdout.write("\n".join([*shrinking.lines(), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
