"""The record names this node and D is not its own yet: from the claim to the open doors (rule 3).

    start -> arm -> salvage, drain -> epoch row -> acknowledgements on -> a replica has the row
          -> record the own D -> (plan_primary) open

Until the own D is recorded the old D decides who may be promoted, and nothing is acknowledged.
"""

from primacy.cluster.actions import (
    Admit,
    Adopt,
    Arm,
    BeginEpoch,
    Drain,
    Exclude,
    GiveUp,
    Kill,
    Plan,
    Salvage,
    SetAcks,
    Start,
    Swap,
    act,
    wait,
)
from primacy.cluster.members import is_known_silent, may_acknowledge, member_of
from primacy.cluster.policy import Policy
from primacy.cluster.view import DISK_FULL, View
from primacy.engines.api import ServerState
from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.records import DurabilityRecord

BROKEN_AFTER_S = 1.0
"""A first sample of an applier's error may be an old one."""


def plan_opening(view: View, policy: Policy) -> Plan:
    record = view.store.primary
    if record is None:
        return wait("no primary record")
    lacking = make_able(view, policy, record.epoch)
    if lacking is not None:
        return lacking
    if view.engine.is_disk_full:
        return act(GiveUp(epoch=record.epoch, reason=f"{DISK_FULL}: it cannot open an epoch"))
    if view.engine.needs_salvage and view.is_salvage_hopeless:
        reason = "what its relay log holds cannot be applied: it cannot open"
        return act(GiveUp(epoch=record.epoch, reason=reason))
    if view.engine.needs_salvage:
        return act(Salvage(reason="received data that only the relay log holds comes first"))
    if view.is_applier_broken and view.error_for_s >= BROKEN_AFTER_S:
        return act(
            GiveUp(
                epoch=record.epoch,
                reason=f"its applier stopped: {view.engine.replication.error}; it cannot open",
            )
        )
    if view.engine.applied < view.engine.received:
        return act(
            Drain(
                reason=f"received up to {view.engine.received}, applied up to {view.engine.applied}"
            )
        )
    branch = view.store.branches.get(record.epoch)
    if branch is None or view.engine.applied.epoch < record.epoch:
        return act(
            BeginEpoch(
                epoch=record.epoch,
                acks=policy.acks,
                reason="the first write of an epoch is its row",
            )
        )
    if view.engine.sending.acks != policy.acks:
        return act(
            SetAcks(
                acks=policy.acks,
                may_release=True,
                reason=f"the policy asks for acks = {policy.acks}, and the doors are closed",
            )
        )
    return _record_own_durability(view, policy, Position(record.epoch, branch.first_sequence))


def make_able(view: View, policy: Policy, epoch: Epoch) -> Plan | None:
    """What the holder of a record needs before anything else: a lease, a server, an armed page."""
    if view.lease is None or view.lease.epoch != epoch:
        return _without_lease(view, policy, epoch)
    match view.engine.state:
        case ServerState.STOPPED | ServerState.ABSENT:
            if view.page.closed_epoch >= epoch or view.page.epoch == epoch:
                return act(
                    GiveUp(epoch=epoch, reason="the database exited, and an epoch opens only once")
                )
            return act(Start(as_primary=True, reason=f"this node may be primary of epoch {epoch}"))
        case ServerState.HUNG:
            if view.state_for_s < policy.lease_ttl_s / 3:
                return wait("the database does not answer", look_again_s=policy.lease_ttl_s / 10)
            return act(
                GiveUp(
                    epoch=epoch,
                    reason=f"the database has not answered for {view.state_for_s:.1f} s",
                )
            )
        case ServerState.RUNNING:
            if view.page.closed_epoch >= epoch:
                return act(GiveUp(epoch=epoch, reason=f"the page of epoch {epoch} is closed"))
            if view.page.epoch != epoch or view.page.state == "closed":
                return act(Arm(epoch=epoch, reason="the guard needs the lease's deadline"))
            return None
        case ServerState.FOREIGN:
            return wait("a data directory that primacy did not make")


def _without_lease(view: View, policy: Policy, epoch: Epoch) -> Plan:
    """The record is this node's, the lease is not in this process: the agent has restarted."""
    is_page_ours = view.page.epoch == epoch and view.page.state in ("armed", "open")
    if view.engine.state is ServerState.RUNNING and is_page_ours:
        return act(
            Adopt(
                lease=view.store.primary_lease,
                epoch=epoch,
                reason=f"the agent restarted under a primary whose page is {view.page.state}",
            )
        )
    if view.engine.state is ServerState.RUNNING and not view.engine.is_read_only:
        return act(Kill(reason="it accepts writes and no page stands for it"))
    return wait(
        "the agent restarted without a page to adopt: the old lease must end first",
        look_again_s=policy.lease_ttl_s,
    )


def _record_own_durability(view: View, policy: Policy, row: Position) -> Plan:
    own = Member(view.node, view.incarnation or Incarnation(""))
    holders = [node for node in policy.ack_nodes if _has(view, node, row)]
    for node in sorted(view.engine.sending.excluded):
        if is_known_silent(view, node, row.epoch):
            return act(Admit(node=node, reason=f"{node} follows epoch {row.epoch}, silently"))
    is_patience_over = policy.on_timeout == "degrade" and view.blocked_for_s >= policy.timeout_s
    if len(holders) >= policy.acks or is_patience_over:
        loud = may_acknowledge(view, policy, row.epoch, set(holders))
        if loud is not None:
            return act(
                Exclude(
                    node=loud,
                    reason=f"{loud} is not in the new record, and may still acknowledge by an old"
                    " one: it comes back in once it has read the new",
                )
            )
    if len(holders) >= policy.acks:
        members = tuple(member_of(view, node) for node in holders) if policy.acks else ()
        record = DurabilityRecord(
            epoch=row.epoch,
            primary=own,
            acks=policy.acks,
            members=members,
            is_lossy=policy.acks == 0,
        )
        return act(
            Swap(
                record=record,
                base_mod=view.store.durability_mod,
                reason=f"the epoch row {row} is held by {', '.join(holders) or 'this node'}",
            )
        )
    if is_patience_over:
        degraded = DurabilityRecord(
            epoch=row.epoch, primary=own, acks=0, members=(), is_degraded=True
        )
        return act(
            Swap(
                record=degraded,
                base_mod=view.store.durability_mod,
                reason=f"no replica took the epoch row within {policy.timeout_s:.1f} s: degrade",
            )
        )
    return wait(
        f"the epoch row {row} needs {policy.acks} more holder(s), has {len(holders)}: waiting for"
        f" {', '.join(node for node in policy.data_nodes if node != view.node)}",
        look_again_s=policy.timeout_s if policy.on_timeout == "degrade" else None,
    )


def _has(view: View, node: NodeId, row: Position) -> bool:
    status = view.store.nodes.get(node)
    return (
        node != view.node
        and status is not None
        and status.incarnation is not None
        and status.received >= row
        and view.is_fit_receiver(node, row.epoch)
    )
