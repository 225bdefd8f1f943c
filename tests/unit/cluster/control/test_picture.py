"""What the store says becomes a table, JSON, and sentences for an operator. No store is needed."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from primacy.cli.status import COLUMNS, headline, rows
from primacy.cluster.control.answers import as_json
from primacy.cluster.control.picture import (
    Picture,
    answer_of,
    behind,
    health,
    is_in_sync_set,
    picture_of,
    problems,
    role,
    suspicion,
)
from primacy.coordination.api import KeyValue, LeaseId, StoreStatus
from primacy.errors import Rejected
from primacy.model import Epoch, Incarnation, Member, NodeId, Position, Revision, Role
from primacy.replication.records import (
    DURABILITY_KEY,
    EPOCH_KEY,
    NODES_PREFIX,
    PAUSE_KEY,
    PRIMARY_KEY,
    DurabilityRecord,
    NodeStatus,
    Pause,
    PrimaryRecord,
    encoded,
)

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
LIFE = Incarnation("life")
NOW_S = 1_800_000_000.0


def replica(node: NodeId, **changes: Any) -> NodeStatus:  # Any: any field, by name.
    status = NodeStatus(
        node=node,
        incarnation=LIFE,
        state="running",
        received=Position(Epoch(4), 120),
        applied=Position(Epoch(4), 118),
        position_text="0-1-118",
        upstream=A,
        is_receiving=True,
        is_applying=True,
        acknowledges=True,
        heartbeat=9,
        heartbeat_age_s=0.4,
        wall_s=NOW_S - 1,
    )
    return msgspec.structs.replace(status, **changes)


def primary(**changes: Any) -> NodeStatus:  # Any: as above.
    status = replica(A, is_read_only=False, upstream=None, lease_left_s=2.2)
    status = msgspec.structs.replace(status, applied=status.received, is_receiving=False)
    return msgspec.structs.replace(status, **changes)


def store(node: NodeId) -> StoreStatus:
    return StoreStatus(
        node=node,
        leader=B,
        term=7,
        commit_index=50,
        applied_index=50,
        revision=Revision(30),
        lease_left_s={12: 2.5} if node == B else {},
    )


def well(**changes: Any) -> Picture:  # Any: as above.
    picture = Picture(
        cluster="shop",
        members=(A, B, C),
        read_at_s=NOW_S,
        epoch=Epoch(4),
        primary=PrimaryRecord(node=A, incarnation=LIFE, epoch=Epoch(4)),
        primary_lease=LeaseId(12),
        durability=DurabilityRecord(
            epoch=Epoch(4), primary=Member(A, LIFE), acks=1, members=(Member(B, LIFE),)
        ),
        nodes={A: primary(), B: replica(B), C: replica(C)},
        stores={node: store(node) for node in (A, B, C)},
    )
    return replace(picture, **changes)


def test_a_healthy_cluster_has_no_problems() -> None:
    assert problems(well()) == []


def test_roles_come_from_the_primary_record_and_the_file() -> None:
    picture = well(witnesses=frozenset({C}))
    assert [role(picture, node) for node in (A, B, C)] == [
        Role.PRIMARY,
        Role.REPLICA,
        Role.WITNESS,
    ]


def test_lag_counts_what_the_primary_has_and_the_replica_has_not_applied() -> None:
    assert behind(well(), B) == 2
    assert behind(well(), A) is None


def test_only_the_recorded_life_is_in_the_sync_set() -> None:
    assert is_in_sync_set(well(), B)
    assert not is_in_sync_set(well(), C)
    reborn = well(nodes={B: replica(B, incarnation=Incarnation("other"))})
    assert not is_in_sync_set(reborn, B)


HEALTH = {
    "a replica that works": (replica(B), "ok"),
    "a replica whose receiver stopped": (replica(B, is_receiving=False), "does not receive"),
    "a replica whose applier stopped": (replica(B, is_applying=False), "does not apply"),
    "a replica with an error": (replica(B, error="1062 duplicate key"), "1062 duplicate key"),
    "a diverged replica": (replica(B, is_diverged=True), "diverged: its log is no prefix"),
    "a stopped server": (replica(B, state="stopped"), "stopped"),
    "an agent that went silent": (
        replica(B, wall_s=NOW_S - 40),
        "silent for 40 s (then: running)",
    ),
}


@pytest.mark.parametrize(("status", "expected"), HEALTH.values(), ids=HEALTH)
def test_health_of(status: NodeStatus, expected: str) -> None:
    assert health(well(nodes={A: primary(), B: status}), B).startswith(expected)


def test_an_agent_that_never_answered_is_said_so() -> None:
    picture = well(nodes={A: primary()}, stores={A: store(A), B: store(B)})
    assert health(picture, B) == "its agent has not reported yet"
    assert health(picture, C) == "its agent does not answer"


def test_a_blocked_primary_names_whom_its_writes_wait_for() -> None:
    picture = well(nodes={A: primary(waiting_commits=3, blocked_on=(B,)), B: replica(B)})
    assert health(picture, A) == "blocked: 3 writes wait for b"


def test_a_primary_whose_record_is_of_an_older_epoch_has_not_opened() -> None:
    picture = well(epoch=Epoch(5))
    assert health(picture, A) == "its doors are not open yet"


def test_the_lease_is_as_the_stores_leader_counts_it_and_else_as_its_holder() -> None:
    assert well().lease_left_s == 2.5
    assert well(stores={A: store(A)}).lease_left_s == 2.2


def test_without_a_majority_the_picture_says_so_and_whose_memory_it_is() -> None:
    picture = well(has_majority=False, source=A, stores={A: store(A)})
    said = problems(picture)
    assert said[0].startswith("the store has no majority: 1 of 3 members answer")
    assert "what a remembers" in said[0]
    assert as_json(answer_of(picture))["source"] == A


def test_a_row_says_what_its_column_promises() -> None:
    nodes = {A: primary(suspicion={B: 0.4}), B: replica(B), C: replica(C, suspicion={B: 0.2})}
    row = dict(zip(COLUMNS, rows(answer_of(well(nodes=nodes)))[1], strict=True))
    assert row == {
        "node": "b",
        "role": "replica",
        "state": "running",
        "health": "ok",
        "epoch": "4",
        "position": "0-1-118",
        "io": "yes",
        "sql": "yes",
        "behind": "2",
        "heartbeat": "0.4 s",
        "sync": "yes",
        "phi": "0.4",
        "store": "leader",
        "doing": "",
    }


def test_the_headline_names_primary_epoch_lease_policy_and_store() -> None:
    assert headline(answer_of(well()))[:3] == [
        "cluster shop: primary a, epoch 4, lease left 2.5 s",
        "durability: 1 of {b} must hold a write",
        "store: leader b, 3 of 3 members answer",
    ]


def test_json_holds_what_the_table_shows() -> None:
    shown = as_json(answer_of(well()))
    assert shown["primary"] == A
    nodes = shown["nodes"]
    assert isinstance(nodes, list)
    assert nodes[1]["is_in_sync_set"] is True
    assert nodes[1]["behind_transactions"] == 2
    assert nodes[1]["behind_bytes"] is None


def test_a_lag_in_bytes_is_part_of_the_table_where_it_is_known() -> None:
    picture = well()
    told = msgspec.structs.replace(picture.nodes[B], lag_bytes=4096)
    answer = answer_of(replace(picture, nodes={**picture.nodes, B: told}))
    assert answer.nodes[1].behind_bytes == 4096
    assert "2, 4096 B" in rows(answer)[1]


def item(key: str, value: bytes, lease: int = 0) -> KeyValue:
    return KeyValue(key, value, Revision(1), Revision(1), 1, LeaseId(lease))


def test_a_picture_is_read_from_the_keys_of_the_store() -> None:
    found = well()
    assert found.primary is not None
    assert found.durability is not None
    base = Picture(cluster="shop", members=(A, B, C), read_at_s=NOW_S)
    picture = picture_of(
        base,
        [
            item(EPOCH_KEY, encoded(Epoch(4))),
            item(PRIMARY_KEY, encoded(found.primary), lease=12),
            item(DURABILITY_KEY, encoded(found.durability)),
            item(f"{NODES_PREFIX}b", encoded(replica(B))),
            item(PAUSE_KEY, encoded(Pause(reason="upgrade", wall_s=NOW_S))),
            item("cluster/something-newer", b"\x00"),
        ],
    )
    assert (picture.epoch, picture.primary, picture.primary_lease) == (4, found.primary, 12)
    assert picture.nodes == {B: replica(B)}
    assert any("paused since 2027-01-15 08:00:00 (upgrade)" in each for each in problems(picture))


def test_a_record_of_another_version_is_refused_with_its_key() -> None:
    with pytest.raises(Rejected, match="cluster/primary holds no PrimaryRecord"):
        picture_of(Picture(cluster="shop", members=(A,)), [item(PRIMARY_KEY, b"\xc1")])


def test_a_silent_node_s_suspicions_are_old_and_left_out() -> None:
    long_ago = replica(C, suspicion={B: 90.0}, wall_s=NOW_S - 100)
    picture = well(nodes={A: primary(suspicion={B: 0.4}), B: replica(B), C: long_ago})
    assert suspicion(picture, B) == {A: 0.4}
