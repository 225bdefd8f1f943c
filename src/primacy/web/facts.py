"""What one node knows of itself right now: the input of health checks and of metrics. Values.

They come from the agent's newest view and from the deadline page, never from the store: a node
that is cut off must still be able to say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from primacy.cluster.showing import Shown
from primacy.coordination.api import StoreStatus
from primacy.engines.api import ServerState
from primacy.model import NodeId, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """The deadline page, read just now."""

    state: str = "absent"
    """absent, closed, armed or open."""
    epoch: int = 0
    left_s: float = 0.0
    """Until the deadline, where one is set; 0 at and after it."""

    @property
    def lets_pass(self) -> bool:
        """Open, and before its deadline: what the router asks before each answer."""
        return self.state == "open" and self.left_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What the agent's process counts of itself since its start."""

    loop_stalls: int = 0
    loop_stall_longest_s: float = 0.0
    log_writes: int = 0
    """Writes of the store's member that became durable."""
    log_write_total_s: float = 0.0
    """From asking for them until they were."""
    log_write_longest_s: float = 0.0
    events: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    cluster: str
    node: NodeId
    is_witness: bool
    lease_ttl_s: float
    status_stale_after_s: float
    """A node whose status has not changed for this long is taken for silent."""
    shown: Shown | None = None
    """The agent's newest view; None before the first, and always on a witness."""
    shown_age_s: float = 0.0
    page: PageFacts = field(default_factory=PageFacts)
    store: StoreStatus | None = None
    """Of this node's member; None where it was not asked, or did not answer."""
    process: ProcessFacts = field(default_factory=ProcessFacts)

    @property
    def is_primary(self) -> bool:
        return self.page.lets_pass

    @property
    def role(self) -> Role:
        """By the page first: it is what answers are let through by."""
        if self.is_witness:
            return Role.WITNESS
        if self.page.state == "open" or self.holds_record:
            return Role.PRIMARY
        return Role.REPLICA

    @property
    def holds_record(self) -> bool:
        """This node is the primary that the store names, as far as its agent knows."""
        record = None if self.shown is None else self.shown.view.store.primary
        return record is not None and record.node == self.node

    @property
    def is_fresh(self) -> bool:
        """The agent's loop goes round: its view can be relied upon. A primary's must be newer."""
        patience_s = self.lease_ttl_s if self.role is Role.PRIMARY else 2 * self.lease_ttl_s
        return self.shown is not None and self.shown_age_s <= patience_s

    @property
    def is_running(self) -> bool:
        """The database answers."""
        if self.shown is None or not self.is_fresh:
            return False
        return self.shown.view.engine.state is ServerState.RUNNING

    @property
    def heartbeat_age_s(self) -> float | None:
        """Since a heartbeat was applied here, the time since that was seen included."""
        if self.shown is None or self.shown.view.engine.heartbeat == 0:
            return None
        return self.shown.view.engine.heartbeat_age_s + self.shown_age_s

    @property
    def is_in_sync_set(self) -> bool:
        if self.shown is None or self.shown.view.store.durability is None:
            return False
        view = self.shown.view
        return view.store.durability is not None and view.store.durability.names(
            self.node, view.incarnation
        )

    def behind_transactions(self, *, is_received: bool = False) -> int | None:
        """What the primary has and this node has not applied (or received). None: not known, since
        there is no primary, or it is silent."""
        if self.shown is None:
            return None
        view = self.shown.view
        record = view.store.primary
        primary = None if record is None else view.store.nodes.get(record.node)
        if record is None or primary is None or view.engine.replication.is_diverged:
            return None
        silent_s = view.store.silent_for_s.get(record.node, 0.0) + self.shown_age_s
        if silent_s > self.status_stale_after_s:
            return None
        own = view.engine.received if is_received else view.engine.applied
        return max(0, primary.received.sequence - own.sequence)
