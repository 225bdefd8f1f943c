"""Elect one of many: the same line as a lock's, and a value that says who won.

    async with Election(store, "scheduler", clock=clock, ttl_s=5.0).campaign(b"node-a") as term:
        async with term.guarding():
            await lead(token=term.token)

Promises  One winner at a time by the store's count; a winner's token is higher than all before.
          `observe` names the winner of now, then each later one, without polling.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from primacy.clock import Clock
from primacy.coordination.api import KeyValue
from primacy.coordination.contention import first_in_line, holders, line_prefix
from primacy.coordination.guarantees import DeclaredStore
from primacy.coordination.lock import DEFAULT_TTL_S, Claim
from primacy.model import Revision


class Winner(msgspec.Struct, frozen=True):
    """Who leads, by the value of its campaign, and under which token."""

    value: bytes
    token: Revision


class Office:
    """A won election, until it is lost or resigned."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    @property
    def token(self) -> Revision:
        return self._claim.token

    @property
    def lost(self) -> asyncio.Event:
        return self._claim.keeper.lost

    @property
    def is_held(self) -> bool:
        return self._claim.keeper.is_held

    @property
    def deadline_boottime_s(self) -> float:
        return self._claim.keeper.deadline_boottime_s

    def guarding(self) -> AbstractAsyncContextManager[None]:
        """Cancels its block, and raises `LeaseLost`, when the office is lost."""
        return self._claim.keeper.guarding()

    async def resign(self) -> None:
        """Give it up now. Leaving the campaign's block does the same, and then does nothing."""
        await self._claim.give_up()


class Election:
    """Any number of candidates and observers share a name."""

    def __init__(
        self, store: DeclaredStore, name: str, *, clock: Clock, ttl_s: float = DEFAULT_TTL_S
    ) -> None:
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._prefix = line_prefix("elections", name)
        self.name = name

    @asynccontextmanager
    async def campaign(self, value: bytes) -> AsyncIterator[Office]:
        """Wait until we win. Leaving the block resigns; `LeaseLost` where the lease ended."""
        claim = Claim(self._store, self._prefix, clock=self._clock, ttl_s=self._ttl_s, value=value)
        await claim.take()
        try:
            yield Office(claim)
        finally:
            await claim.give_up()

    async def leader(self) -> Winner | None:
        """Linearizable. It may have lost by the time this is read: its token tells."""
        first, _ = await first_in_line(self._store, self._prefix)
        return _winner(first)

    async def observe(self) -> AsyncIterator[Winner | None]:
        """The winner of now, then each later one; None while nobody leads."""
        async for holder in holders(self._store, self._prefix):
            yield _winner(holder)


def _winner(holder: KeyValue | None) -> Winner | None:
    return None if holder is None else Winner(holder.value, holder.create)
