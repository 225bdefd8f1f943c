"""What a fault may touch, and what it waits for."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from primacy.cli.demo_database import DemoDatabase
from primacy.cli.demo_disks import SmallDisk
from primacy.cli.demo_network import CuttableNetwork
from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Say, Scene
from primacy.clock import Clock
from primacy.errors import Rejected, Unavailable
from primacy.model import NodeId

NEW_PRIMARY_WITHIN_S = 60.0
HEALED_WITHIN_S = 90.0
CALM_S = 0.5
CALM_LAG = 100
"""Transactions: half a second's worth of the demo's clients, as positions are told."""
CALM_WITHIN_S = 20.0
HOST_AWAY_S = 2.0
"""How long a host stays dead after a new primary has opened."""
IN_A_PAIR_WITHIN_S = 10.0
"""Two faults at once may leave no majority: then each repairs what it broke after this long."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """One cluster, its observer and its clients, under one fault at a time or two."""

    cluster: LocalCluster
    scene: Scene
    database: DemoDatabase
    clock: Clock
    chance: random.Random
    say: Say
    cut: CuttableNetwork | None = None
    """The cluster's network, where it can be cut."""
    disk: SmallDisk | None = None
    """The small disk, where one of the nodes has one."""
    promote_laggard: bool = False
    is_paired: bool = False
    """Another fault happens at the same time."""
    began_wall_s: float = 0.0
    """From when on the outage is looked for."""

    def begin(self) -> None:
        """Now it strikes: what came before was preparation."""
        self.began_wall_s = self.clock.wall_s()

    @property
    def epoch(self) -> int:
        return self.scene.view().epoch

    @property
    def network(self) -> CuttableNetwork:
        """`Rejected` where all nodes live on loopback."""
        found = self.cut
        if found is None:
            raise Rejected("this cluster's network cannot be cut", hint="Give it one that can.")
        return found

    def replicas(self, primary: NodeId) -> list[NodeId]:
        return [node for node in self.scene.nodes if node != primary]

    def any_replica(self, primary: NodeId) -> NodeId:
        return self.chance.choice(self.replicas(primary))

    def winner_after(self, epoch: int) -> NodeId | None:
        """Who holds a primary record of a later epoch."""
        record = self.scene.view().primary
        return record.node if record is not None and record.epoch > epoch else None

    async def healed(self) -> None:
        """Until every node is healthy again. `Unavailable` where that takes too long."""
        what = "every node healthy again"
        await self.scene.wait_until(lambda: not self.scene.ailments(), what, HEALED_WITHIN_S)

    async def calm(self) -> None:
        """A moment, so that one outage does not run into the next; and until the replicas, which
        may join the sync set while they lag, have caught up."""
        await self.clock.sleep(CALM_S)
        try:
            await self.scene.wait_until(
                lambda: self.scene.lag() <= CALM_LAG, "replicas that have caught up", CALM_WITHIN_S
            )
        except Unavailable:
            self.say("demo", f"a replica is {self.scene.lag()} transactions behind: going on")

    async def replaced(self, epoch: int) -> None:
        """Until a primary of a later epoch has opened its doors."""
        await self.until(
            lambda: self.epoch > epoch and self.scene.primary is not None, "a new primary"
        )

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """`Unavailable` where it does not come true; in a pair the fault then goes on."""
        within_s = IN_A_PAIR_WITHIN_S if self.is_paired else NEW_PRIMARY_WITHIN_S
        try:
            await self.scene.wait_until(holds, what, within_s)
        except Unavailable:
            if not self.is_paired:
                raise
            self.say("demo", f"not within {within_s:.0f} s: {what}; repairing all the same")

    async def pause(self, for_s: float) -> None:
        await self.clock.sleep(for_s)

    def start(self, node: NodeId) -> None:
        self.say("demo", f"{node} comes back")
        self.cluster.start(node)


Run = Callable[[Stage, NodeId], Awaitable[None]]
"""A fault: it strikes, waits, and repairs what it broke."""
