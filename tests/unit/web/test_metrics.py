"""Facts become samples; names are documented, and follow Prometheus' own rules."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.web.given import (
    A,
    B,
    member,
    observation,
    primary,
    replica,
    shown,
    store_view,
    witness,
)

from primacy.engines.api import Sending, ServerState
from primacy.web.facts import Facts, PageFacts, ProcessFacts
from primacy.web.metrics import exposition, families

DOCUMENT = Path(__file__).parents[3] / "docs/metrics.md"

PROCESS = ProcessFacts(
    loop_stalls=2,
    loop_stall_longest_s=0.031,
    log_writes=10,
    log_write_total_s=0.5,
    log_write_longest_s=0.2,
    events={"lease-lost": 1},
)


def samples(facts: Facts) -> dict[str, float]:
    """`name{label=value}` without the common labels, as Prometheus reads the text."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition(facts).decode()):
        for sample in family.samples:
            own = {k: v for k, v in sample.labels.items() if k not in ("cluster", "node")}
            assert sample.labels["cluster"] == "shop"
            assert sample.labels["node"] == facts.node
            shown_labels = ",".join(f"{key}={value}" for key, value in sorted(own.items()))
            found[f"{sample.name}{{{shown_labels}}}" if own else sample.name] = sample.value
    return found


def test_a_primary() -> None:
    found = samples(primary(store=member(A), process=PROCESS))
    expected = {
        "primacy_node_role{role=primary}": 1,
        "primacy_node_role{role=replica}": 0,
        "primacy_node_accepts_writes": 1,
        "primacy_guard_state{state=open}": 1,
        "primacy_guard_state{state=closed}": 0,
        "primacy_lease_left_seconds": 2.1,
        "primacy_epoch": 4,
        "primacy_has_primary": 1,
        "primacy_sync_set_size": 1,
        "primacy_sync_set_member{member=b}": 1,
        "primacy_degraded": 0,
        "primacy_peer_suspicion{peer=a}": 0.5,
        "primacy_diverged_transactions{peer=b}": 3,
        "primacy_loop_stalls_total": 2,
        "primacy_store_log_write_seconds_sum": 0.5,
        "primacy_store_log_write_seconds_count": 10,
        "primacy_events_total{event=lease-lost}": 1,
        "primacy_store_is_leader": 1,
        "primacy_store_unapplied_entries": 2,
        "primacy_changes_of_primary_total{kind=failover}": 2,
        "primacy_change_step_seconds_sum{kind=failover,step=detection}": 2.0,
        "primacy_change_step_seconds_count{kind=failover,step=detection}": 2,
        "primacy_last_change_step_seconds{kind=failover,step=detection}": 0.5,
        "primacy_lost_transactions_total": 2,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "primacy_replica_lag_transactions" not in found


def test_a_replica() -> None:
    found = samples(replica())
    assert found["primacy_replica_lag_transactions"] == 20
    assert found["primacy_replica_heartbeat_age_seconds"] == pytest.approx(0.5)
    assert found["primacy_node_accepts_writes"] == 0
    assert "primacy_lease_left_seconds" not in found


@pytest.mark.parametrize(("lag_bytes", "sample"), [(None, None), (0, 0.0), (4096, 4096.0)])
def test_a_lag_in_bytes_is_shown_where_the_engine_says_it(
    lag_bytes: int | None, sample: float | None
) -> None:
    engine = observation()
    engine = replace(engine, replication=replace(engine.replication, lag_bytes=lag_bytes))
    found = samples(replica(shown=shown(engine=engine)))
    assert found.get("primacy_replica_lag_bytes") == sample


def test_a_witness_has_no_database() -> None:
    found = samples(witness(store=member(A)))
    assert found["primacy_node_role{role=witness}"] == 1
    assert found["primacy_store_is_leader"] == 0
    assert not [name for name in found if name.startswith("primacy_database")]


def test_a_member_that_does_not_answer_is_down_and_has_no_term() -> None:
    found = samples(replica(store=None))
    assert found["primacy_store_member_up"] == 0
    assert "primacy_store_term" not in found


def test_a_lag_that_is_not_known_has_no_sample() -> None:
    found = samples(replica(shown=shown(store=store_view(primary=None))))
    assert "primacy_replica_lag_transactions" not in found
    assert found["primacy_has_primary"] == 0


def test_blocked_commits_are_counted() -> None:
    engine = observation(sending=Sending(acks=1, waiting_commits=3))
    seen = shown(A, engine=engine)
    blocked = replace(seen, view=replace(seen.view, blocked_for_s=12.5))
    found = samples(primary(shown=blocked))
    assert found["primacy_waiting_commits"] == 3
    assert found["primacy_blocked_seconds"] == 12.5


def test_each_state_of_the_database_has_one_sample() -> None:
    found = samples(replica(shown=shown(engine=observation(state=ServerState.HUNG))))
    states = {name: value for name, value in found.items() if "database_state" in name}
    assert len(states) == len(ServerState)
    assert [name for name, value in states.items() if value] == [
        "primacy_database_state{state=hung}"
    ]


def all_names() -> list[str]:
    rich = [
        primary(store=member(A), process=PROCESS),
        replica(store=member(B), page=PageFacts(state="armed", left_s=1.0)),
    ]
    names = dict.fromkeys(family.name for facts in rich for family in families(facts))
    return list(names)


def test_every_metric_is_documented_and_nothing_else_is() -> None:
    counters = {
        family.name
        for family in families(primary(store=member(A), process=PROCESS))
        if family.type == "counter"
    }
    exposed = {f"{name}_total" if name in counters else name for name in all_names()}
    documented = set(re.findall(r"^\| `(primacy_[a-z_]+)", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == exposed


def test_names_and_labels_are_as_prometheus_wants_them() -> None:
    for name in all_names():
        assert re.fullmatch(r"primacy_[a-z][a-z_]*[a-z]", name), name
        assert not name.endswith(("_s", "_ms", "_count", "_sum", "_bucket")), name
        if "second" in name or "age" in name or "left" in name:
            assert name.endswith("_seconds"), name
