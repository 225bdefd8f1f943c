"""The store's state: a function of the log, the same on every member. Pure.

Promises  `apply` of the same entries in the same order gives the same state and the same replies.
          A write transaction takes effect whole, at the next revision, or not at all. A write of
          a session takes effect once. The end of a lease deletes its keys in one revision.
          A snapshot holds keys, leases with their renewals, and sessions with their answers.
Assumes   Entries come in order, each once.
Does not  Know time. Keep its history of changes in the snapshot: a restored state answers watches
          from its own revision on, and says `Compacted` about what is older.
Source    The data model is etcd's v3 (revision, create, mod, version, lease).
"""

from collections.abc import Iterator
from typing import assert_never

from primacy.coordination.api import (
    NO_LEASE,
    Delete,
    Done,
    KeyValue,
    Lease,
    LeaseId,
    Op,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)
from primacy.coordination.embedded.commands import (
    LEASE_TTL_MIN_S,
    Applied,
    Body,
    Commit,
    Committed,
    Expire,
    Failure,
    Grant,
    Granted,
    OpenSession,
    Outcome,
    Refusal,
    Renew,
    Renewed,
    Revoke,
    Revoked,
    SessionId,
    SessionOpened,
    Write,
    decoded,
    problem_with,
    rejected,
)
from primacy.coordination.embedded.keyspace import (
    DELETE_KEYS_MAX,
    KEYS_MAX,
    STORE_BYTES_MAX,
    TXN_READ_BYTES_MAX,
    History,
    KeySpace,
    batch_of,
    put_bytes,
)
from primacy.coordination.embedded.leases import LEASES_MAX, LeaseRecord, LeaseTable
from primacy.coordination.embedded.pieces import Restorer, pieces_of
from primacy.coordination.embedded.sessions import Sessions
from primacy.errors import InvariantBroken
from primacy.model import LogIndex, Revision, Term


class Kv:
    """Keys, leases and sessions at one place of the log."""

    def __init__(self, *, ttl_min_s: float = LEASE_TTL_MIN_S) -> None:
        """`ttl_min_s` is the same on all members; lower than the default only in tests."""
        self.ttl_min_s = ttl_min_s
        self._keys = KeySpace()
        self._sessions = Sessions()
        self.leases = LeaseTable()
        self.history = History(Revision(0))
        self.revision = Revision(0)
        self.index = LogIndex(0)
        """The last entry that was applied."""

    def __len__(self) -> int:
        return len(self._keys)

    # ---- reading --------------------------------------------------------------------------

    def range(self, op: Range) -> RangeResult:
        """The state as it stands; `problem_with_range` has been asked before."""
        return self._keys.range(op, self.revision)

    # ---- the log --------------------------------------------------------------------------

    def apply(self, index: LogIndex, term: Term, data: bytes) -> Applied:
        """Carry out one entry. Empty `data` is the no-op that opens `term`."""
        if index != self.index + 1:
            raise InvariantBroken(
                "state-machine-safety", f"entry {index} of term {term} follows {self.index}"
            )
        self.index = index
        if not data:
            return Applied()
        command = decoded(data)
        match command:
            case Write():
                return self._write(index, command)
            case Renew(leases):
                return self._renew(index, leases)
            case Expire(lease, renewal):
                return self._expire(lease, renewal)
            case OpenSession():
                session = SessionId(index)
                self._sessions.open(session)
                return Applied(SessionOpened(session))
            case _:
                assert_never(command)

    def _write(self, index: LogIndex, write: Write) -> Applied:
        known = self._sessions.answer_to(write)
        if known is not None:
            return Applied(known)
        applied = self._execute(index, write.body)
        match applied.reply:
            case Committed() | Granted() | Revoked() | Failure() as outcome:
                self._sessions.keep(write, outcome)
            case _:
                raise InvariantBroken("a-write-has-an-outcome", f"entry {index}: {applied.reply}")
        return applied

    def _execute(self, index: LogIndex, body: Body) -> Applied:
        problem = problem_with(body, ttl_min_s=self.ttl_min_s)
        if problem is not None:
            return Applied(problem)
        match body:
            case Commit(txn):
                return self._commit(txn)
            case Grant(ttl_s):
                return self._grant(index, ttl_s)
            case Revoke(lease):
                return Applied(Revoked(), batch=self._end(lease))
            case _:
                assert_never(body)

    # ---- leases ---------------------------------------------------------------------------

    def _grant(self, index: LogIndex, ttl_s: float) -> Applied:
        if len(self.leases) >= LEASES_MAX:
            return Applied(
                rejected(f"the store holds {LEASES_MAX} leases", "Revoke some, or let them end.")
            )
        lease = LeaseId(index)
        self.leases.add(LeaseRecord(lease, ttl_s, index))
        return Applied(Granted(Lease(lease, ttl_s)), renewed=(lease,))

    def _renew(self, index: LogIndex, leases: tuple[LeaseId, ...]) -> Applied:
        replies: list[Renewed | Failure] = []
        renewed: dict[LeaseId, None] = {}
        for lease in leases:
            record = self.leases.renew(lease, index)
            if record is None:
                replies.append(_lease_lost(lease))
            else:
                renewed[lease] = None
                replies.append(Renewed(Lease(lease, record.ttl_s)))
        return Applied(tuple(replies), renewed=tuple(renewed))

    def _expire(self, lease: LeaseId, renewal: LogIndex) -> Applied:
        record = self.leases.get(lease)
        if record is None or record.renewal != renewal:
            return Applied()  # It has ended, or was renewed after the leader looked.
        return Applied(batch=self._end(lease))

    def _end(self, lease: LeaseId) -> WatchBatch | None:
        keys = self.leases.remove(lease)
        if not keys:
            return None
        for key in keys:
            self._keys.delete(key)
        return self._advance(dict.fromkeys(keys))

    # ---- transactions ---------------------------------------------------------------------

    def _commit(self, txn: Txn) -> Applied:
        is_success = all(self._keys.holds(compare) for compare in txn.compares)
        ops = txn.then if is_success else txn.otherwise
        refusal = self._refusal_of([op for op in ops if isinstance(op, Put)])
        if refusal is None:
            refusal = self._refusal_of_deletes([op for op in ops if isinstance(op, Delete)])
        if refusal is not None:
            return Applied(refusal)
        changes: dict[str, KeyValue | None] = {}
        results = self._perform(ops, changes)
        batch = self._advance(changes) if changes else None
        return Applied(Committed(TxnResult(is_success, self.revision, results)), batch=batch)

    def _refusal_of(self, puts: list[Put]) -> Outcome | None:
        """Everything that could stop a transaction half way, asked before it begins."""
        of_lease: dict[LeaseId, list[str]] = {}
        for put in puts:
            if put.lease != NO_LEASE:
                of_lease.setdefault(put.lease, []).append(put.key)
        for lease, keys in of_lease.items():
            if self.leases.get(lease) is None:
                return _lease_lost(lease)
            if not self.leases.has_room_for(lease, dict.fromkeys(keys)):
                return rejected(f"lease {lease} has too many keys", "Spread them over leases.")
        if len(self._keys) + len(puts) > KEYS_MAX:
            return rejected(f"the store holds {KEYS_MAX} keys", "Delete some first.")
        if puts and self._keys.size_bytes + put_bytes(puts) > STORE_BYTES_MAX:
            return rejected(f"the store holds {STORE_BYTES_MAX} bytes", "Delete keys first.")
        return None

    def _refusal_of_deletes(self, deletes: list[Delete]) -> Outcome | None:
        count = sum(
            len(self._keys.matching(each.key, is_prefix=True)) if each.is_prefix else 1
            for each in deletes
        )
        if count > DELETE_KEYS_MAX:
            return rejected(
                f"a transaction deletes {count} keys", f"At most {DELETE_KEYS_MAX}: split it."
            )
        return None

    def _perform(
        self, ops: tuple[Op, ...], changes: dict[str, KeyValue | None]
    ) -> tuple[RangeResult | Done, ...]:
        """In order; an operation sees what those before it did. `changes` takes the last state."""
        results: list[RangeResult | Done] = []
        next_revision = Revision(self.revision + 1)
        bytes_left = TXN_READ_BYTES_MAX
        for op in ops:
            match op:
                case Put():
                    changes[op.key] = self._put(op, next_revision)
                    results.append(Done(1))
                case Delete(key, is_prefix):
                    keys = self._keys.matching(key, is_prefix=is_prefix)
                    for each in keys:
                        self._delete(each)
                        changes[each] = None
                    results.append(Done(len(keys)))
                case Range():
                    revision = next_revision if changes else self.revision
                    result = self._keys.range(op, revision, bytes_max=bytes_left)
                    bytes_left = max(0, bytes_left - sum(len(i.value) for i in result.items))
                    results.append(result)
                case _:
                    assert_never(op)
        return tuple(results)

    def _put(self, op: Put, revision: Revision) -> KeyValue:
        before = self._keys.get(op.key)
        if before is not None and before.lease != NO_LEASE:
            self.leases.detach(before.lease, op.key)
        if op.lease != NO_LEASE:
            self.leases.attach(op.lease, op.key)
        return self._keys.put(op, revision)

    def _delete(self, key: str) -> None:
        before = self._keys.delete(key)
        if before is not None and before.lease != NO_LEASE:
            self.leases.detach(before.lease, key)

    def _advance(self, changes: dict[str, KeyValue | None]) -> WatchBatch:
        self.revision = Revision(self.revision + 1)
        batch = batch_of(self.revision, changes)
        self.history.add(batch)
        return batch

    # ---- snapshots ------------------------------------------------------------------------

    def freeze(self) -> Iterator[bytes]:
        """This moment's state in pieces of bounded size, whatever is applied meanwhile.

        The shallow copy is made at the call; each piece is encoded when it is asked for.
        """
        return pieces_of(
            index=self.index,
            revision=self.revision,
            keys=self._keys.frozen(),
            leases=tuple(self.leases),
            sessions=self._sessions.frozen(),
        )

    @classmethod
    def from_pieces(cls, pieces: Iterator[bytes], *, ttl_min_s: float = LEASE_TTL_MIN_S) -> "Kv":
        """The state that `freeze` saw. `Corrupt` where the pieces are not whole."""
        restorer = Restorer()
        for piece in pieces:
            restorer.add(piece)
        return cls.from_restorer(restorer, ttl_min_s=ttl_min_s)

    @classmethod
    def from_restorer(cls, restorer: Restorer, *, ttl_min_s: float = LEASE_TTL_MIN_S) -> "Kv":
        """For whoever must not hold its loop: feed the restorer piece by piece, then come here."""
        whole = restorer.finished()
        kv = cls(ttl_min_s=ttl_min_s)
        kv.index, kv.revision = whole.index, whole.revision
        kv.history = History(whole.revision)
        kv._keys, kv.leases, kv._sessions = whole.keys, whole.leases, whole.sessions
        return kv


def _lease_lost(lease: LeaseId) -> Failure:
    return Failure(
        Refusal.LEASE_LOST, f"lease {lease} has ended", "Take a new one; its keys are gone."
    )
