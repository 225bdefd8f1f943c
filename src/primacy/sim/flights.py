"""Requests that are on their way for long: what was asked takes effect when it is not wanted any
more, when its answer is not expected, or when whoever asked has died.

A cut loses what it meets. A connection that stalls keeps it: the sender gives up, connects anew and
asks for something else, and what the old connection still carried arrives behind all that.
"""

from collections.abc import Callable, Mapping
from functools import partial

from primacy.model import NodeId
from primacy.sim.moments import Moment
from primacy.sim.network import LOG_FLOWS
from primacy.sim.outages import Outages
from primacy.sim.scene import Scene

STALLED_SHARES = (0.6, 1.3)
STALLED_TTLS_MAX = 0.7
"""How long a connection stalls: about as long as a client of the store is patient, so that it often
does not know what came of its request; and less than a lease lives without an answer."""

LATER_S = (0.05, 0.6)
MUCH_LATER_TTLS = (0.3, 1.5)
"""How much later than the new connection's first requests those of the old one arrive: mostly while
it matters what comes first, sometimes when somebody else may lead."""


class Flights:
    """By name, what strikes a node."""

    def __init__(self, scene: Scene, outages: Outages) -> None:
        self._scene = scene
        self._outages = outages
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "late-requests": self.late_requests,
            "swap-in-flight": scene.when_settled(self._swap_in_flight),
            "claim-in-flight": scene.when_settled(self._claim_in_flight),
            "offer-in-flight": scene.when_settled(self._offer_in_flight),
        }

    def late_requests(self, name: NodeId) -> None:
        """Whatever it asks of the store for a while arrives after what it asks next."""
        scene, network = self._scene, self._scene.network
        scene.world.trace.sometimes("requests on their way for long")
        stalled_s = scene.patience_s * scene.chance.uniform(*STALLED_SHARES)
        stalled_s = min(stalled_s, STALLED_TTLS_MAX * scene.ttl_s)
        later_s = scene.chance.uniform(*LATER_S)
        if scene.chance.random() < 0.3:
            later_s = scene.ttl_s * scene.chance.uniform(*MUCH_LATER_TTLS)
        lag_s = stalled_s + later_s
        links = [(name, each, "store") for each in scene.names if each != name]
        network.lags_s.update(dict.fromkeys(links, lag_s))
        scene.after(stalled_s, self._connect_anew, name)

    def _connect_anew(self, name: NodeId) -> None:
        self._scene.network.end_lags(name)
        self._scene.network.forget_flows(name, ("store",))

    def _forget_or_die(self, name: NodeId) -> None:
        """Perhaps its agent dies with what it knew, and is back before what it sent has arrived;
        perhaps its database dies, so that it gives up what it asked for."""
        draw = self._scene.chance.random()
        if draw < 0.4:
            self._scene.after(0.02 * self._scene.chance.random(), self._restart, name)
        elif draw < 0.6:
            self._scene.after(0.1 * self._scene.chance.random(), self._scene.crash_engine, name)

    def _restart(self, name: NodeId) -> None:
        self._scene.crash_agent(name, 0.3 * self._scene.ttl_s)
        self._scene.network.end_lags(name)

    # ---- at the moments at which something is asked for

    def _swap_in_flight(self, name: NodeId) -> None:
        """A change of the sync set is asked for, and has no reason any more when it arrives."""
        scene = self._scene
        if scene.leader() != name:
            self._lose_replicas(name)
            return
        self._restart(name)  # What it asks of its own host is not on its way for long.
        scene.after(scene.ttl_s / 2, scene.when_settled(self._lose_replicas), name)

    def _lose_replicas(self, name: NodeId) -> None:
        """One, or all, are out of reach until the primary asks to record that. Then they are back,
        the others stop, and the primary may have lost its memory."""
        scene = self._scene
        replicas = scene.replicas()
        leaving = replicas if scene.chance.random() < 0.3 else [scene.chance.choice(replicas)]
        links = [(name, each) for each in leaving] + [(each, name) for each in leaving]
        cut: list[tuple[str, str, str]] = [
            (one, other, flow) for one, other in links for flow in LOG_FLOWS
        ]
        scene.network.flow_cuts.update(cut)
        scene.later(3.0, 5.0, scene.network.flow_cuts.difference_update, cut)
        staying = [each for each in replicas if each not in leaving]
        scene.at_once(Moment.SWAP_SENT, partial(self._turn_round, cut, staying))

    def _turn_round(
        self, cut: list[tuple[str, str, str]], staying: list[NodeId], name: NodeId
    ) -> None:
        scene = self._scene
        self.late_requests(name)
        self._forget_or_die(name)
        scene.after(0.05, scene.network.flow_cuts.difference_update, cut)
        for each in staying:
            scene.after(0.2 * scene.chance.random(), self._stop_replica, each)

    def _stop_replica(self, name: NodeId) -> None:
        ttl_s = self._scene.ttl_s
        if self._scene.chance.random() < 0.5:
            engine = self._scene.nodes[name].engine_process
            self._scene.pause(name, [engine], 3.0 * ttl_s, low_s=ttl_s)
        else:
            self._outages.no_restart(name, low_s=ttl_s)

    def _claim_in_flight(self, name: NodeId) -> None:
        """The primary's host dies, and whoever claims next is not heard for a while."""
        self._scene.at_once(Moment.CLAIM_SENT, self._stall)
        self._scene.crash_host(name)

    def _offer_in_flight(self, name: NodeId) -> None:
        """The lead is to be handed over, and the offer, or the claim that takes it, comes late."""
        del name
        moment = self._scene.chance.choice([Moment.OFFER_SENT, Moment.CLAIM_SENT])
        self._scene.at_once(moment, self._stall)
        self._scene.ask_switchover(None)

    def _stall(self, name: NodeId) -> None:
        self.late_requests(name)
        self._forget_or_die(name)
