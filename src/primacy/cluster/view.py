"""What this node knows right now: one frozen value, and the only thing that the brain sees.

The agent builds it from the watched store, the observed engine, the guard and its own memory of
this process. Ages are seconds on this node's monotonic clock, never differences of wall clocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from primacy.cluster.actions import Salvage
from primacy.cluster.policy import Policy
from primacy.engines.api import Diverged, Observation
from primacy.model import Epoch, Incarnation, NodeId, Revision
from primacy.replication.records import (
    BranchRecord,
    DivergedRecord,
    DurabilityPolicy,
    DurabilityRecord,
    FailoverRequest,
    Handover,
    NodeStatus,
    NodeTask,
    Pause,
    PrimaryRecord,
    SealNote,
    SwitchoverRequest,
)

DISK_FULL = "the disk of this node is full"
"""In reasons: the first thing that whoever is on call wants to read."""
HOPELESS_SALVAGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """The cluster's records as one revision of the store holds them."""

    revision: Revision = Revision(0)
    epoch: Epoch = Epoch(0)
    epoch_mod: Revision = Revision(0)
    epoch_version: int = 0
    """How often this very store has written it: equal to `epoch`, the counter began here at 1."""
    primary: PrimaryRecord | None = None
    primary_mod: Revision = Revision(0)
    primary_lease: int = 0
    """The lease that the primary record is bound to."""
    vacant_for_s: float = 0.0
    """How long this node has seen no primary record; 0 while there is one."""
    durability: DurabilityRecord | None = None
    durability_mod: Revision = Revision(0)
    durability_for_s: float = 0.0
    """How long this record has stood, as this node saw it."""
    seals: Mapping[NodeId, SealNote] = field(default_factory=dict)
    seal_mods: Mapping[NodeId, Revision] = field(default_factory=dict)
    nodes: Mapping[NodeId, NodeStatus] = field(default_factory=dict)
    silent_for_s: Mapping[NodeId, float] = field(default_factory=dict)
    """Since each node was last heard; while the store is silent as a whole, nobody's grows."""
    suspicion: Mapping[NodeId, float] = field(default_factory=dict)
    """phi of each node (`suspicion`): how certain it is that it has gone."""
    unfit_for_s: Mapping[NodeId, float] = field(default_factory=dict)
    """Since each node was last seen as a fit receiver; absent while it is."""
    branches: Mapping[Epoch, BranchRecord] = field(default_factory=dict)
    switchover: SwitchoverRequest | None = None
    switchover_mod: Revision = Revision(0)
    switchover_for_s: float = 0.0
    """Since a switchover was last asked for, begun or ended."""
    handover: Handover | None = None
    handover_mod: Revision = Revision(0)
    handover_for_s: float = 0.0
    failover: FailoverRequest | None = None
    failover_mod: Revision = Revision(0)
    pause: Pause | None = None
    policy: DurabilityPolicy | None = None
    policy_mod: Revision = Revision(0)
    tasks: Mapping[NodeId, NodeTask] = field(default_factory=dict)
    task_mods: Mapping[NodeId, Revision] = field(default_factory=dict)
    diverged: Mapping[str, DivergedRecord] = field(default_factory=dict)
    """What nodes had alone and saved, by its id; dismissed ones too."""
    recent_failover_count: int = 0
    """Automatic failovers of the last five minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """The lease that this process holds, or believes to hold: `left_s` is by its own deadline."""

    lease: int
    left_s: float
    epoch: Epoch
    """The epoch that was claimed with it; 0 while it is held for a claim to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """The deadline page, as the guard last wrote it."""

    epoch: Epoch = Epoch(0)
    state: str = "closed"
    """closed, armed or open."""
    closed_epoch: Epoch = Epoch(0)
    """The highest epoch that is closed for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of the sync set that has begun: its marker stands in the log."""

    record: DurabilityRecord
    """What is to be recorded."""
    base_mod: Revision
    """The record that it replaces."""
    marker_sequence: int
    is_sent: bool = False
    """Its swap went to the store and the answer is not known: both records bind until the store
    shows which stands, so nothing else may be begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that `plan` looks at."""

    node: NodeId
    store: StoreView
    engine: Observation
    is_store_current: bool = True
    """The store view was confirmed by a linearizable read or a live watch within one ttl."""
    lease: LeaseView | None = None
    page: PageView = field(default_factory=PageView)
    transition: Transition | None = None
    diverged: Mapping[Epoch, Diverged] = field(default_factory=dict)
    """By the epoch whose branch they were compared with: what `save_diverged` found here."""
    state_for_s: float = 0.0
    """How long the engine has been in its present state."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Of each kind of action that failed when it was last tried: how often in a row."""
    error_for_s: float = 0.0
    """How long replication has shown an error."""
    blocked_for_s: float = 0.0
    """How long some commit has been waiting for acknowledgements."""
    unexpected_for_s: float = 0.0
    """How long more clients have acknowledged than the record and their own words explain."""
    unexpected_clients: tuple[str, ...] = ()
    """Who was cut for that within the last `ALARM_SHOWN_S`: nodes and accounts."""
    shut_out: frozenset[str] = frozenset()
    """Strangers that the primary's alarm names and that were locked out of this server for it."""
    wall_s: float = 0.0
    agent: str = ""
    """This life of the agent."""

    @property
    def incarnation(self) -> Incarnation | None:
        return self.engine.incarnation

    @property
    def is_primary(self) -> bool:
        """The record names this node."""
        return self.store.primary is not None and self.store.primary.node == self.node

    @property
    def is_applier_broken(self) -> bool:
        """It has received what it can never apply, as things are."""
        engine = self.engine
        return engine.replication.error is not None and engine.applied < engine.received

    @property
    def is_salvage_hopeless(self) -> bool:
        """A relay log that cannot be applied so often is of no use: its rows meet others."""
        return self.failures.get(Salvage.__name__, 0) >= HOPELESS_SALVAGES

    @property
    def status(self) -> NodeStatus | None:
        return self.store.nodes.get(self.node)

    def is_fit_receiver(self, node: NodeId, epoch: Epoch) -> bool:
        """Follows the primary of `epoch` (this node), receives and applies, without an error."""
        status = self.store.nodes.get(node)
        return (
            status is not None
            and status.is_healthy_replica
            and status.following_epoch == epoch
            and status.upstream == self.node
            and node not in self.store.unfit_for_s
        )


def is_given_up(view: View, node: NodeId) -> bool:
    """An operator wants a new copy of the data in place of this very life of the node."""
    task, status = view.store.tasks.get(node), view.store.nodes.get(node)
    if task is None or status is None or task.kind != "reinit":
        return False
    return task.of == status.incarnation and view.store.pause is None


def is_silent(view: View, policy: Policy, node: NodeId, *, unheard_s: float = 0.0) -> bool:
    """The node is taken to have gone. One that was never heard has been silent `unheard_s`."""
    silent_s = view.store.silent_for_s.get(node, unheard_s)
    return policy.is_silent(silent_s, view.store.suspicion.get(node, 0.0))
