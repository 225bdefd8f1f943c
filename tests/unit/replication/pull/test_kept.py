"""For whom the log is kept, and for how long."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from primacy import telemetry
from primacy.model import NodeId
from primacy.replication.pull.kept import Kept
from primacy.telemetry import Event

B, C = NodeId("b"), NodeId("c")


class NoLog:
    holds: dict[str, int] = {}  # noqa: RUF012  # Nothing changes it.

    def hold(self, name: str, index: int) -> None:
        raise AssertionError(name, index)

    def release(self, name: str) -> None:
        raise AssertionError(name)


def kept() -> Kept:
    return Kept(NoLog(), ThreadPoolExecutor(1), kept_s=10.0, now_s=0.0, events=telemetry.ignore)


def test_who_stays_away_is_let_go_after_a_while() -> None:
    known = kept()
    known.left(B, 0.0)
    known.left(C, 5.0)
    assert known.overdue(set(), 9.9) == []
    assert known.overdue(set(), 10.0) == [B]
    assert known.overdue(set(), 20.0) == [C]
    assert known.overdue(set(), 99.0) == []


def test_who_came_back_or_left_again_since_is_not() -> None:
    known = kept()
    known.left(B, 0.0)
    assert known.overdue({B}, 10.0) == []
    known.left(C, 11.0)
    known.left(C, 15.0)
    assert known.overdue(set(), 21.0) == []
    assert known.overdue(set(), 25.0) == [C]


class HeldLog:
    """Held for two receivers and a backup when the process begins."""

    def __init__(self) -> None:
        self.holds = {"receiver b": 5, "receiver c": 7, "backup": 3}

    def hold(self, name: str, index: int) -> None:
        self.holds[name] = index

    def release(self, name: str) -> None:
        del self.holds[name]


class Jumping:
    """A clock on which a wait is over at once; the third one ends the test."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def now_s(self) -> float:
        return sum(self.waits)

    boottime_s = wall_s = now_s

    async def sleep(self, delay_s: float) -> None:
        if len(self.waits) == 2:
            raise asyncio.CancelledError
        self.waits.append(delay_s)


def test_who_was_served_before_a_restart_and_stays_away_is_let_go_without_any_receiver() -> None:
    """Else a node that is gone for good would keep the log of its source for ever."""
    log, clock, events = HeldLog(), Jumping(), list[Event]()
    known = Kept(log, ThreadPoolExecutor(1), kept_s=10.0, now_s=0.0, events=events.append)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(known.release_overdue(lambda: {C}, clock))
    assert log.holds == {"receiver c": 7, "backup": 3}
    assert clock.waits == [10.0, 10.0]
    assert [(each.name, each.fields["node"]) for each in events] == [("pull-hold-released", B)]
