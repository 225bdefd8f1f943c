"""The ledger believes disks and the store, not what a primary or a replica says of itself."""

from collections.abc import Callable
from typing import Any, cast  # Engines of the tests are the few fields that the ledger looks at.

import pytest

from primacy.cluster.policy import Policy
from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.records import DurabilityRecord, SealNote
from primacy.sim.engine_log import Files, Kind, Record
from primacy.sim.ledger import Ledger
from primacy.sim.moments import Moments
from primacy.sim.trace import Trace
from primacy.sim.world import World

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
E1, E2 = Epoch(1), Epoch(2)
WRITE = Record(E1, 1, Kind.WRITE, 7)


class Sender:
    def acknowledgers(self) -> list[tuple[NodeId, Incarnation]]:
        return []


class Server:
    """As much of a server as the ledger looks at."""

    def __init__(self, node: NodeId, *log: Record, synced: int | None = None) -> None:
        self.node = node
        self.files = Files()
        self.files.incarnation = Incarnation(f"{node}1")
        self.files.log = list(log)
        self.files.synced = len(log) if synced is None else synced
        self.epoch = E1 if node == A else Epoch(0)
        self.is_read_only = node != A
        self.sender = Sender()


def ledger_of(*servers: Server) -> tuple[Ledger, list[str]]:
    failures: list[str] = []

    def fail(name: str, _detail: str) -> None:
        failures.append(name)

    world = World(1, trace=Trace())
    ledger = Ledger(world, fail, Moments(), Policy(data_nodes=(A, B, C)))
    ledger.engines = cast(Any, {each.node: each for each in servers})
    ledger.claimed(E1, A)
    members = tuple(Member(node, Incarnation(f"{node}1")) for node in (B, C))
    primary = Member(A, Incarnation("a1"))
    ledger.recorded(DurabilityRecord(epoch=E1, primary=primary, acks=1, members=members))
    if A in ledger.engines:
        ledger.on_open(cast(Any, ledger.engines[A]))
    return ledger, failures


def commits(*servers: Server, holders: list[NodeId]) -> list[str]:
    ledger, failures = ledger_of(*servers)
    ledger.on_commit(cast(Any, servers[0]), WRITE, holders)
    return failures


def test_a_commit_that_a_recorded_member_holds_is_right() -> None:
    assert commits(Server(A, WRITE), Server(B, WRITE), Server(C), holders=[B]) == []


@pytest.mark.parametrize(
    ("b_log", "b_synced", "holders"),
    [
        ((), None, [B]),
        ((WRITE,), 0, [B]),
        ((WRITE._replace(uid=8),), None, [B]),
        ((WRITE,), None, []),
    ],
    ids=["not there", "in the page cache only", "another write in its place", "not counted"],
)
def test_a_commit_that_no_counted_disk_holds_is_named(
    b_log: tuple[Record, ...], b_synced: int | None, holders: list[NodeId]
) -> None:
    server = Server(B, *b_log, synced=b_synced)
    broken = commits(Server(A, WRITE), server, Server(C), holders=holders)
    assert broken == ["acks-come-from-the-recorded-set"]


def test_a_commit_that_an_earlier_epoch_left_waiting_is_named_until_the_doors_open() -> None:
    a, b = Server(A, WRITE), Server(B, WRITE)
    ledger, failures = ledger_of(a, b, Server(C))
    ledger.claimed(E2, A)
    a.epoch = E2
    primary, members = Member(A, Incarnation("a1")), (Member(B, Incarnation("b1")),)
    ledger.recorded(DurabilityRecord(epoch=E2, primary=primary, acks=1, members=members))
    ledger.on_commit(cast(Any, a), WRITE, [B])
    assert failures == ["acks-come-from-the-recorded-set"]
    ledger.on_open(cast(Any, a))
    ledger.on_commit(cast(Any, a), WRITE, [B])
    assert len(failures) == 1


def test_a_disk_that_held_it_and_was_replaced_since_counts() -> None:
    b = Server(B, WRITE)
    ledger, failures = ledger_of(Server(A, WRITE), b, Server(C))
    ledger.disk_replaced(cast(Any, b))
    b.files = Files()
    ledger.on_commit(cast(Any, ledger.engines[A]), WRITE, [B])
    assert failures == []


def seal(received: Position) -> SealNote:
    return SealNote(
        node=B, incarnation=Incarnation("b1"), epoch=E2, received=received, applied=received
    )


@pytest.mark.parametrize(
    ("noted", "received", "is_right"),
    [(E2, Position(E1, 1), True), (E1, Position(E1, 1), False), (E2, Position(E1, 2), False)],
    ids=["noted and held", "not noted yet", "more than it holds"],
)
def test_a_published_seal_is_compared_with_the_disk(
    noted: Epoch, received: Position, *, is_right: bool
) -> None:
    b = Server(B, WRITE)
    b.files.sealed_epoch = noted
    ledger, failures = ledger_of(Server(A, WRITE), b, Server(C))
    ledger.sealed(seal(received))
    assert failures == ([] if is_right else ["old-epochs-are-refused"])


def test_an_acknowledgement_to_an_older_epoch_than_the_published_seal_is_named() -> None:
    b = Server(B, WRITE)
    b.files.sealed_epoch = E2
    ledger, failures = ledger_of(Server(A, WRITE), b, Server(C))
    ledger.sealed(seal(Position(E1, 1)))
    b.files.sealed_epoch = Epoch(0)  # Whatever it says of itself now.
    ledger.on_acknowledge(cast(Any, b), cast(Any, ledger.engines[A]), E1)
    assert failures == ["old-epochs-are-refused"]


def test_an_epoch_whose_log_lacks_an_acknowledged_write_is_named() -> None:
    a, b, c = Server(A, WRITE), Server(B, WRITE), Server(C)
    ledger, failures = ledger_of(a, b, c)
    ledger.on_commit(cast(Any, a), WRITE, [B])
    ledger.claimed(E2, C)
    ledger.on_epoch(cast(Any, c), E2)
    assert failures == ["no-acknowledged-write-lost"]


def test_an_answer_that_no_commit_stands_behind_is_named() -> None:
    ledger, failures = ledger_of(Server(A, WRITE), Server(B), Server(C))
    ledger.on_told(WRITE.uid)
    assert failures == ["acks-come-from-the-recorded-set"]


def test_a_disk_may_go_only_while_another_holds_what_was_acknowledged() -> None:
    a, b, c = Server(A, WRITE), Server(B, WRITE), Server(C)
    ledger, _ = ledger_of(a, b, c)
    ledger.on_commit(cast(Any, a), WRITE, [B])
    checks: list[Callable[[], bool]] = [
        lambda: ledger.may_be_lost(A),
        lambda: ledger.may_be_lost(C),
    ]
    assert [check() for check in checks] == [True, True]
    b.files.synced = 0
    assert [check() for check in checks] == [False, True]
