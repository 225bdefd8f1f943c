"""Keeps one lease alive, and knows until when its holder may act. Written once, over `Store`.

Promises  Every attempt is a new renewal, and its answer counts from the moment *that* attempt was
          sent, on CLOCK_BOOTTIME: deadline = max(deadline, sent + 0.95 ttl - margin). The holder is
          told at once when the lease is lost or its deadline has passed, and lost is final. After
          `release` or `abandon` every later answer is ignored.
Assumes   Clocks run within 2.5 % of true: the store then ends the lease after the deadline only.
Does not  Stop what the lease protects: the holder does, on `lost`, on `on_lost`, or by running it
          inside `guarding()`.

                 an answer: max(deadline, sent + 0.95 ttl - margin)
                      |   ^
                      v   |
    granted ---->    KEPT      ---- the deadline passes, or "it has ended" ----> LOST
                      |
                      +------------ release(), abandon() ----------------------> LET GO
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from primacy.clock import Clock
from primacy.coordination.api import Lease, LeaseId, Store
from primacy.errors import LeaseLost, OutcomeUnknown, Unavailable

RENEWALS_PER_TTL = 8
TRUSTED_SHARE = 0.95
"""Of the ttl: what two clocks within 2.5 % of true can agree on."""

ATTEMPTS_MAX = 8
"""Renewals on their way at once: one ttl's worth. An older one can extend nothing any more."""


def always() -> bool:
    return True


def ignore_deadline(_deadline_boottime_s: float) -> None:
    """For holders that only ask `deadline_boottime_s`."""


def ignore_loss(_reason: str) -> None:
    """For holders that wait for `lost`."""


class LeaseKeeper:
    """One lease's holder. Make it with `acquire`; `run` renews until the lease is lost or let go.

    The callbacks are called on the loop, between two steps, and must return at once:
    `on_extended(deadline_boottime_s)` for the grant and each later deadline that is higher;
    `on_lost(reason)` at most once, and never after `release` or `abandon`.
    """

    def __init__(  # noqa: PLR0913 - a lease, its clock, and what its holder wants to be told
        self,
        store: Store,
        lease: Lease,
        clock: Clock,
        *,
        sent_at_boottime_s: float,
        margin_s: float = 0.0,
        may_renew: Callable[[], bool] = always,
        on_extended: Callable[[float], None] = ignore_deadline,
        on_lost: Callable[[str], None] = ignore_loss,
    ) -> None:
        """`sent_at_boottime_s`: when the grant, or the renewal that proved `lease`, was sent."""
        self._store = store
        self._lease = lease
        self._clock = clock
        self._margin_s = margin_s
        self._may_renew = may_renew
        self._on_extended = on_extended
        self._on_lost = on_lost
        self._over = asyncio.Event()
        self._scopes: set[asyncio.Timeout] = set()
        self._deadline_s = self._deadline_from(sent_at_boottime_s)
        self.lost = asyncio.Event()
        self.lost_reason: str | None = None
        on_extended(self._deadline_s)

    @classmethod
    async def acquire(  # noqa: PLR0913 - those of the constructor
        cls,
        store: Store,
        ttl_s: float,
        clock: Clock,
        *,
        margin_s: float = 0.0,
        may_renew: Callable[[], bool] = always,
        on_extended: Callable[[float], None] = ignore_deadline,
        on_lost: Callable[[str], None] = ignore_loss,
    ) -> "LeaseKeeper":
        """Take a new lease. Errors are those of the store and `LeaseLost`; after `OutcomeUnknown`
        a lease may stand that nobody holds, and ends by itself."""
        sent_at_s = clock.boottime_s()
        lease = await store.grant(ttl_s)
        if clock.boottime_s() - sent_at_s > ttl_s / RENEWALS_PER_TTL:
            # The store was electing its leader: count from a renewal, not from that long ago.
            sent_at_s = clock.boottime_s()
            lease = await store.renew(lease.lease)
        return cls(
            store,
            lease,
            clock,
            sent_at_boottime_s=sent_at_s,
            margin_s=margin_s,
            may_renew=may_renew,
            on_extended=on_extended,
            on_lost=on_lost,
        )

    @property
    def lease(self) -> LeaseId:
        return self._lease.lease

    @property
    def ttl_s(self) -> float:
        return self._lease.ttl_s

    @property
    def deadline_boottime_s(self) -> float:
        """Until then the lease stands for certain; it never goes back."""
        return self._deadline_s

    @property
    def is_held(self) -> bool:
        """Whether the holder may act at this moment. False for ever once lost or let go."""
        return not self._over.is_set() and self._clock.boottime_s() < self._deadline_s

    async def run(self) -> None:
        """Renew every ttl/8. Returns when the lease is lost or let go; cancelling lets nothing go:
        the lease stands until its ttl has passed."""
        every_s = self.ttl_s / RENEWALS_PER_TTL
        attempts: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            while not self._over.is_set():
                left_s = self._deadline_s - self._clock.boottime_s()
                if left_s <= 0:
                    self._lose(f"no renewal was confirmed for {TRUSTED_SHARE * self.ttl_s:.2f} s")
                    break
                if len(attempts) < ATTEMPTS_MAX and self._may_renew():
                    attempt = tasks.create_task(self._attempt(), name=f"renew-{self.lease}")
                    attempts.add(attempt)
                    attempt.add_done_callback(attempts.discard)
                try:
                    async with asyncio.timeout(min(every_s, left_s)):
                        await self._over.wait()
                except TimeoutError:
                    continue  # Time for the next attempt, or the deadline.
            for attempt in attempts:
                attempt.cancel()

    def abandon(self) -> None:
        """Stop renewing, now; ignore what still arrives. The lease ends by itself."""
        self._over.set()

    async def release(self) -> None:
        """Let the lease go and end it. At the call, before anything is awaited, `is_held` is false.

        `Unavailable` or `OutcomeUnknown`: it ends by itself, after its ttl at the latest.
        """
        self.abandon()
        await self._store.revoke(self.lease)

    @asynccontextmanager
    async def guarding(self) -> AsyncIterator[None]:
        """Cancels the block, and raises `LeaseLost` from it, at the moment the lease is lost."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                if self.lost.is_set():
                    raise self._loss()
                yield
        except TimeoutError as error:
            if scope.expired():
                raise self._loss() from error
            raise
        finally:
            self._scopes.discard(scope)

    async def _attempt(self) -> None:
        sent_at_s = self._clock.boottime_s()
        try:
            async with asyncio.timeout(self.ttl_s):
                await self._store.renew(self.lease)
        except LeaseLost as error:
            self._lose(error.what)
        except (Unavailable, OutcomeUnknown, TimeoutError):
            return  # The next attempt is on its way, or the deadline decides.
        else:
            self._extend(sent_at_s)

    def _extend(self, sent_at_s: float) -> None:
        """An answer that comes after the deadline changes nothing: the holder has stopped."""
        deadline_s = self._deadline_from(sent_at_s)
        is_late = self._clock.boottime_s() >= self._deadline_s
        if self._over.is_set() or is_late or deadline_s <= self._deadline_s:
            return
        self._deadline_s = deadline_s
        self._on_extended(deadline_s)

    def _deadline_from(self, sent_at_s: float) -> float:
        return sent_at_s + TRUSTED_SHARE * self.ttl_s - self._margin_s

    def _lose(self, reason: str) -> None:
        if self._over.is_set():
            return
        self.lost_reason = reason
        self._over.set()
        self.lost.set()
        now_s = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now_s)
        self._on_lost(reason)

    def _loss(self) -> LeaseLost:
        return LeaseLost(
            f"lease {self.lease} was lost: {self.lost_reason}",
            hint="Whatever it protected may belong to somebody else now: stop, then start anew.",
        )
