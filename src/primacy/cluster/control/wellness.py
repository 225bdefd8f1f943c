"""Is every data node well? One answer for a rolling restart and for the demo. Pure."""

from collections.abc import Collection

from primacy.cluster.view import StoreView
from primacy.model import NodeId

STATUS_OLD_AFTER_S = 5.0
"""Each agent publishes every second."""


def who_belongs(view: StoreView) -> frozenset[NodeId]:
    """Who holds every acknowledged write now: each must do so again before the next one goes."""
    durability = view.durability
    if durability is None or durability.acks == 0:
        return frozenset()
    return frozenset({durability.primary.node, *(each.node for each in durability.members)})


def ailments(
    view: StoreView, data_nodes: Collection[NodeId], belong: Collection[NodeId]
) -> list[str]:
    """What is not well yet, in words; empty where all is. Those in `belong` are to acknowledge."""
    primary, durability = view.primary, view.durability
    if primary is None or durability is None or durability.epoch != primary.epoch:
        return ["there is no primary with open doors"]
    found: list[str] = []
    for node in data_nodes:
        status = view.nodes.get(node)
        if status is None or view.silent_for_s.get(node, 0.0) >= STATUS_OLD_AFTER_S:
            found.append(f"{node} is silent")
        elif node == primary.node:
            if status.state != "running" or status.is_read_only:
                found.append(f"{node} is primary and its doors are closed: {status.doing}")
        elif not status.is_healthy_replica or status.following_epoch != primary.epoch:
            found.append(f"{node}: {status.error or status.doing or status.state}")
        elif node in belong and not durability.names(node, status.incarnation):
            found.append(f"{node} is not in the sync set")
        elif node in belong and not status.acknowledges:
            # Were the other member to go now, what this one received before it began to
            # acknowledge would wait for ever, and the primary would have to give up.
            found.append(f"{node} does not acknowledge yet")
    if durability.is_degraded:
        found.append("the cluster is degraded")
    return found
