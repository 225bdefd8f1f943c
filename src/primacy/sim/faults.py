"""What may go wrong, and when it is repaired. Each fault is a deed and its undoing.

    outages    processes and hosts die, stop, do not start again
    cuts       links carry nothing, one way or both, for all or for some
    damage     disks are slow, full, failing, wiped, rotten
    ambushes   several in a row, each at the worst moment

Half of the faults strike whoever matters most at the moment: the primary, or the store's leader.
What a fault draws and when it acts again goes through `Scene`, so that its draws are on record as
its own (`sim/choices.py`).
"""

import random
from collections.abc import Callable, Mapping

from primacy.errors import Rejected
from primacy.model import NodeId
from primacy.sim.ambushes import Ambushes
from primacy.sim.choices import Chooser, Striking
from primacy.sim.cuts import Cuts
from primacy.sim.damage import Damage
from primacy.sim.flights import Flights
from primacy.sim.outages import Outages
from primacy.sim.scene import Scene

FAULTS: dict[str, float] = {
    "crash-host": 1.5,
    "crash-engine": 1.5,
    "crash-agent": 1.5,
    "crash-guard": 1,
    "crash-two": 1,
    "crash-leader": 2,
    "blackout": 0.5,
    "no-restart": 1,
    "pause-host": 1.5,
    "freeze": 1,
    "pause-agent": 1.5,
    "pause-engine": 1,
    "pause-guard": 1,
    "pause-router": 0.5,
    "wall-clock-jump": 0.5,
    "isolate": 1.5,
    "isolate-minority": 3,
    "cut-pair": 1,
    "cut-one-way": 1,
    "deaf": 1,
    "mute": 1,
    "store-cut": 1.5,
    "log-cut": 1,
    "late-answers": 3,
    "members-flap": 2,
    "silent-replicas": 3,
    "slow-disk": 1,
    "slow-store-disk": 1,
    "slow-applier": 1,
    "broken-applier": 2,
    "fsync-fails": 0.5,
    "store-fsync-fails": 3,
    "disk-full": 0.5,
    "store-disk-full": 0.5,
    "wipe-data": 2,
    "power": 0.5,
    "wipe-store": 1,
    "rot-store": 2,
    "laggard": 2,
    "contested-election": 6,
    "stale-candidate": 3,
    "mid-promotion": 2,
    "replica-restart": 2,
    "replica-agent": 2,
    "only-holder": 6,
    "slow-heir": 4,
    "late-adoption": 2,
    "lonely-primary": 3,
    "thaw": 2,
    "swap-in-the-dark": 2,
    "late-requests": 1,
    "swap-in-flight": 4,
    "claim-in-flight": 1.5,
    "offer-in-flight": 1.5,
    "ambush": 14,
    "switchover": 3,
}
"""By name, in the order in which the seed draws their weights: how often each is worth a try."""


class Faults:
    """Strikes at random moments until told to stop; `heal` repairs what is left."""

    def __init__(
        self,
        scene: Scene,
        *,
        weights: tuple[tuple[str, float], ...],
        every_s: float,
        chooser: Chooser,
    ) -> None:
        self._scene = scene
        self._chooser = chooser
        self._names = [name for name, weight in weights if weight]
        self._weights = [weight for _, weight in weights if weight]
        self._every_s = every_s
        self._is_over = not self._names
        cuts, outages, self._damage = Cuts(scene), Outages(scene), Damage(scene)
        flights = Flights(scene, outages)
        ambushes = Ambushes(scene, outages=outages, cuts=cuts, damage=self._damage, flights=flights)
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            **outages.kinds,
            **cuts.kinds,
            **self._damage.kinds,
            **flights.kinds,
            **ambushes.kinds,
        }
        self._check_told()

    def start(self) -> None:
        if self._is_over:
            return
        world = self._scene.world
        striking = self._chooser.next_strike(world.now_s, self._every_s, self._fault_of)
        if striking is not None:
            world.at(striking.at_s, None, self._strike, striking)

    def _check_told(self) -> None:
        for strike in self._chooser.told_strikes:
            if strike.fault not in self.kinds or strike.node not in (None, *self._scene.names):
                raise Rejected(
                    f"fault {strike.number} is {strike.fault!r} of {strike.node!r}; there are"
                    f" {', '.join(self.kinds)}, and the nodes {', '.join(self._scene.names)}",
                    hint="Correct the file of choices.",
                )

    def _fault_of(self, lot: random.Random) -> str:
        return lot.choices(self._names, self._weights)[0]

    def heal(self) -> None:
        """No more faults; every host is up, every link carries, nothing is slow or away."""
        scene = self._scene
        self._is_over = True
        scene.world.note("world", "heal")
        scene.forget_moments()
        scene.network.heal()
        for name in scene.names:
            scene.resume(name, scene.nodes[name].processes)
        self._damage.heal()
        for name in scene.names:
            scene.revive(name)

    def _strike(self, striking: Striking) -> None:
        if self._is_over:
            return
        scene, name = self._scene, striking.fault
        node = striking.node
        if node is None:
            node = striking.node = self._target(striking.lot)
        scene.world.note(node, "FAULT", name)
        scene.world.trace.sometimes(f"fault {name}")
        scene.within(striking.chance, self.kinds[name], node)
        self.start()

    def _target(self, chance: random.Random) -> NodeId:
        draw = chance.random()
        primary = self._scene.primary()
        if draw < 0.4 and primary is not None:
            return primary
        if draw < 0.6:
            return self._scene.leader() or chance.choice(self._scene.names)
        return chance.choice(self._scene.names)
