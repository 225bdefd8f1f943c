"""The line before a lock or an election: whoever came first holds, the next waits for it alone.

Source    The recipe of etcd's `concurrency` package: one key for each contender, bound to its
          lease, ordered by create revision; each waits for its direct predecessor to go.
Promises  At most one contender is first at any instant. The token (the create revision of its
          key) is higher than that of every holder before it, for ever. Nobody polls.
Does not  Stop a holder whose lease has ended: the token does, at the resource, and the keeper.
"""

from collections.abc import AsyncIterator
from urllib.parse import quote

from primacy.coordination.api import (
    Compare,
    Delete,
    Field,
    KeyValue,
    LeaseId,
    Put,
    Range,
    RangeResult,
    Store,
    Test,
    Txn,
    absent,
)
from primacy.errors import Compacted, InvariantBroken, LeaseLost, OutcomeUnknown
from primacy.model import Revision


def line_prefix(kind: str, name: str) -> str:
    """Names may hold anything: quoted, no line's prefix begins another's."""
    return f"primacy/{kind}/{quote(name, safe='')}/"


class Contender:
    """One place in the line, under one lease."""

    def __init__(self, store: Store, prefix: str, lease: LeaseId) -> None:
        self._store = store
        self._prefix = prefix
        self._lease = lease
        self.key = f"{prefix}{lease:x}"

    async def enter(self, value: bytes) -> Revision:
        """The token. Safe to repeat: the key names the lease, so that it is ours alone."""
        read = Range(self.key)
        txn = Txn((absent(self.key),), (Put(self.key, value, self._lease), read), (read,))
        while True:
            try:
                result = await self._store.txn(txn)
            except OutcomeUnknown:
                continue  # It names itself: asking again finds it or writes it.
            found = result.results[-1]
            if isinstance(found, RangeResult) and found.items:
                return found.items[0].create
            raise InvariantBroken("a-put-is-read-back", f"{self.key} at {result.revision}")

    async def wait_turn(self) -> None:
        """Returns when nobody is before us. `LeaseLost` where our own key has gone meanwhile."""
        while True:
            line = await self._store.range(self._prefix, is_prefix=True)
            place = sorted(line.items, key=_by_create)
            ours = next((n for n, item in enumerate(place) if item.key == self.key), None)
            if ours is None:
                raise LeaseLost(
                    f"{self.key} has gone while it waited", hint="Take a new lease and try again."
                )
            if ours == 0:
                return
            await self._until_gone(place[ours - 1].key, Revision(line.revision + 1))

    async def _until_gone(self, key: str, from_revision: Revision) -> None:
        """Until the predecessor has gone, or something that only a new look can tell."""
        try:
            async with self._store.watch(key, from_revision=from_revision) as batches:
                async for batch in batches:
                    if any(change.after is None for change in batch.changes):
                        return
        except Compacted:
            return  # The caller reads again.

    async def leave(self, token: Revision) -> None:
        """Give up the place, if it is still the one that `token` names."""
        mine = Compare(self.key, Field.CREATE, Test.EQUAL, token)
        await self._store.txn(Txn((mine,), (Delete(self.key),)))


async def first_in_line(store: Store, prefix: str) -> tuple[KeyValue | None, Revision]:
    """Who holds, linearizably, and the revision of that knowledge."""
    line = await store.range(prefix, is_prefix=True)
    return min(line.items, key=_by_create, default=None), line.revision


async def holders(store: Store, prefix: str) -> AsyncIterator[KeyValue | None]:
    """Who holds now, then each change of that; changes in quick succession may be left out."""
    told: tuple[KeyValue | None] | None = None
    while True:
        first, revision = await first_in_line(store, prefix)
        if told != (first,):
            told = (first,)
            yield first
        try:
            async with store.watch(
                prefix, is_prefix=True, from_revision=Revision(revision + 1)
            ) as batches:
                async for batch in batches:
                    if batch.changes:
                        break  # Look again: one read tells it all.
        except Compacted:
            continue


def _by_create(item: KeyValue) -> tuple[int, str]:
    return item.create, item.key
