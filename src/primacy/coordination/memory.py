"""The reference: the shortest correct store. One process, no disk, no network.

Promises  What `api` promises. It is gone with its process.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from primacy.clock import Clock
from primacy.consensus.machine import Entry
from primacy.coordination.api import (
    Lease,
    LeaseId,
    Range,
    RangeResult,
    StoreStatus,
    Txn,
    TxnResult,
    WatchBatch,
)
from primacy.coordination.embedded.commands import (
    LEASE_TTL_MIN_S,
    Applied,
    Body,
    Command,
    Commit,
    Committed,
    Failure,
    Grant,
    Granted,
    OpenSession,
    Renew,
    Renewed,
    Revoke,
    SessionId,
    Write,
    encoded,
    problem_with_range,
)
from primacy.coordination.embedded.failures import raised_by
from primacy.coordination.embedded.keyspace import matches
from primacy.coordination.embedded.kv import Kv
from primacy.coordination.embedded.leases import LeaseStamps
from primacy.coordination.guarantees import IN_MEMORY, Guarantee
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId, Revision, Term

_TERM = Term(1)


class MemoryStore:
    """A log of one member that is applied as it is written."""

    def __init__(self, clock: Clock, *, ttl_min_s: float = LEASE_TTL_MIN_S) -> None:
        self._clock = clock
        self._kv = Kv(ttl_min_s=ttl_min_s)
        self._stamps = LeaseStamps(clock.now_s(), self._kv.leases)
        self._changed = asyncio.Event()
        self._apply(OpenSession())
        self._session = SessionId(self._kv.index)
        self._sequence = 0

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        return IN_MEMORY

    async def range(
        self,
        key: str,
        *,
        is_prefix: bool = False,
        is_serializable: bool = False,  # noqa: ARG002 - every read here is linearizable
    ) -> RangeResult:
        op = Range(key, is_prefix)
        if (problem := problem_with_range(op)) is not None:
            raise raised_by(problem)
        self._end_leases()
        return self._kv.range(op)

    async def txn(self, txn: Txn) -> TxnResult:
        match self._write(Commit(txn)):
            case Committed(result):
                return result
            case other:
                raise _unexpected(other)

    async def grant(self, ttl_s: float) -> Lease:
        match self._write(Grant(ttl_s)):
            case Granted(lease):
                return lease
            case other:
                raise _unexpected(other)

    async def renew(self, lease: LeaseId) -> Lease:
        self._end_leases()
        match self._apply(Renew((lease,))).reply:
            case (Failure() as failure,):
                raise raised_by(failure)
            case (Renewed(renewed),):
                return renewed
            case other:
                raise _unexpected(other)

    async def revoke(self, lease: LeaseId) -> None:
        self._write(Revoke(lease))

    @asynccontextmanager
    async def watch(
        self, key: str, *, is_prefix: bool = False, from_revision: Revision
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        yield self._changes(key, is_prefix=is_prefix, from_revision=from_revision)

    async def status(self) -> StoreStatus:
        self._end_leases()
        return StoreStatus(
            node=NodeId("memory"),
            leader=NodeId("memory"),
            term=_TERM,
            commit_index=self._kv.index,
            applied_index=self._kv.index,
            revision=self._kv.revision,
            lease_left_s=dict(self._stamps.left_s(self._clock.now_s())),
        )

    async def _changes(
        self, key: str, *, is_prefix: bool, from_revision: Revision
    ) -> AsyncIterator[WatchBatch]:
        while True:
            self._end_leases()
            changed = self._changed
            for batch in self._kv.history.since(from_revision):
                from_revision = Revision(batch.revision + 1)
                if (seen := matches(batch, key, is_prefix=is_prefix)) is not None:
                    yield seen
            end_s = self._stamps.next_end_s
            try:
                async with asyncio.timeout(
                    None if end_s is None else max(0.0, end_s - self._clock.now_s())
                ):
                    await changed.wait()
            except TimeoutError:
                continue  # A lease may have ended.

    def _write(self, body: Body) -> object:
        self._end_leases()
        self._sequence += 1
        reply = self._apply(Write(self._session, self._sequence, self._sequence, body)).reply
        if isinstance(reply, Failure):
            raise raised_by(reply)
        return reply

    def _end_leases(self) -> None:
        for expire in self._stamps.ended(self._clock.now_s()):
            self._apply(expire)

    def _apply(self, command: Command) -> Applied:
        data, now_s = encoded(command), self._clock.now_s()
        index = LogIndex(self._kv.index + 1)
        self._stamps.appended(now_s, [Entry(_TERM, index, data)])
        applied = self._kv.apply(index, _TERM, data)
        self._stamps.applied(now_s, index, applied.renewed)
        # Granted or renewed counts too: a watch must learn when to look again.
        if applied.batch is not None or applied.renewed:
            self._changed.set()
            self._changed = asyncio.Event()
        return applied


def _unexpected(reply: object) -> InvariantBroken:
    return InvariantBroken("a-reply-fits-its-request", repr(reply))
