"""What may go wrong, and when it is repaired. Each fault is a deed and its undoing.

Half of the faults strike whoever matters most at the moment: the primary, or the store's leader.

A fault draws from `_chance` and waits by `_after` or `_later`, so that its draws are on record as
its own (`sim/choices.py`): a run without one of its faults leaves the others as they were.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from primacy.errors import Rejected
from primacy.model import NodeId
from primacy.sim.choices import Chooser, Striking
from primacy.sim.network import Network
from primacy.sim.world import Process, World

if TYPE_CHECKING:
    from primacy.sim.node import Node

FAULTS = (
    "crash-host",
    "crash-engine",
    "crash-agent",
    "crash-guard",
    "crash-two",
    "pause-host",
    "pause-agent",
    "pause-engine",
    "isolate",
    "cut-pair",
    "cut-one-way",
    "slow-applier",
    "slow-disk",
    "switchover",
    "laggard",
    "contested-election",
)
"""By name, in the order in which the seed draws their weights."""


class Faults:
    """Strikes at random moments until told to stop; `heal` repairs what is left."""

    def __init__(  # noqa: PLR0913  # What can break: each part is handed in.
        self,
        world: World,
        network: Network,
        nodes: "Mapping[NodeId, Node]",
        *,
        weights: tuple[tuple[str, float], ...],
        every_s: float,
        ttl_s: float,
        chooser: Chooser,
        primary: Callable[[], NodeId | None],
        ask_switchover: Callable[[], None],
    ) -> None:
        self._world = world
        self._network = network
        self._nodes = nodes
        self._names = [name for name, weight in weights if weight]
        self._weights = [weight for _, weight in weights if weight]
        self._every_s = every_s
        self._ttl_s = ttl_s
        self._primary = primary
        self._ask_switchover = ask_switchover
        self._chooser = chooser
        self._striking: Striking | None = None
        self._is_over = not self._names
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "crash-host": self.crash_host,
            "crash-engine": self._crash_engine,
            "crash-agent": self._crash_agent,
            "crash-guard": self._crash_guard,
            "crash-two": self._crash_two,
            "pause-host": self._pause_host,
            "pause-agent": self._pause_agent,
            "pause-engine": self._pause_engine,
            "isolate": self._isolate,
            "cut-pair": self._cut_pair,
            "cut-one-way": self._cut_one_way,
            "slow-applier": self._slow_applier,
            "slow-disk": self._slow_disk,
            "switchover": self._switchover,
            "laggard": self._laggard,
            "contested-election": self._contested_election,
        }
        self._check_told()

    def start(self) -> None:
        if self._is_over:
            return
        striking = self._chooser.next_strike(self._world.now_s, self._every_s, self._fault_of)
        if striking is not None:
            self._world.at(striking.at_s, None, self._strike, striking)

    def _check_told(self) -> None:
        for strike in self._chooser.told_strikes:
            if strike.fault not in self.kinds or strike.node not in (None, *self._nodes):
                raise Rejected(
                    f"fault {strike.number} is {strike.fault!r} of {strike.node!r}; there are"
                    f" {', '.join(self.kinds)}, and the nodes {', '.join(self._nodes)}",
                    hint="Correct the file of choices.",
                )

    def _fault_of(self, lot: random.Random) -> str:
        return lot.choices(self._names, self._weights)[0]

    def heal(self) -> None:
        """No more faults; every host is up, every link carries, nothing is slow."""
        self._is_over = True
        self._world.note("world", "heal")
        self._network.cuts.clear()
        for node in self._nodes.values():
            self._resume(node, self._processes(node))
            self._revive(node)
            node.engine.slowness = 1.0
            node.engine.disk.slowness = 1.0
            node.member.disk.slowness = 1.0

    # ---- when and where

    def _strike(self, striking: Striking) -> None:
        if self._is_over:
            return
        name, node = striking.fault, striking.node
        if node is None:
            node = striking.node = self._target(striking.lot)
        self._world.note(node, "FAULT", name)
        self._world.trace.sometimes(f"fault {name}")
        self._within(striking, self.kinds[name], node)
        self.start()

    def _target(self, chance: random.Random) -> NodeId:
        draw = chance.random()
        names = sorted(self._nodes)
        primary = self._primary()
        if draw < 0.4 and primary is not None:
            return primary
        if draw < 0.6:
            return self._leader() or chance.choice(names)
        return chance.choice(names)

    @property
    def _chance(self) -> random.Random:
        """Of the fault whose deed or undoing is under way; of nobody's, at the end of all."""
        striking = self._striking
        return self._world.stream("faults") if striking is None else striking.chance

    def _within(
        self, striking: Striking | None, action: Callable[..., None], *arguments: object
    ) -> None:
        outer, self._striking = self._striking, striking
        try:
            action(*arguments)
        finally:
            self._striking = outer

    def _after(self, delay_s: float, action: Callable[..., None], *arguments: object) -> None:
        """What belongs to the fault that is under way happens later."""
        self._world.after(delay_s, None, self._within, self._striking, action, *arguments)

    def _leader(self) -> NodeId | None:
        """Whoever leads the store, by its own word."""
        for name in sorted(self._nodes):
            member = self._nodes[name].member.member
            if member is not None and member.is_ready_leader:
                return name
        return None

    def _later(
        self, low_s: float, high_s: float, action: Callable[..., None], *arguments: object
    ) -> None:
        """Repair after a while: often soon, sometimes late."""
        share = self._chance.random() ** 2
        self._after(low_s + (high_s - low_s) * share, action, *arguments)

    # ---- crashes

    def crash_host(self, name: NodeId) -> None:
        node = self._nodes[name]
        if node.is_up:
            node.crash()
            self._later(0.02, 4 * self._ttl_s, self._revive, node)

    def _crash_two(self, name: NodeId) -> None:
        others = [each for each in sorted(self._nodes) if each != name]
        self.crash_host(name)
        self.crash_host(self._chance.choice(others))

    def _crash_engine(self, name: NodeId) -> None:
        self._nodes[name].engine.crash()

    def _crash_guard(self, name: NodeId) -> None:
        if self._nodes[name].guard_process.is_up:
            self._nodes[name].guard.crash()

    def _crash_agent(self, name: NodeId) -> None:
        node = self._nodes[name]
        if node.agent_process.is_up:
            node.crash_agent()
            self._later(0.02, 2 * self._ttl_s, self._revive, node)

    def _revive(self, node: "Node") -> None:
        if not node.is_up:
            self._world.note(node.name, "boot")
            node.boot()
        elif not node.agent_process.is_up:
            self._world.note(node.name, "agent-boot")
            node.start_agent()

    def _contested_election(self, name: NodeId) -> None:
        """The store's leader dies; one member is slow to write its vote down; and the first that
        grants one crashes at that moment, and is back before the election is over."""
        leader, slow = self._leader() or name, self._chance.choice(sorted(self._nodes))
        disk = self._nodes[slow].member.disk
        disk.slowness = 50.0
        self._later(0.5, 2 * self._ttl_s, setattr, disk, "slowness", 1.0)
        voted = partial(self._within, self._striking, self._voted)
        for each in sorted(self._nodes):
            self._nodes[each].member.on_vote = voted
        self._crash_agent(leader)

    def _voted(self, name: NodeId) -> None:
        for node in self._nodes.values():
            node.member.on_vote = None
        self._world.trace.sometimes("crash after a vote")
        self._after(0.0, self._stumble, self._nodes[name])

    def _stumble(self, node: "Node") -> None:
        if node.agent_process.is_running:
            node.crash_agent()
            self._after(0.005 + 0.02 * self._chance.random(), self._revive, node)

    # ---- pauses

    def _processes(self, node: "Node") -> list[Process]:
        return [node.agent_process, node.engine_process, node.guard_process, node.router_process]

    def _pause(self, node: "Node", processes: list[Process]) -> None:
        lives = [(each, each.life) for each in processes if each.is_running]
        for each, _ in lives:
            self._world.pause(each)
        begun_s = self._world.now_s

        def resume() -> None:
            if self._world.now_s - begun_s > self._ttl_s:
                self._world.trace.sometimes("pause past the ttl")
            self._resume(node, [each for each, life in lives if each.life == life])

        self._later(0.05, 3 * self._ttl_s, resume)

    def _resume(self, node: "Node", processes: list[Process]) -> None:
        """In any order: which process runs first after a thaw is nobody's choice."""
        order = list(processes)
        self._chance.shuffle(order)
        for each in order:
            self._world.resume(each)
        self._world.note(node.name, "resume")

    def _pause_host(self, name: NodeId) -> None:
        self._pause(self._nodes[name], self._processes(self._nodes[name]))

    def _pause_agent(self, name: NodeId) -> None:
        self._pause(self._nodes[name], [self._nodes[name].agent_process])

    def _pause_engine(self, name: NodeId) -> None:
        self._pause(self._nodes[name], [self._nodes[name].engine_process])

    def _laggard(self, name: NodeId) -> None:
        """A replica's server stops, and two seconds later the primary's host dies."""
        primary = self._primary()
        replicas = [each for each in sorted(self._nodes) if each not in (primary, name)]
        if primary is None or not replicas:
            return
        self._pause_engine(self._chance.choice(replicas))
        self._after(0.7 * self._ttl_s, self.crash_host, primary)

    # ---- links

    def _cut(self, links: list[tuple[str, str]]) -> None:
        self._network.cuts.update(links)
        self._later(0.05, 4 * self._ttl_s, self._join, links)

    def _join(self, links: list[tuple[str, str]]) -> None:
        self._network.cuts.difference_update(links)

    def _isolate(self, name: NodeId) -> None:
        others = [each for each in self._nodes if each != name]
        links: list[tuple[str, str]] = [(name, each) for each in others]
        self._cut(links + [(each, name) for each in others])

    def _cut_pair(self, name: NodeId) -> None:
        other = self._chance.choice([each for each in sorted(self._nodes) if each != name])
        self._cut([(name, other), (other, name)])

    def _cut_one_way(self, name: NodeId) -> None:
        other = self._chance.choice([each for each in sorted(self._nodes) if each != name])
        self._cut([(name, other)])

    # ---- slowness and people

    def _slow_applier(self, name: NodeId) -> None:
        engine = self._nodes[name].engine
        engine.slowness = 200.0
        self._later(0.5, 4 * self._ttl_s, setattr, engine, "slowness", 1.0)

    def _slow_disk(self, name: NodeId) -> None:
        node = self._nodes[name]
        for disk in (node.engine.disk, node.member.disk):
            disk.slowness = 50.0
            self._later(0.5, 4 * self._ttl_s, setattr, disk, "slowness", 1.0)

    def _switchover(self, name: NodeId) -> None:
        del name
        self._ask_switchover()
