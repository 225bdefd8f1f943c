"""This node is primary and its own D stands: open doors, the right sync set, a planned hand-over.

Every change of D is one transition (rule 2): cut off who goes out; write a marker; when the marker
is held under D', swap D for D'. Until the swap is seen, acknowledgements satisfy both, because a
member that comes in does not acknowledge before it reads its own name in the record.
"""

from primacy.cluster.actions import (
    Abandon,
    Admit,
    AskSwitchover,
    BeginHandover,
    EndRequest,
    Exclude,
    GiveUp,
    Mark,
    OfferHandover,
    Open,
    Plan,
    SetAcks,
    Swap,
    WithdrawHandover,
    act,
    wait,
)
from primacy.cluster.plan_opening import make_able
from primacy.cluster.plan_task import plan_task
from primacy.cluster.policy import Policy
from primacy.cluster.view import Transition, View, is_given_up, is_silent
from primacy.model import Incarnation, Member, NodeId, Position
from primacy.replication.durability import shown
from primacy.replication.records import (
    FAILOVER_KEY,
    SWITCHOVER_KEY,
    DurabilityRecord,
    NodeStatus,
)

STUCK_AFTER_S = 3.0
"""Far longer than an acknowledgement of what is already held can be on its way."""

BLOCKED_SHOWN_AFTER_S = 0.5
"""Every commit waits for its acknowledgement a little; longer than this is worth a word."""


def plan_primary(view: View, policy: Policy) -> Plan:
    record = view.store.durability
    if record is None:
        return wait("no durability record")
    lacking = make_able(view, policy, record.epoch)
    if lacking is not None:
        return lacking
    stuck = _stuck(view, record)
    if stuck:
        return act(GiveUp(epoch=record.epoch, reason=stuck))
    if view.engine.sending.acks < record.acks:
        return act(SetAcks(acks=record.acks, reason=f"the record says {shown(record)}"))
    if view.store.handover is not None:
        return _during_handover(view, policy)
    void = _void_request(view, record)
    if void is not None:
        return void
    if view.page.state != "open" or view.engine.is_read_only:
        return act(Open(epoch=record.epoch, reason=f"own durability record: {shown(record)}"))
    if view.transition is not None:
        return _continue(view, policy, record, view.transition)
    if view.store.switchover is not None:
        return _begin_handover(view, policy, record)
    return plan_task(view) or _steer(view, policy, record)


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


# ---- the sync set


def _steer(view: View, policy: Policy, record: DurabilityRecord) -> Plan:
    """The next change that the sync set needs, or none."""
    goal, reason = _goal(view, policy, record)
    for node in _leaving(record, goal):
        if node not in view.engine.sending.excluded:
            return act(Exclude(node=node, reason=f"before it leaves the sync set: {reason}"))
    if goal is not None:
        if goal.acks > view.engine.sending.acks:
            return act(SetAcks(acks=goal.acks, reason=f"before the record asks for it: {reason}"))
        return act(Mark(record=goal, base_mod=view.store.durability_mod, reason=reason))
    if view.engine.sending.acks > record.acks:
        return act(
            SetAcks(acks=record.acks, may_release=True, reason=f"the record says {shown(record)}")
        )
    for node in sorted(view.engine.sending.excluded):
        if _may_be_admitted(view, record, node):
            return act(Admit(node=node, reason=f"{node} knows that it is out: it may catch up"))
    return _return_to_preferred(view, policy, record) or wait(_steady(view, record))


def _leaving(record: DurabilityRecord, goal: DurabilityRecord | None) -> list[NodeId]:
    """Who must be cut off before the marker. Not a node that comes back under another incarnation:
    its former life has ended with its connections, and the new one is silent until it is named."""
    if goal is None:
        return []
    staying = {each.node for each in goal.members}
    return [each.node for each in record.members if each.node not in staying]


def _goal(
    view: View, policy: Policy, record: DurabilityRecord
) -> tuple[DurabilityRecord | None, str]:
    """D', if D should change now, and why."""
    fit = [node for node in policy.ack_nodes if _may_join(view, policy, record, node)]
    if policy.acks == 0:
        if record.acks == 0:
            return None, ""
        return _changed(record, acks=0, members=(), is_lossy=True), "the policy says acks = 0"
    if record.acks == 0:
        if len(fit) < policy.acks:
            return None, ""
        members = tuple(_member(view, node) for node in fit)
        return _changed(record, acks=policy.acks, members=members), f"{', '.join(fit)} caught up"
    new = [node for node in fit if not record.names(node, _incarnation(view, node))]
    if new:
        kept = tuple(each for each in record.members if each.node not in new)
        joined = tuple(sorted((*kept, *(_member(view, node) for node in new)), key=str))
        return _changed(record, acks=record.acks, members=joined), f"{', '.join(new)} caught up"
    unfit = [each for each in record.members if _must_leave(view, policy, each)]
    kept = tuple(each for each in record.members if each not in unfit)
    able = [each for each in kept if _acknowledges(view, record, each)]
    if unfit and len(able) >= record.acks:
        names = ", ".join(each.node for each in unfit)
        return _changed(record, acks=record.acks, members=kept), f"{names} does not keep up"
    is_patience_over = view.blocked_for_s >= policy.timeout_s
    if policy.on_timeout == "degrade" and is_patience_over:
        return (
            _changed(record, acks=0, members=(), is_degraded=True),
            f"commits have waited for {view.blocked_for_s:.1f} s and the policy says degrade",
        )
    return None, ""


def _continue(view: View, policy: Policy, record: DurabilityRecord, transition: Transition) -> Plan:
    """The marker stands: swap when it is held under D', or give the transition up."""
    again = act(
        Swap(
            record=transition.record,
            base_mod=transition.base_mod,
            reason=f"the marker {transition.marker_sequence} is held: {shown(transition.record)}",
        )
    )
    if transition.is_sent:
        return again  # Sent once, it may still be applied: nothing else may be begun.
    goal, _ = _goal(view, policy, record)
    if goal != transition.record:
        return act(Abandon(reason="the reason for this change of the sync set has gone"))
    marker = Position(record.epoch, transition.marker_sequence)
    holders = [each.node for each in transition.record.members if _holds(view, each, marker)]
    if len(holders) >= transition.record.acks:
        return again
    return wait(
        f"marker {transition.marker_sequence}: held by {len(holders)} of {transition.record.acks}"
    )


def _must_leave(view: View, policy: Policy, member: Member) -> bool:
    status = view.store.nodes.get(member.node)
    if status is None or status.incarnation != member.incarnation:
        return True
    if member.node not in policy.ack_nodes or is_given_up(view, member.node):
        return True
    if member.node in view.engine.sending.excluded or status.error is not None:
        return True
    unfit_s = view.store.unfit_for_s.get(member.node, 0.0)
    return unfit_s >= policy.member_out_after_s or is_silent(view, policy, member.node)


def _may_join(view: View, policy: Policy, record: DurabilityRecord, node: NodeId) -> bool:
    status = view.store.nodes.get(node)
    if node == view.node or status is None or status.incarnation is None:
        return False
    if node in view.engine.sending.excluded or not view.is_fit_receiver(node, record.epoch):
        return False
    if is_silent(view, policy, node) or is_given_up(view, node):
        return False
    behind = view.engine.received.sequence - status.applied.sequence
    return status.received.epoch == record.epoch and behind <= policy.join_lag_max


def _acknowledges(view: View, record: DurabilityRecord, member: Member) -> bool:
    status = view.store.nodes.get(member.node)
    return (
        status is not None
        and status.incarnation == member.incarnation
        and view.is_fit_receiver(member.node, record.epoch)
        and status.acknowledges
    )


def _holds(view: View, member: Member, marker: Position) -> bool:
    status = view.store.nodes.get(member.node)
    return (
        status is not None
        and status.incarnation == member.incarnation
        and status.following_epoch == marker.epoch
        and status.received >= marker
    )


def _may_be_admitted(view: View, record: DurabilityRecord, node: NodeId) -> bool:
    """It has read a record that does not name it (or one that does), and acts on it."""
    status = view.store.nodes.get(node)
    if status is None or status.state != "running" or status.error is not None:
        return False
    if record.names(node, status.incarnation):
        return True
    return status.durability_revision >= view.store.durability_mod and not status.acknowledges


def _stuck(view: View, record: DurabilityRecord) -> str:
    """Commits wait for acknowledgements that will not come, although everything is held.

    A MariaDB replica that received a commit before it began to acknowledge never acknowledges it,
    and while that commit waits no later one reaches the log. Whoever takes over holds it.
    """
    if not view.engine.sending.waiting_commits or view.blocked_for_s < STUCK_AFTER_S:
        return ""
    holders = [
        each.node
        for each in record.members
        if _acknowledges(view, record, each)
        and view.store.nodes[each.node].received >= view.engine.received
    ]
    if record.acks == 0 or len(holders) < record.acks:
        return ""
    return (
        f"commits have waited for {view.blocked_for_s:.1f} s although {', '.join(holders)} hold(s)"
        " everything: the acknowledgement was lost and will not come"
    )


def _steady(view: View, record: DurabilityRecord) -> str:
    if view.engine.sending.waiting_commits and view.blocked_for_s >= BLOCKED_SHOWN_AFTER_S:
        names = ", ".join(each.node for each in record.members)
        return f"blocked: {view.engine.sending.waiting_commits} commit(s) wait for {names}"
    return f"primary of epoch {record.epoch}: {shown(record)}"


def _changed(
    record: DurabilityRecord,
    *,
    acks: int,
    members: tuple[Member, ...],
    is_lossy: bool = False,
    is_degraded: bool = False,
) -> DurabilityRecord:
    return DurabilityRecord(
        epoch=record.epoch,
        primary=record.primary,
        acks=acks,
        members=members,
        is_lossy=is_lossy,
        is_degraded=is_degraded,
    )


def _member(view: View, node: NodeId) -> Member:
    return Member(node, _incarnation(view, node) or Incarnation(""))


def _incarnation(view: View, node: NodeId) -> Incarnation | None:
    status = view.store.nodes.get(node)
    return status.incarnation if status else None


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


def _return_to_preferred(view: View, policy: Policy, record: DurabilityRecord) -> Plan | None:
    """The operator wants the primary on the preferred site, and the cluster has come to rest."""
    is_away = policy.return_to_preferred and view.node not in policy.preferred
    if not is_away or view.store.pause is not None:
        return None
    target = _best_target(view, policy, record)
    if target is None or target not in policy.preferred:
        return None
    left_s = policy.return_calm_s - min(view.store.durability_for_s, view.store.switchover_for_s)
    if left_s > 0:
        return wait(f"{_steady(view, record)}; then back to {target}", look_again_s=left_s)
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
