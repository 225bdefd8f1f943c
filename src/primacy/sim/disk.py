"""One disk of one process: a write is durable only after its fsync, and a crash loses the rest.

What arrives while an fsync runs goes into the next one. A crash keeps some first part of what was
not synced, as page caches do: a write may survive that nobody was told about.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from primacy.sim.world import Process, World


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
        if self._rates.stall and self._chance.random() < self._rates.stall:
            delay_s *= 200.0
        self._world.after(delay_s, self._owner, self._synced)

    def _synced(self) -> None:
        done, self._syncing = self._syncing, []
        for write in done:
            write.commit()
        if self._waiting:
            self._sync()
        for write in done:
            if write.then is not None:
                write.then()
