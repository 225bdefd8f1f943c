"""The model of the SQLite engine: what a start makes of its log, who is served, who counts."""

from typing import Any, cast  # The witness of the tests is the few calls that they look at.

import pytest

from primacy.engines.api import Diverged
from primacy.errors import Unavailable
from primacy.model import Epoch, Incarnation, NodeId, Position
from primacy.replication.pull.acks import AckOn
from primacy.sim.disk import Disk, DiskRates
from primacy.sim.engine_log import Kind, Record
from primacy.sim.loop import new_loop
from primacy.sim.network import Network, NetworkRates
from primacy.sim.sqlite_files import SqliteFiles
from primacy.sim.sqlite_model import SqliteModel
from primacy.sim.trace import Trace
from primacy.sim.world import NodeClock, World

A, B = NodeId("a"), NodeId("b")
E1, E2, E3 = Epoch(1), Epoch(2), Epoch(3)


def rows(epoch: Epoch, *sequences: int) -> list[Record]:
    return [Record(epoch, each, Kind.WRITE, 100 * epoch + each) for each in sequences]


class Witness:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:  # Any: each call of a witness.
        return lambda *_arguments, **_more: self.seen.append(name)


class Pair:
    """Two servers that run, with logs."""

    def __init__(self) -> None:
        self.world = World(1, trace=Trace())
        self.network = Network(self.world, NetworkRates())
        self.witness = Witness()
        self.a, self.b = self._server(A), self._server(B)
        self.a.fleet = self.b.fleet = cast(Any, {A: self.a, B: self.b})
        self.loop = new_loop(self.world, self.a.agent)

    def _server(self, node: NodeId) -> SqliteModel:
        world = self.world
        clock = NodeClock(offset_s=0.0, rate=1.0)
        process = world.process(f"{node}/engine", node, clock)
        agent = world.process(f"{node}/agent", node, clock)
        world.start(process)
        world.start(agent)
        server = SqliteModel(
            node,
            world,
            self.network,
            process=process,
            agent=agent,
            disk=Disk(world, process, DiskRates()),
            witnesses=cast(Any, self.witness),
        )
        server.files.incarnation = Incarnation(f"{node}1")
        return server

    def holds(self, server: SqliteModel, log: list[Record], *, applied: int) -> None:
        files = server.data
        files.log, files.synced = list(log), len(log)
        files.applied = files.applied_max = applied

    def reigns(self, epoch: Epoch) -> None:
        """`a`, with its doors open, for as many acknowledgements as it was told."""
        self.does(self.a.begin_epoch(epoch, A))
        self.does(self.a.set_acks(1, may_release=True))
        self.does(self.a.open_doors())

    def follows(self, epoch: Epoch, *, acknowledge: bool = True) -> None:
        self.b.following_epoch = epoch
        self.b.receiver.start(A, epoch, acknowledge=acknowledge)
        self.pass_s(0.3)

    def does(self, work: Any) -> None:
        """A call of the engine, to its end."""
        tasks: list[Any] = []
        self.loop.run_inside(lambda: tasks.append(self.loop.create_task(work)))
        self.pass_s(0.5)
        tasks[0].result()

    def pass_s(self, span_s: float) -> None:
        self.world.run(until_s=self.world.now_s + span_s)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_start_neither_cuts_nor_applies(pair: Pair) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=1)
    for as_primary in (True, False):
        pair.a.crash()
        applied = pair.a.data.applied
        pair.does(pair.a.start(as_primary=as_primary))
        assert (len(pair.a.data.log), pair.a.data.applied) == (3, applied)
        assert not pair.a.observation().needs_salvage
    assert not pair.a.data.is_cut


@pytest.mark.parametrize(("applied", "left"), [(1, 1), (2, 3)], ids=["not applied", "applied"])
def test_a_saved_tail_is_cut_once_and_only_where_nothing_of_it_is_applied(
    pair: Pair, applied: int, left: int
) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=applied)
    pair.world.kill(pair.a.process)
    pair.a.found = Diverged(count=2, parts_at=2)
    pair.does(pair.a.start(as_primary=False))
    assert (len(pair.a.data.log), pair.a.data.is_cut) == (left, True)


def test_what_was_cut_once_is_not_cut_out_of_the_next_history(pair: Pair) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=1)
    pair.world.kill(pair.a.process)
    pair.a.found = Diverged(count=2, parts_at=2)
    pair.does(pair.a.start(as_primary=True))
    pair.a.crash()
    pair.does(pair.a.start(as_primary=False))
    assert len(pair.a.data.log) == 3


def test_a_session_belongs_to_one_epoch(pair: Pair) -> None:
    pair.reigns(E2)
    pair.follows(E1)
    assert not pair.b.receiver.is_connected
    pair.follows(E2)
    assert pair.b.receiver.is_connected
    pair.does(pair.a.close_doors())
    pair.does(pair.a.demote())
    assert pair.a.sender.receivers() == frozenset()
    pair.reigns(E3)
    pair.pass_s(1.0)
    assert not pair.b.receiver.is_connected


def test_a_tail_is_applied_once_its_source_has_compared_it(pair: Pair) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=3)
    pair.holds(pair.b, rows(E1, 1, 2), applied=0)
    pair.b.schedule_apply()
    pair.pass_s(0.5)
    assert pair.b.data.applied == 0
    pair.reigns(E2)
    pair.follows(E2)
    assert pair.b.data.applied == 4


def test_a_tail_that_parts_is_found_at_connect_and_stays_as_it_was(pair: Pair) -> None:
    pair.holds(pair.a, rows(E1, 1), applied=1)
    pair.holds(pair.b, rows(E1, 1, 2), applied=1)
    pair.reigns(E2)
    pair.follows(E2)
    shown = pair.b.receiver.observed()
    assert (shown.is_diverged, shown.acknowledges) == (True, False)
    assert (len(pair.b.data.log), pair.b.data.applied) == (2, 1)


def test_a_tail_that_cannot_be_applied_is_an_error_whatever_becomes_of_the_server(
    pair: Pair,
) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=1)
    pair.a.data.broken_at = 2
    with pytest.raises(Unavailable, match="tail"):
        pair.does(pair.a.drain())
    pair.does(pair.a.seal(E2))
    for _ in range(2):
        seen = pair.a.observation()
        assert seen.replication.error is not None
        assert seen.applied < seen.received
        pair.a.crash()


def test_a_log_that_reaches_back_too_little_serves_nobody_who_lacks_more(pair: Pair) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=3)
    pair.a.data.first = 3
    pair.holds(pair.b, rows(E1, 1), applied=1)
    pair.reigns(E2)
    pair.follows(E2)
    shown = pair.b.receiver.observed()
    assert "removed" in (shown.error or "")
    assert not shown.is_diverged


@pytest.mark.parametrize("ack_on", AckOn)
def test_a_commit_waits_until_it_is_where_the_policy_wants_it(pair: Pair, ack_on: AckOn) -> None:
    pair.a.ack_on = ack_on
    pair.b.slowness = 1_000.0  # Received at once, applied a second later.
    pair.reigns(E1)
    pair.follows(E1)
    answers: list[Record | None] = []
    pair.does(pair.a.set_acks(1))
    pair.pass_s(2.0)
    assert pair.a.write(7, answers.append)
    pair.pass_s(0.5)
    assert len(answers) == (ack_on is AckOn.RECEIVED)
    pair.pass_s(2.0)
    assert [each.uid for each in answers if each is not None] == [7]


def test_nothing_reaches_the_log_behind_a_commit_that_waits(pair: Pair) -> None:
    pair.reigns(E1)
    for uid in (7, 8):
        assert pair.a.write(uid, lambda _record: None)
    pair.pass_s(0.5)
    sending = pair.a.observation().sending
    assert (sending.waits_at, sending.waiting_commits, len(pair.a.data.log)) == (2, 1, 2)
    assert pair.a.data.applied == 1


def test_an_excluded_member_is_not_served_and_what_it_said_counts_no_more(pair: Pair) -> None:
    pair.reigns(E1)
    pair.follows(E1)
    end = len(pair.a.data.log)
    assert pair.a.sender.acknowledged_by(1) == end
    pair.does(pair.a.exclude(B))
    assert pair.a.sender.acknowledged_by(1) == 0
    pair.pass_s(0.5)
    assert not pair.b.receiver.is_connected
    pair.does(pair.a.admit(B))
    assert pair.a.sender.acknowledged_by(1) == end


def test_a_server_that_is_down_shows_what_it_has_published(pair: Pair) -> None:
    pair.holds(pair.a, rows(E1, 1, 2, 3), applied=1)
    pair.does(pair.a.seal(E2))
    pair.a.crash()
    seen = pair.a.observation()
    assert (seen.received, seen.sealed_epoch) == (Position(E1, 3), E2)


def test_a_crash_takes_back_commits_and_no_record() -> None:
    files = SqliteFiles()
    files.log = rows(E1, 1, 2, 3)
    files.synced = 3
    files.commit_to(3)
    files.lose_unsynced()
    files.forget_commits(2)
    assert (len(files.log), files.applied, files.has_applied(3)) == (3, 1, True)
