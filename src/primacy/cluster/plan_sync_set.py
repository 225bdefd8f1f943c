"""The sync set of a primary with open doors: who comes in, who goes out, and how many are needed.

Every change of D is one transition (rule 2): cut off who goes out; write a marker; when the marker
is held under D', swap D for D'. Until the swap is seen, acknowledgements satisfy both, because a
member that comes in does not acknowledge before it reads its own name in the record.

From k = 0 the way back has two transitions. First the members come in, while nothing waits for
them: each begins to acknowledge on a connection of its own time. Then k is raised. In one step the
commits of the moment would wait for replicas that had received them before they acknowledged, and
such a commit is never acknowledged.
"""

from dataclasses import dataclass

from primacy.cluster.actions import (
    Abandon,
    Admit,
    CutStrangers,
    Exclude,
    Mark,
    Plan,
    SetAcks,
    Swap,
    act,
    wait,
)
from primacy.cluster.members import (
    acknowledges,
    incarnation_of,
    is_cut_off,
    is_donor,
    is_known_silent,
    may_acknowledge,
    member_of,
    unexpected_count,
)
from primacy.cluster.policy import Policy
from primacy.cluster.view import Transition, View, is_given_up, is_silent
from primacy.model import Member, NodeId, Position
from primacy.replication.durability import shown
from primacy.replication.records import DurabilityRecord

BLOCKED_SHOWN_AFTER_S = 0.5
"""Every commit waits for its acknowledgement a little; longer than this is worth a word."""

UNEXPECTED_AFTER_S = 0.4
"""Two looks: what a server says of its clients in one look is not of one instant."""

UNEXPECTED_STRICTLY_AFTER_S = 2.0
"""A member that has just begun to acknowledge has said so in its status by then."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The record that should stand, and why."""

    record: DurabilityRecord
    reason: str


def steer(view: View, policy: Policy, record: DurabilityRecord) -> Plan:
    """The next change that the sync set needs, or none."""
    stranger = _unexpected(view, record)
    if stranger is not None:
        return stranger
    goal = _goal(view, policy, record)
    if goal is not None:
        return _toward(view, policy, record, goal)
    if view.engine.sending.acks > record.acks:
        return act(
            SetAcks(acks=record.acks, may_release=True, reason=f"the record says {shown(record)}")
        )
    for node in sorted(view.engine.sending.excluded):
        if _may_be_admitted(view, record, node):
            return act(Admit(node=node, reason=f"{node} knows that it is out: it may catch up"))
    return wait(_steady(view, record))


def _toward(view: View, policy: Policy, record: DurabilityRecord, goal: Goal) -> Plan:
    """What must be true before the marker of this change is written."""
    for node in _leaving(record, goal.record):
        if not is_cut_off(view, node):
            why = f"before it leaves the sync set: {goal.reason}"
            return act(Exclude(node=node, reason=why))
    if goal.record.acks > record.acks:
        named = {member.node for member in goal.record.members}
        loud = may_acknowledge(view, policy, record.epoch, named)
        if loud is not None:
            return act(
                Exclude(node=loud, reason=f"{loud} might acknowledge unrecorded: {goal.reason}")
            )
    if goal.record.acks > view.engine.sending.acks:
        return act(
            SetAcks(acks=goal.record.acks, reason=f"before the record asks for it: {goal.reason}")
        )
    return act(Mark(record=goal.record, base_mod=view.store.durability_mod, reason=goal.reason))


def _leaving(record: DurabilityRecord, goal: DurabilityRecord) -> list[NodeId]:
    """Who must be cut off before the marker. Not a node that comes back under another incarnation:
    its former life has ended with its connections, and the new one is silent until it is named."""
    staying = {each.node for each in goal.members}
    return [each.node for each in record.members if each.node not in staying]


def carry_on(view: View, policy: Policy, record: DurabilityRecord, transition: Transition) -> Plan:
    """The marker stands: swap when it is held under D', or give the transition up."""
    if transition.is_sent:
        return resend(transition)  # Sent once, it may still be applied: nothing else may begin.
    goal = _goal(view, policy, record)
    if goal is None or goal.record != transition.record:
        return act(Abandon(reason="the reason for this change of the sync set has gone"))
    marker = Position(record.epoch, transition.marker_sequence)
    holders = [each.node for each in transition.record.members if _holds(view, each, marker)]
    if len(holders) >= transition.record.acks:
        return resend(transition)
    return wait(
        f"marker {transition.marker_sequence}: held by {len(holders)} of {transition.record.acks}"
    )


def resend(transition: Transition) -> Plan:
    return act(
        Swap(
            record=transition.record,
            base_mod=transition.base_mod,
            reason=f"the marker {transition.marker_sequence} is held: {shown(transition.record)}",
        )
    )


# ---- what should stand


def _goal(view: View, policy: Policy, record: DurabilityRecord) -> Goal | None:
    """D', if D should change now."""
    if policy.acks == 0:
        return _unprotected(record)
    fit = [node for node in policy.ack_nodes if _may_join(view, policy, record, node)]
    new = [node for node in fit if not record.names(node, incarnation_of(view, node))]
    if new:
        kept = tuple(each for each in record.members if each.node not in new)
        joined = tuple(sorted((*kept, *(member_of(view, node) for node in new)), key=str))
        return Goal(_with_members(record, joined), f"{', '.join(new)} caught up")
    unfit = [each for each in record.members if _must_leave(view, policy, each)]
    kept = tuple(each for each in record.members if each not in unfit)
    able = [each for each in kept if acknowledges(view, record, each)]
    if unfit and len(able) >= record.acks:
        names = ", ".join(each.node for each in unfit)
        return Goal(_with_members(record, kept), f"{names} does not keep up")
    if policy.acks < record.acks:
        lowered = _changed(record, acks=policy.acks, members=record.members)
        return Goal(lowered, f"the policy asks for acks = {policy.acks}")
    if record.acks < policy.acks <= len(able):
        raised = _changed(record, acks=policy.acks, members=record.members)
        names = ", ".join(each.node for each in able)
        return Goal(raised, f"the policy asks for acks = {policy.acks}, and {names} acknowledge(s)")
    if record.acks and policy.on_timeout == "degrade" and view.blocked_for_s >= policy.timeout_s:
        return Goal(
            _changed(record, acks=0, members=(), is_degraded=True),
            f"commits have waited for {view.blocked_for_s:.1f} s and the policy says degrade",
        )
    return None


def _unprotected(record: DurabilityRecord) -> Goal | None:
    if record.acks == 0 and record.is_lossy and not record.members:
        return None
    return Goal(_changed(record, acks=0, members=(), is_lossy=True), "the policy says acks = 0")


def _must_leave(view: View, policy: Policy, member: Member) -> bool:
    status = view.store.nodes.get(member.node)
    if status is None or status.incarnation != member.incarnation:
        return True
    if member.node not in policy.ack_nodes or is_given_up(view, member.node):
        return True
    if is_donor(view, policy, member.node):
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
    if is_silent(view, policy, node) or is_given_up(view, node) or is_donor(view, policy, node):
        return False
    behind = view.engine.received.sequence - status.applied.sequence
    return status.received.epoch == record.epoch and behind <= policy.join_lag_max


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


def _steady(view: View, record: DurabilityRecord) -> str:
    if view.engine.sending.waiting_commits and view.blocked_for_s >= BLOCKED_SHOWN_AFTER_S:
        names = ", ".join(each.node for each in record.members)
        return f"blocked: {view.engine.sending.waiting_commits} commit(s) wait for {names}"
    return f"primary of epoch {record.epoch}: {shown(record)}"


def _with_members(record: DurabilityRecord, members: tuple[Member, ...]) -> DurabilityRecord:
    """The same promise, given by others."""
    return _changed(
        record,
        acks=record.acks,
        members=members,
        is_lossy=record.is_lossy,
        is_degraded=record.is_degraded,
    )


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


# ---- who acknowledges without being asked


def _unexpected(view: View, record: DurabilityRecord) -> Plan | None:
    """A client that acknowledges and is not in the record ends waits that nobody else may have
    heard of: it is cut."""
    sending = view.engine.sending
    outside = sorted(
        node
        for node in sending.receivers
        if not record.names(node, incarnation_of(view, node)) and node not in sending.excluded
    )
    for node in outside:
        status = view.store.nodes.get(node)
        if status is not None and status.acknowledges:
            return _cut(node, "it says itself that it acknowledges, and no record names it")
    count = _surplus(view)
    if not count:
        return None
    why = f"{sending.acknowledging_count} clients acknowledge, {count} of them unrecorded"
    loud = [node for node in outside if not is_known_silent(view, node, record.epoch)]
    if loud:
        return _cut(loud[0], why)
    if sending.strangers:
        return act(CutStrangers(accounts=tuple(sorted(sending.strangers)), reason=why))
    return None


def _surplus(view: View) -> int:
    """Clients too many, once that is no matter of two looks at different moments."""
    sending, lasted_s = view.engine.sending, view.unexpected_for_s
    if lasted_s >= UNEXPECTED_STRICTLY_AFTER_S:
        return unexpected_count(sending, view.store, is_strict=True)
    if lasted_s >= UNEXPECTED_AFTER_S:
        return unexpected_count(sending, view.store, is_strict=False)
    return 0


def _cut(node: NodeId, why: str) -> Plan:
    return act(Exclude(node=node, is_alarm=True, reason=f"{node} is cut: {why}"))
