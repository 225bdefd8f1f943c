"""Facts of a node, for the tests of what is made of them."""

from dataclasses import replace
from typing import Any  # Any field of a value, by its name.

import msgspec

from primacy.cluster.showing import Shown
from primacy.cluster.view import StoreView, View
from primacy.coordination.api import StoreStatus
from primacy.engines.api import Observation, Replication, Sending, ServerState
from primacy.model import Epoch, Incarnation, Member, NodeId, Position, Revision
from primacy.replication.records import (
    DurabilityRecord,
    HistoryRecord,
    NodeStatus,
    PrimaryRecord,
)
from primacy.web.facts import Facts, PageFacts

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
LIFE = Incarnation("life")
EPOCH = Epoch(4)
OPEN = PageFacts(state="open", epoch=4, left_s=2.1)

DURABILITY = DurabilityRecord(
    epoch=EPOCH, primary=Member(A, LIFE), acks=1, members=(Member(B, LIFE),)
)

HISTORY = (
    HistoryRecord(
        epoch=Epoch(3),
        node=B,
        kind="failover",
        reason="sealed",
        steps_s={"detection": 1.5, "sealing": 0.25},
        wall_s=1_800_000_000.0,
        lost_count=2,
    ),
    HistoryRecord(
        epoch=Epoch(4),
        node=A,
        kind="failover",
        reason="sealed",
        steps_s={"detection": 0.5, "sealing": 0.25},
        wall_s=1_800_000_100.0,
    ),
)


def observation(**changes: Any) -> Observation:  # Any: as above.
    seen = Observation(
        state=ServerState.RUNNING,
        incarnation=LIFE,
        received=Position(EPOCH, 118),
        applied=Position(EPOCH, 100),
        replication=Replication(upstream=A, is_receiving=True, is_applying=True, acknowledges=True),
        heartbeat=9,
        heartbeat_age_s=0.4,
    )
    return replace(seen, **changes)


def store_view(**changes: Any) -> StoreView:  # Any: as above.
    primary = NodeStatus(node=A, state="running", received=Position(EPOCH, 120))
    seen = StoreView(
        epoch=EPOCH,
        primary=PrimaryRecord(node=A, incarnation=LIFE, epoch=EPOCH),
        durability=DURABILITY,
        nodes={A: primary, B: NodeStatus(node=B, state="running", diverged_count=3)},
        silent_for_s={A: 0.2, B: 0.1},
        suspicion={A: 0.5},
    )
    return replace(seen, **changes)


def shown(
    node: NodeId = B, *, engine: Observation | None = None, store: StoreView | None = None
) -> Shown:
    view = View(node=node, store=store or store_view(), engine=engine or observation())
    return Shown(view=view, history=HISTORY, doing="", at_s=100.0)


def replica(**changes: Any) -> Facts:  # Any: as above.
    """b, well, 20 transactions behind a."""
    facts = Facts(
        cluster="shop",
        node=B,
        is_witness=False,
        lease_ttl_s=3.0,
        status_stale_after_s=3.0,
        shown=shown(),
        shown_age_s=0.1,
        page=PageFacts(state="closed", epoch=3),
    )
    return replace(facts, **changes)


def primary(**changes: Any) -> Facts:  # Any: as above.
    """a, its doors open."""
    engine = observation(
        is_read_only=False,
        replication=Replication(),
        sending=Sending(acks=1, receivers=frozenset({B}), acknowledging_count=1),
    )
    return replace(replica(node=A, shown=shown(A, engine=engine), page=OPEN), **changes)


def witness(**changes: Any) -> Facts:  # Any: as above.
    return replace(replica(node=C, is_witness=True, shown=None, page=PageFacts()), **changes)


def member(node: NodeId, **changes: Any) -> StoreStatus:  # Any: as above.
    status = StoreStatus(
        node=node, leader=A, term=7, commit_index=50, applied_index=48, revision=Revision(30)
    )
    return msgspec.structs.replace(status, **changes)
