"""Recorded chance: draws that are told, files of choices, and the setup that they narrow."""

import random

import msgspec
import pytest

from primacy.errors import Rejected
from primacy.sim.choices import (
    CLOCK_RATES,
    Choices,
    Chooser,
    Client,
    Draws,
    Luck,
    Mishaps,
    Strike,
    decoded,
    encoded,
    misfortunes,
    narrowed,
)
from primacy.sim.settings import draw

CHOICES = Choices(
    seed=7,
    duration_s=60.0,
    heal_at_s=45.0,
    nodes=("a", "b", "c"),
    clients=(Client(name="writer-1", start_s=0.25),),
    strikes=(
        Strike(number=0, at_s=1.5, fault="isolate", node="a", draws=(0.1, 0.2)),
        Strike(number=3, at_s=2.5, fault="crash-host"),
    ),
    mishaps=(Mishaps(kind="loss", numbers=(3, 14)),),
)


def drawn_by(chance: random.Random) -> list[object]:
    order = [1, 2, 3, 4]
    chance.shuffle(order)
    return [
        chance.random(),
        chance.choice("abc"),
        chance.randrange(10),
        chance.expovariate(1.0),
        chance.choices(["x", "y"], [1, 3])[0],
        order,
    ]


def test_draws_that_are_told_again_are_the_same_by_every_way_to_draw() -> None:
    first = Draws("stream")
    seen = drawn_by(first)
    again = Draws("another stream", first.drawn)
    assert drawn_by(again) == seen
    assert again.drawn == first.drawn


def test_past_what_is_told_the_stream_goes_on() -> None:
    chance = Draws("stream", (0.5,))
    assert chance.random() == 0.5
    assert chance.random() == Draws("stream").random()


def test_strikes_that_are_told_come_as_they_are_and_then_none() -> None:
    chooser = Chooser(7, CHOICES)
    seen = [chooser.next_strike(0.0, 1.0, lambda lot: "unused") for _ in range(3)]
    assert [each and (each.number, each.at_s, each.fault, each.node) for each in seen] == [
        (0, 1.5, "isolate", "a"),
        (3, 2.5, "crash-host", None),
        None,
    ]
    assert seen[0] is not None
    assert seen[0].chance.random() == 0.1


def test_a_strike_keeps_its_stream_when_others_before_it_are_gone() -> None:
    def named(lot: random.Random) -> str:
        return lot.choice(["isolate", "crash-host"])

    drawn = Chooser(7)
    whole = [drawn.next_strike(0.0, 1.0, named) for _ in range(4)]
    third = whole[3]
    assert third is not None
    alone = msgspec.structs.replace(CHOICES, strikes=(third.record,))
    told = Chooser(7, alone).next_strike(0.0, 1.0, named)
    assert told is not None
    assert told.chance.random() == third.chance.random()


def test_mishaps_are_on_record_and_told_again_whatever_the_rate_says() -> None:
    drawn, chance = Luck(), random.Random(1)
    seen = [drawn.strikes("loss", chance, 0.3) for _ in range(50)]
    assert 5 < sum(seen) < 25
    assert drawn.record == (
        Mishaps(kind="loss", numbers=tuple(n for n, is_so in enumerate(seen, 1) if is_so)),
    )
    told, other = Luck(drawn.record), random.Random(2)
    assert [told.strikes("loss", other, 0.3) for _ in range(50)] == seen
    assert told.record == drawn.record
    assert not any(told.strikes("stall", other, 0.9) for _ in range(50))


def test_what_is_told_is_drawn_all_the_same() -> None:
    told, chance = Luck(()), random.Random(1)
    told.strikes("loss", chance, 0.5)
    reference = random.Random(1)
    reference.random()
    assert chance.random() == reference.random()


def test_a_client_that_is_not_told_does_not_start() -> None:
    chooser = Chooser(7, CHOICES)
    assert chooser.start_of("writer-1", 9.0) == 0.25
    assert chooser.start_of("writer-2", 9.0) is None
    assert chooser.clients == [Client(name="writer-1", start_s=0.25)]


def test_a_file_of_choices_comes_back_as_it_was() -> None:
    assert decoded(encoded(CHOICES), "file") == CHOICES


REFUSED = {
    "no JSON": (b"{", "file holds no choices"),
    "a field that nobody knows": (b'{"seed": 1, "sed": 2}', "file holds no choices"),
    "a missing field": (b'{"seed": 1}', "duration_s"),
    "a negative time": (
        encoded(msgspec.structs.replace(CHOICES, clients=(Client(name="x", start_s=-1.0),))),
        "negative",
    ),
    "a draw of 1": (
        encoded(
            msgspec.structs.replace(
                CHOICES, strikes=(Strike(number=0, at_s=1.0, fault="isolate", draws=(1.0,)),)
            )
        ),
        "draw",
    ),
    "strikes out of order": (
        encoded(msgspec.structs.replace(CHOICES, strikes=CHOICES.strikes[::-1])),
        "order of time",
    ),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_wrong_is_refused_with_its_reason(data: bytes, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        decoded(data, "file")


def test_a_setup_is_narrowed_to_the_nodes_that_are_named() -> None:
    setup = next(each for each in map(draw, range(100)) if len(each.data_nodes) == 5)
    small = narrowed(setup, msgspec.structs.replace(CHOICES, nodes=("b", "d", "e")))
    assert small.nodes == small.data_nodes == small.policy.data_nodes == ("b", "d", "e")
    assert small.clock_rates == tuple(setup.clock_rates[place] for place in (1, 3, 4))


def test_what_is_quiet_is_as_by_default() -> None:
    setup = next(each for each in map(draw, range(100)) if each.network.loss and each.network.spike)
    assert {"network.loss", "network.spike", CLOCK_RATES} <= set(misfortunes(setup))
    quiet = msgspec.structs.replace(CHOICES, nodes=setup.nodes, quiet=("network.loss", CLOCK_RATES))
    small = narrowed(setup, quiet)
    assert small.network.loss == 0.0
    assert small.network.spike == setup.network.spike
    assert set(small.clock_rates) == {1.0}


@pytest.mark.parametrize("change", [{"nodes": ("a", "z")}, {"quiet": ("network.joy",)}])
def test_choices_of_another_seed_are_refused(change: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(Rejected, match="another seed"):
        narrowed(draw(7), msgspec.structs.replace(CHOICES, **change))


def test_a_client_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Rejected, match="writer-1"):
        Chooser(7, CHOICES).check_clients(["numbers"])
