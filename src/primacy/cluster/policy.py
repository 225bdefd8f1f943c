"""What the operator wants: one frozen value, the same on every node."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from primacy.cluster.suspicion import CERTAIN_PHI
from primacy.model import NodeId
from primacy.replication.records import DurabilityPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Durability, preferences and patience. Times are seconds on this node's monotonic clock."""

    data_nodes: tuple[NodeId, ...]
    """Sorted by name; witnesses are not among them."""
    acks: int = 1
    """How many replicas must hold a write before its client hears "committed"."""
    on_timeout: Literal["block", "degrade"] = "block"
    timeout_s: float = 10.0
    """How long commits may be blocked before `degrade` acts."""
    degrade_failover: Literal["refuse", "lossy"] = "refuse"
    lossy_wait_s: float = 3.0
    """With acks = 0: how long the old primary has to come back before a loss is risked."""
    lease_ttl_s: float = 3.0
    priority: Mapping[NodeId, int] = field(default_factory=dict)
    """Higher goes first among equally advanced nodes. Absent means 0."""
    never_promote: frozenset[NodeId] = frozenset()
    preferred: frozenset[NodeId] = frozenset()
    """Of the preferred site, and able to be primary: they go first whatever their priority."""
    return_to_preferred: bool = False
    """The operator wants the primary back on one of them, by a switchover."""
    return_calm_s: float = 60.0
    """How long neither the sync set changed nor a switchover ended before that is done."""

    failovers_before_back_off: int = 3
    """Automatic failovers within five minutes that wait for nothing."""
    member_out_after_s: float = 0.4
    """A member that has been unfit for this long leaves the sync set, if the rest can carry on."""
    join_lag_max: int = 1000
    """Transactions behind at which a replica may come into the sync set."""
    hung_kill_after_s: float = 10.0
    """A server that has not answered for this long is killed and started again."""
    handover_timeout_s: float = 3.0
    """After it the primary of a switchover withdraws its offer and opens its doors again."""

    handover_lag_max: int = 20
    """Transactions that the target of a switchover may still have to receive when the doors close:
    they are shut for as long as that takes."""
    handover_patience_s: float = 20.0
    """How long a target that lags has to catch up before the request is refused."""

    def under(self, record: DurabilityPolicy | None) -> "Policy":
        """This policy with what an operator has set on the running cluster."""
        if record is None:
            return self
        return replace(
            self,
            acks=record.acks,
            on_timeout=record.on_timeout,
            timeout_s=record.timeout_s,
            degrade_failover=record.degrade_failover,
        )

    @property
    def ack_nodes(self) -> tuple[NodeId, ...]:
        """Whose acknowledgements may count. A node that is never promoted would bar all others
        from a write that it alone holds, so it counts only where the policy needs it."""
        able = tuple(node for node in self.data_nodes if node not in self.never_promote)
        return able if len(able) > self.acks else self.data_nodes

    def weight(self, node: NodeId) -> int:
        """Among equally advanced nodes the highest goes first."""
        site = PREFERRED_SITE_WEIGHT if node in self.preferred else 0
        return site + self.priority.get(node, 0)

    @property
    def weights(self) -> Mapping[NodeId, int]:
        return {node: self.weight(node) for node in self.data_nodes}

    @property
    def return_after_s(self) -> float:
        """How long replicas go first before the recorded primary returns by rule 5(a)."""
        return self.lease_ttl_s

    @property
    def stuck_after_s(self) -> float:
        """Far longer than an acknowledgement of what is already held can be on its way."""
        return max(1.0, self.lease_ttl_s / 2)

    @property
    def tie_wait_s(self) -> float:
        """How long an equally advanced node with an earlier name goes first."""
        return self.lease_ttl_s / 2

    @property
    def status_stale_after_s(self) -> float:
        """The usual patience with a node that is not heard."""
        return max(1.5, self.lease_ttl_s)

    def is_silent(self, silent_s: float, phi: float) -> bool:
        """Taken to have gone: after half the usual patience where that is certain, after twice
        as long where the node may only be slow. Nothing that must be safe rests on it."""
        is_certain = phi >= CERTAIN_PHI
        patience_s = self.status_stale_after_s * (0.5 if is_certain else 2.0)
        return silent_s >= patience_s


AcksWord = Literal["quorum", "all"]


def acks_of(acks: int | AcksWord, *, data_node_count: int) -> int:
    """`durability.acks` as a number. A quorum counts the primary: half of the data nodes, rounded
    down, beside it."""
    match acks:
        case "quorum":
            return data_node_count // 2
        case "all":
            return data_node_count - 1
        case int():
            return acks


def layout_note(data_node_count: int, *, acks: int, on_timeout: str) -> str:
    """What two data nodes mean for writes; empty where there is nothing to say."""
    if data_node_count != 2 or acks == 0:
        return ""
    if on_timeout == "block":
        return (
            "two data nodes: while one is down or reboots, the other's writes are blocked, since"
            f' acks = {acks} needs a replica. Add a third, or set durability.on_timeout = "degrade"'
        )
    return (
        "two data nodes: while one is away for longer than durability.timeout_s, a write is on the"
        " other alone, and only that one may be primary next"
    )


PREFERRED_SITE_WEIGHT = 10_000
"""Above every priority that a file may give."""

BACK_OFF_WINDOW_S = 300.0
BACK_OFF_FIRST_S = 5.0
BACK_OFF_MAX_S = 60.0
"""Too many automatic failovers in five minutes: wait 5 s, doubling to 60 s."""


def back_off_s(recent_failover_count: int, *, free_count: int) -> float:
    """How long to wait before the next automatic failover; 0 up to `free_count` of them."""
    beyond = recent_failover_count - free_count
    if beyond < 0:
        return 0.0
    doubled: float = BACK_OFF_FIRST_S * 2.0**beyond
    return min(BACK_OFF_MAX_S, doubled)
