"""The store as the agent sees it: the `Store` contract over the simulated network.

Finds the leader, sends a write again under its session and sequence, never repeats a renewal, and
obeys the error tree. Watches are served by the member of the own host while it takes part, else by
another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

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
    SessionId,
    SessionOpened,
    StatusRead,
    Write,
)
from primacy.coordination.embedded.keyspace import matches
from primacy.coordination.embedded.requests import Read, ReadStatus, RenewLease, RequestBody
from primacy.errors import Compacted, InvariantBroken, LeaseLost, OutcomeUnknown, Unavailable
from primacy.model import NodeId, Revision
from primacy.sim.history import StoreHistory
from primacy.sim.loop import SimClock
from primacy.sim.member_host import MemberHost
from primacy.sim.network import Network
from primacy.sim.world import Process, World

ATTEMPT_S = 0.4
"""How long one attempt waits for its answer before the next member is asked."""

WATCH_LOOK_S = 1.0
"""How often a silent watch looks whether its member is still there."""

PAUSE_S = 0.03


class SimStore:
    """One client: one session, and a belief about who leads."""

    def __init__(  # noqa: PLR0913  # The parts of a client: each is handed in.
        self,
        node: NodeId,
        world: World,
        network: Network,
        members: dict[NodeId, MemberHost],
        *,
        process: Process,
        history: StoreHistory,
        on_asked: Callable[[NodeId, Txn], None],
        on_watched: Callable[[NodeId, str, int, WatchBatch], None],
        patience_s: float,
    ) -> None:
        self._node = node
        self._world = world
        self._network = network
        self._members = members
        self._order = sorted(members)
        self._process = process
        self._history = history
        self._on_asked = on_asked
        self._on_watched = on_watched
        self._patience_s = patience_s
        self._clock = SimClock(world, process)
        self._target = node if node in members else self._order[0]
        self._session: SessionId | None = None
        self._opening: asyncio.Future[SessionId] | None = None
        self._sequence = 0
        self._open: set[int] = set()

    # ---- the contract

    async def range(
        self, key: str, *, is_prefix: bool = False, is_serializable: bool = False
    ) -> RangeResult:
        body = Read(Range(key, is_prefix=is_prefix), is_serializable)
        asked = self._history.begin()
        answer = await self._persist(body, is_write=False)
        if not isinstance(answer, RangeResult):
            raise self._error(answer)
        if not is_serializable:
            self._history.read(asked, key, answer)
        return answer

    async def txn(self, txn: Txn) -> TxnResult:
        self._on_asked(self._node, txn)
        asked = self._history.begin()
        answer = await self._write(Commit(txn))
        if not isinstance(answer, Committed):
            raise self._error(answer)
        self._history.wrote(asked, answer.result.revision)
        return answer.result

    async def grant(self, ttl_s: float) -> Lease:
        answer = await self._write(Grant(ttl_s))
        if not isinstance(answer, Granted):
            raise self._error(answer)
        return answer.lease

    async def renew(self, lease: LeaseId) -> Lease:
        answer = await self._attempt(RenewLease(lease))
        if isinstance(answer, Renewed):
            return answer.lease
        if isinstance(answer, Failure) and answer.refusal is Refusal.NOT_LEADER:
            self._turn(answer)
            answer = await self._attempt(RenewLease(lease))
            if isinstance(answer, Renewed):
                return answer.lease
        if answer is None or (isinstance(answer, Failure) and answer.refusal is Refusal.NOT_LEADER):
            self._turn(answer)
        raise self._error(answer)

    async def revoke(self, lease: LeaseId) -> None:
        answer = await self._write(Revoke(lease))
        if isinstance(answer, Failure):
            raise self._error(answer)

    async def status(self) -> StoreStatus:
        answer = await self._attempt(ReadStatus())
        if not isinstance(answer, StatusRead):
            raise self._error(answer)
        return answer.status

    @asynccontextmanager
    async def watch(
        self, key: str, *, is_prefix: bool = False, from_revision: Revision
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        """At the own member where it takes part, else at another, as long as that one lives."""
        host = self._watched_member()
        queue: asyncio.Queue[WatchBatch | None] = asyncio.Queue()
        if host.member is None:
            raise Unavailable("no member can be watched", hint="Retry shortly.")
        if from_revision <= host.member.kv.revision:
            for batch in host.member.kv.history.since(from_revision):
                self._hand_over(host, queue, batch)
        watcher = partial(self._hand_over, host, queue)
        host.watchers.append(watcher)
        try:
            batches = self._batches(
                host,
                queue,
                key,
                is_prefix=is_prefix,
                from_revision=from_revision,
                life=host.process.life,
            )
            yield self._looked_at(batches, key, int(from_revision) - 1)
        finally:
            if watcher in host.watchers:
                host.watchers.remove(watcher)

    async def _looked_at(
        self, batches: AsyncIterator[WatchBatch], key: str, told: int
    ) -> AsyncIterator[WatchBatch]:
        async for batch in batches:
            self._on_watched(self._node, key, told, batch)
            told = batch.revision
            yield batch

    def _watched_member(self) -> MemberHost:
        own = self._members.get(self._node)
        if own is not None and own.can_be_watched:
            return own
        others = [self._members[name] for name in self._order if name != self._node]
        able = [each for each in others if each.can_be_watched and self._is_linked(each)]
        return able[0] if able else own or others[0]

    def _is_linked(self, host: MemberHost) -> bool:
        network, own = self._network, self._node
        return not network.is_cut(own, host.node, "watch") and not network.is_cut(
            host.node, own, "watch"
        )

    def _hand_over(
        self, host: MemberHost, queue: "asyncio.Queue[WatchBatch | None]", batch: WatchBatch | None
    ) -> None:
        if host.node == self._node:
            queue.put_nowait(batch)
        else:
            self._network.stream(host.node, self._process, "watch", queue.put_nowait, batch)

    async def _next(
        self, host: MemberHost, queue: "asyncio.Queue[WatchBatch | None]", life: int
    ) -> WatchBatch | None:
        """A member that has gone, or knows no leader, or is cut off, is watched no longer; nor is
        its next life, which knows nothing of this watch."""
        while True:
            if not queue.empty():
                return queue.get_nowait()
            try:
                async with asyncio.timeout(WATCH_LOOK_S):
                    return await queue.get()
            except TimeoutError:
                is_own = host.node == self._node
                is_fit = host.can_be_watched and host.process.life == life
                if not is_fit or not (is_own or self._is_linked(host)):
                    raise Unavailable(f"{host.node} is silent", hint="Watch another.") from None

    async def _batches(
        self,
        host: MemberHost,
        queue: "asyncio.Queue[WatchBatch | None]",
        key: str,
        *,
        is_prefix: bool,
        from_revision: Revision,
        life: int,
    ) -> AsyncIterator[WatchBatch]:
        next_revision = int(from_revision)
        while True:
            batch = await self._next(host, queue, life)
            if batch is None:
                raise Compacted(asked=next_revision, oldest=next_revision)
            if batch.revision < next_revision:
                continue
            if batch.revision > next_revision:
                raise Unavailable(f"{host.node} was cut off meanwhile", hint="List again.")
            next_revision = batch.revision + 1
            seen = matches(batch, key, is_prefix=is_prefix)
            if seen is not None:
                yield seen

    # ---- writing exactly once

    async def _write(self, body: Body) -> Answer | None:
        session = await self._session_id()
        self._sequence += 1
        sequence = self._sequence
        self._open.add(sequence)
        try:
            command = Write(session, sequence, min(self._open), body)
            answer = await self._persist(command, is_write=True)
        finally:
            self._open.discard(sequence)
        if isinstance(answer, Failure) and answer.refusal is Refusal.SESSION_UNKNOWN:
            self._session = None
        return answer

    async def _session_id(self) -> SessionId:
        if self._session is not None:
            return self._session
        answer = await self._persist(OpenSession(), is_write=False)
        if not isinstance(answer, SessionOpened):
            raise self._error(answer)
        if self._session is None:
            self._session = answer.session
        return self._session

    async def _persist(self, body: RequestBody, *, is_write: bool) -> Answer | None:
        """Ask until somebody answers for good. None: time ran out, and nobody knows."""
        began_s = self._clock.now_s()
        is_sent = False
        while self._clock.now_s() - began_s < self._patience_s:
            answer = await self._attempt(body)
            match answer:
                case None:
                    is_sent = True
                    self._turn(None)
                case Failure(refusal=Refusal.NOT_LEADER):
                    is_known = answer.leader is not None and answer.leader != self._target
                    self._turn(answer)
                    if not is_known:
                        await self._clock.sleep(PAUSE_S)
                case Failure(refusal=Refusal.UNKNOWN):
                    is_sent = True
                    await self._clock.sleep(PAUSE_S)
                case Failure(refusal=Refusal.UNAVAILABLE):
                    await self._clock.sleep(PAUSE_S)
                case _:
                    return answer
        if is_write and is_sent:
            return None
        return Failure(Refusal.UNAVAILABLE, "no leader answered in time", "Retry shortly.")

    def _turn(self, answer: Answer | None) -> None:
        """Ask somebody else next: whom the answer names, or the next in turn."""
        if isinstance(answer, Failure) and answer.leader is not None:
            self._target = answer.leader
            return
        place = self._order.index(self._target)
        self._target = self._order[(place + 1) % len(self._order)]

    async def _attempt(self, body: RequestBody) -> Answer | None:
        """One request to one member; None where no answer came in time."""
        done: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        host = self._members[self._target]

        def answered(answer: Answer) -> None:
            if not done.done():
                done.set_result(answer)

        def reply(answer: Answer) -> None:
            self._network.send(host.node, self._process, "store", answered, answer)

        def give_up() -> None:
            if not done.done():
                done.set_result(None)

        self._network.send(self._node, host.process, "store", host.request, body, reply)
        self._world.after(ATTEMPT_S / self._process.clock.rate, self._process, give_up)
        return await done

    def _error(self, answer: Answer | None) -> Exception:
        if answer is None:
            return OutcomeUnknown("no answer came in time", hint="Read before you write again.")
        if not isinstance(answer, Failure):
            return InvariantBroken("an-answer-fits-its-request", str(answer))
        match answer.refusal:
            case Refusal.LEASE_LOST:
                return LeaseLost(answer.what, hint=answer.hint)
            case Refusal.SESSION_UNKNOWN | Refusal.ANSWER_GONE | Refusal.UNKNOWN:
                return OutcomeUnknown(answer.what, hint=answer.hint)
            case _:
                return Unavailable(answer.what or str(answer.refusal), hint=answer.hint)
