"""One disk of one process: a write is durable only after its fsync, and a crash loses the rest.

What arrives while an fsync runs goes into the next one. A crash keeps some first part of what was
not synced, as page caches do: a write may survive that nobody was told about, and the one behind it
is torn: its checksum is wrong, and recovery cuts it.

    slow       an fsync takes longer
    full       nothing can be written until there is space again
    failing    the next fsync reports an error; what it should have written may stand there or not
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from primacy.sim.world import Process, World

FULL_RETRY_S = 0.5
"""How often a server that waits for space tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRates:
    """What the seed drew for this run."""

    fsync_s: float = 0.001
    stall: float = 0.0
    """Share of fsyncs that take two hundred times as long."""


class Write(NamedTuple):
    commit: Callable[[], None]
    """Makes the write part of what survives."""
    then: Callable[[], None] | None
    """Tells the writer."""


class Disk:
    """Belongs to one process. Its content lives in whatever the commits change."""

    def __init__(self, world: World, owner: Process, rates: DiskRates) -> None:
        self.slowness = 1.0
        self.is_full = False
        self.fails_next = False
        self.on_failure: Callable[[str], None] | None = None
        """The owner must stop: an fsync failed, or there is no space and it does not wait."""
        self.waits_for_space = False
        """A database server waits; a write-ahead log gives up."""
        self._world = world
        self._owner = owner
        self._rates = rates
        self._chance: random.Random = world.stream("disk")
        self._waiting: list[Write] = []
        self._syncing: list[Write] = []

    def write(self, commit: Callable[[], None], then: Callable[[], None] | None = None) -> None:
        """`commit` and `then` happen after the fsync, in the order of the writes."""
        self._waiting.append(Write(commit, then))
        if not self._syncing:
            self._sync()

    def crash(self) -> None:
        """The owner was killed: what is not synced is lost, save perhaps its first part."""
        unsynced = self._syncing + self._waiting
        self._syncing, self._waiting = [], []
        self._keep_some(unsynced)

    def repair(self) -> None:
        """Somebody made space, or put another controller in: it works as it should."""
        self.slowness = 1.0
        self.is_full = self.fails_next = False

    def make_space(self) -> None:
        self.is_full = False

    def _keep_some(self, unsynced: list[Write]) -> None:
        if not unsynced:
            return
        kept = self._chance.randrange(len(unsynced) + 1)
        for write in unsynced[:kept]:
            write.commit()
        if kept < len(unsynced):
            self._world.trace.sometimes("crash lost unsynced data")

    def _sync(self) -> None:
        self._syncing, self._waiting = self._waiting, []
        delay_s = self._rates.fsync_s * (0.5 + self._chance.expovariate(1.0)) * self.slowness
        stall = self._rates.stall
        if stall and self._world.luck.strikes("stall", self._chance, stall):
            delay_s *= 200.0
        self._world.after(delay_s, self._owner, self._synced)

    def _synced(self) -> None:
        if self.is_full and self.waits_for_space:
            self._world.after(FULL_RETRY_S, self._owner, self._synced)
            return
        if self.is_full or self.fails_next:
            self.fails_next = False
            self._fail("no space is left" if self.is_full else "an fsync failed")
            return
        self._told(self._committed())

    def _committed(self) -> list[Write]:
        done, self._syncing = self._syncing, []
        for write in done:
            write.commit()
        if self._waiting:
            self._sync()
        return done

    def _told(self, done: list[Write]) -> None:
        for write in done:
            if write.then is not None:
                write.then()

    def _fail(self, why: str) -> None:
        """The kernel may have dropped the pages that it could not write: nobody is told that they
        are durable, neither now nor after a second try, and the owner stops."""
        failed, self._syncing = self._syncing + self._waiting, []
        self._waiting = []
        self._keep_some(failed)
        self._world.trace.sometimes(f"disk stopped its owner: {why}")
        if self.on_failure is not None:
            self.on_failure(why)
