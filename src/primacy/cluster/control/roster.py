"""Who the configuration names: what reading and asking need of it. A value."""

from dataclasses import dataclass

from primacy.errors import NotFound, Rejected
from primacy.model import NodeId
from primacy.replication.records import DurabilityPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The cluster's name and nodes, by name; each node votes."""

    cluster: str
    members: tuple[NodeId, ...]
    data_nodes: tuple[NodeId, ...]
    never_promote: frozenset[NodeId] = frozenset()
    durability: DurabilityPolicy | None = None
    """What the file says, resolved to numbers."""

    @property
    def witnesses(self) -> frozenset[NodeId]:
        return frozenset(self.members) - frozenset(self.data_nodes)

    def node(self, name: str) -> NodeId:
        """`NotFound` for a name that the file does not have."""
        if name not in self.members:
            raise NotFound(
                f"there is no node {name!r}: the file's nodes are {', '.join(self.members)}",
                hint="Name one of these.",
            )
        return NodeId(name)

    def candidate(self, name: str) -> NodeId:
        """`NotFound`, or `Rejected` for a node that can never become primary."""
        node = self.node(name)
        if node in self.witnesses:
            raise Rejected(
                f"{node} is a witness: it has no data and cannot be primary",
                hint=f"Name one of {', '.join(self.data_nodes)}.",
            )
        if node in self.never_promote:
            raise Rejected(
                f"{node} cannot be primary: nodes.{node}.never_promote forbids it",
                hint="Name another node, or change the configuration.",
            )
        return node
