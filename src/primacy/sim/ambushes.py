"""Faults in a row, each at the worst moment: what random moments hit too seldom."""

from collections.abc import Callable, Mapping

from primacy.model import NodeId
from primacy.sim.cuts import Cuts
from primacy.sim.damage import Damage
from primacy.sim.moments import Moment
from primacy.sim.network import LOG_FLOWS
from primacy.sim.scene import Scene

AT_ONCE_S = 0.06
"""Within a step or two of the protocol."""

FREEZE_TTLS = 4.0

AHEAD_S = 0.8
"""How long one replica receives alone. The others notice that they do not after a second, and leave
the sync set after some more."""


class Ambushes:
    """By name, what strikes a node, or whoever the moment is about."""

    def __init__(self, scene: Scene, cuts: Cuts, damage: Damage) -> None:
        self._scene = scene
        self._cuts = cuts
        self._damage = damage
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "laggard": scene.when_settled(self._laggard),
            "contested-election": self._contested_election,
            "mid-promotion": scene.when_settled(self._mid_promotion),
            "replica-restart": scene.when_settled(self._replica_restart),
            "replica-agent": scene.when_settled(self._replica_agent),
            "only-holder": scene.when_settled(self._only_holder),
            "lonely-primary": scene.when_settled(self._lonely_primary),
            "thaw": scene.when_settled(self._thaw),
            "swap-in-the-dark": scene.when_settled(self._swap_in_the_dark),
            "ambush": self._ambush,
            "switchover": self._switchover,
        }

    def _laggard(self, name: NodeId) -> None:
        """A replica's server stops, and most of a ttl later the primary's host dies."""
        primary = self._scene.primary()
        replicas = [each for each in self._scene.data if each not in (primary, name)]
        if primary is None or not replicas:
            return
        replica = self._scene.chance.choice(replicas)
        self._scene.pause(replica, [self._scene.nodes[replica].engine_process])
        self._scene.after(0.7 * self._scene.ttl_s, self._scene.crash_host, primary)

    def _contested_election(self, name: NodeId) -> None:
        """The store's leader dies; one member is slow to write its vote down; and the first that
        grants one crashes at that moment, and is back before the election is over, perhaps with a
        blank disk."""
        leader, slow = self._scene.leader() or name, self._scene.chance.choice(self._scene.names)
        disk = self._scene.nodes[slow].member.disk
        disk.slowness = 50.0
        self._scene.later(0.5, 2 * self._scene.ttl_s, setattr, disk, "slowness", 1.0)
        self._scene.at_next(Moment.VOTED, self._stumble, within_s=0.0)
        self._scene.crash_agent(leader)

    def _stumble(self, name: NodeId) -> None:
        node = self._scene.nodes[name]
        if not node.agent_process.is_running:
            return
        self._scene.world.trace.sometimes("crash after a vote")
        if self._scene.chance.random() < 0.3 and self._damage.may_spoil(name):
            self._scene.spoiled.add(name)
            node.crash_agent()
            node.member.wipe()
        else:
            node.crash_agent()
        self._scene.after(0.005 + 0.02 * self._scene.chance.random(), self._scene.revive, name)

    def _mid_promotion(self, name: NodeId) -> None:
        """The primary's host dies, and its successor after its record is created, before it
        opens."""
        self._scene.at_next(Moment.CLAIMED, self._scene.crash_host, within_s=0.4)
        self._scene.crash_host(self._scene.primary() or name)

    def _replica_restart(self, name: NodeId) -> None:
        """A replica with a tail that it has not applied is killed and starts again: that tail
        stands in its relay log alone. Then the primary's host dies."""
        replica = self._scene.a_replica()
        if replica is None:
            return
        self._damage.slow_applier(replica)
        ttl_s = self._scene.ttl_s
        self._scene.after(0.3 * ttl_s, self._scene.crash_engine, replica)
        after_s = 0.3 * ttl_s + self._scene.chance.uniform(0.0, 1.0)
        self._scene.after(after_s, self._scene.crash_host, self._scene.primary() or name)

    def _replica_agent(self, name: NodeId) -> None:
        """The agent of an acknowledging replica is killed; its database acknowledges on. Then the
        primary's host dies."""
        replica = self._scene.a_replica()
        if replica is not None:
            self._scene.crash_agent(replica, 3 * self._scene.ttl_s)
            self._scene.later(
                0.05, self._scene.ttl_s, self._scene.crash_host, self._scene.primary() or name
            )

    def _only_holder(self, name: NodeId) -> None:
        """One replica alone has the newest writes; something happens to it, and the primary's host
        dies at the same time. What was acknowledged last is nowhere else."""
        del name
        scene = self._scene
        primary, holder = scene.primary(), scene.a_replica()
        if primary is None or holder is None:
            return
        others = [each for each in scene.replicas() if each != holder]
        links: list[tuple[str, str]] = [(primary, each) for each in others]
        scene.cut_flows(
            links + [(each, primary) for each in others],
            LOG_FLOWS,
            low_s=2 * AHEAD_S,
            high_s=3 * AHEAD_S,
        )
        deeds: list[Callable[[NodeId], None]] = [
            self._damage.wipe_data,
            self._crash_agent_for_long,
            self._crash_host_for_long,
            self._crash_with_unapplied,
            self._pause_host,
            self._pause_engine,
        ]
        self._damage.slow_applier(holder)
        scene.after(AHEAD_S, scene.chance.choice(deeds), holder)
        scene.after(AHEAD_S, scene.crash_host, primary)

    def _crash_agent_for_long(self, name: NodeId) -> None:
        self._scene.crash_agent(name, 3 * self._scene.ttl_s)

    def _crash_host_for_long(self, name: NodeId) -> None:
        self._scene.crash_host(name, 6 * self._scene.ttl_s)

    def _crash_with_unapplied(self, name: NodeId) -> None:
        """What it has not applied stands in its relay log alone."""
        self._scene.crash_engine(name)

    def _lonely_primary(self, name: NodeId) -> None:
        """No replica is reached, so commits wait; the primary's agent stops past its lease; and
        nobody else can act, so that the next primary is the same node."""
        scene = self._scene
        scene.cut_flows(scene.both_ways(name), LOG_FLOWS, low_s=1.5 * scene.ttl_s)
        for each in scene.replicas():
            scene.pause(
                each, [scene.nodes[each].agent_process], 5 * scene.ttl_s, low_s=3 * scene.ttl_s
            )
        agent = scene.nodes[name].agent_process
        scene.pause(name, [agent], 2.0 * scene.ttl_s, low_s=1.2 * scene.ttl_s)

    def _thaw(self, name: NodeId) -> None:
        """The primary's host is frozen, long enough to be replaced, while a replica's agent is
        away: its database waits for the old primary. Then it thaws."""
        primary, replica = self._scene.primary() or name, self._scene.a_replica()
        if replica is not None:
            self._scene.crash_agent(replica, FREEZE_TTLS * self._scene.ttl_s)
        longest_s = FREEZE_TTLS * self._scene.ttl_s
        self._scene.pause(primary, self._scene.nodes[primary].processes, longest_s)

    def _swap_in_the_dark(self, name: NodeId) -> None:
        """A record is swapped while its primary is cut off from the store, so that it does not
        know; and whoever had to leave is well again, and knows as little."""
        primary, replica = self._scene.primary(), self._scene.a_replica()
        if primary is None or replica is None:
            return
        del name
        scene = self._scene
        scene.at_next(Moment.MARKED, self._go_dark, within_s=AT_ONCE_S)
        agent = scene.nodes[replica].agent_process
        scene.pause(replica, [agent], 4 * scene.ttl_s, low_s=2 * scene.ttl_s)
        links: list[tuple[str, str]] = [(primary, replica), (replica, primary)]
        self._scene.cut_flows(links, LOG_FLOWS, low_s=1.0, high_s=2.0)

    def _go_dark(self, name: NodeId) -> None:
        """What it asks for is heard; what it is answered is not."""
        links: list[tuple[str, str]] = [(each, name) for each in self._scene.names if each != name]
        self._scene.cut_flows(links, ("store", "raft", "watch"), high_s=2 * self._scene.ttl_s)
        self._scene.network.flow_cuts.difference_update(
            {cut for cut in self._scene.network.flow_cuts if cut[2] in LOG_FLOWS}
        )

    def _ambush(self, name: NodeId) -> None:
        """Any deed at any moment, to whom the moment is about, or to the store's leader."""
        del name
        scene = self._scene
        deeds: list[Callable[[NodeId], None]] = [
            scene.crash_host,
            scene.crash_agent,
            scene.crash_engine,
            scene.crash_guard,
            self._cuts.isolate,
            self._cuts.store_cut,
            self._cuts.log_cut,
            self._pause_host,
            self._pause_agent,
            self._damage.wipe_data,
            self._crash_leader,
        ]
        moment = scene.chance.choice(list(Moment))
        scene.at_next(moment, scene.chance.choice(deeds), within_s=AT_ONCE_S)

    def _pause_host(self, name: NodeId) -> None:
        self._scene.pause(name, self._scene.nodes[name].processes)

    def _pause_engine(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].engine_process])

    def _pause_agent(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].agent_process])

    def _crash_leader(self, name: NodeId) -> None:
        self._scene.crash_agent(self._scene.leader() or name)

    def _switchover(self, name: NodeId) -> None:
        del name
        self._scene.ask_switchover()
