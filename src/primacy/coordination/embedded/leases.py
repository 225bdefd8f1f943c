"""Leases: what the members agree on, and what each alone knows of time. Pure.

Promises  A lease is named by the log index of its grant and its renewals by theirs; neither
          returns. No lease ends before the leader's stamp of its last applied renewal + ttl; a
          change of leader, a restart and an installed snapshot may end it later, never earlier.
Assumes   Clocks run within 2.5 % of true.
Does not  End a lease: it names those that may end, and the log decides (`Expire`).

    granted ---> renewed ---> renewed ...      each by an entry of the log
       |            |
       +-- stamp + ttl passes on the leader, or revoked ---> gone, with its keys
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from primacy.consensus.machine import Entry
from primacy.coordination.api import LeaseId
from primacy.coordination.embedded.commands import Expire
from primacy.model import LogIndex

LEASES_MAX = 10_000
LEASE_KEYS_MAX = 1000
"""Keys under one lease: they all go in one revision."""

HEAP_SLACK = 64
"""Outdated ends that may lie in the heap beside as many as there are leases."""


class LeaseRecord(msgspec.Struct, frozen=True):
    """One lease, as the log has it. Its keys are found by their own `lease` field."""

    lease: LeaseId
    ttl_s: float
    renewal: LogIndex
    """The entry of its last applied renewal. The grant counts as the first."""


class LeaseTable:
    """The replicated part: equal on all members that have applied the same entries."""

    def __init__(self) -> None:
        self._records: dict[LeaseId, LeaseRecord] = {}
        self._keys: dict[LeaseId, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[LeaseRecord]:
        return iter(self._records.values())

    def get(self, lease: LeaseId) -> LeaseRecord | None:
        return self._records.get(lease)

    def add(self, record: LeaseRecord) -> None:
        self._records[record.lease] = record
        self._keys[record.lease] = {}

    def renew(self, lease: LeaseId, at: LogIndex) -> LeaseRecord | None:
        """None where the lease has ended."""
        record = self._records.get(lease)
        if record is None:
            return None
        renewed = LeaseRecord(lease, record.ttl_s, at)
        self._records[lease] = renewed
        return renewed

    def remove(self, lease: LeaseId) -> list[str]:
        """The keys that go with it, sorted: every member deletes them in one order."""
        self._records.pop(lease, None)
        return sorted(self._keys.pop(lease, ()))

    def attach(self, lease: LeaseId, key: str) -> None:
        self._keys[lease][key] = None

    def detach(self, lease: LeaseId, key: str) -> None:
        self._keys[lease].pop(key, None)

    def has_room_for(self, lease: LeaseId, keys: Iterable[str]) -> bool:
        held = self._keys[lease]
        return len(held) + sum(1 for key in keys if key not in held) <= LEASE_KEYS_MAX


class LeaseStamps:
    """One member's memory of when it appended what, on its own monotonic clock. Never saved."""

    def __init__(self, now_s: float, table: LeaseTable, entries: Sequence[Entry] = ()) -> None:
        """After a restart: whatever the snapshot and the log hold was appended "now"."""
        self._appended_s: dict[LogIndex, float] = {}
        self._renewed_s: dict[LeaseId, float] = {}
        self._heap: list[tuple[float, LeaseId, LogIndex]] = []
        self._proposed: dict[LeaseId, LogIndex] = {}
        self._table = table
        self.installed(now_s, table)
        self.appended(now_s, entries)

    def installed(self, now_s: float, table: LeaseTable) -> None:
        """The state was replaced by a snapshot: all its renewals count as of now."""
        self._table = table
        self._renewed_s = {record.lease: now_s for record in table}
        self._proposed.clear()
        self._rebuild()

    def appended(self, now_s: float, entries: Sequence[Entry]) -> None:
        """An entry that replaces another takes its place here too."""
        for entry in entries:
            self._appended_s[entry.index] = now_s

    def applied(self, now_s: float, index: LogIndex, renewed: Sequence[LeaseId]) -> None:
        """Entry `index` was applied and is the last renewal of `renewed`."""
        stamp_s = self._appended_s.pop(index, now_s)  # Unknown: now, which is never too early.
        for lease in renewed:
            self._renewed_s[lease] = stamp_s
            self._push(lease)
        if len(self._heap) > 2 * len(self._table) + HEAP_SLACK:
            self._rebuild()

    def ended(self, now_s: float) -> list[Expire]:
        """Each lease that may end by now, once until `propose_again`. Only the leader asks."""
        due: list[Expire] = []
        while (end := self.next_end_s) is not None and end <= now_s:
            _, lease, renewal = heapq.heappop(self._heap)
            self._proposed[lease] = renewal
            due.append(Expire(lease, renewal))
        return due

    def propose_again(self) -> None:
        """What `ended` has named may not have reached the log: name it again."""
        self._proposed.clear()
        self._rebuild()

    @property
    def next_end_s(self) -> float | None:
        """When `ended` has something to say next."""
        while self._heap:
            end_s, lease, renewal = self._heap[0]
            record = self._table.get(lease)
            if record is not None and record.renewal == renewal:
                return end_s
            heapq.heappop(self._heap)
        return None

    def left_s(self, now_s: float) -> Mapping[int, float]:
        """By lease. Below zero where the end is proposed and not applied yet."""
        return {
            record.lease: self._renewed_s[record.lease] + record.ttl_s - now_s
            for record in self._table
        }

    def _push(self, lease: LeaseId) -> None:
        record = self._table.get(lease)
        if record is not None and self._proposed.get(lease) != record.renewal:
            end_s = self._renewed_s[lease] + record.ttl_s
            heapq.heappush(self._heap, (end_s, lease, record.renewal))

    def _rebuild(self) -> None:
        self._renewed_s = {record.lease: self._renewed_s[record.lease] for record in self._table}
        self._proposed = {
            lease: renewal
            for lease, renewal in self._proposed.items()
            if (record := self._table.get(lease)) is not None and record.renewal == renewal
        }
        self._heap.clear()
        for record in self._table:
            self._push(record.lease)
