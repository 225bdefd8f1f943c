"""What is known of one node as a receiver: who acknowledges, who cannot, who might. Pure.

An acknowledgement counts wherever it comes from, so two questions decide a change of the sync set:
who is surely cut off, and who is surely silent. A node that is neither may acknowledge.
"""

from collections.abc import Collection

from primacy.cluster.policy import Policy
from primacy.cluster.view import StoreView, View, is_silent
from primacy.engines.api import Sending
from primacy.model import Epoch, Incarnation, Member, NodeId
from primacy.replication.records import DurabilityRecord


def incarnation_of(view: View, node: NodeId) -> Incarnation | None:
    status = view.store.nodes.get(node)
    return status.incarnation if status else None


def member_of(view: View, node: NodeId) -> Member:
    return Member(node, incarnation_of(view, node) or Incarnation(""))


def is_cut_off(view: View, node: NodeId) -> bool:
    """Kept from attaching, and not attached any more: a lock alone leaves the connection that it
    found, and that one goes on acknowledging."""
    sending = view.engine.sending
    return node in sending.excluded and node not in sending.receivers


def is_donor(view: View, policy: Policy, node: NodeId) -> bool:
    """Another node copies its data from this one, or asks for that."""
    return any(
        status.donor == node and not is_silent(view, policy, each)
        for each, status in view.store.nodes.items()
    )


def is_known_silent(view: View, node: NodeId, epoch: Epoch) -> bool:
    """It has been told to follow this very epoch, and acknowledges nothing."""
    status = view.store.nodes.get(node)
    return (
        status is not None
        and status.following_epoch == epoch
        and status.upstream == view.node
        and not status.acknowledges
    )


def may_acknowledge(
    view: View, policy: Policy, epoch: Epoch, named: Collection[NodeId]
) -> NodeId | None:
    """A node outside `named` that could attach by itself and acknowledge: one that was never told
    of this epoch, because it is cut off from the store or its agent is down."""
    for node in policy.data_nodes:
        is_outside = node != view.node and node not in named
        if is_outside and not is_cut_off(view, node) and not is_known_silent(view, node, epoch):
            return node
    return None


def acknowledges(view: View, record: DurabilityRecord, member: Member) -> bool:
    status = view.store.nodes.get(member.node)
    return (
        status is not None
        and status.incarnation == member.incarnation
        and view.is_fit_receiver(member.node, record.epoch)
        and status.acknowledges
    )


# ---- acknowledgements that nobody asked for


def unexpected_count(sending: Sending, store: StoreView, *, is_strict: bool) -> int:
    """How many clients acknowledge here beyond the recorded members that are attached; strict:
    beyond those of them that say themselves that they acknowledge."""
    record = store.durability
    if record is None or store.primary is None or record.epoch != store.primary.epoch:
        return 0  # The doors are closed: nobody's acknowledgement lets anything pass.
    expected = 0
    for member in record.members:
        status = store.nodes.get(member.node)
        if status is None or status.incarnation != member.incarnation:
            continue
        if status.acknowledges or not is_strict:
            expected += connection_count(sending, member.node)
    return max(0, sending.acknowledging_count - expected)


def connection_count(sending: Sending, node: NodeId) -> int:
    """A node that has just connected anew may still have its old connection here."""
    return sending.connections.get(node, int(node in sending.receivers))
