"""A modelled server: whom it lets in as a receiver, and what a start makes of its log."""

from typing import Any, cast  # The witness of the tests is the few calls that they look at.

import pytest

from primacy.model import Epoch, NodeId
from primacy.sim.disk import Disk, DiskRates
from primacy.sim.engine_log import Files, Kind, Record
from primacy.sim.engine_model import ModelEngine
from primacy.sim.network import Network, NetworkRates
from primacy.sim.trace import Trace
from primacy.sim.world import NodeClock, World

A, B = NodeId("a"), NodeId("b")
E1 = Epoch(1)
LATE_S = 0.4


class Witness:
    """Who was counted; all else is let pass."""

    def __init__(self) -> None:
        self.counted: list[NodeId] = []

    def on_counted(self, _engine: ModelEngine, node: NodeId, _incarnation: str) -> None:
        self.counted.append(node)

    def __getattr__(self, _name: str) -> Any:  # Any: every other call of a witness.
        return lambda *_arguments, **_more: None


class Pair:
    """A source and a receiver, both running, both blank."""

    def __init__(self) -> None:
        self.world = World(1, trace=Trace())
        self.network = Network(self.world, NetworkRates())
        self.witness = Witness()
        self.source, self.receiver = self._server(A), self._server(B)
        fleet = {A: self.source, B: self.receiver}
        self.source.fleet = self.receiver.fleet = cast(Any, fleet)

    def _server(self, node: NodeId) -> ModelEngine:
        world = self.world
        process = world.process(f"{node}/engine", node, NodeClock(offset_s=0.0, rate=1.0))
        world.start(process)
        return ModelEngine(
            node,
            world,
            self.network,
            process=process,
            agent=process,
            disk=Disk(world, process, DiskRates()),
            witnesses=cast(Any, self.witness),
        )

    def pass_s(self, span_s: float) -> None:
        self.world.run(until_s=self.world.now_s + span_s)


def test_a_receiver_that_is_let_in_attaches_and_counts() -> None:
    pair = Pair()
    pair.receiver.receiver.start(A, E1, acknowledge=True)
    pair.pass_s(0.5)
    assert pair.receiver.receiver.is_connected
    assert pair.witness.counted == [B]


def test_a_receiver_that_is_locked_out_tries_again_until_it_is_let_in() -> None:
    pair = Pair()
    pair.source.files.excluded.add(B)
    pair.receiver.receiver.start(A, E1, acknowledge=True)
    pair.pass_s(0.5)
    assert not pair.receiver.receiver.is_connected
    pair.source.files.excluded.discard(B)
    pair.pass_s(0.5)
    assert pair.receiver.receiver.is_connected


def test_a_connection_that_its_receiver_gave_up_counts_nothing_however_late_it_is_let_in() -> None:
    """Seed 195 once: it was under way while the replica was locked out, and came to be let in after
    the replica had said that it is silent. A server asks a password first, and nobody answers."""
    pair = Pair()
    pair.source.files.excluded.add(B)
    pair.network.lags_s[B, A, "acks"] = LATE_S
    pair.receiver.receiver.start(A, E1, acknowledge=True)
    pair.pass_s(LATE_S / 2)
    pair.network.lags_s.clear()
    pair.receiver.receiver.start(A, E1, acknowledge=False)
    pair.source.files.excluded.discard(B)
    pair.pass_s(2 * LATE_S)
    assert pair.receiver.receiver.is_connected
    assert pair.witness.counted == []


@pytest.mark.parametrize(
    ("led", "as_primary", "left"),
    [(E1, False, 1), (E1, True, 3), (Epoch(0), False, 3)],
    ids=["it led and shall follow", "it may lead again", "a replica, whatever it is started as"],
)
def test_only_a_server_that_led_takes_back_what_its_tables_have_not(
    led: Epoch, *, as_primary: bool, left: int
) -> None:
    """Seed 5 once: a replica that had acknowledged a write lost it by a second start."""
    files = Files()
    files.log = [Record(E1, sequence, Kind.WRITE, sequence) for sequence in (1, 2, 3)]
    files.synced = files.applied = files.committed = 3
    files.led_epoch = led
    files.forget_commits(2)
    assert files.recover(as_primary=as_primary) == 3 - left
    assert (len(files.log), files.committed, files.is_cut) == (left, left, left < 3)
