"""Who pulls from whom: a star, or trees below the primary. Pure.

Promises  Every replica has one upstream; every way up ends at the primary, so there is no cycle;
          members of the sync set pull from the primary itself; nobody is sent to a node that does
          not serve.
Assumes   Decisions are carried out one node at a time and in any order: `is_cycle` refuses what
          would close a circle on the way from one plan to the next.
Does not  Decide anything that safety rests on: only members acknowledge, and they are direct.

Where a preferred upstream does not serve, its children go to its own upstream, and so on up to the
primary; when it serves again they return.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from primacy.model import NodeId


class Shape(Enum):
    """What the replicas look like from above."""

    STAR = "star"
    """Everybody pulls from the primary."""
    CASCADE = "cascade"
    """Replicas outside the sync set may pull from another replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyPolicy:
    """What an operator wants."""

    shape: Shape = Shape.STAR
    preferred: Mapping[NodeId, NodeId] = field(default_factory=dict)
    """Replica -> the upstream that it shall have. Without an entry: the primary."""
    children_max: int = 8
    """Of one replica; the primary takes all that are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What is known of a data node that is not the primary."""

    node: NodeId
    serves: bool = True
    """It streams from the primary's history now, and its door is open to others."""
    is_member: bool = False
    """In the sync set, or about to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One decision."""

    node: NodeId
    upstream: NodeId
    reason: str


def plan(
    primary: NodeId, replicas: Collection[Replica], policy: TopologyPolicy
) -> dict[NodeId, Attachment]:
    """The upstream of each replica, with the reason. The same answer for the same question.

    Nobody is attached to a node that is not attached itself: circles cannot come about.
    """
    known = {each.node: each for each in replicas if each.node != primary}
    wanted = {node: _wanted(primary, known[node], policy) for node in known}
    upward = {node: up for node, (up, _) in wanted.items()}
    chosen: dict[NodeId, Attachment] = {}
    children: dict[NodeId, int] = {}

    def obstacle(candidate: NodeId) -> str | None:
        if candidate not in known:
            return f"{candidate} is no replica of this cluster"
        if candidate not in chosen:
            return f"the preferences lead in a circle through {candidate}"
        if not known[candidate].serves:
            return f"{candidate} does not serve"
        if children.get(candidate, 0) >= policy.children_max:
            return f"{candidate} serves {policy.children_max} already"
        return None

    for node in sorted(known, key=lambda each: (len(way_up(each, upward)), each)):
        upstream, reason = wanted[node]
        tried: set[NodeId] = set()
        while upstream != primary and (why := obstacle(upstream)) is not None:
            reason = why
            tried.add(upstream)
            above = upward.get(upstream, primary)
            upstream = primary if above in tried or above == node else above
        chosen[node] = Attachment(node=node, upstream=upstream, reason=reason)
        children[upstream] = children.get(upstream, 0) + 1
    return chosen


def way_up(node: NodeId, upstreams: Mapping[NodeId, NodeId]) -> list[NodeId]:
    """Upstream, its upstream, ... until nobody is above, or the way meets itself."""
    way: list[NodeId] = []
    seen = {node}
    above = upstreams.get(node)
    while above is not None:
        way.append(above)
        if above in seen:
            break
        seen.add(above)
        above = upstreams.get(above)
    return way


def is_cycle(node: NodeId, path: Sequence[NodeId]) -> bool:
    """Whether `node` would pull from itself: `path` leads from the primary to the upstream."""
    return node in path


def _wanted(primary: NodeId, replica: Replica, policy: TopologyPolicy) -> tuple[NodeId, str]:
    if policy.shape is Shape.STAR:
        return primary, "a star: everybody pulls from the primary"
    if replica.is_member:
        return primary, "a member of the sync set pulls from the primary itself"
    preferred = policy.preferred.get(replica.node, primary)
    if preferred == primary:
        return primary, "no other upstream is preferred"
    return preferred, f"{preferred} is preferred"
