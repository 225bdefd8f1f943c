"""Faults of processes and hosts: they die, they stop for a while, they do not start again."""

from collections.abc import Callable, Mapping

from primacy.model import NodeId
from primacy.sim.scene import Scene

FREEZE_TTLS = 7.0
"""Long enough for a failover, a rejoin of the others, and a few more writes."""

STAYS_DOWN_TTLS = 6.0


class Outages:
    """By name, what strikes a node."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "crash-host": scene.crash_host,
            "crash-engine": scene.crash_engine,
            "crash-agent": scene.crash_agent,
            "crash-guard": scene.crash_guard,
            "crash-two": self._crash_two,
            "crash-leader": self._crash_leader,
            "blackout": self._blackout,
            "no-restart": self.no_restart,
            "pause-host": self._pause_host,
            "freeze": self._freeze,
            "pause-agent": self._pause_agent,
            "pause-engine": self._pause_engine,
            "pause-guard": self._pause_guard,
            "pause-router": self._pause_router,
            "wall-clock-jump": self._wall_clock_jump,
        }

    def _crash_two(self, name: NodeId) -> None:
        other = self._scene.other_than(name)
        self._scene.crash_host(name)
        self._scene.crash_host(other)

    def _crash_leader(self, name: NodeId) -> None:
        """The agent that leads the store, wherever the primary is."""
        self._scene.crash_agent(self._scene.leader() or name)

    def _blackout(self, name: NodeId) -> None:
        """The whole room loses its power; the hosts come back in any order."""
        del name
        for each in self._scene.names:
            self._scene.crash_host(each)

    def no_restart(self, name: NodeId, low_s: float = 1.0) -> None:
        """The database crashes, and ends whenever it is started, until somebody repairs it."""
        engine = self._scene.nodes[name].engine
        engine.cannot_start = "its system tablespace cannot be opened"
        engine.crash()
        longest_s = STAYS_DOWN_TTLS * self._scene.ttl_s
        self._scene.later(low_s, longest_s, setattr, engine, "cannot_start", None)

    def _pause_host(self, name: NodeId) -> None:
        self._scene.pause(name, self._scene.nodes[name].processes)

    def _freeze(self, name: NodeId) -> None:
        """For long: whoever thaws finds another world."""
        self._scene.pause(name, self._scene.nodes[name].processes, FREEZE_TTLS * self._scene.ttl_s)

    def _pause_agent(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].agent_process])

    def _pause_engine(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].engine_process])

    def _pause_guard(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].guard_process])

    def _pause_router(self, name: NodeId) -> None:
        self._scene.pause(name, [self._scene.nodes[name].router_process])

    def _wall_clock_jump(self, name: NodeId) -> None:
        """Somebody sets the date, or a time server is wrong. Only people read that clock."""
        clock = self._scene.nodes[name].agent_process.clock
        clock.wall_offset_s += self._scene.chance.choice([-7200.0, -60.0, 60.0, 7200.0])
