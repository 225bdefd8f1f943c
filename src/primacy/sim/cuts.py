"""Faults of the network between hosts. Clients reach every host all the while: a primary that is
cut off from the others is not cut off from those who write to it."""

from collections.abc import Callable, Mapping

from primacy.model import NodeId
from primacy.sim.network import LOG_FLOWS, STORE_FLOWS
from primacy.sim.scene import Scene

FLAP_S = 1.5
"""Longer than a member may be unfit before it leaves the sync set."""


class Cuts:
    """By name, what strikes a node."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "isolate": self.isolate,
            "isolate-minority": scene.when_settled(self._isolate_minority),
            "cut-pair": self._cut_pair,
            "cut-one-way": self._cut_one_way,
            "deaf": self.deaf,
            "mute": self.mute,
            "store-cut": self.store_cut,
            "log-cut": self.log_cut,
            "late-answers": scene.when_settled(self._late_answers),
            "members-flap": scene.when_settled(self._members_flap),
            "silent-replicas": scene.when_settled(self._silent_replicas),
        }

    def isolate(self, name: NodeId) -> None:
        self._scene.cut(self._scene.both_ways(name))

    def _isolate_minority(self, name: NodeId) -> None:
        """The primary's host, and that of the store's leader where both are still a minority."""
        leader, names = self._scene.leader() or name, self._scene.names
        together = {name, leader} if 2 * len({name, leader}) < len(names) else {name}
        links: list[tuple[str, str]] = [
            (one, other)
            for one in names
            for other in names
            if (one in together) != (other in together)
        ]
        self._scene.cut(links)

    def _cut_pair(self, name: NodeId) -> None:
        other = self._scene.other_than(name)
        self._scene.cut([(name, other), (other, name)])

    def _cut_one_way(self, name: NodeId) -> None:
        self._scene.cut([(name, self._scene.other_than(name))])

    def deaf(self, name: NodeId) -> None:
        """It is heard, and does not hear."""
        self._scene.cut([(each, name) for each in self._scene.names if each != name])

    def mute(self, name: NodeId) -> None:
        """It hears, and is not heard."""
        self._scene.cut([(name, each) for each in self._scene.names if each != name])

    def store_cut(self, name: NodeId) -> None:
        """It reaches its replicas, and not the store."""
        self._scene.cut_flows(self._scene.both_ways(name), STORE_FLOWS)

    def log_cut(self, name: NodeId) -> None:
        """It reaches the store, and not its source or its replicas."""
        self._scene.cut_flows(self._scene.both_ways(name), LOG_FLOWS)

    def _late_answers(self, name: NodeId) -> None:
        """What the store answers comes late, and then nothing is asked any more: whoever counts
        from the answer counts too long."""
        scene = self._scene
        lag_s = scene.chance.uniform(0.1, 0.38)
        for other in scene.names:
            if other != name:
                scene.network.lags_s[other, name, "store"] = lag_s
                scene.after(2.0 * scene.ttl_s, self.end_lag, (other, name, "store"))
        links: list[tuple[str, str]] = [(name, each) for each in scene.names if each != name]
        at_s = scene.ttl_s * scene.chance.uniform(0.5, 1.5)
        scene.after(at_s, self._go_silent, links)

    def end_lag(self, link: tuple[str, str, str]) -> None:
        self._scene.network.lags_s.pop(link, None)

    def _go_silent(self, links: list[tuple[str, str]]) -> None:
        ttl_s = self._scene.ttl_s
        self._scene.cut_flows(links, STORE_FLOWS, low_s=2 * ttl_s, high_s=4 * ttl_s)

    def _members_flap(self, name: NodeId) -> None:
        """One replica after another loses its source for a moment: the sync set keeps changing."""
        del name
        primary, chance = self._scene.primary(), self._scene.chance
        delay_s = 0.0
        for _ in range(chance.randint(2, 5)):
            replica = self._scene.a_replica()
            if primary is None or replica is None:
                return
            links: list[tuple[str, str]] = [(primary, replica), (replica, primary)]
            self._scene.after(delay_s, self._flap, links)
            delay_s += 2 * FLAP_S * chance.random()

    def _flap(self, links: list[tuple[str, str]]) -> None:
        self._scene.cut_flows(links, LOG_FLOWS, low_s=FLAP_S / 3, high_s=FLAP_S)

    def _silent_replicas(self, name: NodeId) -> None:
        """No replica is reached for so long that a policy may degrade."""
        del name
        primary, scene = self._scene.primary(), self._scene
        if primary is not None:
            scene.cut_flows(scene.both_ways(primary), LOG_FLOWS, low_s=5.0, high_s=12.0)
            if scene.chance.random() < 0.5:  # What it wrote meanwhile is nowhere else.
                scene.later(3.0, 6.0, scene.crash_host, primary, 6 * scene.ttl_s)
