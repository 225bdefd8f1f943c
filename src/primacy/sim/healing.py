"""The liveness phase: everything is repaired, so everything must become whole again by itself.

Not "some write went through": one primary with its own record and open doors, every other data node
a healthy replica that holds its log and is in the sync set, every voter that kept its disk up to
date. Read off disks, links and the store; nobody's word for it is taken.
"""

from collections.abc import Collection, Mapping

from primacy.cluster.policy import Policy
from primacy.coordination.embedded.member import StoreMember
from primacy.model import Incarnation, Member, NodeId
from primacy.sim.invariants import Invariants
from primacy.sim.node import Node

STORE_LAG_MAX = 50
"""Revisions: what is on its way at any moment."""


class Healing:
    """Ask `lacking` from time to time. Empty: the cluster is whole."""

    def __init__(
        self,
        nodes: Mapping[NodeId, Node],
        policy: Policy,
        invariants: Invariants,
        *,
        spoiled: Collection[NodeId],
    ) -> None:
        self._nodes = nodes
        self._policy = policy
        self._invariants = invariants
        self._spoiled = spoiled
        self._end: tuple[NodeId, int] | None = None
        """Whose log had to be held, and how far, when `lacking` was asked last."""

    def lacking(self) -> str:
        """What is missing, in words."""
        return self._in_store() or self._in_primary() or self._in_replicas()

    def check_whole(self) -> None:
        """Once nothing is lacking: the logs agree, and hold all that they must."""
        record = self._invariants.primary
        if record is None:
            return
        ledger = self._invariants.ledger
        primary = self._nodes[record.node].engine
        ledger.check_end(primary)
        for name in self._policy.data_nodes:
            files = self._nodes[name].engine.files
            end = min(len(files.log), len(primary.files.log))
            if files.log[:end] != primary.files.log[:end]:
                self._invariants.fail(
                    "replica-is-a-prefix", f"after the repair {name} differs from {record.node}"
                )

    def _in_store(self) -> str:
        members: dict[NodeId, StoreMember] = {}
        for name, node in self._nodes.items():
            member = node.member.member
            if member is None or not node.agent_process.is_running:
                return f"the agent of {name} does not run"
            if name in self._spoiled and not member.raft.is_admitted:
                continue  # Refused: only a person can tell that its new disk never voted.
            members[name] = member
        leaders = [name for name, member in members.items() if member.is_ready_leader]
        if len(leaders) != 1:
            return f"the store is led by {leaders}"
        newest = members[leaders[0]].kv.revision
        for name, member in members.items():
            if member.kv.revision < newest - STORE_LAG_MAX:
                return f"the store's member {name} is at {member.kv.revision} of {newest}"
        return ""

    def _in_primary(self) -> str:
        record = self._invariants.primary
        if record is None:
            return "there is no primary record"
        durability = self._invariants.ledger.durability.get(record.epoch)
        if durability is None:
            return f"{record.node} has not recorded a D for epoch {record.epoch}"
        node = self._nodes[record.node]
        if not node.engine.process.is_running or node.engine.is_read_only:
            return f"the doors of {record.node} are closed"
        clock = node.router_process.clock
        if not node.page.passes(record.epoch, clock.local_s(self._invariants.world.now_s)):
            return f"the page of {record.node} is {node.page.state} for epoch {node.page.epoch}"
        others = [name for name in self._policy.ack_nodes if name != record.node]
        wanted = {Member(name, self._incarnation(name)) for name in others}
        if self._policy.acks == 0:
            wanted = set()
        if durability.acks != self._policy.acks or set(durability.members) != wanted:
            return f"D is {durability}"
        if node.engine.files.excluded:
            return f"{record.node} excludes {sorted(node.engine.files.excluded)}"
        return ""

    def _in_replicas(self) -> str:
        record = self._invariants.primary
        if record is None:
            return "there is no primary record"
        primary = self._nodes[record.node].engine
        asked, self._end = self._end, (record.node, primary.files.synced)
        if asked is None or asked[0] != record.node:
            return "the primary has just been found"
        for name in self._policy.data_nodes:
            engine = self._nodes[name].engine
            if name == record.node:
                continue
            if not engine.process.is_running or engine.receiver.upstream != record.node:
                return f"{name} does not follow {record.node}"
            if engine.receiver.observed().error or not engine.receiver.is_connected:
                return f"{name} does not receive: {engine.receiver.observed().error}"
            if engine.files.applied < asked[1]:
                return f"{name} has applied {engine.files.applied} of {asked[1]}"
        return ""

    def _incarnation(self, name: NodeId) -> Incarnation:
        return self._nodes[name].engine.files.incarnation or Incarnation("")
