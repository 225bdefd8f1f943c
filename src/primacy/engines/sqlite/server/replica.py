"""A replica's side: receive into the log, apply to the database, say how far both are.

    upstream --records--> receiver (event loop) --durable--> applier (a thread) --> readers

Promises  What is applied was durable in the log before, and is part of the history that is
          followed: of a tail that an earlier reign has left nothing is applied before the upstream
          has compared it. What does not fit stops both, loudly (`must_clone`). What could not be
          applied for now, for lack of space above all, is tried again until it can. Either way the
          node acknowledges nothing meanwhile (`trouble`). Of a log that cannot be written
          `on_broken` hears: nobody knows what the disk holds before it is opened again.
Assumes   Nobody else writes to the log or the database while it follows.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw

from primacy.clock import Clock
from primacy.engines.sqlite.server.recovery import check_same_history, newest_heartbeat
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.failures import opening
from primacy.errors import Conflict, PrimacyError, Unavailable
from primacy.model import Address, Epoch
from primacy.replication.log.log import Log
from primacy.replication.log.record import ORIGIN_POINT, Point, decode
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import Receiver, ReceiverState
from primacy.telemetry import Event, Sink

GROUP_BYTES = 256 << 10
"""About what is applied in one COMMIT: some hundred small transactions."""

AGAIN_S = 1.0
"""Between two attempts to apply what could not be applied for lack of space."""


class Replica:
    """From `start` to `stop`: one upstream after another, as `follow` says."""

    def __init__(  # noqa: PLR0913 - all that it is made of, once.
        self,
        receiver: Receiver,
        log: Log,
        *,
        on_applied: Callable[[Point], None],
        on_heartbeat: Callable[[int], None],
        on_broken: Callable[[str], None],
        clock: Clock,
        events: Sink,
    ) -> None:
        self.receiver = receiver
        self.trouble = ""
        """Why nothing more is applied. Empty: all is well."""
        self.must_clone = False
        """The trouble is that this copy does not fit the log; any other ends by itself."""
        self._log = log
        self._on_applied = on_applied
        self._on_heartbeat = on_heartbeat
        self._on_broken = on_broken
        self._clock = clock
        self._events = events
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="apply")
        self._applier: Applier | None = None
        self._applied = ORIGIN_POINT
        self._acknowledges = False
        """As was asked for: kept for the end of a trouble."""
        self._epoch = Epoch(0)
        """That is followed."""
        self._confirmed_epoch = Epoch(0)
        """Of whose history this log is a beginning, as an upstream has found."""
        self._apply_until = 0
        """Nothing behind it is applied; 0: there is no such limit."""
        self._heartbeat = 0
        """The newest that the applier's thread has met."""
        self._is_more = asyncio.Event()
        self._is_over = asyncio.Event()
        self._receiving: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[None] | None = None

    async def start(self, path: Path, settings: StorageSettings, tasks: asyncio.TaskGroup) -> None:
        """Opens the database. `Rejected` where it is of no use, or not of this log."""
        loop = asyncio.get_running_loop()
        try:
            with opening(path):
                self._applier = await loop.run_in_executor(
                    self._thread, self._opened, path, settings
                )
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._applied = self._applier.position
        self.receiver.applied(self._applied)
        is_ready = asyncio.Event()
        self._receiving = tasks.create_task(self._keep_receiving(is_ready), name="receive")
        self._applying = tasks.create_task(self._keep_applying(self._applier), name="apply")
        await is_ready.wait()

    async def follow(self, following: Following, address: Address, *, acknowledge: bool) -> None:
        """`Conflict` for a copy that is of no use."""
        if self.must_clone:
            raise Conflict(f"it applies nothing more: {self.trouble}", hint="Clone this node.")
        self._epoch = following.epoch
        self._acknowledges = acknowledge
        is_well = not self.trouble
        await self.receiver.follow(following, address, acknowledge=acknowledge and is_well)

    def limit(self, apply_until: int) -> None:
        """Apply nothing behind this index; 0: all. What was applied already stays so."""
        self._apply_until = apply_until
        self._is_more.set()

    def acknowledge(self, *, wanted: bool) -> None:
        """From now on, or from when the trouble ends."""
        self._acknowledges = wanted
        self.receiver.acknowledge(wanted=wanted and not self.trouble)

    @property
    def acknowledges(self) -> bool:
        """Now, or by itself as soon as a trouble has passed. False: it surely does not, and whoever
        is not recorded may be let in."""
        return self._acknowledges and self.receiver.status.state is not ReceiverState.STOPPED

    async def stop(self) -> Point:
        """Receives and applies nothing more. Returns how far the log durably goes."""
        try:
            return await self.receiver.stop()
        finally:
            self._is_over.set()
            if self._applying is not None:
                self._applying.cancel()
            tasks = [each for each in (self._receiving, self._applying) if each is not None]
            if tasks:
                await asyncio.wait(tasks)
            applier, self._applier = self._applier, None
            if applier is not None:  # After what its thread was in the middle of.
                await asyncio.get_running_loop().run_in_executor(self._thread, applier.close)
                self._applied = applier.position
                self._on_applied(self._applied)  # Else its log could be cut below its database.
            self._thread.shutdown()

    def more(self, _durable: Point) -> None:
        """The log durably goes on."""
        self._is_more.set()

    def confirm(self, epoch: Epoch) -> None:
        """An upstream of that epoch has compared the logs: this one is a beginning of its own."""
        self._confirmed_epoch = epoch
        self._is_more.set()

    @property
    def applied(self) -> Point:
        return self._applied

    def staleness_s(self) -> float | None:
        """At most so old is what readers see here. None: not known."""
        status = self.receiver.status
        if status.state is not ReceiverState.STREAMING or self.trouble:
            return None
        if self._applied.index < status.source_end.index:
            return None
        return self._clock.now_s() - status.heard_at_s

    async def _keep_receiving(self, is_ready: asyncio.Event) -> None:
        """The receiver's owner, whatever becomes of the task that asked to follow."""
        try:
            async with self.receiver:
                is_ready.set()
                await self._is_over.wait()
        except* (PrimacyError, OSError) as errors:
            self._on_broken(str(_first_of(errors)))

    async def _keep_applying(self, applier: Applier) -> None:
        loop = asyncio.get_running_loop()
        while not self.must_clone:
            await self._is_more.wait()
            self._is_more.clear()
            try:
                while self._may_apply():
                    self._applied = await loop.run_in_executor(
                        self._thread, self._apply_some, applier
                    )
                    self._on_applied(self._applied)
                    self._on_heartbeat(self._heartbeat)
                    self.receiver.applied(self._applied)
                    self._go_on()
            except Unavailable as error:
                await self._wait(error)
            except (PrimacyError, apsw.Error, OSError) as error:
                await self._give_up(str(error))

    def _may_apply(self) -> bool:
        is_confirmed = self._confirmed_epoch == self._epoch
        return is_confirmed and self._applied.index < self._wanted()

    def _wanted(self) -> int:
        durable = self._log.durable.index
        return min(durable, self._apply_until) if self._apply_until else durable

    def _opened(self, path: Path, settings: StorageSettings) -> Applier:
        """In its thread."""
        applier = Applier(path, settings)
        try:
            check_same_history(applier.position, self._log)
        except BaseException:
            applier.close()
            raise
        return applier

    def _apply_some(self, applier: Applier) -> Point:
        """In its thread."""
        reached = applier.position.index
        records = list(decode(self._log.read(reached, bytes_max=GROUP_BYTES, until=self._wanted())))
        applier.apply(records)
        self._heartbeat = newest_heartbeat(records) or self._heartbeat
        return applier.position

    async def _give_up(self, why: str) -> None:
        self.must_clone = True
        self._trouble("sql-apply-stopped", why)
        await self.receiver.stop()

    async def _wait(self, error: Unavailable) -> None:
        if not self.trouble:
            self._trouble("sql-apply-waits", str(error))
        await self._clock.sleep(AGAIN_S)
        self._is_more.set()

    def _trouble(self, event: str, why: str) -> None:
        self.trouble = why
        self.receiver.acknowledge(wanted=False)
        at = str(self._applied.position)
        self._events(Event(event, {"applied": at, "why": why[:300]}))

    def _go_on(self) -> None:
        """Something was applied: what was wrong has passed."""
        if self.trouble:
            self.trouble = ""
            self._events(Event("sql-apply-goes-on", {"applied": str(self._applied.position)}))
            self.receiver.acknowledge(wanted=self._acknowledges)


def _first_of(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
