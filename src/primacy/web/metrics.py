"""Facts as Prometheus metrics. Pure but for the text format, which prometheus-client writes.

Names follow Prometheus: base units, `_total` for counters, one thing per name. Every sample has the
labels `cluster` and `node`. What is not known has no sample: an alarm on absence is then possible.
`docs/metrics.md` lists them all.
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from primacy.cluster.view import View
from primacy.engines.api import ServerState
from primacy.model import Role
from primacy.replication.records import HistoryRecord
from primacy.web.facts import Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PAGE_STATES = ("absent", "closed", "armed", "open")

Sample = tuple[Sequence[str], float]


def exposition(facts: Facts) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Families(families(facts)))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, made: Iterable[Metric]) -> None:
        self._made = list(made)

    def collect(self) -> Iterable[Metric]:
        return self._made


def families(facts: Facts) -> Iterator[Metric]:
    """All metrics of one node, in the order of `docs/metrics.md`."""
    make = _Maker(facts)
    yield from _of_node(make, facts)
    yield from _of_process(make, facts)
    if facts.shown is not None:
        yield from _of_view(make, facts.shown.view)
        yield from _of_database(make, facts, facts.shown.view)
        yield from _of_history(make, facts.shown.history)


class _Maker:
    """Puts the labels `cluster` and `node` on every sample."""

    def __init__(self, facts: Facts) -> None:
        self._common = (facts.cluster, facts.node)

    def gauge(self, name: str, text: str, value: float | None) -> Metric:
        samples: list[Sample] = [] if value is None else [((), value)]
        return self.gauges(name, text, (), samples)

    def gauges(
        self, name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]
    ) -> Metric:
        family = GaugeMetricFamily(f"primacy_{name}", text, labels=("cluster", "node", *labels))
        for values, value in samples:
            family.add_metric((*self._common, *values), value)
        return family

    def counter(self, name: str, text: str, value: float) -> Metric:
        return self.counters(name, text, (), [((), value)])

    def counters(
        self, name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]
    ) -> Metric:
        family = CounterMetricFamily(f"primacy_{name}", text, labels=("cluster", "node", *labels))
        for values, value in samples:
            family.add_metric((*self._common, *values), value)
        return family

    def summaries(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        samples: Iterable[tuple[Sequence[str], int, float]],
    ) -> Metric:
        """Count and sum, without quantiles."""
        family = SummaryMetricFamily(f"primacy_{name}", text, labels=("cluster", "node", *labels))
        for values, count, total in samples:
            family.add_metric((*self._common, *values), count_value=count, sum_value=total)
        return family


def _of_node(make: _Maker, facts: Facts) -> Iterator[Metric]:
    role, page = facts.role, facts.page
    yield make.gauges(
        "node_role",
        "1 for the role of this node, 0 for the others.",
        ("role",),
        [((each.value,), float(each is role)) for each in Role],
    )
    yield make.gauge(
        "node_accepts_writes",
        "1 while the deadline page lets answers to writes pass.",
        float(facts.is_primary),
    )
    yield make.gauges(
        "guard_state",
        "1 for the state of the deadline page, 0 for the others.",
        ("state",),
        [((each,), float(each == page.state)) for each in PAGE_STATES],
    )
    yield make.gauge(
        "lease_left_seconds",
        "Until the guard kills the database; no sample where no deadline is set.",
        page.left_s if page.state in ("armed", "open") else None,
    )
    yield make.gauge(
        "view_age_seconds",
        "Age of the agent's newest view of its node.",
        None if facts.shown is None else facts.shown_age_s,
    )
    yield from _of_member(make, facts)


def _of_member(make: _Maker, facts: Facts) -> Iterator[Metric]:
    store = facts.store
    yield make.gauge(
        "store_member_up",
        "1 if this node's member of the store answers.",
        float(store is not None),
    )
    if store is None:
        return
    yield make.gauge(
        "store_is_leader", "1 if this member leads the store.", float(store.leader == facts.node)
    )
    yield make.gauge(
        "store_has_leader",
        "1 if this member knows a leader of the store.",
        float(store.leader is not None),
    )
    yield make.gauge("store_term", "Raft's term: grows with each election.", store.term)
    yield make.gauge(
        "store_is_excluded",
        "1 if the peers refuse this member as a voter.",
        float(store.excluded_reason is not None),
    )
    yield make.gauge(
        "store_unapplied_entries",
        "Entries that this member knows to be committed and has not applied.",
        max(0, store.commit_index - store.applied_index),
    )


def _of_process(make: _Maker, facts: Facts) -> Iterator[Metric]:
    process = facts.process
    yield make.counter(
        "loop_stalls", "Times the agent's event loop stood still too long.", process.loop_stalls
    )
    yield make.gauge(
        "loop_stall_longest_seconds",
        "The longest stall since the agent started.",
        process.loop_stall_longest_s,
    )
    yield make.summaries(
        "store_log_write_seconds",
        "From asking for a write of the store's log until it is durable.",
        (),
        [((), process.log_writes, process.log_write_total_s)],
    )
    yield make.gauge(
        "store_log_write_longest_seconds",
        "The longest write of the store's log since the agent started.",
        process.log_write_longest_s,
    )
    yield make.counters(
        "events",
        "Events of the agent, by the name that the glossary explains.",
        ("event",),
        [((name,), float(count)) for name, count in sorted(process.events.items())],
    )


def _of_view(make: _Maker, view: View) -> Iterator[Metric]:
    store = view.store
    record = store.durability
    yield make.gauge("epoch", "The newest epoch that was claimed.", store.epoch)
    yield make.gauge(
        "has_primary", "1 while there is a primary record.", float(store.primary is not None)
    )
    yield make.gauge(
        "store_is_current",
        "1 while the store has confirmed this view within one lease's time.",
        float(view.is_store_current),
    )
    yield make.gauge("paused", "1 while failovers are paused.", float(store.pause is not None))
    yield make.gauge(
        "sync_set_size",
        "Replicas whose acknowledgement counts.",
        None if record is None else len(record.members),
    )
    yield make.gauges(
        "sync_set_member",
        "1 for each member of the sync set.",
        ("member",),
        [] if record is None else [((each.node,), 1.0) for each in record.members],
    )
    yield make.gauge(
        "acks_required",
        "Replicas that must hold a write before its client hears OK.",
        None if record is None else record.acks,
    )
    yield make.gauge(
        "degraded",
        "1 while writes are acknowledged although no replica holds them.",
        None if record is None else float(record.is_degraded),
    )
    yield from _of_peers(make, view)


def _of_peers(make: _Maker, view: View) -> Iterator[Metric]:
    store = view.store
    yield make.gauges(
        "peer_silent_seconds",
        "Since the status of each node last changed in this view.",
        ("peer",),
        [((peer,), silent_s) for peer, silent_s in sorted(store.silent_for_s.items())],
    )
    yield make.gauges(
        "peer_suspicion",
        "How certain it is that each node has gone (phi); above the policy's bound it is silent.",
        ("peer",),
        [((peer,), phi) for peer, phi in sorted(store.suspicion.items())],
    )
    yield make.gauges(
        "diverged_transactions",
        "Transactions of a lost branch, saved aside and not yet dismissed.",
        ("peer",),
        [((peer,), each.diverged_count) for peer, each in sorted(store.nodes.items())],
    )


def _of_database(make: _Maker, facts: Facts, view: View) -> Iterator[Metric]:
    engine = view.engine
    yield make.gauges(
        "database_state",
        "1 for the state of the database, 0 for the others.",
        ("state",),
        [((each.name.lower(),), float(each is engine.state)) for each in ServerState],
    )
    yield make.gauge(
        "database_read_only", "1 while the database refuses writes.", float(engine.is_read_only)
    )
    yield make.gauge(
        "waiting_commits",
        "Commits that wait for an acknowledgement at this moment.",
        engine.sending.waiting_commits,
    )
    yield make.gauge(
        "blocked_seconds",
        "How long some commit has been waiting while nothing was acknowledged.",
        view.blocked_for_s,
    )
    if facts.role is not Role.REPLICA:
        return
    replication = engine.replication
    yield make.gauge(
        "replica_receiving", "1 while the receiver runs.", float(replication.is_receiving)
    )
    yield make.gauge(
        "replica_applying", "1 while the applier runs.", float(replication.is_applying)
    )
    yield make.gauge(
        "replica_broken",
        "1 while replication shows an error.",
        float(replication.error is not None),
    )
    yield make.gauge(
        "replica_lag_transactions",
        "What the primary has and this node has not applied; no sample where it is not known.",
        facts.behind_transactions(),
    )
    yield make.gauge(
        "replica_lag_bytes",
        "Of the primary's log, what this node has not received; no sample where the engine does "
        "not say it.",
        replication.lag_bytes,
    )
    yield make.gauge(
        "replica_heartbeat_age_seconds",
        "Since a heartbeat of the primary was applied here.",
        facts.heartbeat_age_s,
    )


def _of_history(make: _Maker, history: Sequence[HistoryRecord]) -> Iterator[Metric]:
    counts: dict[tuple[str], int] = {}
    step_counts: dict[tuple[str, str], int] = {}
    step_totals_s: dict[tuple[str, str], float] = {}
    for record in history:
        counts[(record.kind,)] = counts.get((record.kind,), 0) + 1
        for step, taken_s in record.steps_s.items():
            key = (record.kind, step)
            step_counts[key] = step_counts.get(key, 0) + 1
            step_totals_s[key] = step_totals_s.get(key, 0.0) + taken_s
    yield make.counters(
        "changes_of_primary",
        "Epochs that opened, by kind: bootstrap, failover, switchover, restart.",
        ("kind",),
        [(kind, float(count)) for kind, count in sorted(counts.items())],
    )
    yield make.summaries(
        "change_step_seconds",
        "Seconds of each step of the changes of primary.",
        ("kind", "step"),
        [(key, count, step_totals_s[key]) for key, count in sorted(step_counts.items())],
    )
    yield make.counter(
        "lost_transactions",
        "Transactions that an old primary had and its successor has not.",
        sum(record.lost_count for record in history),
    )
    if not history:
        return
    last = max(history, key=lambda record: record.epoch)
    yield make.gauge("last_change_timestamp_seconds", "When the newest epoch opened.", last.wall_s)
    yield make.gauges(
        "last_change_step_seconds",
        "Seconds of each step of the newest change of primary.",
        ("kind", "step"),
        [((last.kind, step), taken_s) for step, taken_s in last.steps_s.items()],
    )
