"""The smallest choices that still break what a failing seed broke: delta debugging of `Choices`.

Faults go first, since a run with two faults can be read and one with forty cannot; then clients,
nodes, rates, time, what each fault drew, and single mishaps. A candidate counts if its run breaks
the invariant of the same name. Whatever is taken away shifts every later delay of the network, so
candidates that broke nothing are asked again under some other luck (`salt`) in the end.

Source    A. Zeller, R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002
Promises  The result is the record of a run that was made and broke the invariant. The passes are
          repeated until none finds anything smaller, or time is up.
Does not  Find the smallest of all: only one from which nothing single can be taken away.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import msgspec

from primacy.errors import Rejected
from primacy.sim.choices import Choices, Mishaps, Strike, misfortunes
from primacy.sim.run import Assembly, genuine, run_seed
from primacy.sim.settings import EngineName, draw

OWN_LUCK = (0,)
OTHER_LUCKS = (1, 2, 3)
"""Added to a candidate's salt. The others are tried once nothing is found under its own."""

LENGTHS = (1, 2, 4, 8, 16, 32)
"""Of the first or last faults that may be enough."""

CALM_S = 3.0
"""A run goes on for so long after the moment at which it used to break."""

GAP_S = 2.0
"""Between two faults, and from a cluster's birth to the first: what is longer can be shortened."""

PAIRS_MAX = 4
"""Pairs of nodes that are tried: those that faults strike least."""

NO_DEAD_END = "no-dead-end"
"""The one invariant that breaks only after the repair."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run by some choices came to."""

    broken: str | None
    text: str
    at_s: float
    record: Choices
    """What it decided: told to another run, it comes to the same."""


@dataclass(slots=True)
class Effort:
    """What shrinking has cost so far."""

    runs_count: int = 0
    smaller_count: int = 0
    is_out_of_time: bool = False


Listener = Callable[[str, Outcome | None, Effort], None]
"""Hears of each run: its pass, and what it came to where it broke the same."""


def unheard(name: str, outcome: Outcome | None, effort: Effort) -> None:
    """For whoever does not listen."""


class Shrinker:
    """Makes one failing run's choices smaller."""

    def __init__(
        self,
        run: Callable[[Choices], Outcome],
        *,
        noise: Sequence[str],
        is_time_left: Callable[[], bool],
        on_run: Listener = unheard,
    ) -> None:
        """`noise`: the names that `Choices.quiet` may hold."""
        self.effort = Effort()
        self._run = run
        self._noise = noise
        self._is_time_left = is_time_left
        self._on_run = on_run
        self._lucks: tuple[int, ...] = OWN_LUCK
        self._tried: set[Choices] = set()
        self._broken: str | None = None
        self._pass = ""

    def shrink(self, first: Outcome) -> Outcome:
        """The smallest that was found, `first` itself at worst."""
        self._broken = first.broken
        best = first
        passes: tuple[tuple[str, Callable[[Outcome], Outcome]], ...] = (
            ("end", self._end),
            ("faults", self._faults),
            ("clients", self._clients),
            ("nodes", self._nodes),
            ("rates", self._quieter),
            ("time", self._sooner),
            ("draws", self._plainer),
            ("mishaps", self._luckier),
        )
        while not self.effort.is_out_of_time:
            before = self.effort.smaller_count
            for self._pass, smaller in passes:
                best = smaller(best)
            if self.effort.smaller_count > before:
                self._lucks = OWN_LUCK
            elif self._lucks == OWN_LUCK:
                self._lucks = OTHER_LUCKS
            else:
                break
        return best

    # ---- one candidate

    def _first(self, best: Outcome, candidates: Iterable[Choices]) -> Outcome:
        """The first of the candidates that still breaks it, or what there was."""
        listed = list(candidates)
        for more in self._lucks:
            for candidate in listed:
                salted = msgspec.structs.replace(candidate, salt=candidate.salt + more)
                outcome = self._attempt(salted)
                if outcome is not None:
                    return outcome
        return best

    def _attempt(self, candidate: Choices) -> Outcome | None:
        """The run by the candidate, if it breaks the same. Runs are functions: one is enough."""
        if candidate in self._tried:
            return None
        if not self._is_time_left():
            self.effort.is_out_of_time = True
            return None
        self._tried.add(candidate)
        self.effort.runs_count += 1
        outcome = self._run(candidate)
        is_same = outcome.broken == self._broken
        if is_same:
            self.effort.smaller_count += 1
        self._on_run(self._pass, outcome if is_same else None, self.effort)
        return outcome if is_same else None

    def _fewer(
        self,
        best: Outcome,
        items_of: Callable[[Choices], tuple[T, ...]],
        rebuilt: Callable[[Choices, tuple[T, ...]], Choices],
    ) -> Outcome:
        """Take away halves, quarters and so on, down to single items."""
        size = max(1, len(items_of(best.record)))
        while size >= 1:
            start = 0
            while start < len(items := items_of(best.record)):
                candidate = rebuilt(best.record, items[:start] + items[start + size :])
                found = self._first(best, [candidate])
                if found is best:
                    start += size
                best = found
            size //= 2
        return best

    # ---- the passes

    def _end(self, best: Outcome) -> Outcome:
        """Stop soon after the break; where it breaks after the repair, repair soon."""
        if self._broken == NO_DEAD_END:
            return self._first(best, repaired_sooner(best.record))
        record = best.record
        duration_s = best.at_s + CALM_S
        if duration_s > record.duration_s - 1.0 and not record.is_converging:
            return best
        heal_at_s = min(record.heal_at_s, duration_s)
        candidate = msgspec.structs.replace(
            record, duration_s=duration_s, heal_at_s=heal_at_s, is_converging=False
        )
        return self._first(best, [candidate])

    def _faults(self, best: Outcome) -> Outcome:
        """The last few may be enough; else whatever can be spared goes."""
        strikes = best.record.strikes
        ends = (
            with_strikes(best.record, strikes[len(strikes) - length :])
            for length in (0, *LENGTHS)
            if length < len(strikes)
        )
        best = self._first(best, ends)
        return self._fewer(best, lambda choices: choices.strikes, with_strikes)

    def _clients(self, best: Outcome) -> Outcome:
        return self._fewer(
            best,
            lambda choices: choices.clients,
            lambda choices, clients: msgspec.structs.replace(choices, clients=clients),
        )

    def _nodes(self, best: Outcome) -> Outcome:
        """Five nodes to three. Fewer than three are another kind of cluster."""
        record = best.record
        if len(record.nodes) < 5:
            return best
        struck = [each.node for each in record.strikes]
        pairs = sorted(combinations(record.nodes, 2), key=lambda pair: sum(map(struck.count, pair)))
        return self._first(best, (without_nodes(record, pair) for pair in pairs[:PAIRS_MAX]))

    def _quieter(self, best: Outcome) -> Outcome:
        """All misfortunes at once, or as many as can be spared."""
        return self._fewer(
            best,
            lambda choices: tuple(each for each in self._noise if each not in choices.quiet),
            lambda choices, noise: msgspec.structs.replace(
                choices, quiet=tuple(each for each in self._noise if each not in noise)
            ),
        )

    def _luckier(self, best: Outcome) -> Outcome:
        """Single messages and fsyncs, where their rates could not be spared."""
        return self._fewer(best, mishaps_of, with_mishaps)

    def _sooner(self, best: Outcome) -> Outcome:
        """Shorten the waits before the faults, each with all that follows it."""
        place = 0
        while place < len(best.record.strikes):
            strikes = best.record.strikes
            before_s = strikes[place - 1].at_s if place else 0.0
            spare_s = strikes[place].at_s - before_s - GAP_S
            by_s = (share * spare_s for share in (1.0, 0.5) if spare_s > 0.5)
            best = self._first(best, (earlier(best.record, place, each) for each in by_s))
            place += 1
        return best

    def _plainer(self, best: Outcome) -> Outcome:
        """Zeros for what a fault drew: the shortest time, the first of all; then round times."""
        place = 0
        while place < len(best.record.strikes):
            best = self._first(best, plainer(best.record, place))
            place += 1
        return best


# ---- smaller choices


def repaired_sooner(choices: Choices) -> Iterator[Choices]:
    """The first few faults, and the repair soon after the last of them."""
    strikes = choices.strikes
    for length in (*(each for each in LENGTHS if each < len(strikes)), len(strikes)):
        last_s = max((each.at_s for each in strikes[:length]), default=GAP_S)
        heal_at_s = last_s + CALM_S
        if heal_at_s < choices.heal_at_s - 1.0:
            yield msgspec.structs.replace(
                choices,
                strikes=strikes[:length],
                heal_at_s=heal_at_s,
                duration_s=heal_at_s + 1.0,
            )


def with_strikes(choices: Choices, strikes: tuple[Strike, ...]) -> Choices:
    return msgspec.structs.replace(choices, strikes=strikes)


def mishaps_of(choices: Choices) -> tuple[tuple[str, int], ...]:
    return tuple((each.kind, number) for each in choices.mishaps or () for number in each.numbers)


def with_mishaps(choices: Choices, kept: tuple[tuple[str, int], ...]) -> Choices:
    kinds = dict.fromkeys(kind for kind, _ in kept)
    mishaps = tuple(
        Mishaps(kind=kind, numbers=tuple(number for each, number in kept if each == kind))
        for kind in kinds
    )
    return msgspec.structs.replace(choices, mishaps=mishaps)


def without_nodes(choices: Choices, gone: Sequence[str]) -> Choices:
    """And without the faults that strike them and the clients that sit beside them."""
    return msgspec.structs.replace(
        choices,
        nodes=tuple(node for node in choices.nodes if node not in gone),
        strikes=tuple(each for each in choices.strikes if each.node not in gone),
        clients=tuple(each for each in choices.clients if each.name.split("-")[-1] not in gone),
    )


def earlier(choices: Choices, place: int, by_s: float) -> Choices:
    """The strikes from `place` on, and the end, come `by_s` sooner."""
    moved = tuple(
        msgspec.structs.replace(each, at_s=round(each.at_s - by_s, 3))
        for each in choices.strikes[place:]
    )
    return msgspec.structs.replace(
        choices,
        strikes=choices.strikes[:place] + moved,
        duration_s=choices.duration_s - by_s,
        heal_at_s=choices.heal_at_s - by_s,
    )


def plainer(choices: Choices, place: int) -> Iterator[Choices]:
    """The strike at `place` with all draws 0, else with each in turn."""
    strike = choices.strikes[place]
    drawn = [each for each, value in enumerate(strike.draws) if value]
    wishes = [set(drawn)] if len(drawn) == 1 else [set(drawn), *({each} for each in drawn)]
    for zeros in wishes if drawn else ():
        draws = tuple(0.0 if each in zeros else value for each, value in enumerate(strike.draws))
        plain = msgspec.structs.replace(strike, draws=draws)
        strikes = (*choices.strikes[:place], plain, *choices.strikes[place + 1 :])
        yield with_strikes(choices, strikes)


# ---- seeds


def shrink_seed(
    seed: int,
    duration_s: float,
    *,
    engine: EngineName = "mariadb",
    is_time_left: Callable[[], bool],
    assembly: Assembly = genuine,
    on_run: Listener = unheard,
) -> tuple[Outcome, Outcome, Effort]:
    """The failing run of a seed, and the smallest that breaks the same. `Rejected` if none fails.

    A planted bug comes in by its `assembly`, as in `run_seed`.
    """

    def run(choices: Choices | None) -> Outcome:
        verdict = run_seed(seed, duration_s, engine=engine, assembly=assembly, choices=choices)
        broken = verdict.broken
        name, text = (None, "") if broken is None else (broken.name, broken.text)
        return Outcome(name, text, verdict.at_s, verdict.choices)

    first = run(None)
    if first.broken is None:
        raise Rejected(
            f"seed {seed} broke nothing in {first.at_s:.0f} s",
            hint="Shrink a seed that `sim run` reports as failed, with the same --seconds.",
        )
    noise = misfortunes(draw(seed, engine))
    shrinker = Shrinker(run, noise=noise, is_time_left=is_time_left, on_run=on_run)
    return first, shrinker.shrink(first), shrinker.effort
