"""The brain: from what is known to the next step, with its reason. Pure.

Promises  One step at a time towards one writable primary, from any state that a crash may leave.
          No step is unsafe by itself: what must not be raced is compared in a transaction of the
          store (`transactions`) or refused by the engine, never merely looked at here.
Assumes   The view is one revision of the store, read or watched linearizably.
Source    DESIGN: the promotion rule. The five rooms of the decision:

    no primary record ---------------> plan_vacant    bootstrap, seal, return, claim
    the record names this node ------> plan_opening   epoch row, own D, doors
                     and D is its own: plan_primary   sync set, switchover, loss of the database
    the record names another --------> plan_replica   clone, rejoin, follow, take the lead over
"""

from primacy.cluster.actions import GiveUp, Plan, act, wait
from primacy.cluster.plan_opening import plan_opening
from primacy.cluster.plan_primary import plan_primary
from primacy.cluster.plan_replica import plan_replica
from primacy.cluster.plan_vacant import plan_vacant
from primacy.cluster.policy import Policy
from primacy.cluster.view import View
from primacy.engines.api import ServerState


def plan(view: View, policy: Policy) -> Plan:
    """The next step of this node, or what it waits for. `policy` is that of the configuration: what
    an operator has set on the running cluster stands above it."""
    return _next(view, policy.under(view.store.policy))


def _next(view: View, policy: Policy) -> Plan:
    if view.node not in policy.data_nodes:
        return wait("a witness: it votes and holds no data")
    if view.engine.state is ServerState.FOREIGN:
        return wait(f"a data directory that primacy did not make: {view.engine.detail}")
    if not view.is_store_current:
        return wait("the store has not confirmed anything for one lease: no majority, or cut off")
    record = view.store.primary
    if record is None:
        return _without_record(view, policy)
    if record.node != view.node:
        return plan_replica(view, policy)
    if record.incarnation != view.incarnation:
        return wait(
            f"the record names an earlier life of {view.node}: its lease must end first",
            look_again_s=policy.lease_ttl_s,
        )
    durability = view.store.durability
    if durability is not None and durability.epoch == record.epoch:
        return plan_primary(view, policy)
    return plan_opening(view, policy)


def _without_record(view: View, policy: Policy) -> Plan:
    """A lease that was claimed with has ended in the store: what it allowed must end here."""
    lease = view.lease
    if lease is not None and lease.epoch > 0:
        return act(
            GiveUp(
                epoch=lease.epoch,
                reason=f"the primary record of epoch {lease.epoch} is gone: the lease has ended",
            )
        )
    if view.page.state != "closed":
        return act(
            GiveUp(
                epoch=view.page.epoch,
                reason=f"the page is {view.page.state} for epoch {view.page.epoch},"
                " and no primary record stands",
            )
        )
    return plan_vacant(view, policy)
