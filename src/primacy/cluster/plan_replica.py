"""The record names another node: clone from it, rejoin it, follow it; or take the lead over.

Before an old primary's server is started, its logs are read as files and what the new history has
not is saved and counted. While the durability record still names it as primary, a server that
would have to be cut stays down: it may be the only one that holds everything.
"""

from primacy.cluster.actions import (
    Claim,
    Clone,
    CutStrangers,
    Demote,
    DropLease,
    Follow,
    ForgetOldData,
    GiveUp,
    HoldLease,
    Kill,
    Plan,
    Rewind,
    Salvage,
    Start,
    act,
    wait,
)
from primacy.cluster.plan_rejoin import (
    CUT_NAMED_AFTER_TTLS,
    TORN,
    is_settled,
    is_spare,
    plan_clone,
    plan_diverged,
    plan_errant,
    plan_rejoin,
)
from primacy.cluster.plan_task import is_to_be_copied, plan_task
from primacy.cluster.policy import Policy
from primacy.cluster.view import DISK_FULL, View, is_silent
from primacy.engines.api import ServerState
from primacy.model import Epoch, Position
from primacy.replication.records import PrimaryRecord

ERROR_CONFIRMED_AFTER_S = 1.0
"""An applier that shows an error for this long is broken: a first sample may be an old one."""


def plan_replica(view: View, policy: Policy) -> Plan:
    record = view.store.primary
    if record is None:
        return wait("no primary record")
    ending = _end_old_epoch(view, record)
    if ending is not None:
        return ending
    if view.engine.is_disk_full:
        return wait(f"{DISK_FULL}: it follows {record.node} again once there is space")
    step = _unless_paused(view, _next(view, policy, record))
    task = plan_task(view) if step.action is None else None
    return task or step


def _next(view: View, policy: Policy, record: PrimaryRecord) -> Plan:
    match view.engine.state:
        case ServerState.ABSENT:
            return plan_clone(view, policy, record, "this node has no data")
        case ServerState.STOPPED:
            return plan_rejoin(view, policy, record)
        case ServerState.HUNG:
            if view.state_for_s < policy.hung_kill_after_s:
                return wait(
                    f"the database has not answered for {view.state_for_s:.1f} s",
                    look_again_s=policy.hung_kill_after_s - view.state_for_s,
                )
            return act(Kill(reason=f"the database has not answered for {view.state_for_s:.1f} s"))
        case ServerState.RUNNING:
            if view.engine.is_torn:
                return plan_clone(view, policy, record, TORN)
            if view.engine.is_errant:
                return plan_errant(view, policy, record)
            return _run_as_replica(view, policy, record)
        case ServerState.FOREIGN:
            return wait("a data directory that primacy did not make")


def _end_old_epoch(view: View, record: PrimaryRecord) -> Plan | None:
    """This node led an earlier epoch: that must have ended before it does anything else."""
    lease_epoch = view.lease.epoch if view.lease else Epoch(0)
    page_epoch = view.page.epoch if view.page.state != "closed" else Epoch(0)
    old = max(lease_epoch, page_epoch)
    is_running = view.engine.state in (ServerState.RUNNING, ServerState.HUNG)
    if old == 0:
        accepts = is_running and not view.engine.is_read_only
        return act(Kill(reason=f"it accepts writes, and {record.node} leads")) if accepts else None
    is_quiet = (
        view.engine.state is ServerState.RUNNING
        and view.engine.is_read_only
        and view.engine.sending.waiting_commits == 0
    )
    if is_quiet:
        return act(
            Demote(epoch=old, reason=f"{record.node} leads epoch {record.epoch}, doors are closed")
        )
    return act(GiveUp(epoch=old, reason=f"{record.node} leads epoch {record.epoch}"))


def _unless_paused(view: View, step: Plan) -> Plan:
    """A pause stops rejoins: nothing is cut and nothing is copied. Who follows goes on."""
    cuts = isinstance(step.action, Start) and not step.action.as_primary
    if view.store.pause is None or not (cuts or isinstance(step.action, Clone | Rewind)):
        return step
    return wait(f"paused: no rejoins; then: {step.reason}")


def _salvage(view: View, policy: Policy, record: PrimaryRecord) -> Plan:
    if view.is_salvage_hopeless and is_spare(view, record):
        return plan_clone(view, policy, record, "what its relay log holds cannot be applied")
    return act(Salvage(reason="received data that only the relay log holds comes first"))


def _is_repair_due(view: View, policy: Policy, record: PrimaryRecord) -> bool:
    """A tail that cannot be applied goes with the clone: once D stands, or, since D may wait for
    this very node, after as long as a named node leaves it to others."""
    patience_s = ERROR_CONFIRMED_AFTER_S
    if not is_settled(view, record):
        patience_s += CUT_NAMED_AFTER_TTLS * policy.lease_ttl_s
    return view.error_for_s >= patience_s


def _run_as_replica(view: View, policy: Policy, record: PrimaryRecord) -> Plan:
    replication = view.engine.replication
    is_broken = replication.error is not None and not replication.is_diverged
    if is_broken and view.store.pause is None and _is_repair_due(view, policy, record):
        return plan_clone(view, policy, record, f"replication is broken: {replication.error}")
    if view.engine.needs_salvage:
        return _salvage(view, policy, record)
    taking_over = _take_over(view, policy, record)
    if taking_over is not None:
        return taking_over
    is_attached = (
        view.engine.following_epoch == record.epoch and replication.upstream == record.node
    )
    if is_attached and replication.is_diverged and view.store.pause is None:
        if view.diverged.get(record.epoch) is None:
            return act(Kill(reason=f"diverged: {replication.error}; its logs are read first"))
        return plan_diverged(view, policy, record, replication.error)
    if is_to_be_copied(view):
        return plan_clone(view, policy, record, "a new copy was asked for")
    wanted = _should_acknowledge(view, record)
    is_mistaken = replication.acknowledges != wanted and (
        replication.acknowledges or replication.is_receiving
    )
    if not is_attached or is_mistaken:
        verb = "acknowledging" if wanted else "not acknowledging"
        return act(
            Follow(
                primary=record.node,
                epoch=record.epoch,
                acknowledge=wanted,
                reason=f"{record.node} leads epoch {record.epoch}; {verb}",
            )
        )
    if replication.error:
        return wait(f"replication shows: {replication.error}", ERROR_CONFIRMED_AFTER_S)
    if view.engine.has_old_data and replication.is_receiving and replication.is_applying:
        return act(ForgetOldData(reason="a healthy replica again: the old data may go"))
    return _at_rest(view, policy, record)


def _at_rest(view: View, policy: Policy, record: PrimaryRecord) -> Plan:
    """It follows, and nothing is wrong."""
    strangers = _strangers(view, policy, record)
    if strangers:
        return act(
            CutStrangers(
                accounts=strangers,
                reason=f"they acknowledged to {record.node} unrecorded: shut out here too, before"
                " this node may lead",
            )
        )
    return wait(f"follows {record.node} in epoch {record.epoch}")


def _strangers(view: View, policy: Policy, record: PrimaryRecord) -> tuple[str, ...]:
    """Whom the primary's alarm names and this server still lets in."""
    leading = view.store.nodes.get(record.node)
    if leading is None:
        return ()
    named = set(leading.unexpected_clients) - set(policy.data_nodes) - view.shut_out
    return tuple(sorted(named))


def _should_acknowledge(view: View, record: PrimaryRecord) -> bool:
    """Only by a record of this very epoch that names this very life of the node; also while it asks
    for no acknowledgement yet, since it will."""
    durability = view.store.durability
    return (
        durability is not None
        and durability.epoch == record.epoch
        and durability.names(view.node, view.incarnation)
        and view.engine.replication.error is None
    )


def _take_over(view: View, policy: Policy, record: PrimaryRecord) -> Plan | None:
    """A lead that may soon be this node's: hold a lease early, claim at an offered position."""
    offer = view.store.handover
    request = view.store.switchover
    if offer is not None and offer.target == view.node and offer.epoch == record.epoch:
        if view.lease is None:
            return act(HoldLease(reason="the lead is offered to this node"))
        if view.engine.received < Position(offer.epoch, offer.last_sequence):
            return wait(
                f"takes over at sequence {offer.last_sequence}, is at {view.engine.received}",
                look_again_s=0.02,
            )
        return act(
            Claim(
                epoch=Epoch(record.epoch + 1),
                kind="switchover",
                handover_mod=view.store.handover_mod,
                reason=f"{record.node} hands over at sequence {offer.last_sequence}",
            )
        )
    if request is not None and request.target == view.node:
        if view.lease is None:
            return act(HoldLease(reason="a switchover names this node"))
        return None
    if _may_soon_claim(view, policy, record):
        if view.lease is None:
            return act(
                HoldLease(reason=f"{record.node} is not heard any more: this node may lead next")
            )
        return None
    if view.lease is not None and view.lease.epoch == 0:
        return act(DropLease(reason="what it was taken for is over"))
    return None


def _may_soon_claim(view: View, policy: Policy, record: PrimaryRecord) -> bool:
    """The primary has certainly gone, and only its lease still stands: this node may win. A lease
    held early saves one round of the store, and gives no right to anything."""
    durability = view.store.durability
    return (
        durability is not None
        and durability.names(view.node, view.incarnation)
        and view.node not in policy.never_promote
        and view.store.pause is None
        and is_silent(view, policy, record.node)
    )
