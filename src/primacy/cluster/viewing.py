"""Builds the view: folds the store's records, the engine's observations and the passing of time.

Pure: the caller says what arrived and when. The agent feeds it from a watch, the simulator from
its model; both get the same `View`.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import msgspec

from primacy.cluster.members import unexpected_count
from primacy.cluster.policy import BACK_OFF_WINDOW_S
from primacy.cluster.suspicion import Suspicions
from primacy.cluster.view import LeaseView, PageView, StoreView, Transition, View
from primacy.coordination.api import Change, KeyValue
from primacy.engines.api import Diverged, Observation, ServerState
from primacy.model import Epoch, NodeId, Revision
from primacy.replication.records import (
    BRANCHES_PREFIX,
    DIVERGED_PREFIX,
    DURABILITY_KEY,
    EPOCH_KEY,
    FAILOVER_KEY,
    HANDOVER_KEY,
    HISTORY_PREFIX,
    NODES_PREFIX,
    PAUSE_KEY,
    POLICY_KEY,
    PRIMARY_KEY,
    SEALS_PREFIX,
    SWITCHOVER_KEY,
    TASKS_PREFIX,
    BranchRecord,
    DivergedRecord,
    DurabilityPolicy,
    DurabilityRecord,
    FailoverRequest,
    Handover,
    HistoryRecord,
    NodeStatus,
    NodeTask,
    Pause,
    PrimaryRecord,
    SealNote,
    SwitchoverRequest,
    decoded,
)

K = TypeVar("K")
V = TypeVar("V")

ALARM_SHOWN_S = 600.0
"""A client that was cut for acknowledging unrecorded may come back: people should see it."""

SINGLE_KEYS: dict[str, tuple[str, type]] = {
    EPOCH_KEY: ("epoch", int),
    PRIMARY_KEY: ("primary", PrimaryRecord),
    DURABILITY_KEY: ("durability", DurabilityRecord),
    SWITCHOVER_KEY: ("switchover", SwitchoverRequest),
    HANDOVER_KEY: ("handover", Handover),
    FAILOVER_KEY: ("failover", FailoverRequest),
    PAUSE_KEY: ("pause", Pause),
    POLICY_KEY: ("policy", DurabilityPolicy),
}
"""Keys that stand alone: the field of StoreView that holds each, and its type."""


class Records:
    """The cluster's records as this node knows them, and since when."""

    def __init__(self, node: NodeId, now_s: float) -> None:
        self._node = node
        self._single: dict[str, tuple[object, KeyValue]] = {}
        self._seals: dict[NodeId, tuple[SealNote, Revision]] = {}
        self._nodes: dict[NodeId, NodeStatus] = {}
        self._tasks: dict[NodeId, tuple[NodeTask, Revision]] = {}
        self._branches: dict[Epoch, BranchRecord] = {}
        self._diverged: dict[str, DivergedRecord] = {}
        self.history: dict[Epoch, tuple[HistoryRecord, Revision]] = {}
        self.revision = Revision(0)
        self._suspicions = Suspicions(now_s)
        self._unfit_since_s: dict[NodeId, float] = {}
        self._vacant_since_s: float | None = now_s
        self._handover_since_s = now_s
        self._switchover_since_s = now_s
        self._durability_since_s = now_s

    def load(self, items: Iterable[KeyValue], revision: Revision, now_s: float) -> None:
        """Everything under the cluster's prefix, read at one revision: replaces what was known."""
        found = {item.key: item for item in items}
        gone = [key for key in self._single if key not in found]
        gone += [f"{SEALS_PREFIX}{node}" for node in self._seals]
        gone += [f"{NODES_PREFIX}{node}" for node in self._nodes]
        gone += [f"{TASKS_PREFIX}{node}" for node in self._tasks]
        gone += [f"{DIVERGED_PREFIX}{ident}" for ident in self._diverged]
        missing = [Change(key, None) for key in gone if key not in found]
        self.apply([*missing, *(Change(key, item) for key, item in found.items())], revision, now_s)

    def apply(self, changes: Iterable[Change], revision: Revision, now_s: float) -> None:
        self._suspicions.arrived(now_s)
        for change in changes:
            self._apply_one(change, now_s)
        self.revision = max(self.revision, revision)
        self._note_fitness(now_s)

    def _apply_one(self, change: Change, now_s: float) -> None:
        key, after = change.key, change.after
        if key in SINGLE_KEYS:
            self._apply_single(key, after, now_s)
        elif key.startswith(SEALS_PREFIX):
            _put(self._seals, NodeId(key[len(SEALS_PREFIX) :]), after, _seal_with_mod)
        elif key.startswith(TASKS_PREFIX):
            node = NodeId(key[len(TASKS_PREFIX) :])
            _put(self._tasks, node, after, lambda kv: (decoded(NodeTask, kv.value), kv.mod))
        elif key.startswith(NODES_PREFIX):
            node = NodeId(key[len(NODES_PREFIX) :])
            known = self._nodes.get(node)
            _put(self._nodes, node, after, lambda kv: decoded(NodeStatus, kv.value))
            self._note_arrival(node, known, now_s)
        elif key.startswith(BRANCHES_PREFIX):
            epoch = Epoch(int(key[len(BRANCHES_PREFIX) :]))
            _put(self._branches, epoch, after, lambda kv: decoded(BranchRecord, kv.value))
        elif key.startswith(DIVERGED_PREFIX):
            ident = key[len(DIVERGED_PREFIX) :]
            _put(self._diverged, ident, after, lambda kv: decoded(DivergedRecord, kv.value))
        elif key.startswith(HISTORY_PREFIX):
            epoch = Epoch(int(key[len(HISTORY_PREFIX) :]))
            _put(self.history, epoch, after, lambda kv: (decoded(HistoryRecord, kv.value), kv.mod))

    def _apply_single(self, key: str, after: KeyValue | None, now_s: float) -> None:
        if after is None:
            self._single.pop(key, None)
        else:
            kind = SINGLE_KEYS[key][1]
            self._single[key] = (msgspec.msgpack.decode(after.value, type=kind), after)
        if key == PRIMARY_KEY:
            if after is not None:
                self._vacant_since_s = None
            elif self._vacant_since_s is None:
                self._vacant_since_s = now_s
            self._unfit_since_s = {}
        if key == HANDOVER_KEY:
            self._handover_since_s = now_s
        if key == SWITCHOVER_KEY:
            self._switchover_since_s = now_s
        if key == DURABILITY_KEY:
            self._durability_since_s = now_s

    def _note_arrival(self, node: NodeId, known: NodeStatus | None, now_s: float) -> None:
        status = self._nodes.get(node)
        if status is None:
            self._suspicions.forget(node)
        elif status != known:  # A second listing brings what is known already.
            self._suspicions.hear(node, now_s)

    def _note_fitness(self, now_s: float) -> None:
        """Since when each node is no fit receiver of the present primary."""
        record = self._record(PRIMARY_KEY)
        epoch = record.epoch if isinstance(record, PrimaryRecord) else Epoch(0)
        upstream = record.node if isinstance(record, PrimaryRecord) else None
        for node, status in self._nodes.items():
            is_fit = (
                status.is_healthy_replica
                and status.following_epoch == epoch
                and status.upstream == upstream
            )
            if is_fit:
                self._unfit_since_s.pop(node, None)
            else:
                self._unfit_since_s.setdefault(node, now_s)

    def _record(self, key: str) -> object | None:
        held = self._single.get(key)
        return held[0] if held else None

    def _mod(self, key: str) -> Revision:
        held = self._single.get(key)
        return held[1].mod if held else Revision(0)

    def view(self, now_s: float, wall_s: float) -> StoreView:
        primary = self._single.get(PRIMARY_KEY)
        fields = {name: self._record(key) for key, (name, _) in SINGLE_KEYS.items()}
        mods = {f"{name}_mod": self._mod(key) for key, (name, _) in SINGLE_KEYS.items()}
        mods.pop("pause_mod")
        epoch = fields.pop("epoch")
        counter = self._single.get(EPOCH_KEY)
        base = StoreView(
            revision=self.revision,
            epoch=Epoch(epoch) if isinstance(epoch, int) else Epoch(0),
            epoch_version=counter[1].version if counter else 0,
            primary_lease=primary[1].lease if primary else 0,
            vacant_for_s=0.0 if self._vacant_since_s is None else now_s - self._vacant_since_s,
            seals={node: note for node, (note, _) in self._seals.items()},
            seal_mods={node: mod for node, (_, mod) in self._seals.items()},
            nodes=dict(self._nodes),
            silent_for_s=self._suspicions.silent_for_s(now_s),
            suspicion=self._suspicions.phis(now_s),
            unfit_for_s={node: now_s - at_s for node, at_s in self._unfit_since_s.items()},
            branches=dict(self._branches),
            diverged=dict(self._diverged),
            tasks={node: task for node, (task, _) in self._tasks.items()},
            task_mods={node: mod for node, (_, mod) in self._tasks.items()},
            handover_for_s=now_s - self._handover_since_s,
            switchover_for_s=now_s - self._switchover_since_s,
            durability_for_s=now_s - self._durability_since_s,
            recent_failover_count=self._recent_failovers(wall_s),
        )
        return replace(base, **fields, **mods)  # type: ignore[arg-type]  # SINGLE_KEYS has the types.

    def _recent_failovers(self, wall_s: float) -> int:
        return sum(
            1
            for record, _ in self.history.values()
            if record.kind in ("failover", "restart")
            and not record.accepted_loss
            and wall_s - record.wall_s < BACK_OFF_WINDOW_S
        )


class Sight:
    """What this node sees of itself: the engine's newest observation and how long things last."""

    def __init__(self, node: NodeId, now_s: float, *, agent: str = "") -> None:
        """`agent` names this life of the agent."""
        self._node = node
        self._agent = agent
        self.engine = Observation(state=ServerState.ABSENT)
        self._state_since_s = now_s
        self._error_since_s: float | None = None
        self._blocked_since_s: float | None = None
        self.diverged: dict[Epoch, Diverged] = {}
        self.transition: Transition | None = None
        self._opening_since_s: float | None = None
        self._unexpected_since_s: float | None = None
        self._cut_at_s: dict[str, float] = {}
        self.shut_out: set[str] = set()

    def note_cut(self, clients: Iterable[str], now_s: float) -> None:
        """These acknowledged without being recorded, and were cut."""
        self._cut_at_s.update(dict.fromkeys(clients, now_s))

    def observe(self, seen: Observation, now_s: float) -> None:
        if seen.state is not self.engine.state:
            self._state_since_s = now_s
        self._error_since_s = _since(self._error_since_s, seen.replication.error, now_s)
        was = self.engine  # Where it has moved, somebody's commit was acknowledged.
        if seen.sending.waits_at:
            has_moved = seen.sending.waits_at != was.sending.waits_at
        else:
            has_moved = seen.received != was.received
        is_blocked = seen.sending.waiting_commits > 0 and not has_moved
        self._blocked_since_s = _since(self._blocked_since_s, is_blocked, now_s)
        self.engine = seen

    def view(  # One argument for each source of what is known.
        self,
        store: StoreView,
        now_s: float,
        *,
        lease: LeaseView | None,
        page: PageView,
        is_store_current: bool,
        wall_s: float,
    ) -> View:
        if self.transition is not None and self.transition.base_mod != store.durability_mod:
            self.transition = None  # Another record stands: it was swapped, or overtaken.
        if store.primary is not None:
            leading = store.nodes.get(store.primary.node)
            self.shut_out &= set(leading.unexpected_clients if leading else ())
        opening_s = self._opening_for_s(store, now_s)
        is_primary = store.primary is not None and store.primary.node == self._node
        surplus = is_primary and unexpected_count(self.engine.sending, store, is_strict=True)
        self._unexpected_since_s = _since(self._unexpected_since_s, surplus, now_s)
        blocked_s = _age_s(self._blocked_since_s, now_s)
        return View(
            node=self._node,
            store=store,
            engine=self.engine,
            is_store_current=is_store_current,
            lease=lease,
            page=page,
            transition=self.transition,
            diverged=dict(self.diverged),
            state_for_s=now_s - self._state_since_s,
            error_for_s=_age_s(self._error_since_s, now_s),
            blocked_for_s=max(blocked_s, opening_s),
            unexpected_for_s=_age_s(self._unexpected_since_s, now_s),
            unexpected_clients=tuple(
                client
                for client, at_s in sorted(self._cut_at_s.items())
                if now_s - at_s < ALARM_SHOWN_S
            ),
            shut_out=frozenset(self.shut_out),
            wall_s=wall_s,
            agent=self._agent,
        )

    def _opening_for_s(self, store: StoreView, now_s: float) -> float:
        """How long this node has been primary without doors: writes are blocked all the while."""
        record = store.primary
        is_opening = (
            record is not None
            and record.node == self._node
            and (store.durability is None or store.durability.epoch < record.epoch)
        )
        if not is_opening:
            self._opening_since_s = None
            return 0.0
        if self._opening_since_s is None:
            self._opening_since_s = now_s
        return now_s - self._opening_since_s


def _since(known_s: float | None, is_so: object, now_s: float) -> float | None:
    if not is_so:
        return None
    return now_s if known_s is None else known_s


def _age_s(since_s: float | None, now_s: float) -> float:
    return 0.0 if since_s is None else now_s - since_s


def _seal_with_mod(item: KeyValue) -> tuple[SealNote, Revision]:
    return decoded(SealNote, item.value), item.mod


def _put(held: dict[K, V], key: K, after: KeyValue | None, decode: Callable[[KeyValue], V]) -> None:
    if after is None:
        held.pop(key, None)
    else:
        held[key] = decode(after)
