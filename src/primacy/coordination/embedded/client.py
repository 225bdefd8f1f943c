"""A client of the embedded store over TCP: finds the leader, and tells the truth about answers.

Promises  What `api.Store` promises. A write is sent again under its session and sequence until it
          has an answer or `within_s` has passed: it takes effect at most once. Past that, an answer
          that may have been lost is `OutcomeUnknown`; `Unavailable` says that nothing was applied.
          `renew` goes to one leader once. A watch goes on at another member without gap or repeat.
Assumes   One event loop.
Does not  Cache: every read asks a member.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType

from primacy.clock import Clock
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
    Answer,
    Body,
    Commit,
    Committed,
    Failure,
    Grant,
    Granted,
    OpenSession,
    Refusal,
    Renewed,
    Revoke,
    Revoked,
    SessionId,
    SessionOpened,
    StatusRead,
    Write,
)
from primacy.coordination.embedded.connection import Connection, connected
from primacy.coordination.embedded.failures import raised_by
from primacy.coordination.embedded.protocol import WatchKeys
from primacy.coordination.embedded.requests import Read, ReadStatus, RenewLease, RequestBody
from primacy.coordination.guarantees import ALL, Guarantee
from primacy.errors import (
    InvariantBroken,
    NotLeader,
    OutcomeUnknown,
    PrimacyError,
    Rejected,
    Unavailable,
)
from primacy.model import Address, NodeId, Revision

WITHIN_S = 5.0
"""How long a call looks for an answer: longer than any election of the store."""

ATTEMPT_S = 1.0
"""How long one member may take for one answer before another is asked."""

CONNECT_S = 0.5

WRITES_MAX = 32
"""Writes under way at once: half of the answers that a session keeps."""

RETRY_MIN_S = 0.01
RETRY_MAX_S = 0.1
"""Between two attempts that found no leader: doubled each time, half of it by chance."""


class _Session:
    """What exactly-once needs to know: which sequences still want an answer."""

    def __init__(self, name: SessionId) -> None:
        self.name = name
        self._last_sequence = 0
        self._open: set[int] = set()

    def begin(self) -> int:
        self._last_sequence += 1
        self._open.add(self._last_sequence)
        return self._last_sequence

    def end(self, sequence: int) -> None:
        self._open.discard(sequence)

    @property
    def done_below(self) -> int:
        return min(self._open, default=self._last_sequence + 1)


class _Attempts:
    """Attempts with growing pauses between them, until `within_s` has passed."""

    def __init__(self, clock: Clock, delays_s: Iterator[float], within_s: float) -> None:
        self._clock = clock
        self._delays_s = delays_s
        self._until_s = clock.now_s() + within_s
        self._is_first = True

    def __aiter__(self) -> "_Attempts":
        return self

    async def __anext__(self) -> None:
        if self._is_first:
            self._is_first = False
            return
        delay_s = next(self._delays_s)
        if self._clock.now_s() + delay_s >= self._until_s:
            raise StopAsyncIteration
        await self._clock.sleep(delay_s)


class StoreClient:
    """Use it as an async context manager; share it among all tasks of a loop."""

    def __init__(
        self,
        addresses: Mapping[NodeId, Address],
        clock: Clock,
        chance: random.Random,
        *,
        within_s: float = WITHIN_S,
        attempt_s: float = ATTEMPT_S,
        near: NodeId | None = None,
    ) -> None:
        """`chance` spreads retries and watches over the members; nothing else rests on it. Watches
        begin at `near`, the member on this host: no network can silence that one unnoticed."""
        if not addresses:
            raise Rejected("a store client was given no address", hint="Name at least one member.")
        self._addresses = dict(addresses)
        self._clock = clock
        self._chance = chance
        self._within_s = within_s
        self._attempt_s = attempt_s
        self._nodes = list(addresses)
        self._near = near
        self._leader = chance.choice(self._nodes)
        self._connections: dict[NodeId, Connection] = {}
        self._connecting: dict[NodeId, asyncio.Lock] = {node: asyncio.Lock() for node in addresses}
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        self._writes = asyncio.Semaphore(WRITES_MAX)

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        return ALL

    async def __aenter__(self) -> "StoreClient":
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def led_by(self, leader: NodeId) -> None:
        """Told by somebody who knows, such as the member on this host. What waits for another
        member's answer is asked again there: the one before may be silent for good."""
        before = self._leader
        if leader == before or leader not in self._addresses:
            return
        self._leader = leader
        connection = self._connections.pop(before, None)
        if connection is not None:
            connection.close()

    # ---- reads -----------------------------------------------------------------------------

    async def range(
        self, key: str, *, is_prefix: bool = False, is_serializable: bool = False
    ) -> RangeResult:
        body = Read(Range(key, is_prefix), is_serializable)
        answer = await (self._ask_any(body) if is_serializable else self._ask_leader(body))
        if isinstance(answer, RangeResult):
            return answer
        raise _surprise(answer)

    async def status(self, node: NodeId | None = None) -> StoreStatus:
        """Of `node`, or of any member that answers."""
        answer = await self._ask_any(ReadStatus(), node)
        if isinstance(answer, StatusRead):
            return answer.status
        raise _surprise(answer)

    async def _ask_any(self, body: RequestBody, node: NodeId | None = None) -> Answer:
        """Each member once, the last known leader first."""
        others = [each for each in self._nodes if each != self._leader]
        last = "nobody was asked"
        for each in [self._leader, *others] if node is None else [node]:
            try:
                answer = await self._ask(each, body)
            except (Unavailable, OutcomeUnknown) as error:  # A read whose answer was lost.
                last = error.what
            else:
                return _accepted(answer)
        raise Unavailable(f"no member of the store answers: {last}", hint="Are they running?")

    async def _ask_leader(self, body: RequestBody) -> Answer:
        """For what may be sent again without harm."""
        last: PrimacyError | None = None
        async for _ in self._attempts():
            node = self._leader
            try:
                return _accepted(await self._ask(node, body))
            except NotLeader as error:
                last = error
                self._follow(error.leader, instead_of=node)
            except (Unavailable, OutcomeUnknown) as error:
                last = error
                self._try_next(node)
        raise self._gave_up(last)

    # ---- leases ----------------------------------------------------------------------------

    async def grant(self, ttl_s: float) -> Lease:
        answer = await self._write(Grant(ttl_s))
        if isinstance(answer, Granted):
            return answer.lease
        raise _surprise(answer)

    async def renew(self, lease: LeaseId) -> Lease:
        """A member that refuses without looking is not an attempt; the next one is asked."""
        last: PrimacyError | None = None
        async for _ in self._attempts():
            node = self._leader
            try:
                answer = _accepted(await self._ask(node, RenewLease(lease)))
            except NotLeader as error:
                last = error
                self._follow(error.leader, instead_of=node)
            except Unavailable as error:
                last = error
                self._try_next(node)
            except OutcomeUnknown:
                self._try_next(node)  # For the holder's next attempt.
                raise
            else:
                if isinstance(answer, Renewed):
                    return answer.lease
                raise _surprise(answer)
        raise self._gave_up(last)

    async def revoke(self, lease: LeaseId) -> None:
        answer = await self._write(Revoke(lease))
        if not isinstance(answer, Revoked):
            raise _surprise(answer)

    # ---- writes ----------------------------------------------------------------------------

    async def txn(self, txn: Txn) -> TxnResult:
        answer = await self._write(Commit(txn))
        if isinstance(answer, Committed):
            return answer.result
        raise _surprise(answer)

    async def _write(self, body: Body) -> Answer:
        async with self._writes:
            for _ in range(2):
                session = await self._opened()
                sequence = session.begin()
                try:
                    answer = await self._write_once(session, sequence, body)
                finally:
                    session.end(sequence)
                if answer is not None:
                    return answer
            raise Unavailable("the store forgot two sessions in a row", hint="Retry shortly.")

    async def _write_once(self, session: _Session, sequence: int, body: Body) -> Answer | None:
        """None: the session is gone, and this write has certainly not taken effect under it."""
        last: PrimacyError | None = None
        is_lost_on_the_way = False
        async for _ in self._attempts():
            node = self._leader
            write = Write(session.name, sequence, session.done_below, body)
            try:
                answer = await self._ask(node, write)
            except Unavailable as error:
                last = error
                self._try_next(node)
                continue
            except OutcomeUnknown as error:
                last, is_lost_on_the_way = error, True
                self._try_next(node)
                continue
            match answer:
                case Failure(Refusal.NOT_LEADER, leader=leader):
                    last = raised_by(answer)
                    self._follow(leader, instead_of=node)
                case Failure(Refusal.UNAVAILABLE):
                    last = raised_by(answer)
                case Failure(Refusal.UNKNOWN):
                    last, is_lost_on_the_way = raised_by(answer), True
                    self._try_next(node)
                case Failure(Refusal.SESSION_UNKNOWN) if not is_lost_on_the_way:
                    if self._session is session:
                        self._session = None
                    return None
                case _:
                    return _accepted(answer)
        if is_lost_on_the_way and last is not None:
            raise OutcomeUnknown(
                f"a write had no answer within {self._within_s:.1f} s ({last.what})",
                hint="Read what it would have changed, then decide anew.",
            )
        raise self._gave_up(last)

    async def _opened(self) -> _Session:
        async with self._opening:
            if self._session is None:
                answer = await self._ask_leader(OpenSession())
                if not isinstance(answer, SessionOpened):
                    raise _surprise(answer)
                self._session = _Session(answer.session)
            return self._session

    # ---- watches ---------------------------------------------------------------------------

    @asynccontextmanager
    async def watch(
        self, key: str, *, is_prefix: bool = False, from_revision: Revision
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        async with aclosing(self._batches(WatchKeys(key, is_prefix, from_revision))) as batches:
            yield batches

    async def _batches(self, asked: WatchKeys) -> AsyncGenerator[WatchBatch, None]:
        next_revision = asked.from_revision
        delays = self._delays_s()
        node = self._near or self._chance.choice(self._nodes)
        while True:
            try:
                connection = await connected(self._addresses[node], within_s=CONNECT_S)
            except Unavailable:
                node = self._after(node)
                await self._clock.sleep(next(delays))
                continue
            try:
                asked = WatchKeys(asked.key, asked.is_prefix, next_revision)
                async with aclosing(connection.watch(asked)) as answers:
                    async for told in answers:
                        if isinstance(told, Failure):
                            if told.refusal in (Refusal.COMPACTED, Refusal.REJECTED):
                                raise raised_by(told)
                            break
                        delays = self._delays_s()
                        batch = told.batch
                        if batch.changes and batch.revision < next_revision:
                            continue  # Told already, by another member.
                        next_revision = Revision(max(next_revision, batch.revision + 1))
                        yield batch
            finally:
                connection.close()
            node = self._after(node)
            await self._clock.sleep(next(delays))

    # ---- members ---------------------------------------------------------------------------

    async def _ask(self, node: NodeId, body: RequestBody) -> Answer:
        try:
            connection = await self._connection(node)
            return await connection.ask(body, within_s=self._attempt_s)
        except asyncio.CancelledError:
            self._try_next(node)  # The caller's patience ended first: it may be for this member.
            raise

    async def _connection(self, node: NodeId) -> Connection:
        async with self._connecting[node]:
            connection = self._connections.get(node)
            if connection is None or connection.is_lost:
                within_s = min(CONNECT_S, self._attempt_s)
                was_leader = node == self._leader
                connection = await connected(self._addresses[node], within_s=within_s)
                if was_leader and node != self._leader:  # See `led_by`.
                    connection.close()
                    raise Unavailable(f"{node} no longer leads the store", hint="Ask the leader.")
                self._connections[node] = connection
            return connection

    def _follow(self, leader: str | None, *, instead_of: NodeId) -> None:
        if leader is not None and NodeId(leader) in self._addresses:
            self._leader = NodeId(leader)
        else:
            self._try_next(instead_of)

    def _try_next(self, failed: NodeId) -> None:
        """Unless another request has moved on already."""
        if self._leader == failed:
            self._leader = self._after(failed)

    def _after(self, node: NodeId) -> NodeId:
        return self._nodes[(self._nodes.index(node) + 1) % len(self._nodes)]

    def _attempts(self) -> "_Attempts":
        return _Attempts(self._clock, self._delays_s(), self._within_s)

    def _delays_s(self) -> Iterator[float]:
        delay_s = RETRY_MIN_S
        while True:
            yield delay_s * (0.5 + 0.5 * self._chance.random())
            delay_s = min(RETRY_MAX_S, delay_s * 2)

    def _gave_up(self, last: PrimacyError | None) -> Unavailable:
        why = "no attempt was made" if last is None else last.what
        return Unavailable(
            f"the store did not answer within {self._within_s:.1f} s ({why})",
            hint="A majority of its members must run and reach each other.",
        )


def _accepted(answer: Answer) -> Answer:
    if isinstance(answer, Failure):
        raise raised_by(answer)
    return answer


def _surprise(answer: Answer) -> InvariantBroken:
    return InvariantBroken("a-reply-fits-its-request", repr(answer))
