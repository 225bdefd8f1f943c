"""This node is primary and its own D stands: open doors, the right sync set, a planned hand-over.

A swap of D that was sent comes before everything else: until the store shows which record stands,
both bind. A swap of an earlier agent of this node was made void when the primary was adopted.
"""

from primacy.cluster.actions import (
    AskSwitchover,
    BeginHandover,
    EndRequest,
    GiveUp,
    OfferHandover,
    Open,
    Plan,
    SetAcks,
    WithdrawHandover,
    act,
    wait,
)
from primacy.cluster.members import acknowledges
from primacy.cluster.plan_opening import make_able
from primacy.cluster.plan_sync_set import carry_on, resend, steer
from primacy.cluster.plan_task import plan_task
from primacy.cluster.policy import Policy
from primacy.cluster.view import DISK_FULL, View
from primacy.model import NodeId
from primacy.replication.durability import seals_needed, shown
from primacy.replication.records import (
    FAILOVER_KEY,
    SWITCHOVER_KEY,
    DurabilityRecord,
    NodeStatus,
)


def plan_primary(view: View, policy: Policy) -> Plan:
    record = view.store.durability
    if record is None:
        return wait("no durability record")
    lacking = make_able(view, policy, record.epoch)
    if lacking is not None:
        return lacking
    hopeless = _stuck(view, policy, record) or _full(view, record)
    if hopeless:
        return act(GiveUp(epoch=record.epoch, reason=hopeless))
    if view.transition is not None and view.transition.is_sent:
        return resend(view.transition)
    if view.engine.sending.acks < record.acks:
        return act(SetAcks(acks=record.acks, reason=f"the record says {shown(record)}"))
    if view.store.handover is not None:
        return _during_handover(view, policy)
    void = _void_request(view, record)
    if void is not None:
        return void
    if view.page.state != "open" or view.engine.is_read_only:
        return _open(view, record)
    return _go_on(view, policy, record)


def _open(view: View, record: DurabilityRecord) -> Plan:
    """The own record stands, and the doors or the page are closed."""
    if view.engine.sending.acks > record.acks:
        return act(  # Degraded while it opened: the first write must not wait for anybody.
            SetAcks(
                acks=record.acks,
                may_release=True,
                reason=f"the doors open under {shown(record)}",
            )
        )
    return act(Open(epoch=record.epoch, reason=f"own durability record: {shown(record)}"))


def _go_on(view: View, policy: Policy, record: DurabilityRecord) -> Plan:
    """The doors are open."""
    if view.transition is not None:
        return carry_on(view, policy, record, view.transition)
    if view.store.switchover is not None:
        return _begin_handover(view, policy, record)
    task = plan_task(view)
    if task is not None:
        return task
    step = steer(view, policy, record)
    if step.action is not None:
        return step
    return _return_to_preferred(view, policy, record, step) or step


def _void_request(view: View, record: DurabilityRecord) -> Plan | None:
    """An operator's request that has no object, or none any more, is answered and removed."""
    if view.page.state != "open":
        return None
    switchover, failover = view.store.switchover, view.store.failover
    if switchover is not None and view.engine.is_read_only:
        return act(
            EndRequest(  # An offer that is still on its way compares the request: now it is void.
                key=SWITCHOVER_KEY,
                mod=view.store.switchover_mod,
                request_id=switchover.request_id,
                is_done=False,
                reason="the offer could not be recorded: the doors open again",
            )
        )
    if failover is not None and not view.engine.is_read_only:
        return act(
            EndRequest(
                key=FAILOVER_KEY,
                mod=view.store.failover_mod,
                request_id=failover.request_id,
                is_done=False,
                reason=f"{view.node} is primary of epoch {record.epoch}: nothing need be given up."
                " `primacy switchover` moves the lead",
            )
        )
    return None


def _stuck(view: View, policy: Policy, record: DurabilityRecord) -> str:
    """Commits wait for acknowledgements that will not come, although everything is held.

    A MariaDB replica that received a commit before it began to acknowledge never acknowledges it,
    and while that commit waits no later one reaches the log. Whoever takes over holds it. An engine
    whose replicas repeat what they say loses none: one that holds a commit may have to apply it
    first, or may just have got space again.
    """
    if view.engine.sending.repeats_acks:
        return ""
    if not view.engine.sending.waiting_commits or view.blocked_for_s < policy.stuck_after_s:
        return ""
    holders = [
        each.node
        for each in record.members
        if acknowledges(view, record, each)
        and view.store.nodes[each.node].received >= view.engine.received
    ]
    if record.acks == 0 or len(holders) < record.acks:
        return ""
    return (
        f"commits have waited for {view.blocked_for_s:.1f} s although {', '.join(holders)} hold(s)"
        " everything: the acknowledgement was lost and will not come"
    )


def _full(view: View, record: DurabilityRecord) -> str:
    """Its disk takes no more writes, and enough members are there to go on without it."""
    able = [each.node for each in record.members if acknowledges(view, record, each)]
    is_replaceable = record.acks > 0 and len(able) >= seals_needed(len(record.members), record.acks)
    if not view.engine.is_disk_full or not is_replaceable:
        return ""
    return f"{DISK_FULL}: {', '.join(able)} can go on"


# ---- a planned hand-over


def _begin_handover(view: View, policy: Policy, record: DurabilityRecord) -> Plan:
    request = view.store.switchover
    if request is None:
        return wait("no switchover is asked for")
    target = request.target or _best_target(view, policy, record)
    problem = _problem_with(view, policy, record, target)
    if target is None or problem:
        return act(
            EndRequest(
                key=SWITCHOVER_KEY,
                mod=view.store.switchover_mod,
                request_id=request.request_id,
                is_done=target == view.node,
                reason=problem or "no replica is fit to take over",
            )
        )
    if request.is_begun:
        return act(
            OfferHandover(
                request_id=request.request_id,
                target=target,
                epoch=record.epoch,
                reason=f"switchover to {target}, as asked for",
            )
        )
    behind = view.engine.received.sequence - view.store.nodes[target].applied.sequence
    if behind > policy.handover_lag_max:
        if view.store.switchover_for_s < policy.handover_patience_s:
            return wait(f"{target} is {behind} transactions behind: it catches up first", 0.05)
        return act(
            EndRequest(
                key=SWITCHOVER_KEY,
                mod=view.store.switchover_mod,
                request_id=request.request_id,
                is_done=False,
                reason=f"{target} is still {behind} transactions behind after"
                f" {policy.handover_patience_s:.0f} s: the doors were not closed for it",
            )
        )
    return act(
        BeginHandover(
            mod=view.store.switchover_mod, reason=f"{target} can take over: the doors close next"
        )
    )


def _return_to_preferred(
    view: View, policy: Policy, record: DurabilityRecord, rest: Plan
) -> Plan | None:
    """The operator wants the primary on the preferred site, and the cluster has come to rest."""
    is_away = policy.return_to_preferred and view.node not in policy.preferred
    if not is_away or view.store.pause is not None:
        return None
    target = _best_target(view, policy, record)
    if target is None or target not in policy.preferred:
        return None
    left_s = policy.return_calm_s - min(view.store.durability_for_s, view.store.switchover_for_s)
    if left_s > 0:
        return wait(f"{rest.reason}; then back to {target}", look_again_s=left_s)
    return act(
        AskSwitchover(
            request_id=f"return-{view.store.revision}",
            target=target,
            reason=f"{target} is of the preferred site, and the cluster has been calm for"
            f" {policy.return_calm_s:.0f} s",
        )
    )


def _best_target(view: View, policy: Policy, record: DurabilityRecord) -> NodeId | None:
    able = [node for node in policy.data_nodes if not _problem_with(view, policy, record, node)]
    return max(
        sorted(able, reverse=True),
        key=lambda node: (policy.weight(node), view.store.nodes[node].applied),
        default=None,
    )


def _problem_with(
    view: View, policy: Policy, record: DurabilityRecord, target: NodeId | None
) -> str:
    """Why the lead cannot be handed to `target`; empty where it can."""
    if target is None:
        return "no replica is fit to take over: see `primacy status`"
    if target == view.node:
        return f"{target} is the primary already"
    if target not in policy.data_nodes:
        return f"{target} is not a data node of this cluster: {', '.join(policy.data_nodes)}"
    if target in policy.never_promote:
        return f"{target} is configured as never promote"
    status: NodeStatus | None = view.store.nodes.get(target)
    if status is None or not view.is_fit_receiver(target, record.epoch):
        state = "silent" if status is None else status.error or status.state
        return f"{target} does not follow this primary in good health: {state}"
    if record.acks > 0 and not record.names(target, status.incarnation):
        return f"{target} is not in the sync set {shown(record)} yet: wait until it is"
    return ""


def _during_handover(view: View, policy: Policy) -> Plan:
    """The doors are closed and the offer stands: it is taken by a new record, or withdrawn."""
    offer = view.store.handover
    if offer is None:
        return wait("no hand-over is offered")
    left_s = policy.handover_timeout_s - view.store.handover_for_s
    is_stale = view.store.primary is None or offer.epoch != view.store.primary.epoch
    if left_s <= 0 or is_stale:
        return act(
            WithdrawHandover(
                request_id=offer.request_id,
                epoch=offer.epoch,
                reason=f"{offer.target} did not take over within {policy.handover_timeout_s:.1f} s",
            )
        )
    return wait(f"doors closed: {offer.target} takes over", look_again_s=left_s)
