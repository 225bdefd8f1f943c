"""What an agent remembers of its server between two looks."""

import asyncio

from primacy.engines.watching import HEALTH_CHANCES, Watching
from primacy.errors import Unavailable


class ManualClock:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.s = 100.0

    def now_s(self) -> float:
        return self.s

    def wall_s(self) -> float:
        return self.s

    def boottime_s(self) -> float:
        return self.s

    async def sleep(self, delay_s: float) -> None:
        self.s += delay_s


class Server:
    """Fails to answer as often as it is told to."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.asked = 0

    async def health(self) -> None:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise Unavailable("no answer", hint="Try again.")


def answers(watching: Watching, server: Server) -> bool:
    return asyncio.run(watching.answers(server.health))


def test_a_server_gets_more_than_one_chance_and_no_more_than_that() -> None:
    watching = Watching(ManualClock(), health_s=1.0)
    assert answers(watching, Server(HEALTH_CHANCES - 1))
    assert not answers(watching, Server(HEALTH_CHANCES))


def test_one_that_was_asked_in_vain_all_the_while_is_not_asked_again() -> None:
    clock = ManualClock()
    watching = Watching(clock, health_s=1.0)
    watching.missed()
    clock.s += 1.0
    watching.missed()
    server = Server(0)
    assert not answers(watching, server)
    assert server.asked == 0
    watching.heard()
    assert answers(watching, server)


def test_an_agent_that_was_away_asks_before_it_takes_its_server_for_hung() -> None:
    clock = ManualClock()
    watching = Watching(clock, health_s=1.0)
    clock.s += 60.0
    server = Server(0)
    assert answers(watching, server)
    assert server.asked == 1


def test_a_heartbeat_is_as_old_as_its_number() -> None:
    clock = ManualClock()
    watching = Watching(clock, health_s=1.0)
    assert watching.heartbeat_age_s(7) == 0.0
    clock.s += 3.0
    assert watching.heartbeat_age_s(7) == 3.0
    assert watching.heartbeat_age_s(8) == 0.0
