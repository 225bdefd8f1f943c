"""Keys, transactions, leases and watches: what every store offers. Values and one protocol.

Promises  Each write transaction gets the next revision. A linearizable read sees every write
          that finished before it began. A watch delivers every change from its revision on,
          in order, a transaction's changes together, once; or raises `Compacted`.
Source    The model is etcd's v3 data model (create, mod, version, lease), with keys as text.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import NewType, Protocol

import msgspec

from primacy.model import NodeId, Revision

LeaseId = NewType("LeaseId", int)
"""The log index of the lease's grant: never used again. 0 means no lease."""

NO_LEASE = LeaseId(0)

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1 << 20
TXN_PARTS_MAX = 128
RANGE_ITEMS_MAX = 10_000
"""Limits of one request. Past one the request is `Rejected`; a range is cut and says so."""


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One key as it stands."""

    key: str
    value: bytes
    create: Revision
    """The revision that created it: the fencing token of locks and elections."""
    mod: Revision
    version: int
    """Writes since it was created, from 1."""
    lease: LeaseId = NO_LEASE


class Field(Enum):
    """What of a key a comparison looks at. A key that does not exist has 0 in all, and no value."""

    CREATE = "create"
    MOD = "mod"
    VERSION = "version"
    VALUE = "value"
    LEASE = "lease"


class Test(Enum):
    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


class Compare(msgspec.Struct, frozen=True):
    """True or false of one key. `operand` is bytes for VALUE and an int for all others.

    VALUE of an absent key equals nothing: EQUAL is false, NOT_EQUAL is true.
    """

    key: str
    field: Field
    test: Test
    operand: int | bytes


class Put(msgspec.Struct, frozen=True, tag=True):
    """Set a key. The lease replaces any that it had; NO_LEASE detaches it."""

    key: str
    value: bytes
    lease: LeaseId = NO_LEASE


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Remove one key, or with `is_prefix` all keys that begin so."""

    key: str
    is_prefix: bool = False


class Range(msgspec.Struct, frozen=True, tag=True):
    """Read one key, or with `is_prefix` all keys that begin so, in order of key."""

    key: str
    is_prefix: bool = False
    limit: int = RANGE_ITEMS_MAX


Op = Put | Delete | Range


class Txn(msgspec.Struct, frozen=True):
    """If all `compares` hold, do `then`, else `otherwise`; at one instant."""

    compares: tuple[Compare, ...] = ()
    then: tuple[Op, ...] = ()
    otherwise: tuple[Op, ...] = ()


class RangeResult(msgspec.Struct, frozen=True, tag=True):
    items: tuple[KeyValue, ...]
    revision: Revision
    """The state of the store that was read: watch from `revision + 1`."""
    is_cut: bool = False
    """More keys matched than the limit allowed."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """What a put or delete did: how many keys it changed."""

    count: int


class TxnResult(msgspec.Struct, frozen=True):
    is_success: bool
    """Whether the comparisons held."""
    revision: Revision
    """After the transaction."""
    results: tuple[RangeResult | Done, ...] = ()


class Lease(msgspec.Struct, frozen=True):
    lease: LeaseId
    ttl_s: float
    """Fixed in the grant."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One key's change. `after` is None where it was deleted (or its lease ended)."""

    key: str
    after: KeyValue | None


class WatchBatch(msgspec.Struct, frozen=True):
    """All changes of one or more whole transactions up to and including `revision`.

    An empty batch only says that nothing happened up to `revision`.
    """

    revision: Revision
    changes: tuple[Change, ...]


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One member's view of the store."""

    node: NodeId
    leader: NodeId | None
    term: int
    commit_index: int
    applied_index: int
    revision: Revision
    lease_left_s: dict[int, float] = {}
    """By lease id, on the leader's clock. Empty on a follower."""
    excluded_reason: str | None = None
    """Why this member may not vote, where its peers refuse it."""


class Store(Protocol):
    """What recipes, brain and router are written against.

    Errors: `Unavailable` (nothing was applied), `OutcomeUnknown` (a write whose answer was
    lost: it is sent again by itself under its request id as long as the session lives, and this
    is raised only past `within_s`), `Rejected` (limits). Cancellation of a write leaves its
    outcome unknown.
    """

    async def range(
        self, key: str, *, is_prefix: bool = False, is_serializable: bool = False
    ) -> RangeResult:
        """Linearizable unless told otherwise. A serializable read may be old; needs no leader."""
        ...

    async def txn(self, txn: Txn) -> TxnResult: ...

    async def grant(self, ttl_s: float) -> Lease: ...

    async def renew(self, lease: LeaseId) -> Lease:
        """One attempt, never repeated by itself: each attempt is a new renewal, and its answer
        belongs to it. `LeaseLost` where the lease has ended."""
        ...

    async def revoke(self, lease: LeaseId) -> None:
        """End the lease and delete its keys. Ending an ended lease is no error."""
        ...

    def watch(
        self, key: str, *, is_prefix: bool = False, from_revision: Revision
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchBatch]]:
        """Changes from `from_revision` on (inclusive), across reconnects. Raises `Compacted`."""
        ...

    async def status(self) -> StoreStatus: ...


def absent(key: str) -> Compare:
    return Compare(key, Field.CREATE, Test.EQUAL, 0)


def unchanged(key: str, mod: Revision) -> Compare:
    """The key stands as it was last written at `mod` (0: it is absent)."""
    return Compare(key, Field.MOD, Test.EQUAL, mod)


def holds_value(key: str, value: bytes) -> Compare:
    return Compare(key, Field.VALUE, Test.EQUAL, value)
