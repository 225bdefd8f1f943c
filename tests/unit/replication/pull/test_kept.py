"""For whom the log is kept, and for how long."""

from concurrent.futures import ThreadPoolExecutor

from primacy import telemetry
from primacy.model import NodeId
from primacy.replication.pull.kept import Kept

B, C = NodeId("b"), NodeId("c")


class NoLog:
    def hold(self, name: str, index: int) -> None:
        raise AssertionError(name, index)

    def release(self, name: str) -> None:
        raise AssertionError(name)


def kept() -> Kept:
    return Kept(NoLog(), ThreadPoolExecutor(1), kept_s=10.0, events=telemetry.ignore)


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
