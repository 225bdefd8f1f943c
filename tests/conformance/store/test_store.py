"""What every store promises: keys, transactions, leases and watches."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from primacy.coordination.api import (
    Delete,
    Done,
    LeaseId,
    Put,
    Range,
    RangeResult,
    Store,
    Txn,
    WatchBatch,
    absent,
    holds_value,
    unchanged,
)
from primacy.errors import LeaseLost, Rejected
from primacy.model import Revision

Run = Callable[[Callable[[Any], Coroutine[Any, Any, None]]], None]  # Any: what asyncio yields.


def put(key: str, value: bytes = b"v", lease: LeaseId | None = None) -> Txn:
    return Txn(then=(Put(key, value, lease or LeaseId(0)),))


async def first_changes(
    store: Store, key: str, count: int, *, is_prefix: bool, from_revision: int
) -> list[WatchBatch]:
    found: list[WatchBatch] = []
    async with store.watch(
        key, is_prefix=is_prefix, from_revision=Revision(from_revision)
    ) as batches:
        async for batch in batches:
            if batch.changes:
                found.append(batch)
            if len(found) == count:
                return found
    return found


def test_a_write_is_read_back_with_its_revisions(run: Run) -> None:
    async def scenario(store: Store) -> None:
        before = (await store.range("k")).revision
        written = await store.txn(put("k", b"one"))
        assert written.revision == before + 1
        read = await store.range("k")
        assert read.revision == written.revision
        (item,) = read.items
        assert (item.value, item.create, item.mod, item.version) == (
            b"one",
            written.revision,
            written.revision,
            1,
        )

    run(scenario)


def test_a_transaction_takes_one_branch_whole(run: Run) -> None:
    async def scenario(store: Store) -> None:
        txn = Txn(
            (absent("a"),),
            (Put("a", b"1"), Put("b", b"2"), Range("a")),
            (Range("", is_prefix=True),),
        )
        first, second = await store.txn(txn), await store.txn(txn)
        assert first.is_success
        assert first.results[:2] == (Done(1), Done(1))
        assert not second.is_success
        (seen,) = second.results
        assert isinstance(seen, RangeResult)
        assert [(item.key, item.mod) for item in seen.items] == [
            ("a", first.revision),
            ("b", first.revision),
        ]
        assert second.revision == first.revision

    run(scenario)


def test_compare_and_swap_lets_one_of_many_win(run: Run) -> None:
    async def scenario(store: Store) -> None:
        base = await store.txn(put("k", b"0"))
        wins: list[bytes] = []

        async def swap(value: bytes) -> None:
            txn = Txn((unchanged("k", base.revision), holds_value("k", b"0")), (Put("k", value),))
            if (await store.txn(txn)).is_success:
                wins.append(value)

        async with asyncio.TaskGroup() as tasks:
            for number in range(10):
                tasks.create_task(swap(b"by-%d" % number))
        assert [item.value for item in (await store.range("k")).items] == wins

    run(scenario)


def test_a_prefix_is_read_and_deleted_as_one(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.txn(Txn(then=tuple(Put(key, b"") for key in ("d/b", "d/a", "d", "e"))))
        found = await store.range("d/", is_prefix=True)
        assert [item.key for item in found.items] == ["d/a", "d/b"]
        deleted = await store.txn(Txn(then=(Delete("d/", is_prefix=True),)))
        assert deleted.results == (Done(2),)
        left = await store.range("", is_prefix=True, is_serializable=True)
        assert [item.key for item in left.items] == ["d", "e"]

    run(scenario)


def test_a_key_ends_with_its_lease_and_not_before(run: Run) -> None:
    async def scenario(store: Store) -> None:
        loop = asyncio.get_running_loop()
        lease = await store.grant(0.5)
        sent_at_s = loop.time()
        await store.renew(lease.lease)
        written = await store.txn(put("held", lease=lease.lease))
        (batch,) = await first_changes(
            store, "held", 1, is_prefix=False, from_revision=written.revision + 1
        )
        assert batch.changes[0].after is None
        assert loop.time() - sent_at_s >= 0.95 * 0.5
        with pytest.raises(LeaseLost):
            await store.renew(lease.lease)
        with pytest.raises(LeaseLost):
            await store.txn(put("held", lease=lease.lease))

    run(scenario)


def test_a_renewed_lease_outlives_its_ttl(run: Run) -> None:
    async def scenario(store: Store) -> None:
        loop = asyncio.get_running_loop()
        lease = await store.grant(0.8)
        await store.txn(put("held", lease=lease.lease))
        until_s = loop.time() + 1.6
        while loop.time() < until_s:
            await store.renew(lease.lease)
            await asyncio.sleep(0.05)
        assert (await store.range("held")).items

    run(scenario)


def test_a_revoked_lease_takes_its_keys_in_one_revision(run: Run) -> None:
    async def scenario(store: Store) -> None:
        lease = await store.grant(5.0)
        await store.txn(Txn(then=tuple(Put(key, b"", lease.lease) for key in "ab")))
        before = (await store.range("a")).revision
        await store.revoke(lease.lease)
        await store.revoke(lease.lease)  # Ending an ended lease is no error.
        (batch,) = await first_changes(store, "", 1, is_prefix=True, from_revision=before + 1)
        assert [(change.key, change.after) for change in batch.changes] == [
            ("a", None),
            ("b", None),
        ]
        assert batch.revision == before + 1

    run(scenario)


def test_lease_names_are_never_used_again(run: Run) -> None:
    async def scenario(store: Store) -> None:
        names = []
        for _ in range(3):
            lease = await store.grant(5.0)
            names.append(lease.lease)
            await store.revoke(lease.lease)
        assert names == sorted(set(names))

    run(scenario)


def test_a_watch_sees_the_past_and_the_future_once_and_in_order(run: Run) -> None:
    async def scenario(store: Store) -> None:
        first = await store.txn(put("w/0"))

        async def write() -> None:
            for number in range(1, 20):
                await store.txn(put(f"w/{number}"))
                await store.txn(put("other"))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            batches = await first_changes(
                store, "w/", 20, is_prefix=True, from_revision=first.revision
            )
        keys = [change.key for batch in batches for change in batch.changes]
        assert keys == [f"w/{number}" for number in range(20)]
        revisions = [batch.revision for batch in batches]
        assert revisions == sorted(set(revisions))

    run(scenario)


def test_a_transaction_is_watched_as_one_batch(run: Run) -> None:
    async def scenario(store: Store) -> None:
        written = await store.txn(Txn(then=tuple(Put(key, b"") for key in ("x/1", "y", "x/2"))))
        (batch,) = await first_changes(
            store, "x/", 1, is_prefix=True, from_revision=written.revision
        )
        assert [change.key for change in batch.changes] == ["x/1", "x/2"]

    run(scenario)


@pytest.mark.parametrize(
    "txn",
    [put(""), put("k" * 2000), put("k", b"v" * (2 << 20)), Txn(then=(Range("k", limit=0),))],
    ids=["empty-key", "long-key", "big-value", "no-limit"],
)
def test_what_is_over_a_limit_is_rejected(run: Run, txn: Txn) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(Rejected):
            await store.txn(txn)
        with pytest.raises(Rejected):
            await store.grant(0.01)
        assert (await store.range("", is_prefix=True)).items == ()

    run(scenario)


def test_status_names_the_leader_and_the_revision(run: Run) -> None:
    async def scenario(store: Store) -> None:
        written = await store.txn(put("k"))
        status = await store.status()
        assert status.leader is not None
        assert status.revision <= written.revision

    run(scenario)
