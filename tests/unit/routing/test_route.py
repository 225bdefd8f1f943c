"""Routes as a table: who is asked, what is known, where it goes."""

import pytest

from primacy.model import Epoch, Incarnation, Member, NodeId, Position, Revision
from primacy.replication.records import (
    DurabilityRecord,
    Handover,
    NodeStatus,
    PrimaryRecord,
    SealNote,
)
from primacy.routing.route import (
    Hold,
    Intent,
    Question,
    Refuse,
    RoutePolicy,
    ToDatabase,
    ToPeer,
    route,
    why_cut,
)
from primacy.routing.view import RouterView, Seen

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
ONE = Incarnation("1")
POLICY = RoutePolicy(ttl_s=3.0)
NOW_S = 100.0


def view(primary: NodeId | None = A, **changes: object) -> RouterView:
    record = None
    if primary is not None:
        record = PrimaryRecord(node=primary, incarnation=ONE, epoch=Epoch(4))
    known: dict[str, object] = {
        "confirmed_at_s": NOW_S - 1,
        "epoch": Epoch(4),
        "primary": record,
        "primary_mod": Revision(10),
        "durability": DurabilityRecord(
            epoch=Epoch(4), primary=Member(A, ONE), acks=1, members=(Member(B, ONE),)
        ),
        "nodes": {node: seen(node) for node in (A, B, C)},
    }
    return RouterView(**(known | changes))  # type: ignore[arg-type]  # Named by each test.


def seen(node: NodeId, *, sequence: int = 50, age_s: float = 0.5, **changes: object) -> Seen:
    known: dict[str, object] = {
        "node": node,
        "state": "running",
        "is_receiving": True,
        "is_applying": True,
        "applied": Position(Epoch(4), sequence),
    }
    return Seen(NodeStatus(**(known | changes)), NOW_S - age_s)  # type: ignore[arg-type]  # As above.


def rw(here: NodeId, **changes: object) -> Question:
    return Question(here=here, intent=Intent.RW, **changes)  # type: ignore[arg-type]  # As above.


def ro(here: NodeId, **changes: object) -> Question:
    return Question(here=here, intent=Intent.RO, **changes)  # type: ignore[arg-type]  # As above.


def asked(question: Question, known: RouterView, policy: RoutePolicy = POLICY) -> object:
    return route(question, known, policy, now_s=NOW_S)


def test_rw_goes_to_the_database_on_the_primarys_host_and_through_its_router_elsewhere() -> None:
    assert asked(rw(A), view()) == ToDatabase(A, Epoch(4))
    assert asked(rw(B), view()) == ToPeer(A, Epoch(4))


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (view(confirmed_at_s=NOW_S - 3.0), "the store has not answered this router for 3.0 s"),
        (RouterView(), "this router has not reached the store yet"),
        (view(None), "there is no primary: waiting for seals of b"),
        (view(durability=None), "a is opening epoch 4"),
        (
            view(handover=Handover(request_id="1", epoch=Epoch(4), target=B, last_sequence=9)),
            None,
        ),
    ],
)
def test_rw_is_held_with_the_reason(known: RouterView, reason: str | None) -> None:
    found = asked(rw(A), known)
    if reason is None:  # A handover that began longer ago than a switchover takes.
        assert found == ToDatabase(A, Epoch(4))
    else:
        assert found == Hold(reason)


def test_a_seal_counts_only_for_the_epoch_that_comes_next() -> None:
    old = SealNote(
        node=B, incarnation=ONE, epoch=Epoch(4), received=Position(Epoch(4), 1),
        applied=Position(Epoch(4), 1),
    )  # fmt: skip
    assert asked(rw(A), view(None, seals={B: old})) == asked(rw(A), view(None))


def test_new_connections_wait_while_a_switchover_of_this_primary_is_asked_for() -> None:
    asked_for = view(switchover_mod=Revision(11), switchover_seen_at_s=NOW_S - 0.1)
    assert asked(rw(A), asked_for) == Hold("a switchover from a is under way")
    done = view(switchover_mod=Revision(9), switchover_seen_at_s=NOW_S - 0.1)
    assert asked(rw(A), done) == ToDatabase(A, Epoch(4))


def test_a_forwarded_connection_goes_to_the_database_here_or_nowhere() -> None:
    for here in (A, B, C):
        for primary in (A, B, C, None):
            for question in (
                rw(here, is_forwarded=True, asked_epoch=Epoch(4)),
                ro(here, is_forwarded=True),
            ):
                assert not isinstance(asked(question, view(primary)), ToPeer)


def test_a_router_that_is_behind_holds_a_forwarded_connection_and_one_ahead_sends_it_back() -> None:
    behind = rw(B, is_forwarded=True, asked_epoch=Epoch(5))
    assert asked(behind, view()) == Hold("this router has not heard of epoch 5 yet")
    ahead = rw(B, is_forwarded=True, asked_epoch=Epoch(3))
    assert asked(ahead, view()) == Refuse("a is the primary, in epoch 4")


def test_ro_prefers_the_replica_here_and_takes_the_others_in_turn() -> None:
    assert asked(ro(B), view()) == ToDatabase(B, None)
    turns = [asked(ro(A, turn=turn), view()) for turn in range(4)]
    assert turns == [ToPeer(B, None), ToPeer(C, None)] * 2
    assert asked(ro(A, avoid=frozenset({B})), view()) == ToPeer(C, None)


@pytest.mark.parametrize(
    "unfit",
    [
        seen(B, state="stopped"),
        seen(B, is_applying=False),
        seen(B, error="1062"),
        seen(B, heartbeat_age_s=6.0),
        seen(B, sequence=49),
        seen(B, age_s=16.0),
    ],
)
def test_ro_never_uses_a_replica_past_the_bound(unfit: Seen) -> None:
    policy = RoutePolicy(ttl_s=3.0, lag_max_transactions=0, ro_to_primary=False)
    known = view(nodes={A: seen(A), B: unfit})
    assert asked(ro(B), known, policy) == Hold("no replica is within the lag bound")
    assert asked(ro(B), known, RoutePolicy(ttl_s=3.0, lag_max_transactions=0)) == ToPeer(
        A, Epoch(4)
    )


def test_an_open_session_is_cut_for_each_reason_and_for_no_other() -> None:
    here = ToDatabase(A, Epoch(4))
    cuts = {
        known: why_cut(here, each, POLICY, now_s=NOW_S)
        for known, each in {
            "same": view(),
            "gone": view(None),
            "old": view(confirmed_at_s=NOW_S - 3),
            "moved": view(B),
        }.items()
    }
    assert cuts == {
        "same": None,
        "gone": "a is no longer primary of epoch 4",
        "old": "the store has not answered this router for 3.0 s",
        "moved": "b is the primary now, in epoch 4",
    }
    assert why_cut(ToPeer(B, None), view(None), POLICY, now_s=NOW_S) is None
    assert why_cut(ToPeer(B, None), view(B), POLICY, now_s=NOW_S) == "b has become the primary"
