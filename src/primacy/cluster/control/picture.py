"""What the store and its members say about the cluster, as one value; and what that means. Pure.

Promises  Tables and JSON are made from one answer. Where the store has no majority, the picture
          says so and shows whatever a member still remembers, marked as old.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from primacy.cluster.control.answers import (
    ClusterAnswer,
    DurabilityAnswer,
    MemberAnswer,
    NodeAnswer,
    PolicyAnswer,
    StoreAnswer,
    epoch_answer,
)
from primacy.cluster.control.diverged import diverged_answer, diverged_line
from primacy.cluster.control.durability import Standing, policy_answer
from primacy.cluster.control.wording import when
from primacy.cluster.policy import layout_note
from primacy.coordination.api import NO_LEASE, KeyValue, LeaseId, StoreStatus
from primacy.errors import Rejected
from primacy.model import Epoch, NodeId, Revision, Role
from primacy.replication.records import (
    DIVERGED_PREFIX,
    DURABILITY_KEY,
    EPOCH_KEY,
    FAILOVER_KEY,
    HISTORY_PREFIX,
    NODES_PREFIX,
    PAUSE_KEY,
    POLICY_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    DivergedRecord,
    DurabilityPolicy,
    DurabilityRecord,
    FailoverRequest,
    HistoryRecord,
    NodeStatus,
    Pause,
    PrimaryRecord,
    SwitchoverRequest,
    decoded,
)

R = TypeVar("R")

STALE_AFTER_S = 15.0
"""A status older than this, on wall clocks, is marked: its agent publishes every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The cluster as one reader saw it."""

    cluster: str
    members: tuple[NodeId, ...]
    witnesses: frozenset[NodeId] = frozenset()
    read_at_s: float = 0.0
    """Wall time of the reader."""
    has_majority: bool = True
    source: NodeId | None = None
    """Without a majority: the member whose own, perhaps old, copy this is."""
    epoch: Epoch = Epoch(0)
    primary: PrimaryRecord | None = None
    primary_lease: LeaseId = NO_LEASE
    durability: DurabilityRecord | None = None
    configured: DurabilityPolicy | None = None
    """The durability policy of the reader's file."""
    policy: DurabilityPolicy | None = None
    policy_mod: Revision = Revision(0)
    """What an operator has set above it."""
    diverged: tuple[DivergedRecord, ...] = ()
    """Those that nobody has dismissed, oldest first."""
    nodes: Mapping[NodeId, NodeStatus] = field(default_factory=dict)
    stores: Mapping[NodeId, StoreStatus] = field(default_factory=dict)
    """The members that answered."""
    pause: Pause | None = None
    switchover: SwitchoverRequest | None = None
    failover: FailoverRequest | None = None
    last: HistoryRecord | None = None
    """How the newest epoch came about."""

    @property
    def leader(self) -> NodeId | None:
        """The store's, as the member of the highest term has it."""
        known = [each for each in self.stores.values() if each.leader is not None]
        return max(known, key=lambda each: each.term).leader if known else None

    @property
    def lease_left_s(self) -> float | None:
        """Of the primary's lease: the store's leader knows best, then the holder."""
        if self.primary is None:
            return None
        for each in self.stores.values():
            if each.node == each.leader and self.primary_lease in each.lease_left_s:
                return each.lease_left_s[self.primary_lease]
        status = self.nodes.get(self.primary.node)
        return None if status is None else status.lease_left_s


def picture_of(base: Picture, items: Sequence[KeyValue]) -> Picture:
    """`base` with what the cluster's keys say. Keys of no interest here are passed over."""
    at = {item.key: item for item in items}
    nodes = [_read(NodeStatus, item) for key, item in at.items() if key.startswith(NODES_PREFIX)]
    past = [
        _read(HistoryRecord, item) for key, item in at.items() if key.startswith(HISTORY_PREFIX)
    ]
    primary = at.get(PRIMARY_KEY)
    epoch = at.get(EPOCH_KEY)
    return replace(
        base,
        epoch=Epoch(0) if epoch is None else Epoch(_read(int, epoch)),
        primary=None if primary is None else _read(PrimaryRecord, primary),
        primary_lease=NO_LEASE if primary is None else primary.lease,
        durability=_read_if(DurabilityRecord, at.get(DURABILITY_KEY)),
        policy=_read_if(DurabilityPolicy, at.get(POLICY_KEY)),
        policy_mod=at[POLICY_KEY].mod if POLICY_KEY in at else Revision(0),
        diverged=_undismissed(items),
        pause=_read_if(Pause, at.get(PAUSE_KEY)),
        switchover=_read_if(SwitchoverRequest, at.get(SWITCHOVER_KEY)),
        failover=_read_if(FailoverRequest, at.get(FAILOVER_KEY)),
        nodes={each.node: each for each in nodes},
        last=max(past, key=lambda each: each.epoch, default=None),
    )


def role(picture: Picture, node: NodeId) -> Role:
    if node in picture.witnesses:
        return Role.WITNESS
    is_primary = picture.primary is not None and picture.primary.node == node
    return Role.PRIMARY if is_primary else Role.REPLICA


def is_in_sync_set(picture: Picture, node: NodeId) -> bool:
    status = picture.nodes.get(node)
    record = picture.durability
    return record is not None and status is not None and record.names(node, status.incarnation)


def behind(picture: Picture, node: NodeId) -> int | None:
    """Transactions that the primary has and this node has not applied. None: not known."""
    if picture.primary is None or role(picture, node) is not Role.REPLICA:
        return None
    own, primary = picture.nodes.get(node), picture.nodes.get(picture.primary.node)
    if own is None or primary is None or own.is_diverged:
        return None
    return max(0, primary.received.sequence - own.applied.sequence)


def suspicion(picture: Picture, node: NodeId) -> dict[str, float]:
    """phi of this node as each of the others hears it, those that are silent themselves left out:
    how certain it is that it has gone (8: one in 10^8 silences lasts as long)."""
    return {
        each.node: each.suspicion[node]
        for each in picture.nodes.values()
        if node in each.suspicion and picture.read_at_s - each.wall_s <= STALE_AFTER_S
    }


def health(picture: Picture, node: NodeId) -> str:
    """`ok`, or what is wrong, in words."""
    kind, status, store = role(picture, node), picture.nodes.get(node), picture.stores.get(node)
    if store is None:
        return "its agent does not answer"
    if store.excluded_reason is not None:
        return f"may not vote: {store.excluded_reason}"
    if kind is Role.WITNESS:
        return "ok"
    if status is None:
        return "its agent has not reported yet"
    age_s = picture.read_at_s - status.wall_s
    if age_s > STALE_AFTER_S:
        return f"silent for {age_s:.0f} s (then: {status.state})"
    if status.state != "running":
        return status.state
    return _primary_health(picture, status) if kind is Role.PRIMARY else _replica_health(status)


def problems(picture: Picture) -> list[str]:
    """What an operator should know first, most urgent first. Empty: all is well."""
    said: list[str] = []
    if not picture.has_majority:
        shown = f". Below is what {picture.source} remembers, perhaps old" if picture.source else ""
        said.append(
            f"the store has no majority: {len(picture.stores)} of {len(picture.members)} members"
            f" answer. Nothing can be decided or acknowledged{shown}"
        )
    elif picture.primary is None:
        said.append(_no_primary(picture))
    if picture.pause is not None:
        why = f" ({picture.pause.reason})" if picture.pause.reason else ""
        said.append(f"paused since {when(picture.pause.wall_s)}{why}: no failover until `resume`")
    if picture.durability is not None and picture.durability.is_degraded:
        said.append("degraded: no replica acknowledges, so a write is on the primary alone")
    said += [f"{node}: {health(picture, node)}" for node in _unwell(picture)]
    if picture.last is not None and picture.last.may_have_lost:
        said.append(
            f"epoch {picture.last.epoch} may lack acknowledged writes, as the policy allows:"
            f" {picture.last.may_have_lost}"
        )
    said += [diverged_line(diverged_answer(each)) for each in picture.diverged]
    said += [
        f"{each.node}: {_names(each.unexpected_clients)} acknowledged without being in the sync set"
        " and was shut out. A reader of the log must not set rpl_semi_sync_slave_enabled:"
        " docs/guides/unexpected-acknowledgers.md"
        for each in picture.nodes.values()
        if each.unexpected_clients
    ]
    if picture.switchover is not None:
        target = picture.switchover.target or "the best replica"
        said.append(f"a switchover to {target} is under way")
    if picture.failover is not None:
        said.append(f"a failover that accepts the loss of {_names(picture.failover.accept_loss)}")
    return said


def notes(picture: Picture) -> list[str]:
    """What is as it was wanted, and may surprise somebody one day."""
    policy = picture.policy or picture.configured
    if policy is None:
        return []
    data_nodes = len(picture.members) - len(picture.witnesses)
    note = layout_note(data_nodes, acks=policy.acks, on_timeout=policy.on_timeout)
    return [note] if note else []


def _no_primary(picture: Picture) -> str:
    record = picture.durability
    why = "`primacy why` says what each node waits for"
    if record is None or not record.is_degraded:
        return f"there is no primary now. {why}"
    return (
        f"there is no primary now. {record.primary.node} had recorded that no replica acknowledges:"
        f" it alone surely holds every write. {why}"
    )


def _undismissed(items: Sequence[KeyValue]) -> tuple[DivergedRecord, ...]:
    found = [_read(DivergedRecord, each) for each in items if each.key.startswith(DIVERGED_PREFIX)]
    left = [each for each in found if not each.dismissed_wall_s]
    return tuple(sorted(left, key=lambda each: (each.wall_s, each.ident)))


def _policy_answer(picture: Picture) -> PolicyAnswer | None:
    if picture.configured is None:
        return None
    primary = picture.primary
    standing = Standing(
        policy=picture.policy,
        policy_mod=picture.policy_mod,
        primary=primary,
        durability=picture.durability,
        primary_status=None if primary is None else picture.nodes.get(primary.node),
    )
    return policy_answer(standing, picture.configured)


def answer_of(picture: Picture) -> ClusterAnswer:
    """The whole picture, for programs and for tables."""
    record, primary, last = picture.durability, picture.primary, picture.last
    return ClusterAnswer(
        cluster=picture.cluster,
        epoch=picture.epoch,
        primary=None if primary is None else primary.node,
        lease_left_s=picture.lease_left_s,
        durability=None if record is None else _durability_answer(record),
        policy=_policy_answer(picture),
        diverged=[diverged_answer(each) for each in picture.diverged],
        store=StoreAnswer(
            has_majority=picture.has_majority,
            leader=picture.leader,
            members=[_member_answer(picture, node) for node in picture.members],
        ),
        source=picture.source,
        is_paused=picture.pause is not None,
        switchover=None if picture.switchover is None else picture.switchover.request_id,
        failover=None if picture.failover is None else picture.failover.request_id,
        last_change=None if last is None else epoch_answer(last),
        problems=problems(picture),
        notes=notes(picture),
        nodes=[_node_answer(picture, node) for node in picture.members],
    )


def _node_answer(picture: Picture, node: NodeId) -> NodeAnswer:
    status, said = picture.nodes.get(node), health(picture, node)
    shown = NodeAnswer(
        node=node,
        role=role(picture, node).value,
        health=said,
        is_healthy=said == "ok",
        behind_transactions=behind(picture, node),
        is_in_sync_set=is_in_sync_set(picture, node),
        suspicion=suspicion(picture, node),
    )
    if status is None:
        return shown
    return msgspec.structs.replace(
        shown,
        epoch=status.received.epoch,
        state=status.state,
        position=status.position_text or str(status.received),
        received=str(status.received),
        applied=str(status.applied),
        is_read_only=status.is_read_only,
        io_thread=status.is_receiving,
        sql_thread=status.is_applying,
        acknowledges=status.acknowledges,
        behind_bytes=None if shown.behind_transactions is None else status.lag_bytes,
        upstream=status.upstream,
        error=status.error,
        is_disk_full=status.is_disk_full,
        heartbeat_age_s=round(status.heartbeat_age_s, 3) if status.heartbeat else None,
        waiting_commits=status.waiting_commits,
        blocked_on=list(status.blocked_on),
        unexpected_clients=list(status.unexpected_clients),
        diverged_count=sum(each.count for each in picture.diverged if each.node == node),
        diverged_path=next((each.path for each in picture.diverged if each.node == node), ""),
        doing=status.doing,
        reported_at_s=status.wall_s,
    )


def _durability_answer(record: DurabilityRecord) -> DurabilityAnswer:
    return DurabilityAnswer(
        epoch=record.epoch,
        primary=record.primary.node,
        acks=record.acks,
        members=[each.node for each in record.members],
        is_lossy=record.is_lossy,
        is_degraded=record.is_degraded,
    )


def _member_answer(picture: Picture, node: NodeId) -> MemberAnswer:
    store = picture.stores.get(node)
    if store is None:
        return MemberAnswer(node=node, is_reachable=False)
    return MemberAnswer(
        node=node,
        is_reachable=True,
        leader=store.leader,
        term=store.term,
        commit_index=store.commit_index,
        applied_index=store.applied_index,
        revision=store.revision,
        excluded_reason=store.excluded_reason,
    )


def _primary_health(picture: Picture, status: NodeStatus) -> str:
    if status.waiting_commits:
        waiting = _names(status.blocked_on) or "an acknowledgement"
        return f"blocked: {status.waiting_commits} writes wait for {waiting}"
    if status.is_disk_full:
        return "its disk is full"
    if status.is_read_only or picture.durability is None:
        return "its doors are closed"
    if picture.durability.epoch != picture.epoch:
        return "its doors are not open yet"
    return "ok"


def _replica_health(status: NodeStatus) -> str:
    if status.is_diverged:
        return f"diverged: {status.error or 'its log is no prefix of the primary'}"
    if status.is_disk_full:
        return "its disk is full"
    if status.error is not None:
        return status.error
    if not status.is_receiving:
        return "does not receive"
    return "ok" if status.is_applying else "does not apply"


def _unwell(picture: Picture) -> list[NodeId]:
    return [node for node in picture.members if health(picture, node) != "ok"]


def _names(nodes: Iterable[str]) -> str:
    return ", ".join(nodes)


def _read(kind: type[R], item: KeyValue) -> R:
    try:
        return decoded(kind, item.value)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Rejected(
            f"the key {item.key} holds no {kind.__name__} that this version can read: {error}",
            hint="Use the version of primacy that the cluster runs.",
        ) from error


def _read_if(kind: type[R], item: KeyValue | None) -> R | None:
    return None if item is None else _read(kind, item)
