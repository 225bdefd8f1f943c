r"""The way back of a node whose data the new history may not continue: save, cut, rewind or clone.

    server down --> SaveDiverged --> nothing: start, keep all -----------------------> follow
                                 \-> something: start, cut what was not committed --> follow
                                          still no prefix: Rewind, where it has a reverse
                                                           Clone, where not

    somebody wrote on a replica --> Kill --> SaveDiverged --> Start --> once the sync set does
                                             without it: Rewind or Clone --> follow

What is cut, rewound or replaced by a copy was saved, counted and reported before.

A copy comes from a replica that the policy can spare: the sync set has more members than must
acknowledge, and that one leaves it first, since a copy costs it much of its disk. Else it comes
from the primary, throttled.
"""

from primacy.cluster.actions import (
    Clone,
    DropLease,
    Kill,
    Plan,
    Rewind,
    SaveDiverged,
    Start,
    act,
    wait,
)
from primacy.cluster.plan_task import is_to_be_copied
from primacy.cluster.policy import Policy
from primacy.cluster.view import View, is_silent
from primacy.model import ORIGIN, NodeId
from primacy.replication.records import DurabilityRecord, PrimaryRecord

CUT_NAMED_AFTER_TTLS = 2.0
"""How long a node that the old record names leaves it to others to hold the new epoch row, before
its own tail is cut to do so. The winner holds all that was acknowledged; what ends with the cut is
only this node's way back by rule 5(a), should the winner's disk die before its record stands."""

HOPELESS_STARTS = 10
"""A server that could not start so often in a row, over half a minute of growing pauses, is given
up: its data is set aside and cloned anew, unless the durability record counts on it."""

TORN = "a rewind of its data did not come to its end"


def plan_rejoin(view: View, policy: Policy, record: PrimaryRecord) -> Plan:
    """A stopped server with data."""
    if view.engine.received == ORIGIN and view.engine.sealed_epoch == 0:
        return plan_clone(view, policy, record, "this node's data is blank")
    if view.engine.is_torn:
        return plan_clone(view, policy, record, TORN)
    if record.epoch not in view.store.branches:
        return wait(f"{record.node} has not begun epoch {record.epoch} yet")
    found = view.diverged.get(record.epoch)
    if found is None:
        branches = view.store.branches
        return act(
            SaveDiverged(
                epoch=record.epoch,
                branches=tuple(branches[epoch] for epoch in sorted(branches)),
                reason=f"before the server starts: what does epoch {record.epoch} not have?",
            )
        )
    if is_to_be_copied(view):
        return plan_clone(view, policy, record, "a new copy was asked for")
    failed_starts = view.failures.get(Start.__name__, 0)
    if failed_starts >= HOPELESS_STARTS and is_spare(view, record):
        return plan_clone(view, policy, record, f"its server could not start {failed_starts} times")
    if found.count == 0 and found.is_certain:
        return act(Start(as_primary=True, reason="its log is a part of the new history: no cut"))
    if found.is_errant:
        return act(
            Start(
                as_primary=True,
                reason=f"{found.count} transaction(s) of its own are saved; they are committed, so"
                " that no start cuts them",
            )
        )
    durability = view.store.durability
    is_named = durability is not None and (
        durability.primary.node == view.node or durability.names(view.node, view.incarnation)
    )
    left_s = CUT_NAMED_AFTER_TTLS * policy.lease_ttl_s - view.state_for_s
    if is_named and not is_settled(view, record) and left_s > 0:
        return wait(
            f"{found.count} transaction(s) would be cut, and the durability record does not stand"
            f" for epoch {record.epoch} yet: the server stays down for {left_s:.1f} s more",
            look_again_s=left_s,
        )
    return act(
        Start(
            as_primary=False,
            reason=f"{found.count} transaction(s) that the new history has not are saved; what"
            " was not committed of them is cut",
        )
    )


def is_spare(view: View, record: PrimaryRecord) -> bool:
    """The record of the primary's own epoch stands and does not count on this node's data."""
    durability = view.store.durability
    return (
        durability is not None
        and durability.epoch == record.epoch
        and not durability.names(view.node, view.incarnation)
    )


def is_settled(view: View, record: PrimaryRecord) -> bool:
    """The primary has recorded its own D: its log holds all that was ever acknowledged, so what
    this node alone has may go."""
    durability = view.store.durability
    return durability is not None and durability.epoch == record.epoch


def plan_diverged(view: View, policy: Policy, record: PrimaryRecord, error: str | None) -> Plan:
    """The server runs, and its log is no prefix of the primary's."""
    found = view.diverged[record.epoch]
    if not found.is_reversible:
        why = found.obstacle or error
        return plan_clone(view, policy, record, f"diverged: {why}")
    return act(
        Rewind(
            found=found,
            primary=record.node,
            epoch=record.epoch,
            reason=f"{found.count} transaction(s) are saved and have a reverse: taken back, not"
            " copied over",
        )
    )


def plan_errant(view: View, policy: Policy, record: PrimaryRecord) -> Plan:
    """Somebody wrote on this replica. The server gave those transactions the sequences of the
    primary's next ones, which it can therefore not apply; it goes on acknowledging them.

    While the record names this very life of the node, its log is not shortened: it may be the only
    one that has received something. A clone ends that life, and so it may.
    """
    found, error = view.diverged.get(record.epoch), view.engine.replication.error
    if view.store.pause is not None:
        return wait(f"paused: no rejoins. {error}")
    if view.lease is not None and view.lease.epoch == 0:
        return act(DropLease(reason=f"it takes over nothing: {error}"))
    if found is None or not found.is_errant:
        return act(Kill(reason=f"{error}: its logs are read first"))
    if is_spare(view, record):
        return plan_diverged(view, policy, record, error)
    left_s = CUT_NAMED_AFTER_TTLS * policy.lease_ttl_s - view.error_for_s
    if left_s > 0:
        return wait(
            f"{found.count} transaction(s) of its own are saved; they are taken back when the sync"
            f" set does without this node, at the latest in {left_s:.1f} s",
            look_again_s=left_s,
        )
    return plan_clone(view, policy, record, f"{error}, and the sync set cannot do without it")


# ---- a copy, and from whom


def plan_clone(view: View, policy: Policy, record: PrimaryRecord, why: str) -> Plan:
    donor = view.store.nodes.get(record.node)
    is_ready = donor is not None and donor.state == "running"
    if donor is None or not is_ready or donor.applied.epoch < record.epoch:
        return wait(f"{why}: it will be cloned once {record.node} has begun epoch {record.epoch}")
    durability = view.store.durability
    if durability is None or durability.epoch != record.epoch:
        return act(Clone(donor=record.node, reason=f"{why}; the sync set does not stand yet"))
    spare = _spare(view, policy, record, durability)
    if spare is None:
        return act(Clone(donor=record.node, reason=f"{why}; no replica can be spared"))
    if durability.names(spare, view.store.nodes[spare].incarnation):
        return wait(f"{why}: {spare} leaves the sync set to give a copy", donor=spare)
    return act(Clone(donor=spare, reason=f"{why}; {spare} can be spared"))


def _spare(
    view: View, policy: Policy, record: PrimaryRecord, durability: DurabilityRecord
) -> NodeId | None:
    """A healthy replica without which, and without those that others have asked, enough members
    acknowledge: one outside the set first."""
    able = [
        each.node
        for each in durability.members
        if _is_well(view, policy, record, each.node) and view.store.nodes[each.node].acknowledges
    ]
    asked = {
        status.donor
        for node, status in view.store.nodes.items()
        if node != view.node and status.donor is not None and not is_silent(view, policy, node)
    }
    fit = [
        node
        for node in policy.data_nodes
        if node not in (view.node, record.node, *asked)
        and _is_well(view, policy, record, node)
        and len([each for each in able if each != node and each not in asked]) >= durability.acks
    ]
    named = {each.node for each in durability.members}
    return min(fit, key=lambda node: (node in named, policy.weight(node), node), default=None)


def _is_well(view: View, policy: Policy, record: PrimaryRecord, node: NodeId) -> bool:
    status = view.store.nodes.get(node)
    return (
        status is not None
        and status.is_healthy_replica
        and status.following_epoch == record.epoch
        and status.upstream == record.node
        and status.applied.epoch == record.epoch
        and not is_silent(view, policy, node)
    )
