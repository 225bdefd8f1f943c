"""A lock for which its holder has a fencing token, and hears at once when it is lost.

    async with Lock(store, "nightly", clock=clock, ttl_s=5.0) as lock:
        async with lock.guarding():              # cancelled when the lock is lost
            await write(rows, token=lock.token)  # checked where it is written

Promises  One holder at a time by the store's count; the token grows with each holder, for ever. The
          lock is given up by compare-and-delete, and ends by itself when its holder dies.
Assumes   Whatever the lock protects compares tokens. Without that no lock survives a pause.
Does not  Queue beyond the store's limit of leases. Re-enter.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from primacy.clock import Clock
from primacy.coordination.contention import Contender, line_prefix
from primacy.coordination.guarantees import EXCLUSION, DeclaredStore, require
from primacy.coordination.leasing import LeaseKeeper
from primacy.errors import InvariantBroken, OutcomeUnknown, Unavailable
from primacy.model import Revision

DEFAULT_TTL_S = 5.0


class Claim:
    """A place in line with the lease under it: what a lock and a candidacy have in common."""

    def __init__(
        self, store: DeclaredStore, prefix: str, *, clock: Clock, ttl_s: float, value: bytes
    ) -> None:
        require(store, EXCLUSION, what="a lock or election")
        self._store = store
        self._prefix = prefix
        self._clock = clock
        self._ttl_s = ttl_s
        self._value = value
        self._tasks: asyncio.TaskGroup | None = None
        self._keeper: LeaseKeeper | None = None
        self._contender: Contender | None = None
        self._token: Revision | None = None

    @property
    def keeper(self) -> LeaseKeeper:
        if self._keeper is None:
            raise InvariantBroken("a-claim-is-entered-first", self._prefix)
        return self._keeper

    @property
    def token(self) -> Revision:
        if self._token is None:
            raise InvariantBroken("a-claim-is-entered-first", self._prefix)
        return self._token

    async def take(self) -> None:
        """Returns when it is ours. `LeaseLost` where the lease ended while we waited."""
        keeper = await LeaseKeeper.acquire(self._store, self._ttl_s, self._clock)
        contender = Contender(self._store, self._prefix, keeper.lease)
        self._keeper, self._contender = keeper, contender
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._tasks.create_task(keeper.run(), name=f"keep-{self._prefix}")
        try:
            async with keeper.guarding():
                self._token = await contender.enter(self._value)
                await contender.wait_turn()
        except BaseException:
            await self.give_up()
            raise

    async def give_up(self) -> None:
        """Leave the line and end the lease. Where the store cannot be reached it ends by itself."""
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return  # Given up already.
        keeper, contender = self.keeper, self._contender
        keeper.abandon()
        try:
            if contender is not None and self._token is not None:
                await contender.leave(self._token)
            await keeper.release()
        except (Unavailable, OutcomeUnknown):
            pass  # Nobody renews it any more: it ends after its ttl, and its key with it.
        finally:
            await tasks.__aexit__(None, None, None)


class Lock:
    """One attempt to hold `name`: use it once, as an async context manager."""

    def __init__(
        self, store: DeclaredStore, name: str, *, clock: Clock, ttl_s: float = DEFAULT_TTL_S
    ) -> None:
        prefix = line_prefix("locks", name)
        self._claim = Claim(store, prefix, clock=clock, ttl_s=ttl_s, value=b"")
        self.name = name

    @property
    def token(self) -> Revision:
        """The fencing token: hand it to whatever the lock protects, with every write."""
        return self._claim.token

    @property
    def lost(self) -> asyncio.Event:
        """Set at once when the lock is lost, before anybody else can hold it."""
        return self._claim.keeper.lost

    @property
    def is_held(self) -> bool:
        return self._claim.keeper.is_held

    @property
    def deadline_boottime_s(self) -> float:
        return self._claim.keeper.deadline_boottime_s

    def guarding(self) -> AbstractAsyncContextManager[None]:
        """Cancels its block, and raises `LeaseLost`, when the lock is lost."""
        return self._claim.keeper.guarding()

    async def __aenter__(self) -> "Lock":
        """Waits for its turn; bound the wait with `asyncio.timeout`."""
        await self._claim.take()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._claim.give_up()
