"""What a load balancer hears, as a table: the facts of a node, the question, yes or no."""

from dataclasses import replace

import pytest
from tests.unit.web.given import (
    OPEN,
    B,
    member,
    observation,
    primary,
    replica,
    shown,
    store_view,
    witness,
)

from primacy.engines.api import Replication, ServerState
from primacy.errors import Rejected
from primacy.model import Role
from primacy.replication.records import Pause
from primacy.web.facts import Facts, PageFacts
from primacy.web.health import PATHS, Check, judged
from primacy.web.lag import LagMax, lag_max

YES = ""

BROKEN = Replication(upstream=B, is_receiving=True, error="1062 duplicate key")
DIVERGED = replace(BROKEN, is_diverged=True)
NOT_RECEIVING = Replication(is_applying=True)
NOT_APPLYING = Replication(is_receiving=True)

TABLE: dict[str, tuple[Check, Facts, str]] = {
    "a primary": (Check.PRIMARY, primary(), YES),
    "a primary whose deadline has passed": (
        Check.PRIMARY,
        primary(page=replace(OPEN, left_s=0.0)),
        "the lease's deadline has passed",
    ),
    "a primary whose doors are not open yet": (
        Check.PRIMARY,
        primary(page=replace(OPEN, state="armed")),
        "its doors are not open yet in epoch 4",
    ),
    "a primary that closed its doors": (
        Check.PRIMARY,
        primary(page=PageFacts(state="closed", epoch=4)),
        "its doors are closed",
    ),
    "an open page, whatever the agent thinks": (Check.PRIMARY, replica(page=OPEN), YES),
    "an open page, and an agent that stands still": (
        Check.PRIMARY,
        primary(shown_age_s=60.0),
        YES,
    ),
    "a replica is no primary": (Check.PRIMARY, replica(), "this node is a replica"),
    "a witness is no primary": (Check.PRIMARY, witness(), "this node is a witness"),
    "a replica": (Check.REPLICA, replica(), YES),
    "a primary is no replica": (Check.REPLICA, primary(), "this node is the primary"),
    "a primary that has not opened is no replica": (
        Check.REPLICA,
        primary(page=replace(OPEN, state="armed")),
        "this node is the primary",
    ),
    "a witness is no replica": (Check.REPLICA, witness(), "this node is the witness"),
    "a replica that waits for a new primary": (
        Check.REPLICA,
        replica(shown=shown(engine=observation(replication=NOT_RECEIVING))),
        YES,
    ),
    "a replica without any view of the store": (
        Check.REPLICA,
        replica(shown=shown(store=store_view(primary=None, durability=None, nodes={}))),
        YES,
    ),
    "a replica whose applier broke": (
        Check.REPLICA,
        replica(shown=shown(engine=observation(replication=BROKEN))),
        "1062 duplicate key",
    ),
    "a diverged replica": (
        Check.REPLICA,
        replica(shown=shown(engine=observation(replication=DIVERGED))),
        "diverged: 1062 duplicate key",
    ),
    "a replica that hangs": (
        Check.REPLICA,
        replica(shown=shown(engine=observation(state=ServerState.HUNG))),
        "the database is hung",
    ),
    "an agent that has not looked yet": (
        Check.REPLICA,
        replica(shown=None),
        "the agent has not looked at its database yet",
    ),
    "an agent that stands still": (
        Check.REPLICA,
        replica(shown_age_s=6.1),
        "the agent's view is 6.1 s old",
    ),
    "read-only: a replica": (Check.READ_ONLY, replica(), YES),
    "read-only: a primary": (Check.READ_ONLY, primary(), YES),
    "read-only: a witness": (Check.READ_ONLY, witness(), "this node is the witness"),
    "in the sync set": (Check.SYNC, replica(), YES),
    "in the sync set, asked whether not": (Check.ASYNC, replica(), "in the sync set"),
    "not in the sync set": (
        Check.SYNC,
        replica(shown=shown(store=store_view(durability=None))),
        "not in the sync set",
    ),
    "not in the sync set, asked whether not": (
        Check.ASYNC,
        replica(shown=shown(store=store_view(durability=None))),
        YES,
    ),
    "a database that runs": (Check.HEALTH, replica(), YES),
    "a database that is stopped": (
        Check.HEALTH,
        replica(shown=shown(engine=observation(state=ServerState.STOPPED))),
        "the database is stopped",
    ),
    "a witness has none": (Check.HEALTH, witness(), "a witness has no database"),
    "a replica's agent may be twice a lease late": (
        Check.LIVENESS,
        replica(shown_age_s=5.9),
        YES,
    ),
    "a primary's may not": (
        Check.LIVENESS,
        primary(shown_age_s=3.1),
        "the agent's view is 3.1 s old",
    ),
    "a witness lives while its member answers": (Check.LIVENESS, witness(store=member(B)), YES),
    "a witness whose member is silent": (
        Check.LIVENESS,
        witness(),
        "the store's member does not answer",
    ),
    "ready: a primary": (Check.READINESS, primary(), YES),
    "ready: a replica close behind": (Check.READINESS, replica(), YES),
    "not ready: it does not receive": (
        Check.READINESS,
        replica(shown=shown(engine=observation(replication=NOT_RECEIVING))),
        "does not receive",
    ),
    "not ready: it does not apply": (
        Check.READINESS,
        replica(shown=shown(engine=observation(replication=NOT_APPLYING))),
        "does not apply",
    ),
}


@pytest.mark.parametrize(("check", "facts", "expected"), TABLE.values(), ids=TABLE)
def test_the_answer_to(check: Check, facts: Facts, expected: str) -> None:
    answer = judged(check, facts)
    assert (answer.reason, answer.is_ok) == (expected, expected == YES)


LAGS: dict[str, tuple[str, Facts, str]] = {
    "transactions, enough": ("20tx", replica(), YES),
    "transactions, too few": ("19tx", replica(), "20 transactions behind, 19 are allowed"),
    "bytes, one transaction a KiB": ("20480", replica(), YES),
    "bytes, rounded up": ("19457", replica(), YES),
    "bytes, too few": ("19456", replica(), "20 transactions behind, 19 are allowed"),
    "a unit of bytes": ("20kB", replica(), YES),
    "a large unit": ("10MB", replica(), YES),
    "seconds, the age of the view included": ("500ms", replica(), YES),
    "seconds, too few": ("450ms", replica(), "the newest heartbeat is 0.5 s old"),
    "no heartbeat yet": (
        "5s",
        replica(shown=shown(engine=observation(heartbeat=0))),
        "no heartbeat was applied here yet",
    ),
    "no primary to compare with": (
        "10MB",
        replica(shown=shown(store=store_view(primary=None))),
        "how far it is behind is not known: no primary is heard",
    ),
    "a primary that is silent": (
        "10MB",
        replica(shown=shown(store=store_view(silent_for_s={"a": 3.0}))),
        "how far it is behind is not known: no primary is heard",
    ),
}


@pytest.mark.parametrize(("lag", "facts", "expected"), LAGS.values(), ids=LAGS)
def test_the_lag_allowed_in(lag: str, facts: Facts, expected: str) -> None:
    assert judged(Check.REPLICA, facts, lag=lag_max(lag)).reason == expected


def test_what_is_received_counts_where_the_caller_says_so() -> None:
    few = LagMax(transactions=2)
    assert not judged(Check.READINESS, replica(), lag=few).is_ok
    assert judged(Check.READINESS, replica(), lag=few, mode="write").is_ok


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "1.5s", "10 parsecs", "9" * 16, "1e3", "10MB ", "٣", "999999999999tb"]
)
def test_a_lag_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="is no amount"):
        lag_max(text)


def test_the_paths_of_patroni_are_there() -> None:
    asked = {"/", "/primary", "/read-write", "/leader", "/master", "/replica", "/read-only"}
    assert asked | {"/health", "/liveness", "/readiness"} <= set(PATHS)


def test_the_body_says_what_the_node_is() -> None:
    paused = store_view(pause=Pause(reason="disks"))
    answer = judged(Check.REPLICA, replica(shown=shown(store=paused)))
    assert (answer.node, answer.cluster, answer.role) == ("b", "shop", Role.REPLICA.value)
    assert (answer.state, answer.epoch, answer.behind_transactions) == ("running", 4, 20)
    assert answer.is_paused
    assert answer.is_in_sync_set
    assert answer.lease_left_s is None
    assert judged(Check.PRIMARY, primary()).lease_left_s == 2.1
