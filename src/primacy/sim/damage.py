"""Faults of disks. Never more at once than is promised to be survived:

    data disks    one is taken away only while every acknowledged write is on another, too; it is
                  given back at the end, unless its node was cloned meanwhile
    store disks   fewer than half of the voters lose theirs; they stay out, as their peers demand

A disk that acknowledges what it has not written is not simulated: nobody promises anything on it.
What such a disk leaves behind is: a place in the middle of the log that is not as it was written.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from primacy.model import NodeId
from primacy.sim.disk import Disk
from primacy.sim.scene import Scene

if TYPE_CHECKING:
    from primacy.sim.engine_log import Files

SLOW = 50.0
VERY_SLOW = 300.0
SLOW_APPLIER = 200.0


class Damage:
    """By name, what strikes a node."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._taken: dict[NodeId, Files] = {}
        """Data disks that are away, with what they hold."""
        self.kinds: Mapping[str, Callable[[NodeId], None]] = {
            "slow-disk": self.slow_disk,
            "slow-store-disk": self._slow_store_disk,
            "slow-applier": self.slow_applier,
            "broken-applier": self._broken_applier,
            "fsync-fails": self._fsync_fails,
            "store-fsync-fails": self._store_fsync_fails,
            "disk-full": self._disk_full,
            "store-disk-full": self._store_disk_full,
            "wipe-data": self.wipe_data,
            "power": scene.when_settled(self._power),
            "wipe-store": self.wipe_store,
            "rot-store": self._rot_store,
        }

    def heal(self) -> None:
        """Every disk works. One on which an acknowledged write may be alone is given back."""
        for name in self._scene.names:
            node = self._scene.nodes[name]
            node.engine.disk.repair()
            node.member.disk.repair()
            node.engine.slowness = 1.0
            node.engine.cannot_start = None
            if name in self._taken and node.engine.files.is_absent:
                node.crash()
                node.engine.give_back(self._taken[name])
                self._scene.world.trace.sometimes("data disk given back")
            if node.member.is_refused:
                self._replace_store_disk(name)

    # ---- slow, full, failing

    def _slow(self, disk: Disk, factor: float = SLOW, low_s: float = 0.5) -> None:
        disk.slowness = factor
        self._scene.later(low_s, 4 * self._scene.ttl_s, setattr, disk, "slowness", 1.0)

    def slow_disk(self, name: NodeId) -> None:
        self._slow(self._scene.nodes[name].engine.disk)
        self._slow(self._scene.nodes[name].member.disk)

    def slow_data_disk(self, name: NodeId) -> None:
        """So slow that what it receives is durable a good while later, for longer than a failover
        takes."""
        self._slow(self._scene.nodes[name].engine.disk, VERY_SLOW, 2.5 * self._scene.ttl_s)

    def _slow_store_disk(self, name: NodeId) -> None:
        self._slow(self._scene.nodes[name].member.disk)

    def slow_applier(self, name: NodeId) -> None:
        engine = self._scene.nodes[name].engine
        engine.slowness = SLOW_APPLIER
        self._scene.later(0.5, 4 * self._scene.ttl_s, setattr, engine, "slowness", 1.0)

    def _broken_applier(self, name: NodeId) -> None:
        """A row on this replica is not as it should be: the next change of it cannot be applied."""
        if name == self._scene.primary():
            name = self._scene.a_replica() or name
        files = self._scene.nodes[name].engine.files
        if name != self._scene.primary() and not files.is_absent and files.log:
            files.broken_at = len(files.log) + 1

    def _fsync_fails(self, name: NodeId) -> None:
        self._scene.nodes[name].engine.disk.fails_next = True

    def _store_fsync_fails(self, name: NodeId) -> None:
        """And perhaps the host dies soon after: what was not written is then seen to be missing."""
        self._scene.nodes[name].member.disk.fails_next = True
        if self._scene.chance.random() < 0.5:
            self._scene.later(0.2, self._scene.ttl_s, self._scene.crash_host, name)

    def _fill(self, disk: Disk) -> None:
        disk.is_full = True
        self._scene.later(0.5, 4 * self._scene.ttl_s, disk.make_space)

    def _disk_full(self, name: NodeId) -> None:
        self._fill(self._scene.nodes[name].engine.disk)

    def _store_disk_full(self, name: NodeId) -> None:
        self._fill(self._scene.nodes[name].member.disk)

    # ---- gone: data

    def wipe_data(self, name: NodeId) -> None:
        """The data directory is gone, notes included. Its node starts with a blank one."""
        engine = self._scene.nodes[name].engine
        if engine.files.is_absent or not self._scene.ledger.may_be_lost(name):
            return
        self._scene.world.trace.sometimes("data disk wiped")
        self._taken[name] = engine.files
        engine.wipe()

    def _power(self, name: NodeId) -> None:
        """Everything is dark at once, and the old primary's disk does not come back."""
        primary = self._scene.primary() or name
        for each in self._scene.names:
            self._scene.crash_host(each)
        if self._scene.nodes[primary].has_data:
            self.wipe_data(primary)

    # ---- gone or damaged: the store's

    def may_spoil(self, name: NodeId) -> bool:
        """A majority keeps its disks, and every voter was admitted once."""
        spoiled = self._scene.spoiled | {name}
        is_known = all(each in self._hard_incarnations(each) for each in self._scene.names)
        return is_known and 2 * len(spoiled) < len(self._scene.names)

    def _hard_incarnations(self, name: NodeId) -> Mapping[NodeId, str]:
        return self._scene.nodes[name].member.files.hard.incarnations

    def wipe_store(self, name: NodeId) -> None:
        """The host of a voter dies, and comes back with a blank disk: it must be refused."""
        if not self.may_spoil(name):
            return
        self._scene.spoiled.add(name)
        self._scene.nodes[name].crash_agent()
        self._scene.world.trace.sometimes("store disk wiped")
        self._scene.nodes[name].member.wipe()
        self._scene.later(0.02, self._scene.ttl_s, self._scene.revive, name)

    def _rot_store(self, name: NodeId) -> None:
        """A bit flips on a voter's disk. Its next start sees it; later somebody replaces it."""
        if not self.may_spoil(name) and name not in self._scene.spoiled:
            return
        self._scene.spoiled.add(name)
        node = self._scene.nodes[name]
        node.crash_agent()
        where = node.member.files.rot(self._scene.chance)
        self._scene.world.note(name, "rot", where)
        self._scene.later(0.02, self._scene.ttl_s, self._scene.revive, name)
        self._scene.later(2.0, 6 * self._scene.ttl_s, self._replace_store_disk, name)

    def _replace_store_disk(self, name: NodeId) -> None:
        """A person has read the hint: the directory is removed, and the member starts anew."""
        node = self._scene.nodes[name]
        if node.member.is_refused:
            node.member.wipe()
            self._scene.revive(name)
