"""asyncio under virtual time: one event loop per simulated process, driven by the world's heap.

The agent, its hands and whatever else is written for asyncio run here unchanged: a callback is an
event of its process, so it waits while the process is paused and is lost when the process dies.

Promises  Callbacks run in the order in which they were scheduled; `time()` is the process's clock.
Does not  Offer sockets, threads, signals or subprocesses: what needs those is modelled instead.
"""

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from primacy.sim.world import Process, World

CLOSE_ATTEMPTS_MAX = 20
"""How many nested `finally` blocks of an abandoned task may want to wait."""

RESOLUTION_S = 1e-6
"""Of timers: whoever waits for less waits for this, or rounding could hold time still."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SimTask(asyncio.Task[T]):
    """A task whose hash is its number: sets of tasks are walked in the same order in every run."""

    number = 0

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one life of one process. Nothing runs after the life has ended."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._life = process.life
        self._numbers = 0
        self.tasks: list[asyncio.Task[Any]] = []  # Any: tasks of every result.
        """Kept so that a dead life is not collected, and its `finally` blocks never run."""

    # ---- what asyncio asks of a loop

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if self._process.life == self._life:
            self._world.after(0.0, self._process, self._run, handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        delay_s = max(RESOLUTION_S, self._process.clock.true_s(when) - self._world.now_s)
        if self._process.life == self._life:
            self._world.after(delay_s, self._process, self._run, handle)
        return handle

    def time(self) -> float:
        return self._process.clock.local_s(self._world.now_s)

    def create_future(self) -> asyncio.Future[Any]:  # Any: as the base class has it.
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # Coroutines only.
        self,
        coro: Coroutine[Any, Any, T],  # Any: what a coroutine yields is asyncio's own affair.
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task: SimTask[T] = SimTask(coro, loop=self, name=name or "task", context=context)
        self._numbers += 1
        task.number = self._numbers
        if len(self.tasks) > 64:
            self.tasks = [each for each in self.tasks if not each.done()]
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:  # Any: asyncio's own type.
        error = context.get("exception")
        if error is not None and self._life == self._process.life:
            raise error

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer stays on the heap and does nothing when it comes."""

    # ---- the world's side

    def abandon(self) -> None:
        """The run is over: let go of what still waits, without a word."""
        self.run_inside(self._close_all)
        self.tasks.clear()

    def _close_all(self) -> None:
        for task in self.tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
            coroutine = task.get_coro()
            for _ in range(CLOSE_ATTEMPTS_MAX):
                try:
                    coroutine.close()
                except RuntimeError:
                    continue  # It awaited something on its way out: that is over too.
                break

    def run_inside(self, action: Callable[[], None]) -> None:
        """Call something that needs a running loop, as whoever starts the first task does."""
        outer = events._get_running_loop()  # noqa: SLF001 - the documented hook for other loops
        events._set_running_loop(self)  # noqa: SLF001 - the documented hook for other loops
        try:
            action()
        finally:
            events._set_running_loop(outer)  # noqa: SLF001 - the documented hook for other loops

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        outer = events._get_running_loop()  # noqa: SLF001 - the documented hook for other loops
        events._set_running_loop(self)  # noqa: SLF001 - the documented hook for other loops
        try:
            handle._run()  # noqa: SLF001 - what every loop does with a handle
        finally:
            events._set_running_loop(outer)  # noqa: SLF001 - the documented hook for other loops


class SimClock:
    """The clock of one process, and a way to wait that ends with its life."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def now_s(self) -> float:
        return self._process.clock.local_s(self._world.now_s)

    def boottime_s(self) -> float:
        return self._process.clock.local_s(self._world.now_s)

    def wall_s(self) -> float:
        clock = self._process.clock
        return 1_700_000_000.0 + clock.wall_rate * self._world.now_s + clock.wall_offset_s

    async def sleep(self, delay_s: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        true_s = max(0.0, delay_s) / self._process.clock.rate
        self._world.after(true_s, self._process, resolve, done)
        await done


def resolve(future: "asyncio.Future[None]") -> None:
    """Let whoever waits go on, if it still waits."""
    if not future.done():
        future.set_result(None)


def fail(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def new_loop(world: World, process: Process) -> SimLoop:
    return SimLoop(world, process)  # type: ignore[abstract]  # Sockets and threads are not offered.
