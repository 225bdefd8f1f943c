"""What a server shows, as the brain is told."""

import msgspec
import pytest

from primacy.engines.api import Observation
from primacy.engines.notes import Notes
from primacy.engines.sqlite.control import (
    Attached,
    Doors,
    Receiving,
    RoleNow,
    Shown,
    Upstream,
    Writes,
)
from primacy.engines.sqlite.observing import Known, observation, stuck, unfit
from primacy.model import ORIGIN, Epoch, Incarnation, NodeId, Position
from primacy.replication.log.record import Point

A, B = NodeId("a"), NodeId("b")
KNOWN = Known(
    notes=Notes(sealed_epoch=Epoch(3), following_epoch=Epoch(3), starts=4),
    incarnation=Incarnation("1"),
    heartbeat_age_s=0.5,
    has_old_data=False,
)
BASE = Shown(
    cluster="test",
    node=B,
    role=RoleNow.FOLLOWING,
    first=Point(Epoch(0), 0, 0),
    end=Point(Epoch(3), 12, 7),
    durable=Point(Epoch(3), 11, 6),
    applied=Point(Epoch(2), 9, 5),
    position_text="a@2:1-9,a@3:10-11",
)


def following(state: Receiving, *, acknowledges: bool = True, reason: str = "") -> Observation:
    upstream = Upstream(
        state=state, node=A, epoch=Epoch(3), acknowledges=acknowledges, reason=reason
    )
    return observation(msgspec.structs.replace(BASE, upstream=upstream), KNOWN)


def test_only_what_is_durable_was_received() -> None:
    seen = observation(BASE, KNOWN)
    assert seen.received == Position(Epoch(3), 11)
    assert seen.applied == Position(Epoch(2), 9)
    assert (seen.sealed_epoch, seen.starts, seen.heartbeat_age_s) == (3, 4, 0.5)


RECEIVERS = {
    # state: receives, may acknowledge, error, diverged
    Receiving.STREAMING: (True, True, False, False),
    Receiving.CONNECTING: (False, True, False, False),
    Receiving.REJECTED: (False, True, False, False),
    Receiving.STOPPED: (False, False, False, False),
    Receiving.DIVERGED: (False, False, True, True),
    Receiving.PURGED: (False, False, True, False),
}


@pytest.mark.parametrize("state", Receiving)
def test_a_receiver_as_the_brain_is_told(state: Receiving) -> None:
    replication = following(state, reason="why").replication
    receives, acknowledges, is_error, is_diverged = RECEIVERS[state]
    assert replication.upstream == A
    assert replication.is_receiving == receives
    assert replication.acknowledges == acknowledges
    assert (replication.error is not None) == is_error
    assert replication.is_diverged == is_diverged
    assert not following(state, acknowledges=False).replication.acknowledges


def test_what_is_missing_of_the_upstreams_log_is_known_while_it_is_attached() -> None:
    for state in Receiving:
        upstream = Upstream(state=state, node=A, epoch=Epoch(3), acknowledges=True, lag_bytes=4096)
        seen = observation(msgspec.structs.replace(BASE, upstream=upstream), KNOWN)
        expected = 4096 if state is Receiving.STREAMING else None
        assert seen.replication.lag_bytes == expected


def test_who_is_turned_away_says_why_and_is_not_broken() -> None:
    seen = following(Receiving.REJECTED, reason="wrong secret")
    assert seen.replication.error is None
    assert "wrong secret" in seen.detail


def test_a_copy_that_does_not_fit_is_an_error_and_a_wait_for_space_is_none() -> None:
    broken = msgspec.structs.replace(BASE, trouble="row 7 is missing", must_clone=True)
    assert observation(broken, KNOWN).replication.error == "row 7 is missing"
    waiting = msgspec.structs.replace(BASE, trouble="no space left")
    seen = observation(waiting, KNOWN)
    assert (seen.replication.error, seen.detail) == (None, "no space left")


def test_damage_of_the_log_that_a_replica_met_is_told() -> None:
    seen = observation(msgspec.structs.replace(BASE, log_damage="file 1, byte 7"), KNOWN)
    assert seen.detail == "its log is damaged: file 1, byte 7"


def test_a_copy_that_does_not_fit_is_remembered_until_it_has_applied_all_that_it_holds() -> None:
    broken = msgspec.structs.replace(BASE, trouble="row 7 is missing", must_clone=True)
    assert unfit(broken, Notes()) == "row 7 is missing"
    noted = Notes(unfit="row 7 is missing")
    resting = msgspec.structs.replace(BASE, role=RoleNow.RESTING)  # It has forgotten it.
    assert unfit(resting, noted) == "row 7 is missing"
    known = Known(notes=noted, incarnation=None, heartbeat_age_s=0.0, has_old_data=False)
    assert observation(resting, known).replication.error == "row 7 is missing"
    level = msgspec.structs.replace(BASE, applied=BASE.durable)
    assert unfit(level, noted) == ""


def test_data_that_could_not_be_led_with_hold_nobody_knows_what() -> None:
    resting = msgspec.structs.replace(BASE, role=RoleNow.RESTING, applied=BASE.durable)
    noted = Notes(unfit="the database file is damaged")
    assert unfit(resting, noted) == noted.unfit
    known = Known(notes=noted, incarnation=None, heartbeat_age_s=0.0, has_old_data=False)
    seen = observation(resting, known)
    assert seen.replication.error == noted.unfit
    assert seen.applied == ORIGIN < seen.received


@pytest.mark.parametrize("doors", Doors)
def test_doors_that_a_commit_is_still_behind_are_not_closed(doors: Doors) -> None:
    shown = msgspec.structs.replace(BASE, role=RoleNow.REIGNING, doors=doors)
    assert observation(shown, KNOWN).is_read_only == (doors is Doors.CLOSED)


def test_connections_are_counted_by_node_and_acknowledgers_by_connection() -> None:
    def attached(node: NodeId, *, acknowledges: bool) -> Attached:
        return Attached(
            node=node,
            incarnation=Incarnation(f"life-{node}"),
            peer="127.0.0.1:1",
            received=BASE.durable,
            applied=None,
            acknowledges=acknowledges,
        )

    shown = msgspec.structs.replace(
        BASE,
        role=RoleNow.REIGNING,
        acks=2,
        attached=(
            attached(A, acknowledges=True),
            attached(A, acknowledges=False),
            attached(NodeId("c"), acknowledges=True),
        ),
        excluded=(NodeId("d"),),
        waiting_commits=3,
        waits_at=12,
    )
    sending = observation(shown, KNOWN).sending
    assert sending.acks == 2
    assert sending.receivers == {A, "c"}
    assert sending.connections == {A: 2, "c": 1}
    assert sending.acknowledging_count == 2
    assert sending.excluded == {"d"}
    assert (sending.waiting_commits, sending.waits_at) == (3, 12)
    assert sending.strangers == frozenset()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"writes": Writes.IN_DOUBT, "writes_reason": "the page closed"}, "the page closed"),
        ({"writes": Writes.BROKEN}, "broken"),
        ({"log_failure": "a sync failed"}, "a sync failed"),
        ({"disk_stuck_s": 2.5}, "2.5 s"),
    ],
)
def test_a_server_that_answers_and_can_do_nothing_is_stuck(
    changes: dict[str, object], said: str
) -> None:
    assert said in stuck(msgspec.structs.replace(BASE, **changes), health_s=1.0)
    assert stuck(msgspec.structs.replace(BASE, disk_stuck_s=0.9), health_s=1.0) == ""
