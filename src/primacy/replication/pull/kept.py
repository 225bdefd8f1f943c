"""For whom the log is kept: whoever was served may come back for what follows.

Promises  No purge passes what a receiver has that is attached, or has left less than `kept_s` ago;
          whoever was served before this process began has left when it began.
Does not  Keep it for ever: a node that is gone for longer begins from a copy.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

from primacy.clock import Clock
from primacy.errors import PrimacyError
from primacy.model import NodeId
from primacy.telemetry import Event, Sink


class HeldLog(Protocol):
    """Blocking: either may write a file."""

    @property
    def holds(self) -> dict[str, int]: ...
    def hold(self, name: str, index: int) -> None: ...
    def release(self, name: str) -> None: ...


_PREFIX = "receiver "


class Kept:
    """Works in the threads that it is given."""

    def __init__(
        self, log: HeldLog, threads: Executor, *, kept_s: float, now_s: float, events: Sink
    ) -> None:
        self._log = log
        self._threads = threads
        self._kept_s = kept_s
        self._events = events
        self._left: deque[tuple[float, NodeId]] = deque()
        """Until when, for whom; the soonest first."""
        for name in log.holds:
            if name.startswith(_PREFIX):
                self.left(NodeId(name.removeprefix(_PREFIX)), now_s)

    async def keep(self, node: NodeId, index: int) -> None:
        """From now on: everything behind `index`."""
        await self._run(partial(self._log.hold, _name(node), index))

    async def release(self, node: NodeId) -> None:
        if await self._run(partial(self._log.release, _name(node))):
            self._events(Event("pull-hold-released", {"node": node, "after_s": self._kept_s}))

    async def release_overdue(self, here: Callable[[], AbstractSet[NodeId]], clock: Clock) -> None:
        """Until it is cancelled. Whoever leaves while it sleeps is due later than it wakes."""
        while True:
            now_s = clock.now_s()
            due_s = self._left[0][0] if self._left else now_s + self._kept_s
            await clock.sleep(max(0.0, due_s - now_s))
            for node in self.overdue(here(), clock.now_s()):
                await self.release(node)

    def left(self, node: NodeId, now_s: float) -> None:
        """It is gone, perhaps not for long."""
        self._left.append((now_s + self._kept_s, node))

    def overdue(self, here: AbstractSet[NodeId], now_s: float) -> list[NodeId]:
        """Those who left too long ago, are not here, and have not been here since."""
        found: list[NodeId] = []
        while self._left and self._left[0][0] <= now_s:
            node = self._left.popleft()[1]
            has_left_again = any(each == node for _, each in self._left)
            if node not in here and not has_left_again:
                found.append(node)
        return found

    async def _run(self, work: Callable[[], None]) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (PrimacyError, OSError) as error:
            self._events(Event("pull-hold-failed", {"why": str(error)[:300]}))
            return False
        return True


def _name(node: NodeId) -> str:
    return f"{_PREFIX}{node}"
