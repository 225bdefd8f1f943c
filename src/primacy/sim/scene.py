"""The stage on which faults act: who is there, what may be done to them, and when it is undone.

Every fault has a lot of its own: chance that only this fault draws from. What a fault does later
(`after`, `later`, `at_next`) draws from the same lot, so one fault more or less leaves the others
as they were.
"""

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from primacy.model import NodeId
from primacy.sim.ledger import Ledger
from primacy.sim.moments import Moment, Moments
from primacy.sim.network import Network
from primacy.sim.world import Process, World

if TYPE_CHECKING:
    from primacy.sim.node import Node

Action = Callable[..., None]

SETTLED_TRIES = 64
"""Eight ttl."""


class Scene:
    """What all faults share. `chance` is the lot of the fault that acts at this moment."""

    def __init__(  # noqa: PLR0913  # What can break: each part is handed in.
        self,
        world: World,
        network: Network,
        nodes: "Mapping[NodeId, Node]",
        *,
        ttl_s: float,
        patience_s: float,
        primary: Callable[[], NodeId | None],
        ask_switchover: Callable[[NodeId | None], None],
        moments: Moments,
        ledger: Ledger,
    ) -> None:
        self.world = world
        self.network = network
        self.nodes = nodes
        self.names = sorted(nodes)
        self.data = [name for name in self.names if nodes[name].has_data]
        self.ttl_s = ttl_s
        self.patience_s = patience_s
        """How long a client of the store looks for an answer."""
        self.primary = primary
        self.ask_switchover = ask_switchover
        self.ledger = ledger
        self.chance: random.Random = world.stream("faults")
        self.spoiled: set[NodeId] = set()
        """Voters that lost their disk, or will: never more than may be missing for good."""
        self._moments = moments

    # ---- when

    def within(self, lot: random.Random, action: Action, *arguments: object) -> None:
        outer, self.chance = self.chance, lot
        try:
            action(*arguments)
        finally:
            self.chance = outer

    def after(self, delay_s: float, action: Action, *arguments: object) -> None:
        self.world.after(delay_s, None, self.within, self.chance, action, *arguments)

    def later(self, low_s: float, high_s: float, action: Action, *arguments: object) -> None:
        """A repair after a while: often soon, sometimes late."""
        share = self.chance.random() ** 2
        self.after(low_s + (high_s - low_s) * share, action, *arguments)

    def at_next(self, moment: Moment, action: Callable[[NodeId], None], *, within_s: float) -> None:
        """`action` follows the moment by less than `within_s`; at 0 nothing comes in between."""
        lot = self.chance

        def has_come(node: NodeId) -> None:
            self.world.trace.sometimes(f"struck when {moment.value}")
            delay_s = within_s * lot.random() ** 2
            self.world.after(delay_s, None, self.within, lot, action, node)

        self._moments.at_next(moment, has_come)

    def at_once(self, moment: Moment, action: Callable[[NodeId], None]) -> None:
        """Within the very step that makes the moment, so that it concerns what this step sends.
        `action` must end nobody's life."""
        lot = self.chance

        def has_come(node: NodeId) -> None:
            self.world.trace.sometimes(f"struck when {moment.value}")
            self.within(lot, action, node)

        self._moments.at_next(moment, has_come)

    def when_settled(self, action: Callable[[NodeId], None]) -> Callable[[NodeId], None]:
        """`action` for the primary, once its doors are open and every replica counts: what strikes
        a cluster that is down already shows little. Given up after a while."""

        def strike(name: NodeId, tries_left: int = SETTLED_TRIES) -> None:
            primary = self.primary()
            if primary is not None and self.ledger.is_settled(primary):
                self.world.trace.sometimes("struck a settled cluster")
                action(primary)
            elif tries_left:
                self.after(self.ttl_s / 8, strike, name, tries_left - 1)

        return strike

    def forget_moments(self) -> None:
        self._moments.clear()

    # ---- who

    def leader(self) -> NodeId | None:
        """Whoever leads the store, by its own word."""
        for name in self.names:
            member = self.nodes[name].member.member
            if member is not None and member.is_ready_leader:
                return name
        return None

    def replicas(self) -> list[NodeId]:
        return [name for name in self.data if name != self.primary()]

    def a_replica(self) -> NodeId | None:
        replicas = self.replicas()
        return self.chance.choice(replicas) if self.primary() and replicas else None

    def other_than(self, name: NodeId) -> NodeId:
        return self.chance.choice([each for each in self.names if each != name])

    # ---- deeds that many faults are made of

    def crash_host(self, name: NodeId, longest_s: float | None = None) -> None:
        node = self.nodes[name]
        if node.is_up:
            node.crash()
            self.later(0.02, longest_s or 4 * self.ttl_s, self.revive, name)

    def crash_agent(
        self, name: NodeId, longest_s: float | None = None, low_s: float = 0.02
    ) -> None:
        node = self.nodes[name]
        if node.agent_process.is_up:
            node.crash_agent()
            self.later(low_s, longest_s or 2 * self.ttl_s, self.revive, name)

    def crash_engine(self, name: NodeId) -> None:
        self.nodes[name].engine.crash()

    def crash_guard(self, name: NodeId) -> None:
        if self.nodes[name].guard_process.is_up:
            self.nodes[name].guard.crash()

    def revive(self, name: NodeId) -> None:
        node = self.nodes[name]
        if not node.is_up:
            self.world.note(name, "boot")
            node.boot()
        elif not node.agent_process.is_up:
            self.world.note(name, "agent-boot")
            node.start_agent()

    def pause(
        self,
        name: NodeId,
        processes: list[Process],
        longest_s: float | None = None,
        *,
        low_s: float = 0.05,
    ) -> None:
        lives = [(each, each.life) for each in processes if each.is_running]
        for each, _ in lives:
            self.world.pause(each)
        begun_s = self.world.now_s

        def resume() -> None:
            if self.world.now_s - begun_s > self.ttl_s:
                self.world.trace.sometimes("pause past the ttl")
            self.resume(name, [each for each, life in lives if each.life == life])

        self.later(low_s, longest_s or 3 * self.ttl_s, resume)

    def resume(self, name: NodeId, processes: list[Process]) -> None:
        """In any order: which process runs first after a thaw is nobody's choice."""
        order = list(processes)
        self.chance.shuffle(order)
        for each in order:
            self.world.resume(each)
        self.world.note(name, "resume")

    def cut(self, links: list[tuple[str, str]], longest_s: float | None = None) -> None:
        self.network.cuts.update(links)
        self.later(0.05, longest_s or 4 * self.ttl_s, self.network.cuts.difference_update, links)

    def cut_flows(
        self,
        links: list[tuple[str, str]],
        flows: tuple[str, ...],
        *,
        low_s: float = 0.05,
        high_s: float | None = None,
    ) -> None:
        """Only what these flows carry: a firewall rule, a broken port, another interface."""
        cut = [(source, target, flow) for source, target in links for flow in flows]
        self.network.flow_cuts.update(cut)
        undo = self.network.flow_cuts.difference_update
        self.later(low_s, high_s or 4 * self.ttl_s, undo, cut)

    def both_ways(self, name: NodeId) -> list[tuple[str, str]]:
        others = [each for each in self.names if each != name]
        links: list[tuple[str, str]] = [(name, each) for each in others]
        return links + [(each, name) for each in others]
