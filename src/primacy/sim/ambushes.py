"""Faults in a row, each at the worst moment: what random moments hit too seldom."""

from collections.abc import Callable, Mapping
from functools import partial

from primacy.model import NodeId
from primacy.sim.cuts import Cuts
from primacy.sim.damage import Damage
from primacy.sim.flights import Flights
from primacy.sim.moments import SENT, Moment
from primacy.sim.network import LOG_FLOWS, STORE_FLOWS
from primacy.sim.outages import Outages
from primacy.sim.scene import Scene

AT_ONCE_S = 0.06
"""Within a step or two of the protocol."""

FREEZE_TTLS = 4.0

AHEAD_S = 0.8
"""How long one replica receives alone. The others notice that they do not after a second, and leave
the sync set after some more."""


class Ambushes:
    """By name, what strikes a node, or whoever the moment is about."""

    def __init__(
        self, scene: Scene, *, outages: Outages, cuts: Cuts, damage: Damage, flights: Flights
    ) -> None:
        self._scene = scene
        self._outages = outages
        self._cuts = cuts
        self._flights = flights
        self._damage = damage
        self._deeds: list[Callable[[NodeId], None]] = [
            scene.crash_host,
            scene.crash_agent,
            scene.crash_engine,
            scene.crash_guard,
            cuts.isolate,
            cuts.store_cut,
            cuts.log_cut,
            cuts.deaf,
            cuts.mute,
            damage.wipe_data,
            damage.slow_disk,
            flights.late_requests,
            self._restart_agent,
            self._pause_host,
            self._pause_agent,
            self._pause_engine,
            self._pause_guard,
            self._crash_leader,
        ]
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "laggard": scene.when_settled(self._laggard),
            "contested-election": self._contested_election,
            "stale-candidate": self._stale_candidate,
            "mid-promotion": scene.when_settled(self._mid_promotion),
            "replica-restart": scene.when_settled(self._replica_restart),
            "replica-agent": scene.when_settled(self._replica_agent),
            "only-holder": scene.when_settled(self._only_holder),
            "slow-heir": scene.when_settled(self._slow_heir),
            "late-adoption": scene.when_settled(self._late_adoption),
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

    def _stale_candidate(self, name: NodeId) -> None:
        """A member misses what the others agree on. It is back at the moment at which the leader
        dies, and may be the first to campaign."""
        scene = self._scene
        leader = scene.leader() or name
        stale = scene.other_than(leader)
        links = scene.both_ways(stale)
        cut = [(one, other, flow) for one, other in links for flow in STORE_FLOWS]
        scene.network.flow_cuts.update(cut)
        after_s = scene.ttl_s * scene.chance.uniform(0.3, 1.0)
        scene.after(after_s, scene.network.flow_cuts.difference_update, cut)
        scene.after(after_s, scene.crash_agent, leader, 2 * scene.ttl_s, 0.5 * scene.ttl_s)

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
        self._cut_from_log(primary, others)
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

    def _slow_heir(self, name: NodeId) -> None:
        """Whoever is to hold everything next is slow to write it down. Another replica has it, and
        leads next, or leaves. Whoever then records that the slow one is enough dies, and what the
        slow one had not written goes with its server."""
        scene, quick = self._scene, self._scene.a_replica()
        heirs = [each for each in scene.replicas() if each != quick]
        if quick is None or not heirs:
            return
        for each in heirs:
            self._damage.slow_data_disk(each)
        if scene.chance.random() < 0.5:
            self._outages.no_restart(quick, low_s=2.0 * scene.ttl_s)
            scene.at_next(Moment.RECORDED, partial(self._die_with, heirs), within_s=AT_ONCE_S)
        else:
            self._cut_from_log(name, heirs)
            scene.after(AHEAD_S, self._lead_and_die, name, heirs)

    def _lead_and_die(self, name: NodeId, heirs: list[NodeId]) -> None:
        scene = self._scene
        scene.at_next(Moment.RECORDED, partial(self._die_with, heirs), within_s=AT_ONCE_S)
        scene.crash_host(name, 6 * scene.ttl_s)

    def _die_with(self, heirs: list[NodeId], name: NodeId) -> None:
        self._crash_host_for_long(name)
        for each in heirs:
            self._scene.crash_engine(each)

    def _cut_from_log(self, name: NodeId, others: list[NodeId]) -> None:
        """They receive nothing, and have not noticed it yet when `AHEAD_S` is over."""
        links: list[tuple[str, str]] = [(name, each) for each in others]
        links += [(each, name) for each in others]
        self._scene.cut_flows(links, LOG_FLOWS, low_s=2 * AHEAD_S, high_s=3 * AHEAD_S)

    def _late_adoption(self, name: NodeId) -> None:
        """The primary's agent is away for most of its lease. Once it is back something else
        happens to it."""
        scene, ttl_s = self._scene, self._scene.ttl_s
        deed = scene.chance.choice([self._cuts.store_cut, self._cuts.mute, self._pause_agent])
        scene.at_next(Moment.RECORDED, deed, within_s=AT_ONCE_S)
        scene.crash_agent(name, 0.9 * ttl_s, 0.4 * ttl_s)

    def _lonely_primary(self, name: NodeId) -> None:
        """No replica is there, so commits wait; the primary's agent stops or dies past its lease;
        and nobody else can act, so that the next primary is the same node."""
        scene, ttl_s = self._scene, self._scene.ttl_s
        if scene.chance.random() < 0.5:
            for each in scene.replicas():
                self._outages.no_restart(each, low_s=3.5 * ttl_s)
            scene.after(0.2, scene.crash_agent, name, 2.0 * ttl_s, 1.2 * ttl_s)
            return
        scene.cut_flows(scene.both_ways(name), LOG_FLOWS, low_s=1.5 * ttl_s)
        for each in scene.replicas():
            agent = scene.nodes[each].agent_process
            scene.pause(each, [agent], 5 * ttl_s, low_s=3 * ttl_s)
        agent = scene.nodes[name].agent_process
        scene.pause(name, [agent], 2.0 * ttl_s, low_s=1.2 * ttl_s)

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
        """Any deed at any moment; perhaps another a little later, to the same one or somebody
        else; perhaps what is asked for at that moment is on its way for long."""
        del name
        scene = self._scene
        moment = scene.chance.choice(list(Moment))
        if moment in SENT and scene.chance.random() < 0.5:
            scene.at_once(moment, self._flights.late_requests)
        scene.at_next(moment, scene.chance.choice(self._deeds), within_s=AT_ONCE_S)
        if scene.chance.random() < 0.4:
            deed = scene.chance.choice(self._deeds)
            scene.at_next(moment, partial(self._to_somebody, deed), within_s=scene.ttl_s)

    def _to_somebody(self, deed: Callable[[NodeId], None], name: NodeId) -> None:
        scene = self._scene
        others = [scene.primary(), scene.a_replica(), scene.leader()]
        deed(scene.chance.choice([name, *(each for each in others if each is not None)]))

    def _restart_agent(self, name: NodeId) -> None:
        """It dies with what it knew, and is back at once."""
        self._scene.crash_agent(name, 0.3 * self._scene.ttl_s)

    def _pause_guard(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].guard_process])

    def _pause_host(self, name: NodeId) -> None:
        self._scene.pause(name, self._scene.nodes[name].processes)

    def _pause_engine(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].engine_process])

    def _pause_agent(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].agent_process])

    def _crash_leader(self, name: NodeId) -> None:
        self._scene.crash_agent(self._scene.leader() or name)

    def _switchover(self, name: NodeId) -> None:
        """To whoever is fit, or to a replica that is perhaps a little behind."""
        del name
        scene = self._scene
        primary, target = scene.primary(), scene.a_replica()
        if primary is None or target is None or scene.chance.random() < 0.4:
            scene.ask_switchover(None)
            return
        if scene.chance.random() < 0.6:
            link = (primary, target, "log")
            scene.network.lags_s[link] = scene.chance.uniform(0.05, 0.4)
            scene.after(2 * scene.ttl_s, self._cuts.end_lag, link)
        scene.ask_switchover(target)
