"""Delta debugging of choices, against runs that are rules: no world is needed to test it."""

from collections.abc import Callable

import msgspec
import pytest

from primacy.sim.choices import CLOCK_RATES, Choices, Client, Mishaps, Strike
from primacy.sim.shrink import NO_DEAD_END, OTHER_LUCKS, Effort, Outcome, Shrinker

NOISE = ("network.loss", CLOCK_RATES)

Rule = Callable[[Choices], bool]


def strikes(count: int, *, gap_s: float = 1.0) -> tuple[Strike, ...]:
    return tuple(
        Strike(
            number=n, at_s=3.0 + gap_s * n, fault="crash-host", node="abcde"[n % 5], draws=(0.5,)
        )
        for n in range(count)
    )


def choices(count: int = 20, *, nodes: str = "abc", gap_s: float = 1.0) -> Choices:
    return Choices(
        seed=1,
        duration_s=60.0,
        heal_at_s=45.0,
        nodes=tuple(nodes),
        clients=tuple(
            Client(name=name, start_s=0.1) for name in ("writer-1", "direct-a", "numbers")
        ),
        strikes=strikes(count, gap_s=gap_s),
    )


class Rules:
    """A run that breaks `broken` when the rule holds, at the last strike."""

    def __init__(self, rule: Rule, broken: str = "it-holds") -> None:
        self.rule = rule
        self.broken = broken
        self.asked: list[Choices] = []

    def __call__(self, asked: Choices) -> Outcome:
        self.asked.append(asked)
        at_s = max((each.at_s for each in asked.strikes), default=1.0)
        name = self.broken if self.rule(asked) else None
        return Outcome(name, name or "", at_s, msgspec.structs.replace(asked, broken=name))


def shrunk(rules: Rules, first: Choices, *, attempts_max: int = 10_000) -> tuple[Choices, Shrinker]:
    shrinker = Shrinker(rules, noise=NOISE, is_time_left=lambda: len(rules.asked) < attempts_max)
    smallest = shrinker.shrink(rules(first))
    return smallest.record, shrinker


def numbers(found: Choices) -> set[int]:
    return {each.number for each in found.strikes}


RULES: dict[str, tuple[Rule, set[int]]] = {
    "no fault at all": (lambda asked: True, set()),
    "the last fault alone": (lambda asked: 19 in numbers(asked), {19}),
    "the first fault alone": (lambda asked: 0 in numbers(asked), {0}),
    "two faults far apart": (lambda asked: {2, 17} <= numbers(asked), {2, 17}),
    "one of each of two kinds": (
        lambda asked: bool(numbers(asked) & {1, 5}) and bool(numbers(asked) & {8, 11}),
        {5, 11},  # Or any other two.
    ),
    "every second fault": (
        lambda asked: set(range(0, 20, 2)) <= numbers(asked),
        set(range(0, 20, 2)),
    ),
}


@pytest.mark.parametrize(("rule", "expected"), RULES.values(), ids=RULES)
def test_only_the_faults_that_matter_are_left(rule: Rule, expected: set[int]) -> None:
    found, shrinker = shrunk(Rules(rule), choices())
    assert rule(found)
    assert len(found.strikes) == len(expected)
    assert not shrinker.effort.is_out_of_time
    for strike in found.strikes:
        rest = tuple(each for each in found.strikes if each is not strike)
        assert not rule(msgspec.structs.replace(found, strikes=rest))


def test_clients_and_misfortunes_that_do_not_matter_go() -> None:
    rules = Rules(
        lambda asked: (
            any(each.name == "direct-a" for each in asked.clients)
            and "network.loss" not in asked.quiet
        )
    )
    found, _ = shrunk(rules, choices(3))
    assert [each.name for each in found.clients] == ["direct-a"]
    assert found.quiet == (CLOCK_RATES,)


def test_of_many_mishaps_the_one_that_matters_is_left() -> None:
    def is_lost(asked: Choices) -> bool:
        return any(each.kind == "loss" and 17 in each.numbers for each in asked.mishaps or ())

    many = (
        Mishaps(kind="loss", numbers=tuple(range(1, 40))),
        Mishaps(kind="stall", numbers=(1, 2, 3)),
    )
    first = msgspec.structs.replace(choices(2), mishaps=many)
    found, _ = shrunk(Rules(is_lost), first)
    assert found.mishaps == (Mishaps(kind="loss", numbers=(17,)),)


def test_five_nodes_become_three_with_the_faults_that_struck_the_others() -> None:
    rules = Rules(lambda asked: {"b", "d"} <= set(asked.nodes) and 3 in numbers(asked))
    found, _ = shrunk(rules, choices(5, nodes="abcde"))
    assert len(found.nodes) == 3
    assert {"b", "d"} <= set(found.nodes)
    assert numbers(found) == {3}


def test_three_nodes_stay_three() -> None:
    found, _ = shrunk(Rules(lambda asked: True), choices(2))
    assert found.nodes == ("a", "b", "c")


def test_waits_before_the_faults_become_short_and_the_run_ends_after_the_break() -> None:
    found, _ = shrunk(Rules(lambda asked: {0, 4} <= numbers(asked)), choices(5, gap_s=8.0))
    first, second = (each.at_s for each in found.strikes)
    assert (first, second) == (2.0, 4.0)
    assert found.duration_s < 8.0
    assert found.heal_at_s <= found.duration_s
    assert not found.is_converging


def test_what_a_fault_drew_becomes_plain_where_that_does_not_matter() -> None:
    rules = Rules(lambda asked: any(each.draws[0] > 0.4 for each in asked.strikes))
    found, _ = shrunk(rules, choices(2))
    assert [each.draws for each in found.strikes] == [(0.5,)]
    found, _ = shrunk(Rules(lambda asked: 1 in numbers(asked)), choices(2))
    assert [each.draws for each in found.strikes] == [(0.0,)]


def test_a_dead_end_keeps_its_repair_and_its_patience() -> None:
    found, _ = shrunk(Rules(lambda asked: 1 in numbers(asked), NO_DEAD_END), choices(4))
    assert found.is_converging
    assert found.strikes[-1].at_s < found.heal_at_s < found.duration_s < 10.0


def test_another_break_does_not_count() -> None:
    def run(asked: Choices) -> Outcome:
        name = "it-holds" if len(asked.strikes) > 5 else "something-else"
        return Outcome(name, name, 1.0, asked)

    shrinker = Shrinker(run, noise=(), is_time_left=lambda: True)
    assert len(shrinker.shrink(run(choices())).record.strikes) == 6


def test_a_smaller_run_may_need_other_luck() -> None:
    """One fault is enough, but only under another salt than the seed's own."""
    rules = Rules(
        lambda asked: len(asked.strikes) == 20 or (asked.salt == 2 and bool(asked.strikes))
    )
    found, _ = shrunk(rules, choices())
    assert (len(found.strikes), found.salt) == (1, 2)
    assert 2 in OTHER_LUCKS


def test_it_stops_when_time_is_up_with_the_best_so_far() -> None:
    rules = Rules(lambda asked: {2, 17} <= numbers(asked))
    found, shrinker = shrunk(rules, choices(), attempts_max=12)
    assert shrinker.effort.is_out_of_time
    assert len(rules.asked) <= 13
    assert {2, 17} <= numbers(found)


def test_every_smaller_run_is_told_with_the_pass_that_found_it() -> None:
    told: list[tuple[str, int]] = []

    def tell(name: str, outcome: Outcome | None, effort: Effort) -> None:
        if outcome is not None:
            told.append((name, len(outcome.record.strikes)))

    rules = Rules(lambda asked: 19 in numbers(asked))
    shrinker = Shrinker(
        rules,
        noise=NOISE,
        is_time_left=lambda: True,
        on_run=tell,
    )
    shrinker.shrink(rules(choices()))
    assert ("faults", 1) in told
    assert told[0][0] == "end"
    assert [count for _, count in told] == sorted((count for _, count in told), reverse=True)
