"""Views to plan from: a cluster of three at rest, and what a row of a table says is different."""

from typing import Any  # A table row overrides any field of the view.

from primacy.cluster.policy import Policy
from primacy.cluster.view import LeaseView, PageView, StoreView, View
from primacy.engines.api import Observation, Replication, Sending, ServerState
from primacy.model import Epoch, Incarnation, Member, NodeId, Position, Revision
from primacy.replication.records import (
    BranchRecord,
    DurabilityRecord,
    FailoverRequest,
    NodeStatus,
    PrimaryRecord,
    SealNote,
)

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
INC = {node: Incarnation(f"life-{node}") for node in (A, B, C)}
POLICY = Policy(data_nodes=(A, B, C))
E1, E2 = Epoch(1), Epoch(2)
AT = Position(E1, 10)


def durability(epoch: Epoch = E1, primary: NodeId = A, *members: NodeId) -> DurabilityRecord:
    names = members or tuple(node for node in (A, B, C) if node != primary)
    return DurabilityRecord(
        epoch=epoch,
        primary=Member(primary, INC[primary]),
        acks=1,
        members=tuple(Member(node, INC[node]) for node in names),
    )


def record(node: NodeId = A, epoch: Epoch = E1) -> PrimaryRecord:
    return PrimaryRecord(node=node, incarnation=INC[node], epoch=epoch)


def status(node: NodeId, **more: Any) -> NodeStatus:  # Any: fields of the record.
    fields: dict[str, Any] = {  # As above.
        "node": node,
        "incarnation": INC[node],
        "state": "running",
        "received": AT,
        "applied": AT,
        "following_epoch": E1,
        "upstream": A,
        "is_receiving": True,
        "is_applying": True,
        "acknowledges": True,
        "durability_revision": 5,
    } | more
    return NodeStatus(**fields)


def seal(node: NodeId, epoch: Epoch = E2, received: Position = AT, life: str = "") -> SealNote:
    incarnation = Incarnation(life) if life else INC[node]
    return SealNote(
        node=node, incarnation=incarnation, epoch=epoch, received=received, applied=received
    )


def seen(node: NodeId, **more: Any) -> Observation:  # Any: fields of the observation.
    fields: dict[str, Any] = {  # As above.
        "state": ServerState.RUNNING,
        "incarnation": INC[node],
        "received": AT,
        "applied": AT,
    } | more
    return Observation(**fields)


def store(**more: Any) -> StoreView:  # Any: fields of the store view.
    fields: dict[str, Any] = {  # As above.
        "epoch": E1,
        "durability": durability(),
        "durability_mod": Revision(5),
        "primary_mod": Revision(4),
        "primary_lease": 7,
        "branches": {E1: BranchRecord(epoch=E1, node=A, first_sequence=1)},
        "nodes": {B: status(B), C: status(C)},
    } | more
    return StoreView(**fields)


def vacant(node: NodeId, **more: Any) -> View:  # Any: fields of the store view.
    return View(node=node, store=store(primary=None, vacant_for_s=0.1, **more), engine=seen(node))


def primary(**more: Any) -> View:  # Any: fields of the view.
    fields: dict[str, Any] = {  # As above.
        "node": A,
        "store": store(primary=record()),
        "engine": seen(A, is_read_only=False, sending=Sending(acks=1)),
        "lease": LeaseView(lease=7, left_s=2.0, epoch=E1),
        "page": PageView(epoch=E1, state="open"),
    } | more
    return View(**fields)


def replica(node: NodeId = B, **more: Any) -> View:  # Any: fields of the view.
    following = Replication(upstream=A, is_receiving=True, is_applying=True, acknowledges=True)
    fields: dict[str, Any] = {  # As above.
        "node": node,
        "store": store(primary=record()),
        "engine": seen(node, following_epoch=E1, replication=following),
    } | more
    return View(**fields)


BOTH_SEALED = {"seals": {B: seal(B), C: seal(C)}, "seal_mods": {B: Revision(8), C: Revision(9)}}
AHEAD = Position(E1, 12)

ACCEPTED = FailoverRequest(request_id="r", accept_loss=(A,))
