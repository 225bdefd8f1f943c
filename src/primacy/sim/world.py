"""Virtual time and seeded chance: one heap of events, no thread, no real clock.

Promises  Events run in order of (time, number of the event); a run is a function of its seed.
Assumes   Whatever runs in an event draws chance only from `stream` and iterates over no set.
Does not  Know what a node is: it knows processes, which live, stop for a while, and die.
"""

import heapq
import random
from collections.abc import Callable
from typing import NamedTuple

from primacy.sim.choices import Luck
from primacy.sim.trace import Trace

EVENTS_MAX = 1_000_000
"""A run that needs more is stuck in a loop that takes no time."""

CLOCK_SKEW_MAX = 0.025
"""Clocks run within 2.5 % of true: as far as leases are promised to hold."""

UPTIME_AT_START_S = 10.0
"""What a host's monotonic clocks show when its agent starts: they begin anew with each boot."""


class Due(NamedTuple):
    """An event on the heap. Without an owner it happens to the world itself."""

    time_s: float
    number: int
    owner: "Process | None"
    life: int
    action: Callable[..., None]
    arguments: tuple[object, ...]


class NodeClock:
    """A clock that is wrong by an offset and a rate: `local = offset + rate * true`."""

    __slots__ = ("offset_s", "rate", "wall_offset_s", "wall_rate")

    def __init__(self, *, offset_s: float, rate: float, wall_rate: float = 1.0) -> None:
        self.offset_s = offset_s
        self.rate = rate
        self.wall_rate = wall_rate
        """People's clock may run fast, so that what counts in minutes ends within a run."""
        self.wall_offset_s = 0.0

    def restart(self, true_s: float) -> None:
        """The host has booted: its monotonic clocks begin anew."""
        self.offset_s = UPTIME_AT_START_S - self.rate * true_s

    def local_s(self, true_s: float) -> float:
        return self.offset_s + self.rate * true_s

    def true_s(self, local_s: float) -> float:
        return (local_s - self.offset_s) / self.rate


class Process:
    """Something that runs on a host, and can be stopped or killed apart from the others.

    A timer or message belongs to one life: what a dead life expected never happens.
    """

    __slots__ = ("backlog", "clock", "host", "is_paused", "is_up", "life", "name", "number")

    def __init__(self, name: str, host: str, clock: NodeClock, number: int) -> None:
        self.name = name
        self.host = host
        self.clock = clock
        self.number = number
        self.life = 0
        self.is_up = False
        self.is_paused = False
        self.backlog: list[Due] = []

    @property
    def is_running(self) -> bool:
        return self.is_up and not self.is_paused


class World:
    """Time, chance and the queue of one run."""

    def __init__(self, seed: int, *, trace: Trace, salt: int = 0, luck: Luck | None = None) -> None:
        """Another `salt` gives other streams under the same seed."""
        self.seed = seed
        self.luck = luck or Luck()
        self._streams_of = f"{seed}+{salt}" if salt else str(seed)
        self.now_s = 0.0
        self.trace = trace
        self.events_count = 0
        self.is_stopped = False
        self.after_step: Callable[[], None] | None = None
        self._heap: list[Due] = []
        self._number = 0
        self._processes = 0
        self._streams: dict[str, random.Random] = {}

    # ---- chance

    def stream(self, concern: str) -> random.Random:
        """One generator per concern, so that a new kind of fault does not shift the others."""
        found = self._streams.get(concern)
        if found is None:
            found = self._streams[concern] = random.Random(f"{self._streams_of}/{concern}")
        return found

    # ---- processes

    def process(self, name: str, host: str, clock: NodeClock) -> Process:
        self._processes += 1
        return Process(name, host, clock, self._processes)

    def start(self, process: Process) -> None:
        process.life += 1
        process.is_up = True
        process.is_paused = False
        process.backlog.clear()

    def kill(self, process: Process) -> None:
        """Nothing of this life happens any more."""
        process.life += 1
        process.is_up = False
        process.is_paused = False
        process.backlog.clear()

    def pause(self, process: Process) -> None:
        """SIGSTOP: time goes on, and what should happen waits."""
        if process.is_up:
            process.is_paused = True

    def resume(self, process: Process) -> None:
        if not process.is_paused:
            return
        process.is_paused = False
        for due in process.backlog:
            self.after(0.0, due.owner, due.action, *due.arguments)
        process.backlog.clear()

    # ---- the queue

    def after(
        self, delay_s: float, owner: Process | None, action: Callable[..., None], *arguments: object
    ) -> None:
        """`action` happens `delay_s` true seconds from now, if its owner still lives this life."""
        self._number += 1
        life = 0 if owner is None else owner.life
        due = Due(self.now_s + delay_s, self._number, owner, life, action, arguments)
        heapq.heappush(self._heap, due)

    def at(
        self, time_s: float, owner: Process | None, action: Callable[..., None], *arguments: object
    ) -> None:
        """As `after`, at a moment: a told time is met to the last bit."""
        self._number += 1
        life = 0 if owner is None else owner.life
        due = Due(max(time_s, self.now_s), self._number, owner, life, action, arguments)
        heapq.heappush(self._heap, due)

    def run(self, *, until_s: float) -> None:
        """Let everything happen that is due by `until_s`, unless something stops the world."""
        heap, trace = self._heap, self.trace
        while heap and not self.is_stopped and heap[0].time_s <= until_s:
            due = heapq.heappop(heap)
            owner = due.owner
            if owner is not None:
                if owner.life != due.life or not owner.is_up:
                    continue
                if owner.is_paused:
                    owner.backlog.append(due)
                    continue
            self.now_s = due.time_s
            self.events_count += 1
            trace.step(due.time_s, due.number)
            due.action(*due.arguments)
            if self.after_step is not None:
                self.after_step()
            if self.events_count > EVENTS_MAX:
                raise RuntimeError(f"seed {self.seed}: more than {EVENTS_MAX} events")
        if not self.is_stopped:
            self.now_s = max(self.now_s, until_s)

    # ---- what people read

    def note(self, who: str, name: str, detail: str = "") -> None:
        if self.trace.is_on:
            self.trace.line(self.now_s, who, name, detail)
