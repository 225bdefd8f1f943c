"""What came of a run, and of a budget of runs: for people, and for whoever counts."""

from collections import Counter
from dataclasses import dataclass, field

from primacy.sim.choices import Choices
from primacy.sim.expected import EXPECTED
from primacy.sim.settings import EngineName, Setup

DURATION_S = 60.0
"""Of a run, unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Break:
    """The first invariant that did not hold."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one seed."""

    seed: int
    setup: Setup
    broken: Break | None
    at_s: float
    """Simulated seconds when it ended."""
    digest: int
    events_count: int
    commits_count: int
    checked_count: int
    lost_count: int
    counters: Counter[str]
    choices: Choices
    """What chance decided: told to another run of this seed, it goes the same way."""

    @property
    def replay_command(self) -> str:
        duration_s = self.choices.duration_s
        seconds = "" if duration_s == DURATION_S else f" --seconds {duration_s:g}"
        engine = "" if self.setup.engine == "mariadb" else f" --engine {self.setup.engine}"
        return f"primacy sim replay {self.seed}{engine}{seconds} --trace"

    def __str__(self) -> str:
        if self.broken is None:
            return f"seed {self.seed}: nothing broke in {self.at_s:.0f} s ({self.setup})"
        return f"seed {self.seed}: at {self.at_s:.3f} s {self.broken}. {self.replay_command}"


@dataclass(slots=True)
class Report:
    """What came of a budget of seeds."""

    engine: EngineName = "mariadb"
    verdicts_count: int = 0
    failures: list[Verdict] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    events_count: int = 0
    commits_count: int = 0
    checked_count: int = 0
    lost_count: int = 0

    @property
    def is_clean(self) -> bool:
        return not self.failures

    @property
    def never_seen(self) -> list[str]:
        return [name for name in EXPECTED[self.engine] if not self.counters[name]]

    @property
    def simulated_per_cpu_s(self) -> float:
        return self.simulated_s / self.cpu_s if self.cpu_s else 0.0

    def add(self, verdict: Verdict) -> None:
        self.verdicts_count += 1
        self.counters.update(verdict.counters)
        self.simulated_s += verdict.at_s
        self.events_count += verdict.events_count
        self.commits_count += verdict.commits_count
        self.checked_count += verdict.checked_count
        self.lost_count += verdict.lost_count
        if verdict.broken is not None:
            self.failures.append(verdict)

    def lines(self) -> list[str]:
        """For people: counters, speed, and each failure with the command that replays it."""
        seen = [f"  {count:8d}  {name}" for name, count in sorted(self.counters.items())]
        return [
            f"{self.verdicts_count} seeds, {len(self.failures)} failed;"
            f" {self.simulated_s:.0f} simulated s in {self.cpu_s:.1f} CPU s"
            f" ({self.simulated_per_cpu_s:.0f} per CPU second), {self.events_count} events",
            f"{self.commits_count} commits, {self.checked_count} answers of the store checked,"
            f" {self.lost_count} unprotected writes lost (acks = 0)",
            "sometimes:",
            *seen,
            *(f"NEVER: {name}" for name in self.never_seen),
            *(f"FAILED {verdict}" for verdict in self.failures),
        ]
