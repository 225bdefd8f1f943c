"""One voting member of the store: Raft, the state, the leases and who waits for what. Pure.

Promises  A write is answered with the outcome of applying it, a linearizable read by a state that
          ReadIndex has confirmed, a renewal by its own entry. Whoever waits is answered once:
          also when the lead is lost, then with UNKNOWN (or UNAVAILABLE where nothing was appended).
          Only a leader that has applied an entry of its own term lets leases end.
Assumes   The host delivers `Tick` at `wake_at_s`, which is "now" while requests wait: everything
          that arrived in between becomes one proposal, one read confirmation, one renewal entry.
Does not  Write snapshots. `SnapshotDue` asks for one; `Install` hands one over, and until
          `install` has been called with it, entries are held back and nothing is applied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from primacy.consensus.machine import (
    Accepted,
    Appended,
    Apply,
    Effect,
    Entry,
    Event,
    Excluded,
    Install,
    Propose,
    ReadIndex,
    ReadReady,
    Refused,
    SnapshotMeta,
    Tick,
)
from primacy.consensus.raft.core import Restored, State
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import Raft
from primacy.coordination.api import LeaseId, StoreStatus
from primacy.coordination.embedded.commands import (
    Answer,
    Applied,
    Command,
    Failure,
    OpenSession,
    Refusal,
    Renew,
    StatusRead,
    Write,
    encoded,
    problem_with,
    problem_with_range,
)
from primacy.coordination.embedded.kv import Kv
from primacy.coordination.embedded.leases import LeaseStamps
from primacy.coordination.embedded.requests import (
    Changes,
    ClientRequest,
    MemberEffect,
    MemberEvent,
    Read,
    ReadStatus,
    RenewLease,
    Replaced,
    Reply,
    SnapshotDue,
)
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, NodeId, Term

REQUESTS_MAX = 10_000
"""Requests that one member holds unanswered. Past it a request is refused at once."""

BATCH_MAX = 512
"""Writes that wait for the tick. With more the proposal is made at once."""

EXPIRE_AGAIN_S = 0.05
"""How long a leader waits before it proposes an end again that its log did not take."""


@dataclass(frozen=True, slots=True)
class MemberLimits:
    """When the log has grown enough for a snapshot, since the last one."""

    snapshot_entries: int = 10_000
    snapshot_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True)
class _Slot:
    """Who waits for one entry: one request, or for `Renew` one for each of its leases."""

    request_ids: tuple[int, ...]
    term: Term = Term(0)


UNKNOWN = Failure(
    Refusal.UNKNOWN,
    "the lead was lost before the entry was applied",
    "Send it again under the same session and sequence.",
)
BUSY = Failure(
    Refusal.UNAVAILABLE, f"{REQUESTS_MAX} requests wait already", "Retry a little later."
)


class StoreMember:
    """`step(now_s, event) -> effects`, and `wake_at_s`: a machine like Raft, and Raft inside it."""

    def __init__(
        self,
        node: NodeId,
        raft: Raft,
        kv: Kv,
        *,
        restored: Restored,
        now_s: float,
        limits: MemberLimits = MemberLimits(),
    ) -> None:
        """`kv` is the state of `restored.snapshot`; `raft` was built from the same `restored`."""
        if kv.index != restored.snapshot.index:
            raise InvariantBroken(
                "state-machine-safety",
                f"the state is of entry {kv.index}, the snapshot of {restored.snapshot.index}",
            )
        self.kv = kv
        self._node = node
        self._raft = raft
        self._limits = limits
        unapplied = [entry for entry in restored.entries if entry.index > kv.index]
        self._stamps = LeaseStamps(now_s, kv.leases, unapplied)
        self._now_s = now_s
        self._applied_term = restored.snapshot.term
        self._ready_term = Term(0)
        self._installing: SnapshotMeta | None = None
        self._held: list[Entry] = []
        self._excluded: Excluded | None = None

        self._writes: list[tuple[int, Command]] = []
        self._renewals: list[tuple[int, LeaseId]] = []
        self._reads: list[ClientRequest] = []
        self._proposed: dict[int, list[_Slot]] = {}
        self._expiring: set[int] = set()
        self._waiting: dict[LogIndex, _Slot] = {}
        self._confirming: dict[int, list[ClientRequest]] = {}
        self._confirmed: list[tuple[LogIndex, list[ClientRequest]]] = []
        self._open_count = 0
        self._last_id = 0
        self._expire_not_before_s = now_s
        self._grown_entries = self._grown_bytes = 0
        self._effects: list[MemberEffect] = []
        self.wake_at_s = raft.wake_at_s

    # ---- what a host may ask --------------------------------------------------------------

    @property
    def raft(self) -> Raft:
        """To look at; only `step` drives it."""
        return self._raft

    @property
    def is_ready_leader(self) -> bool:
        """Leads, and has applied an entry of its own term: its state is current."""
        return self._raft.state is State.LEADER and self._ready_term == self._raft.term

    def status(self, now_s: float) -> StoreStatus:
        left_s = self._stamps.left_s(now_s) if self.is_ready_leader else {}
        return StoreStatus(
            node=self._node,
            leader=self._raft.leader,
            term=self._raft.term,
            commit_index=self._raft.commit_index,
            applied_index=self.kv.index,
            revision=self.kv.revision,
            lease_left_s=dict(left_s),
            excluded_reason=None if self._excluded is None else self._excluded.reason,
        )

    def freeze(self) -> tuple[SnapshotMeta, Iterator[bytes]]:
        """The applied state of this moment in pieces, encoded as they are asked for."""
        return SnapshotMeta(index=self.kv.index, term=self._applied_term), self.kv.freeze()

    # ---- stepping -------------------------------------------------------------------------

    def step(self, now_s: float, event: MemberEvent) -> list[MemberEffect]:
        self._now_s = now_s
        match event:
            case ClientRequest():
                self._take(event)
                if len(self._writes) + len(self._renewals) >= BATCH_MAX:
                    self._flush()
            case Tick():
                self._drive(event)
                self._flush()
            case _:
                self._drive(event)
        return self._finished()

    def install(
        self, now_s: float, meta: SnapshotMeta, pieces: Iterator[bytes]
    ) -> list[MemberEffect]:
        """The state that `Install(meta)` announced, all at once. See `installed`."""
        return self.installed(now_s, meta, Kv.from_pieces(pieces, ttl_min_s=self.kv.ttl_min_s))

    def installed(self, now_s: float, meta: SnapshotMeta, kv: Kv) -> list[MemberEffect]:
        """Take over a state that was read back. Ignored where a later `Install` has come since."""
        self._now_s = now_s
        if self._installing != meta:
            return []
        if kv.index != meta.index:
            raise InvariantBroken(
                "state-machine-safety", f"the snapshot of {meta.index} holds {kv.index}"
            )
        self.kv = kv
        self._applied_term = meta.term
        self._installing = None
        self._grown_entries = self._grown_bytes = 0
        self._stamps.installed(now_s, kv.leases)
        self._effects.append(Replaced())
        held, self._held = self._held, []
        self._apply(held)
        return self._finished()

    def _finished(self) -> list[MemberEffect]:
        effects, self._effects = self._effects, []
        wake_at_s = self._raft.wake_at_s
        if self._writes or self._renewals or self._reads:
            wake_at_s = self._now_s
        elif self.is_ready_leader and (end_s := self._stamps.next_end_s) is not None:
            wake_at_s = min(wake_at_s, max(end_s, self._expire_not_before_s))
        self.wake_at_s = wake_at_s
        return effects

    # ---- requests -------------------------------------------------------------------------

    def _take(self, request: ClientRequest) -> None:
        self._open_count += 1
        refusal = self._refusal_of(request)
        if refusal is not None:
            self._answer(request.request_id, refusal)
            return
        match request.body:
            case Read(op, is_serializable):
                if is_serializable:
                    self._answer(request.request_id, self.kv.range(op))
                else:
                    self._reads.append(request)
            case ReadStatus():
                self._answer(request.request_id, StatusRead(self.status(self._now_s)))
            case RenewLease(lease):
                self._renewals.append((request.request_id, lease))
            case OpenSession() | Write() as command:
                self._writes.append((request.request_id, command))

    def _refusal_of(self, request: ClientRequest) -> Failure | None:
        match request.body:
            case ReadStatus():
                return None
            case Read(op, is_serializable):
                problem = problem_with_range(op)
                if problem is not None or is_serializable:
                    return problem
            case Write() as write:
                problem = problem_with(write.body, ttl_min_s=self.kv.ttl_min_s)
                if problem is not None:
                    return problem
            case RenewLease() | OpenSession():
                pass
        if self._raft.state is not State.LEADER:
            return self._not_leader()
        return BUSY if self._open_count > REQUESTS_MAX else None

    def _not_leader(self) -> Failure:
        return Failure(Refusal.NOT_LEADER, leader=self._raft.leader)

    def _answer(self, request_id: int, answer: Answer) -> None:
        self._open_count -= 1
        self._effects.append(Reply(request_id, answer))

    def _flush(self) -> None:
        """Everything that has arrived becomes one proposal and one read confirmation."""
        if self._raft.state is not State.LEADER:
            self._refuse_queued()
            return
        slots = [_Slot((request_id,)) for request_id, _ in self._writes]
        commands = [command for _, command in self._writes]
        if self._renewals:
            slots.append(_Slot(tuple(request_id for request_id, _ in self._renewals)))
            commands.append(Renew(tuple(lease for _, lease in self._renewals)))
        self._writes, self._renewals = [], []
        if commands:
            self._propose(commands, slots)
        if self._reads:
            reads, self._reads = self._reads, []
            self._confirming[self._next_id()] = reads
            self._drive(ReadIndex(self._last_id))
        self._propose_ends()

    def _refuse_queued(self) -> None:
        refused = [request_id for request_id, _ in (*self._writes, *self._renewals)]
        refused += [request.request_id for request in self._reads]
        self._writes, self._renewals, self._reads = [], [], []
        for request_id in refused:
            self._answer(request_id, self._not_leader())

    def _propose(self, commands: Sequence[Command], slots: list[_Slot]) -> None:
        self._proposed[self._next_id()] = slots
        self._drive(Propose(tuple(encoded(command) for command in commands), self._last_id))

    def _propose_ends(self) -> None:
        if not self.is_ready_leader or self._now_s < self._expire_not_before_s:
            return
        ended = self._stamps.ended(self._now_s)
        if ended:
            self._expiring.add(self._last_id + 1)
            self._propose(ended, [_Slot(()) for _ in ended])

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # ---- Raft -----------------------------------------------------------------------------

    def _drive(self, event: Event[Message]) -> None:
        led_term = self._raft.term if self._raft.state is State.LEADER else None
        for effect in self._raft.step(self._now_s, event):
            self._on_effect(effect)
        leads_still = self._raft.state is State.LEADER and self._raft.term == led_term
        if led_term is not None and not leads_still:
            self._lost_the_lead()

    def _on_effect(self, effect: Effect[Message]) -> None:
        match effect:
            case Apply(entries):
                if self._installing is None:
                    self._apply(entries)
                else:
                    self._held += entries
            case Appended(entries):
                self._stamps.appended(self._now_s, entries)
            case Install(meta):
                self._installing, self._held = meta, []
                self._effects.append(effect)
            case Accepted(proposal_id, term, first_index):
                self._expiring.discard(proposal_id)
                for place, slot in enumerate(self._proposed.pop(proposal_id)):
                    self._waiting[LogIndex(first_index + place)] = replace(slot, term=term)
            case Refused(request_id, _, reason):
                self._refused(request_id, reason)
            case ReadReady(read_id, index):
                self._confirmed.append((index, self._confirming.pop(read_id)))
                self._answer_reads()
            case Excluded():
                self._excluded = effect
                self._effects.append(effect)
            case _:
                self._effects.append(effect)

    def _refused(self, number: int, reason: str) -> None:
        """Nothing was appended: whoever waits may send it again."""
        request_ids = [each.request_id for each in self._confirming.pop(number, ())]
        for slot in self._proposed.pop(number, ()):
            request_ids += slot.request_ids
        if number in self._expiring:
            self._expiring.discard(number)
            self._stamps.propose_again()
            self._expire_not_before_s = self._now_s + EXPIRE_AGAIN_S
        failure = Failure(Refusal.UNAVAILABLE, f"the store's leader refused: {reason}", "Retry.")
        if self._raft.state is not State.LEADER:
            failure = self._not_leader()
        for request_id in request_ids:
            self._answer(request_id, failure)

    def _lost_the_lead(self) -> None:
        """What was appended may survive or not; what was not, was not."""
        waiting, self._waiting = self._waiting, {}
        for slot in waiting.values():
            for request_id in slot.request_ids:
                self._answer(request_id, UNKNOWN)
        reads = [each for group in self._confirming.values() for each in group]
        self._confirming = {}
        for request in reads:
            self._answer(request.request_id, self._not_leader())
        self._refuse_queued()

    # ---- applying -------------------------------------------------------------------------

    def _apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            applied = self.kv.apply(entry.index, entry.term, entry.data)
            self._applied_term = entry.term
            self._stamps.applied(self._now_s, entry.index, applied.renewed)
            if applied.batch is not None:
                self._effects.append(Changes(applied.batch))
            self._answer_slot(entry, applied)
            self._grown_entries += 1
            self._grown_bytes += len(entry.data)
            if entry.term == self._raft.term and entry.term != self._ready_term:
                self._ready_term = entry.term
                self._stamps.propose_again()
        self._answer_reads()
        if (
            self._grown_entries >= self._limits.snapshot_entries
            or self._grown_bytes >= self._limits.snapshot_bytes
        ):
            self._grown_entries = self._grown_bytes = 0
            meta = SnapshotMeta(index=self.kv.index, term=self._applied_term)
            self._effects.append(SnapshotDue(meta))

    def _answer_slot(self, entry: Entry, applied: Applied) -> None:
        slot = self._waiting.pop(entry.index, None)
        if slot is None:
            return
        match applied.reply:
            case _ if slot.term != entry.term:
                for request_id in slot.request_ids:
                    self._answer(request_id, UNKNOWN)
            case tuple() as replies:
                for request_id, reply in zip(slot.request_ids, replies, strict=True):
                    self._answer(request_id, reply)
            case None:
                pass  # An end of a lease: nobody waits for it.
            case reply:
                for request_id in slot.request_ids:
                    self._answer(request_id, reply)

    def _answer_reads(self) -> None:
        if not self._confirmed or self._installing is not None:
            return
        waiting = []
        for index, requests in self._confirmed:
            if index > self.kv.index:
                waiting.append((index, requests))
                continue
            for request in requests:
                if isinstance(request.body, Read):
                    self._answer(request.request_id, self.kv.range(request.body.op))
        self._confirmed = waiting
