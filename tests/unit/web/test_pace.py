"""Requests take turns: a burst at once, then one after another, and never more a second."""

import asyncio

import pytest

from primacy.clock import SystemClock
from primacy.web.pace import Pace


class Still(SystemClock):
    """A clock that moves when somebody sleeps, or when the test says so."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def now_s(self) -> float:
        return self.at_s

    async def sleep(self, delay_s: float) -> None:
        self.at_s += delay_s


def turns(pace: Pace, count: int) -> None:
    async def take() -> None:
        for _ in range(count):
            await pace.turn()

    asyncio.run(take())


def test_a_burst_waits_for_nothing_and_the_rest_for_its_turn() -> None:
    clock = Still()
    pace = Pace(clock, per_s=100.0, burst=20.0)
    clock.at_s += 60.0  # A quiet minute allows one burst, no more.
    began_s = clock.at_s
    turns(pace, 21)
    assert clock.at_s == began_s
    turns(pace, 100)
    assert 0.99 < clock.at_s - began_s < 1.01


def test_a_quiet_moment_gives_back_what_it_lasted() -> None:
    clock = Still()
    pace = Pace(clock, per_s=100.0, burst=20.0)
    turns(pace, 50)
    clock.at_s += 0.1
    began_s = clock.at_s
    turns(pace, 10)
    assert clock.at_s == pytest.approx(began_s)
