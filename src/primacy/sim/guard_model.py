"""A model of the guard and its deadline page: what kills a database whose lease has run out.

    closed(e) --arm(f > e)--> armed(f) --open(f)--> open(f) --close(f) | deadline--> closed(f)

Promises  An epoch is opened at most once. The deadline only rises, and the guard kills at it. When
          the guard dies, its database dies with it, and the page stays as it was.
Assumes   The page lives in memory: a host that starts anew finds it empty.
"""

import asyncio

from primacy.cluster.view import PageView
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch
from primacy.sim.engine_model import ModelEngine
from primacy.sim.loop import SimClock
from primacy.sim.world import Process, World

ANSWER_WITHIN_S = 0.5
LOCAL_S = 0.0002


class Page:
    """The 64 bytes."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.epoch = Epoch(0)
        self.state = "closed"
        self.closed_epoch = Epoch(0)
        self.deadline_s = 0.0
        """On CLOCK_BOOTTIME of the host."""
        self.is_deadline_kept = False
        """Closed, and the guard kills at the deadline all the same."""

    def close(self) -> None:
        self.closed_epoch = max(self.closed_epoch, self.epoch)
        self.state = "closed"
        self.is_deadline_kept = False

    def view(self) -> PageView:
        return PageView(epoch=self.epoch, state=self.state, closed_epoch=self.closed_epoch)

    def passes(self, epoch: Epoch, now_s: float) -> bool:
        """What a router asks before it lets an answer through."""
        return self.state == "open" and self.epoch == epoch and now_s < self.deadline_s


class SimGuard:
    """The guard of one host's database: `Guardian` for the agent, an executioner for the server."""

    def __init__(
        self, world: World, *, process: Process, agent: Process, engine: ModelEngine, page: Page
    ) -> None:
        self.process = process
        self.page = page
        self.engine = engine
        self.exited = asyncio.Event()
        self._world = world
        self._agent = agent
        self._clock = SimClock(world, agent)

    # ---- the agent's side

    async def arm(self, epoch: Epoch, deadline_s: float) -> None:
        await self._reach()
        page = self.page
        if page.closed_epoch >= epoch:
            raise Conflict(f"epoch {epoch} is closed", hint="Closed is final.")
        if page.state != "closed" and page.epoch != epoch:
            raise Conflict(f"epoch {page.epoch} is {page.state}", hint="Close it first.")
        if deadline_s <= self._clock.boottime_s():
            raise Conflict("the deadline has passed", hint="Renew the lease first.")
        if page.epoch != epoch:
            page.epoch, page.state, page.deadline_s = epoch, "armed", deadline_s
        self._raise_deadline(deadline_s)

    async def extend(self, epoch: Epoch, deadline_s: float) -> None:
        await self._reach()
        if self.page.epoch != epoch or self.page.state == "closed":
            raise Conflict(f"the page is not of epoch {epoch}", hint="Read the page.")
        self._raise_deadline(deadline_s)

    async def open(self, epoch: Epoch) -> None:
        await self._reach()
        if self.page.epoch != epoch or self.page.state == "closed":
            raise Conflict(f"the page is not of epoch {epoch}", hint="Read the page.")
        self.page.state = "open"

    async def close(self, epoch: Epoch, *, keep_deadline: bool = False) -> None:
        if self.process.is_up:
            await self._reach()
        else:
            await self._clock.sleep(LOCAL_S)
        if self.page.epoch <= epoch:
            self.page.epoch = epoch
            self.page.close()
            self.page.is_deadline_kept = keep_deadline and self.process.is_up

    # ---- the host's side

    def start(self) -> None:
        """The guard of a server that has just been started."""
        if not self.process.is_up:
            self._world.start(self.process)
        self.page.close()
        self.greet()

    def greet(self) -> None:
        """An agent says hello: from now on this one hears of the end."""
        self.exited = asyncio.Event()

    def crash(self) -> None:
        """SIGKILL of the guard: the kernel kills its child."""
        self._world.kill(self.process)
        self.engine.crash()

    def server_exited(self) -> None:
        """The child is gone: close the page, and go."""
        if self.process.is_running:
            self.page.close()
        self._world.kill(self.process)
        if self._agent.is_up:
            self._world.after(LOCAL_S, self._agent, self.exited.set)

    # ---- the deadline

    def _raise_deadline(self, deadline_s: float) -> None:
        page = self.page
        page.deadline_s = max(page.deadline_s, deadline_s)
        self._wait_for_deadline()

    def _wait_for_deadline(self) -> None:
        true_s = self.process.clock.true_s(self.page.deadline_s)
        delay_s = max(0.0, true_s - self._world.now_s)
        self._world.after(delay_s, self.process, self._judge, self.page.deadline_s)

    def _judge(self, deadline_s: float) -> None:
        page = self.page
        is_lifted = page.state == "closed" and not page.is_deadline_kept
        if is_lifted or deadline_s < page.deadline_s:
            return
        self._world.note(self.process.name, "guard-kills", f"epoch {page.epoch}")
        self._world.trace.sometimes("guard killed at the deadline")
        page.close()
        self.engine.crash()

    async def _reach(self) -> None:
        """A message to the guard and its answer; a stopped guard does not answer."""
        waited_s = 0.0
        await self._clock.sleep(LOCAL_S)
        while self.process.is_up and self.process.is_paused and waited_s < ANSWER_WITHIN_S:
            await self._clock.sleep(0.05)
            waited_s += 0.05
        if not self.process.is_running:
            raise Unavailable("the guard does not answer", hint="Observe the server again.")
