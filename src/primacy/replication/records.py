"""What the store holds about a cluster: the keys, and the value behind each.

The agents write these records and the routers watch them; neither knows the other. All values
are msgpack of the Structs below, so that two members never disagree about a byte.

key                     value               written by
cluster/epoch           Epoch               the winner, in the transaction that creates `primary`
cluster/primary         PrimaryRecord       the winner; bound to its lease, so it ends with it
cluster/durability      DurabilityRecord    only the holder of `primary`
cluster/branches/E      BranchRecord        the primary of epoch E, once its epoch row stands
cluster/seals/NODE      SealNote            that node, after the seal is durable
cluster/nodes/NODE      NodeStatus          that node's agent: what it sees
cluster/switchover      SwitchoverRequest   an operator; removed when it ended
cluster/handover        Handover            the primary, doors closed; taken or withdrawn
cluster/failover        FailoverRequest     an operator who accepts a loss; removed when used
cluster/outcomes/ID     RequestOutcome      the primary that ended the request
cluster/pause           Pause               an operator
cluster/policy          DurabilityPolicy    an operator; stands above the configuration's values
cluster/diverged/ID     DivergedRecord      the node that saved them; an operator dismisses it
cluster/tasks/NODE      NodeTask            an operator; removed by that node when it ended
cluster/config          ConfigRecord        an operator: the file that every host shall have
cluster/configs/NODE    ConfigSeen          that node's agent: the file that it has
cluster/history/E       HistoryRecord       the primary of epoch E, when its doors opened
cluster/decisions/NODE/SLOT   Decision      that node's brain; SLOT = its number % DECISIONS_KEPT
"""

from typing import Literal, TypeVar

import msgspec

from primacy.model import ORIGIN, Epoch, Incarnation, Member, NodeId, Position

PREFIX = "cluster/"
EPOCH_KEY = "cluster/epoch"
PRIMARY_KEY = "cluster/primary"
DURABILITY_KEY = "cluster/durability"
BRANCHES_PREFIX = "cluster/branches/"
SEALS_PREFIX = "cluster/seals/"
NODES_PREFIX = "cluster/nodes/"
SWITCHOVER_KEY = "cluster/switchover"
HANDOVER_KEY = "cluster/handover"
FAILOVER_KEY = "cluster/failover"
OUTCOMES_PREFIX = "cluster/outcomes/"
PAUSE_KEY = "cluster/pause"
TASKS_PREFIX = "cluster/tasks/"
CONFIG_KEY = "cluster/config"
CONFIG_SEEN_PREFIX = "cluster/configs/"
HISTORY_PREFIX = "cluster/history/"
POLICY_KEY = "cluster/policy"
DIVERGED_PREFIX = "cluster/diverged/"
DECISIONS_PREFIX = "cluster/decisions/"

DECISIONS_KEPT = 200
"""Per node, in the store: enough for a bad night; the oldest is overwritten."""


class PrimaryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who may be primary. Its doors are open only once a DurabilityRecord of its epoch stands."""

    node: NodeId
    incarnation: Incarnation
    epoch: Epoch


class DurabilityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Whose acknowledgement counts: D of the promotion rule."""

    epoch: Epoch
    primary: Member
    acks: int
    members: tuple[Member, ...]
    """Sorted by node. The primary is not among them."""
    is_lossy: bool = False
    """acks = 0 by policy: a failover may lose, and counts what it lost."""
    is_degraded: bool = False
    """acks = 0 because no member answered; the policy asks for more."""
    heirs: tuple[Member, ...] = ()
    """Who won an epoch since without a loss, and could not record its own D. Each held all that
    counts under this one when it won, and nobody has acknowledged anything since."""

    def names(self, node: NodeId, incarnation: Incarnation | None) -> bool:
        """Whether this very life of the node is in the sync set."""
        return any(each.node == node and each.incarnation == incarnation for each in self.members)


class BranchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where an epoch begins in the log."""

    epoch: Epoch
    node: NodeId
    first_sequence: int
    """Of its epoch row."""


class SealNote(msgspec.Struct, frozen=True, kw_only=True):
    """A node durably refuses every epoch below `epoch`, has stopped receiving, and got this far."""

    node: NodeId
    incarnation: Incarnation
    epoch: Epoch
    """It counts for exactly this one."""
    received: Position
    applied: Position
    is_cut: bool = False
    """Its log was cut or rewound since it last was primary."""
    is_broken: bool = False
    """Its applier stopped on an error before what it received: as a primary it would never open."""
    is_errant: bool = False
    """Somebody wrote on it while it was a replica: of equals it goes last."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's agent sees of its own database. Published on change, and each few seconds."""

    node: NodeId
    incarnation: Incarnation | None = None
    state: str = "absent"
    """The name of `engines.api.ServerState`, in lower case."""
    is_read_only: bool = True
    received: Position = ORIGIN
    applied: Position = ORIGIN
    position_text: str = ""
    sealed_epoch: Epoch = Epoch(0)
    following_epoch: Epoch = Epoch(0)
    upstream: NodeId | None = None
    is_receiving: bool = False
    is_applying: bool = False
    acknowledges: bool = False
    lag_bytes: int | None = None
    """Of the upstream's log: what has not been received. None: the engine does not say."""
    durability_revision: int = 0
    """The revision of the durability record that this node last acted on: a node that came to
    know that it is out can acknowledge nothing by an older belief."""
    error: str | None = None
    is_diverged: bool = False
    is_disk_full: bool = False
    is_cut: bool = False
    waiting_commits: int = 0
    heartbeat: int = 0
    heartbeat_age_s: float = 0.0
    lease_left_s: float | None = None
    """Only while it holds the primary record."""
    diverged_count: int = 0
    """Transactions of a lost branch, saved aside and not yet dismissed by a person."""
    diverged_path: str = ""
    doing: str = ""
    """What the agent is busy with, in words."""
    blocked_on: tuple[NodeId, ...] = ()
    """Whom a blocked commit waits for."""
    server_start: int = 0
    """Another number after each start of the server."""
    agent: str = ""
    """This life of the agent."""
    suspicion: dict[NodeId, float] = {}
    """phi of each other node, as this one hears it: how certain it is that it has gone."""
    policy_revision: int = 0
    """The revision of the durability policy by which this node's brain decided last; 0: there was
    none, and the configuration's values held."""
    donor: NodeId | None = None
    """From whom it copies its data, or wants to: that one stays out of the sync set meanwhile."""
    unexpected_clients: tuple[str, ...] = ()
    """Nodes and accounts that acknowledged here without being recorded, and were cut."""
    wall_s: float = 0.0
    """When it was published, for people."""

    @property
    def is_healthy_replica(self) -> bool:
        return (
            self.state == "running"
            and self.is_receiving
            and self.is_applying
            and self.error is None
            and not self.is_disk_full
        )


class SwitchoverRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An operator asks for another primary. Without `target` the best replica is chosen."""

    request_id: str
    target: NodeId | None = None
    wall_s: float = 0.0
    is_begun: bool = False
    """The primary has found it feasible and closes its doors next: routers hold their clients."""


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """The primary has closed its doors at `last_sequence` and offers the lead to `target`.

    Taken by one transaction that creates the next primary record, or withdrawn by the primary;
    it opens its doors again only after a withdrawal.
    """

    request_id: str
    epoch: Epoch
    target: NodeId
    last_sequence: int


class FailoverRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An operator gives up what only `accept_loss` may hold (rule 7)."""

    request_id: str
    accept_loss: tuple[NodeId, ...]
    wall_s: float = 0.0


class RequestOutcome(msgspec.Struct, frozen=True, kw_only=True):
    request_id: str
    is_done: bool
    detail: str


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """No elections and no rejoins until it is removed; fencing goes on."""

    reason: str = ""
    wall_s: float = 0.0


class NodeTask(msgspec.Struct, frozen=True, kw_only=True):
    """An operator asks something of one node. One at a time for each."""

    request_id: str
    node: NodeId
    kind: Literal["reinit", "restart-database", "restart-agent"]
    of: str
    """The life that is to end: the incarnation, the server's start, or the agent, as the node's
    status names it. Whoever is another one has done it already."""
    wall_s: float = 0.0


class DurabilityPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator set on the running cluster. All of it: where it stands, the values of the
    same names in the configuration are passed over."""

    request_id: str
    acks: int
    on_timeout: Literal["block", "degrade"]
    timeout_s: float
    degrade_failover: Literal["refuse", "lossy"]
    wall_s: float = 0.0


class DivergedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions that lost their place in the history, saved on one node."""

    ident: str
    node: NodeId
    epoch: Epoch
    """The one at whose beginning the histories part, or in which a replica wrote by itself."""
    count: int
    """Transactions of applications."""
    own_count: int = 0
    """Of primacy itself beside them: heartbeats, markers. Nobody misses them."""
    first: str = ""
    last: str = ""
    tables: tuple[str, ...] = ()
    path: str = ""
    """On the node's host."""
    is_certain: bool = True
    """False where the log could not be read to its end: there may be more."""
    ended: str = ""
    """What became of the node's data: cut, rewound or cloned; empty while nothing did."""
    obstacle: str = ""
    """Why they could not be taken back row by row."""
    is_errant: bool = False
    """Somebody wrote them on a replica, past `read_only`."""
    wall_s: float = 0.0
    dismissed_wall_s: float = 0.0
    """When an operator had seen to them; 0: nobody has."""


class ConfigRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration file as an operator applied it: it names files of secrets, holds none."""

    version: int
    text: str
    base: str
    """The digest of the file that it was made from: only that one is replaced by it."""
    digest: str
    wall_s: float = 0.0


class ConfigSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Which configuration file a node has."""

    node: NodeId
    file: str
    """The digest of what stands on its disk."""
    running: str
    """The digest of what its agent started with."""
    agent: str = ""
    """This life of the agent: a witness publishes no status that would say it."""
    problem: str = ""
    """Why the newest ConfigRecord was not taken over."""


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How an epoch came about, with the seconds of each step on the winner's clock."""

    epoch: Epoch
    node: NodeId
    kind: str
    """bootstrap, failover, switchover or restart."""
    reason: str
    steps_s: dict[str, float]
    """Step -> seconds, in order: detection, sealing, catch-up, promotion, epoch-row, opening."""
    wall_s: float
    lost_count: int = 0
    """Transactions that the old primary had and this epoch has not, once they are known."""
    lost_path: str = ""
    accepted_loss: tuple[NodeId, ...] = ()
    may_have_lost: str = ""
    """Why acknowledged writes may be missing, although nobody accepted a loss; empty: none are."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a brain decided and why; recorded once, when it changes."""

    node: NodeId
    number: int
    action: str
    reason: str
    epoch: Epoch
    wall_s: float
    steps_s: dict[str, float] = {}


R = TypeVar("R")


def encoded(record: msgspec.Struct | Epoch) -> bytes:
    return msgspec.msgpack.encode(record)


def decoded(kind: type[R], value: bytes) -> R:
    """Raises `msgspec.ValidationError` for bytes that are not this record."""
    return msgspec.msgpack.decode(value, type=kind)


def node_key(prefix: str, node: NodeId) -> str:
    return f"{prefix}{node}"


def epoch_key(prefix: str, epoch: Epoch) -> str:
    """Fixed width, so that keys sort as epochs do."""
    return f"{prefix}{epoch:012d}"
