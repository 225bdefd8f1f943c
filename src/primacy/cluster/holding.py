"""The lease of a primary, tied to its guard: what the store confirms, the guard is told.

    store --confirms a renewal--> keeper --deadline--> guard --kills when it passes
                                    ^                    |
                                    +--- stops renewing --+ no answer to a deadline for ttl/2

Promises  The guard's deadline never lies beyond the lease's. After `release` nothing is renewed. A
          guard that was told nothing for a while, since this process stood still, is not late.
Assumes   The one who releases has closed the page and seen the database gone, or read-only.
"""

import asyncio
from collections.abc import Callable

from primacy.clock import Clock
from primacy.cluster.view import LeaseView, StoreView
from primacy.coordination.api import NO_LEASE, LeaseId, Store
from primacy.coordination.leasing import LeaseKeeper
from primacy.engines.api import Engine
from primacy.errors import PrimacyError
from primacy.model import Epoch, NodeId
from primacy.telemetry import Event, Sink

KILL_MARGIN_SHARE = 0.03
KILL_MARGIN_MIN_S = 0.05
"""How long before the lease's certain end the guard kills: the kernel needs time to tear down."""


class Holding:
    """At most one lease: taken for a claim, kept while its epoch lasts."""

    def __init__(
        self, *, node: NodeId, store: Store, engine: Engine, clock: Clock, events: Sink
    ) -> None:
        self._node = node
        self._store = store
        self._engine = engine
        self._clock = clock
        self._events = events
        self._keeper: LeaseKeeper | None = None
        self._changed = asyncio.Event()
        self._extended = asyncio.Event()
        self.claimed_epoch = Epoch(0)
        self.armed_epoch = Epoch(0)
        """The epoch whose deadline the guard holds: by this process's arming, or adopted."""
        self._unanswered_since_s: float | None = None
        """When the guard was told a deadline that it has not confirmed; None: it owes nothing."""

    @property
    def is_held(self) -> bool:
        return self._keeper is not None and self._keeper.is_held

    @property
    def lease(self) -> LeaseId:
        return self._keeper.lease if self._keeper else NO_LEASE

    @property
    def deadline_s(self) -> float:
        """On CLOCK_BOOTTIME: until then the lease stands for certain."""
        return self._keeper.deadline_boottime_s if self._keeper else 0.0

    def view(self, store: StoreView) -> LeaseView | None:
        if self._keeper is None:
            return None
        epoch = self.claimed_epoch
        record = store.primary
        if record is not None and record.node == self._node and store.primary_lease == self.lease:
            epoch = record.epoch  # The store has the claim, whether its answer came or not.
            self.claimed_epoch = epoch
        left_s = self.deadline_s - self._clock.boottime_s()
        return LeaseView(lease=self.lease, left_s=left_s, epoch=epoch)

    # ---- taking and letting go

    async def take(self, ttl_s: float) -> None:
        """A new lease. Errors: those of the store."""
        self.claimed_epoch = Epoch(0)
        self._keep(
            await LeaseKeeper.acquire(
                self._store,
                ttl_s,
                self._clock,
                margin_s=_margin_s(ttl_s),
                may_renew=self._may_renew,
                on_extended=self._note_extension,
                on_lost=self._note_loss,
            )
        )

    async def adopt(self, lease: int, epoch: Epoch, ttl_s: float) -> None:
        """Go on with the lease of an earlier agent of this node: one renewal proves that it lives.
        `LeaseLost` where it does not."""
        sent_at_s = self._clock.boottime_s()
        renewed = await self._store.renew(LeaseId(lease))
        self.claimed_epoch = self.armed_epoch = epoch
        self._keep(
            LeaseKeeper(
                self._store,
                renewed,
                self._clock,
                sent_at_boottime_s=sent_at_s,
                margin_s=_margin_s(ttl_s),
                may_renew=self._may_renew,
                on_extended=self._note_extension,
                on_lost=self._note_loss,
            )
        )
        await self._tell_guard()

    async def release(self) -> None:
        """Errors of the store are only told: the lease then ends by itself."""
        keeper, self._keeper = self._keeper, None
        self.claimed_epoch = self.armed_epoch = Epoch(0)
        self._changed.set()
        if keeper is None:
            return
        try:
            await keeper.release()
        except PrimacyError as error:
            self._events(Event("lease-release-unknown", {"reason": error.what}))

    async def arm(self, epoch: Epoch) -> None:
        """Hand the deadline to the guard of the server that runs, if one does. Errors: its own."""
        guardian = self._engine.guardian
        if guardian is not None:
            await guardian.arm(epoch, self.deadline_s)
            self.armed_epoch = epoch
            self._unanswered_since_s = None

    def _keep(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._unanswered_since_s = None
        self._changed.set()

    # ---- keeping

    async def run(self, wake: Callable[[], None]) -> None:
        """Renews whatever lease is held, and hands each new deadline to the guard."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feed_guard(), name="lease-guard")
            while True:
                await self._changed.wait()
                self._changed.clear()
                keeper = self._keeper
                if keeper is None:
                    continue
                await keeper.run()  # Returns when it is lost or let go.
                wake()

    async def _feed_guard(self) -> None:
        while True:
            await self._extended.wait()
            self._extended.clear()
            try:
                await self._tell_guard()
            except PrimacyError as error:
                self._events(Event("guard-refused", {"reason": error.what}))

    async def _tell_guard(self) -> None:
        guardian = self._engine.guardian
        if guardian is None or self.armed_epoch == 0 or self.armed_epoch != self.claimed_epoch:
            return  # Not armed yet: arming hands over the deadline.
        if self._unanswered_since_s is None:
            self._unanswered_since_s = self._clock.now_s()
        await guardian.extend(self.claimed_epoch, self.deadline_s)
        self._unanswered_since_s = None

    def _may_renew(self) -> bool:
        """Not for a database whose guard has owed the confirmation of a deadline for half a ttl."""
        guardian = self._engine.guardian
        if self.claimed_epoch == 0 or guardian is None:
            return True
        if guardian.exited.is_set():
            return False
        if self._unanswered_since_s is None or self._keeper is None:
            return True
        return self._clock.now_s() - self._unanswered_since_s < self._keeper.ttl_s / 2

    def _note_extension(self, _deadline_s: float) -> None:
        self._extended.set()

    def _note_loss(self, reason: str) -> None:
        self._events(Event("lease-lost", {"lease": self.lease, "reason": reason}))


def _margin_s(ttl_s: float) -> float:
    return max(KILL_MARGIN_MIN_S, KILL_MARGIN_SHARE * ttl_s)
