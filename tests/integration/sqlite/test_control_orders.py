"""Orders that nobody would give, in any order: each is answered, and no server ends by one."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.sqlite.controls import Controlled, Line, nodes, until
from tests.integration.sqlite.test_control import CREATE, insert
from tests.ports import LOOPBACK

from primacy.engines.sqlite.control import (
    Acknowledge,
    Admit,
    Beat,
    CloseDoors,
    Cut,
    Demote,
    Drain,
    Exclude,
    Failed,
    Follow,
    Marker,
    OpenDoors,
    Reign,
    Release,
    Request,
    Rest,
    Rewind,
    SetAcks,
    Shown,
    Snapshot,
    TableSums,
)
from primacy.model import Epoch, Incarnation
from primacy.replication.pull.acks import AckOn

pytestmark = pytest.mark.integration

ORDERS = 250
BLOCKED_S = 0.05
"""A heartbeat may wait for as long as nobody acknowledges; everything else ends by itself."""


class Chaos:
    """Two servers that are told one thing after another by somebody who knows no rule."""

    def __init__(self, pair: list[Controlled], seed: int) -> None:
        self.pair = pair
        self.chance = random.Random(seed)
        self.epoch = 1
        self.answers: Counter[str] = Counter()
        self.under_way: list[tuple[Line, int, Request]] = []

    def order(self) -> None:
        node = self.chance.choice(self.pair)
        request = self.chance.choice(self.orders())(node)
        line = Line(node.control)
        self.under_way.append((line, line.send(request), request))
        line.socket.settimeout(BLOCKED_S)
        self.look()

    def look(self) -> bool:
        """What is not answered yet is looked at again. Whether all is."""
        left = []
        for line, number, request in self.under_way:
            try:
                reply = line.receive(number)
            except TimeoutError:
                left.append((line, number, request))
                continue
            line.close()
            kind = "refused" if isinstance(reply, Failed) else "done"
            assert not isinstance(reply, Failed) or (reply.what and reply.hint)
            self.answers[f"{type(request).__name__} {kind}"] += 1
        self.under_way = left
        return not left

    def orders(self) -> list[Callable[[Controlled], Request]]:
        chance, index = self.chance, self.chance.randint(0, 12)
        return [
            self.follow,
            self.follow,
            lambda _: Acknowledge(wanted=chance.random() < 0.5),
            lambda _: Rest(),
            lambda _: Rest(),
            lambda _: Drain(within_s=chance.choice((0.0, 1.0))),
            self.reign,
            self.reign,
            lambda _: SetAcks(acks=chance.choice((0, 0, 1)), ack_on=chance.choice(list(AckOn))),
            lambda _: SetAcks(acks=0, may_release=True),
            lambda _: OpenDoors(),
            lambda _: CloseDoors(within_s=chance.choice((0.0, 0.2))),
            lambda node: Demote(index=node.shown().end.index),
            lambda _: Demote(index=index),
            lambda _: Marker(),
            lambda _: Beat(),
            lambda node: Exclude(node=self.other(node).name),
            lambda node: Admit(node=self.other(node).name),
            lambda node: Cut(after=node.shown().applied.index),
            lambda _: Cut(after=index),
            lambda _: Rewind(to=index),
            lambda node: Snapshot(name="copy", path=str(node.folder / "copy")),
            lambda _: Release(name="copy"),
            lambda _: TableSums(tables=("t",), at=chance.choice((0, index))),
        ]

    def other(self, node: Controlled) -> Controlled:
        return self.pair[1 - self.pair.index(node)]

    def reign(self, _node: Controlled) -> Request:
        self.epoch += self.chance.randint(-1, 1)
        return Reign(epoch=Epoch(max(1, self.epoch)))

    def follow(self, node: Controlled) -> Request:
        return Follow(
            upstream=self.other(node).name,
            upstream_door=f"{LOOPBACK}:{self.other(node).pull_port}",
            epoch=Epoch(max(1, self.epoch)),
            incarnation=Incarnation(f"life-{node.name}"),
            acknowledge=self.chance.random() < 0.8,
            apply_until=self.chance.choice((0, 0, 0, 3)),
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_asked_for_is_answered(seed: int, tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as pair:
        a, b = pair
        a.lead(1, b, acks=1)
        a.execute(CREATE)
        insert(a, 1)
        chaos = Chaos(pair, seed)
        for _ in range(ORDERS):
            chaos.order()
        for each in pair:  # Whatever became of them, a stop ends it in order.
            assert isinstance(each.shown(), Shown)
            assert each.stop() == 0
        until(chaos.look)
        assert "Traceback" not in a.events + b.events
        done = sum(count for name, count in chaos.answers.items() if name.endswith("done"))
        assert 0 < done < ORDERS
