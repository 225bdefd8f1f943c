"""Revisioned keys in order, and the history of their changes. Pure.

Promises  The same writes at the same revisions give the same state. A prefix is found by
          bisection; memory is bounded by the limits below.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from primacy.coordination.api import (
    Change,
    Compare,
    Field,
    KeyValue,
    Put,
    Range,
    RangeResult,
    Test,
    WatchBatch,
)
from primacy.errors import Compacted
from primacy.model import Revision

KEYS_MAX = 1_000_000
STORE_BYTES_MAX = 512 << 20
"""Keys and values together. The store holds small facts; past this a write is `Rejected`."""

READ_BYTES_MAX = 4 << 20
"""Values that one range returns. Past it the range is cut and says so."""

TXN_READ_BYTES_MAX = 1 << 20
"""Values that all ranges of one transaction return: its session keeps them for a retry."""

DELETE_KEYS_MAX = 10_000
"""Keys that one operation deletes: they all stand in one batch of every watch."""

HISTORY_MAX = 10_000
HISTORY_BYTES_MAX = 64 << 20
"""Revisions, and their bytes, that a watch may still ask for. What is older is compacted."""

KEY_OVERHEAD_BYTES = 200
"""What a key costs in memory beside its text and its value, about."""


class KeySpace:
    """All keys as they stand."""

    def __init__(self) -> None:
        self._items: dict[str, KeyValue] = {}
        self._order: list[str] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def get(self, key: str) -> KeyValue | None:
        return self._items.get(key)

    def holds(self, compare: Compare) -> bool:
        item = self._items.get(compare.key)
        if compare.field is Field.VALUE and item is None:
            return compare.test is Test.NOT_EQUAL
        return _compares(_field(item, compare.field), compare.test, compare.operand)

    def range(
        self, op: Range, revision: Revision, *, bytes_max: int = READ_BYTES_MAX
    ) -> RangeResult:
        """Cut at `op.limit` items or `bytes_max` of values, whichever comes first."""
        if not op.is_prefix:
            item = self._items.get(op.key)
            return RangeResult((), revision) if item is None else RangeResult((item,), revision)
        found: list[KeyValue] = []
        read_bytes = 0
        for key in self._keys_with(op.key):
            item = self._items[key]
            read_bytes += len(item.value)
            if len(found) == op.limit or (found and read_bytes > bytes_max):
                return RangeResult(tuple(found), revision, is_cut=True)
            found.append(item)
        return RangeResult(tuple(found), revision)

    def put(self, op: Put, revision: Revision) -> KeyValue:
        before = self._items.get(op.key)
        if before is None:
            after = KeyValue(op.key, op.value, revision, revision, 1, op.lease)
            insort(self._order, op.key)
        else:
            after = KeyValue(
                op.key, op.value, before.create, revision, before.version + 1, op.lease
            )
            self.size_bytes -= _weight(before)
        self._items[op.key] = after
        self.size_bytes += _weight(after)
        return after

    def delete(self, key: str) -> KeyValue | None:
        """What stood there."""
        before = self._items.pop(key, None)
        if before is not None:
            del self._order[bisect_left(self._order, key)]
            self.size_bytes -= _weight(before)
        return before

    def matching(self, key: str, *, is_prefix: bool) -> list[str]:
        if is_prefix:
            return list(self._keys_with(key))
        return [key] if key in self._items else []

    def load(self, items: Iterable[KeyValue]) -> None:
        """Add what `frozen` gave, in its order."""
        for item in items:
            self._items[item.key] = item
            self._order.append(item.key)
            self.size_bytes += _weight(item)

    def frozen(self) -> Iterator[KeyValue]:
        """The items of this moment, in order of key, whatever is written meanwhile.

        The copy is shallow and taken at the call; values are shared, since they never change.
        """
        items, order = self._items.copy(), self._order.copy()
        return (items[key] for key in order)

    def _keys_with(self, prefix: str) -> Iterator[str]:
        order = self._order
        for place in range(bisect_left(order, prefix), len(order)):
            if not order[place].startswith(prefix):
                return
            yield order[place]


class History:
    """The last revisions, for watches. Not part of a snapshot: each member has its own floor."""

    def __init__(self, floor: Revision) -> None:
        """Revisions up to and including `floor` are not known."""
        self._batches: deque[WatchBatch] = deque()
        self._weights: deque[int] = deque()
        self._bytes = 0
        self.floor = floor

    def add(self, batch: WatchBatch) -> None:
        weight = sum(
            KEY_OVERHEAD_BYTES + len(change.key) + len(change.after.value if change.after else b"")
            for change in batch.changes
        )
        self._batches.append(batch)
        self._weights.append(weight)
        self._bytes += weight
        while len(self._batches) > HISTORY_MAX or self._bytes > HISTORY_BYTES_MAX:
            self.floor = self._batches.popleft().revision
            self._bytes -= self._weights.popleft()

    def since(self, from_revision: Revision) -> Iterator[WatchBatch]:
        """The batches of `from_revision` and later, as they stand at the call.

        Raises `Compacted` where any of them is gone.
        """
        if from_revision <= self.floor:
            raise Compacted(asked=from_revision, oldest=self.floor + 1)
        first = from_revision - self.floor - 1  # Revisions have no gaps.
        return iter(list(islice(self._batches, first, None)))


def matches(batch: WatchBatch, key: str, *, is_prefix: bool) -> WatchBatch | None:
    """The part of the batch that a watch of `key` sees; None where it sees nothing."""
    changes = tuple(
        change
        for change in batch.changes
        if (change.key.startswith(key) if is_prefix else change.key == key)
    )
    if not changes:
        return None
    return batch if len(changes) == len(batch.changes) else WatchBatch(batch.revision, changes)


def batch_of(revision: Revision, changes: dict[str, KeyValue | None]) -> WatchBatch:
    return WatchBatch(revision, tuple(Change(key, after) for key, after in changes.items()))


def put_bytes(ops: Sequence[Put]) -> int:
    """At most what these puts add to the store."""
    return sum(KEY_OVERHEAD_BYTES + len(op.key.encode()) + len(op.value) for op in ops)


def _weight(item: KeyValue) -> int:
    return KEY_OVERHEAD_BYTES + len(item.key.encode()) + len(item.value)


def _field(item: KeyValue | None, field: Field) -> int | bytes:
    if item is None:
        return 0
    match field:
        case Field.CREATE:
            return item.create
        case Field.MOD:
            return item.mod
        case Field.VERSION:
            return item.version
        case Field.LEASE:
            return item.lease
        case Field.VALUE:
            return item.value


def _compares(value: int | bytes, test: Test, operand: int | bytes) -> bool:
    """Of one type: `problem_with` has refused everything else."""
    match test:
        case Test.EQUAL:
            return value == operand
        case Test.NOT_EQUAL:
            return value != operand
        case Test.LESS:
            return value < operand  # type: ignore[operator]  # Both int or both bytes.
        case Test.GREATER:
            return value > operand  # type: ignore[operator]  # Both int or both bytes.
