"""Bugs of the store, its disks, its leases and its clients: each a subclass of the genuine part."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any  # Arguments that are passed through as they came.

import msgspec

from primacy.cluster.holding import Holding
from primacy.consensus.machine import Effect, Entry, Event, Persist, ReadReady, SnapshotMeta
from primacy.consensus.raft.election import Election
from primacy.consensus.raft.log import Log
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import State
from primacy.consensus.raft.reads import Reads
from primacy.consensus.raft.replication import Replication
from primacy.coordination.api import Lease, LeaseId, WatchBatch
from primacy.coordination.embedded.commands import Failure, Outcome, Renewed, Write
from primacy.coordination.embedded.kv import Kv
from primacy.coordination.embedded.leases import LeaseStamps, LeaseTable
from primacy.coordination.embedded.member import StoreMember
from primacy.coordination.embedded.requests import (
    ClientRequest,
    MemberEffect,
    MemberEvent,
    RenewLease,
    Reply,
)
from primacy.coordination.embedded.sessions import Sessions
from primacy.coordination.leasing import LeaseKeeper
from primacy.errors import LeaseLost, OutcomeUnknown, Unavailable
from primacy.model import LogIndex
from primacy.sim.disk import Disk
from primacy.sim.member_files import MemberFiles
from primacy.sim.member_host import SeenRaft
from primacy.sim.store_client import SimStore

# ---- disks


class ForgetsVotes(MemberFiles):
    """A vote is not persisted: the term is, whom this member voted for is not."""

    def persist(self, write: Persist, received: dict[SnapshotMeta, tuple[bytes, ...]]) -> None:
        if write.hard is not None:
            forgotten = msgspec.structs.replace(write.hard, voted_for=None)
            write = replace(write, hard=forgotten)
        super().persist(write, received)


class AnswersBeforeFsync(Disk):
    """An acknowledgement before its fsync: the writer is told at once."""

    def write(self, commit: Callable[[], None], then: Callable[[], None] | None = None) -> None:
        super().write(commit)
        if then is not None:
            self._world.after(0.0, self._owner, then)


class IgnoresFailedFsync(Disk):
    """An fsync that failed is tried again, and succeeds, without the pages that the kernel had
    dropped."""

    def _fail(self, why: str) -> None:
        if self.is_full:
            super()._fail(why)
            return
        failed, self._syncing = self._syncing, []
        self._keep_some(failed)
        if self._waiting:
            self._sync()
        self._told(failed)


class ServesRot(MemberFiles):
    """A damaged log is read without a look at its checksums."""

    def check(self) -> None:
        return


class KeepsItsName(MemberFiles):
    """A wiped voter comes back as the one that it was: its new disk has the old incarnation."""

    def __init__(self, incarnation: str) -> None:
        super().__init__(incarnation.partition("-")[0])


# ---- Raft


class CountsOldTerms(Replication):
    """Commit by counting an entry of an older term (Raft, figure 8)."""

    def advance_commit(self) -> None:
        start_index, self.term_start_index = self.term_start_index, type(self.term_start_index)(0)
        super().advance_commit()
        self.term_start_index = start_index


class RaftThatCountsOldTerms(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._replication.__class__ = CountsOldTerms
        return super().step(now_s, event)


class ReadsAtOnce(Reads):
    """A read index is taken before the new leader's no-op is committed."""

    def _start(self) -> None:
        start_index = self._replication.term_start_index
        self._replication.term_start_index = LogIndex(0)
        super()._start()
        self._replication.term_start_index = start_index


class RaftThatReadsAtOnce(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._reads.__class__ = ReadsAtOnce
        return super().step(now_s, event)


class ReadsWithoutARound(Reads):
    """A read is answered by whoever believes to lead, without asking a majority."""

    def settle(self) -> None:
        if self._core.state is State.LEADER:
            ready = [ReadReady(each, self._core.commit_index) for each in self._confirming]
            self._core.effects += ready
            self._confirming = []
        super().settle()


class RaftThatReadsWithoutARound(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._reads.__class__ = ReadsWithoutARound
        return super().step(now_s, event)


class CutByDuplicates(Log):
    """A batch that is held already, come late, voids what stands behind it."""

    __slots__ = ()

    def new_of(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        new = super().new_of(entries)
        if new or not entries or entries[-1].index >= self.last_index:
            return new
        return entries[-1:]


class RaftCutByDuplicates(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self.log.__class__ = CutByDuplicates
        return super().step(now_s, event)


class LooksAtNoLog(Election):
    """A vote goes to whoever asks first, however short its log."""

    def _is_up_to_date(self, last_term: int, last_index: int) -> bool:
        return True


class RaftThatVotesForAnybody(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._election.__class__ = LooksAtNoLog
        return super().step(now_s, event)


class CountsUnsynced(Replication):
    """A leader counts itself for an entry as soon as it is appended, before its own fsync."""

    def advance_commit(self) -> None:
        core = self._core
        stable_index, core.stable_index = core.stable_index, core.log.last_index
        super().advance_commit()
        core.stable_index = stable_index


class RaftThatCountsUnsynced(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._replication.__class__ = CountsUnsynced
        return super().step(now_s, event)


class ReadsByTheRoundBefore(Reads):
    """A read is confirmed by the answers of a round that began before it was asked for."""

    def _start(self) -> None:
        was_confirming = bool(self._confirming)
        super()._start()
        if self._confirming and not was_confirming:
            self._round -= 1


class RaftThatReadsByTheRoundBefore(SeenRaft):
    def step(self, now_s: float, event: Event[Message]) -> list[Effect[Message]]:
        self._reads.__class__ = ReadsByTheRoundBefore
        return super().step(now_s, event)


# ---- the state and its clients


class RenewsFromMemory(StoreMember):
    """A renewal is answered by whoever believes to lead, before its entry is applied."""

    def step(self, now_s: float, event: MemberEvent) -> list[MemberEffect]:
        if isinstance(event, ClientRequest) and isinstance(event.body, RenewLease):
            lease = event.body.lease
            known = self.kv.leases.get(lease)
            if self.raft.state is State.LEADER and known is not None:
                hidden = ClientRequest(-event.request_id, event.body)
                effects = self._without_hidden(super().step(now_s, hidden))
                return [*effects, Reply(event.request_id, Renewed(Lease(lease, known.ttl_s)))]
        return self._without_hidden(super().step(now_s, event))

    def _without_hidden(self, effects: list[MemberEffect]) -> list[MemberEffect]:
        return [each for each in effects if not (isinstance(each, Reply) and each.request_id < 0)]


class ForgetsAnswers(Sessions):
    """A request that comes again is carried out again."""

    def answer_to(self, write: Write) -> Outcome | None:
        known = super().answer_to(write)
        return known if isinstance(known, Failure) else None


def forget_answers(kv: Kv) -> None:
    kv._sessions.__class__ = ForgetsAnswers  # noqa: SLF001 - where the bug is planted


class AppliesRetries(StoreMember):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        forget_answers(self.kv)

    def installed(self, now_s: float, meta: SnapshotMeta, kv: Kv) -> list[MemberEffect]:
        forget_answers(kv)
        return super().installed(now_s, meta, kv)


class StampsWhileLeading(LeaseStamps):
    """Only a leader notes when it appended a renewal: whoever is elected next counts from the
    grant, or from when it led last."""

    member: StoreMember

    def applied(self, now_s: float, index: LogIndex, renewed: Sequence[LeaseId]) -> None:
        if self.member.raft.state is not State.LEADER:
            renewed = [lease for lease in renewed if lease not in self._renewed_s]
        super().applied(now_s, index, renewed)

    def ended(self, now_s: float) -> list[Any]:
        self._rebuild()
        return super().ended(now_s)


class CutsLeases(StoreMember):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        stamps = self._stamps
        stamps.__class__ = StampsWhileLeading
        stamps.member = self  # type: ignore[attr-defined]  # Of the class that it has now.


class StampsFromTheGrave(LeaseStamps):
    """After a restart or a snapshot nobody knows when a lease was renewed: it may end at once."""

    def installed(self, now_s: float, table: LeaseTable) -> None:
        super().installed(now_s, table)
        self._renewed_s = {each.lease: now_s - each.ttl_s for each in table}
        self._rebuild()


class CutsLeasesAfterRestarts(StoreMember):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        stamps = self._stamps
        stamps.__class__ = StampsFromTheGrave
        stamps.installed(self._now_s, self.kv.leases)


class SkippingClient(SimStore):
    """A watch leaves out a batch now and then."""

    async def _batches(self, *arguments: Any, **more: Any) -> AsyncIterator[WatchBatch]:
        count = 0
        async for batch in super()._batches(*arguments, **more):
            count += 1
            if count % 50:
                yield batch


# ---- the lease's holder


class CountsFromReply(LeaseKeeper):
    """The deadline counts from when the answer arrives, not from when the renewal was sent."""

    async def _attempt(self) -> None:
        try:
            await self._store.renew(self.lease)
        except LeaseLost as error:
            self._lose(error.what)
        except (Unavailable, OutcomeUnknown):
            return
        else:
            self._extend(self._clock.boottime_s())


class FencesLate(LeaseKeeper):
    """The guard is given a deadline behind the lease's end."""

    def _deadline_from(self, sent_at_s: float) -> float:
        return sent_at_s + 1.1 * self.ttl_s


class TrustsTheReply(Holding):
    def _keep(self, keeper: LeaseKeeper) -> None:
        keeper.__class__ = CountsFromReply
        super()._keep(keeper)


class HoldsTooLong(Holding):
    def _keep(self, keeper: LeaseKeeper) -> None:
        keeper.__class__ = FencesLate
        super()._keep(keeper)
