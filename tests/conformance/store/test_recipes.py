"""Locks and elections, over every store."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from primacy.clock import SystemClock
from primacy.coordination.election import Election
from primacy.coordination.guarantees import DeclaredStore
from primacy.coordination.leasing import LeaseKeeper
from primacy.coordination.lock import Lock
from primacy.errors import LeaseLost

Run = Callable[[Callable[[Any], Coroutine[Any, Any, None]]], None]  # Any: what asyncio yields.
CLOCK = SystemClock()


def test_a_lock_has_one_holder_at_a_time_and_its_tokens_grow(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        inside = 0
        tokens: list[int] = []

        async def contend() -> None:
            nonlocal inside
            async with Lock(store, "name/with/slashes", clock=CLOCK, ttl_s=3.0) as lock:
                inside += 1
                assert inside == 1
                assert lock.is_held
                tokens.append(lock.token)
                await store.range("anything")
                inside -= 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(6):
                tasks.create_task(contend())
        assert tokens == sorted(set(tokens))
        assert len(tokens) == 6
        assert not (await store.range("primacy/", is_prefix=True)).items

    run(scenario)


def test_a_lost_lock_is_told_at_once_and_stops_its_guarded_block(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        async with Lock(store, "l", clock=CLOCK, ttl_s=3.0) as lock:
            (item,) = (await store.range("primacy/locks/l/", is_prefix=True)).items

            async def work() -> None:
                async with lock.guarding():
                    await store.revoke(item.lease)
                    await asyncio.Event().wait()

            with pytest.raises(LeaseLost):
                await work()
            assert lock.lost.is_set()
            assert not lock.is_held

    run(scenario)


def test_an_error_in_the_body_comes_out_as_it_is_and_frees_the_lock(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        with pytest.raises(KeyError):
            async with Lock(store, "l", clock=CLOCK, ttl_s=3.0):
                raise KeyError("body")
        async with asyncio.timeout(2.0), Lock(store, "l", clock=CLOCK, ttl_s=3.0):
            pass

    run(scenario)


def test_a_cancelled_wait_leaves_the_line(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        async with Lock(store, "l", clock=CLOCK, ttl_s=3.0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), Lock(store, "l", clock=CLOCK, ttl_s=3.0):
                    raise AssertionError("two holders")
            line = await store.range("primacy/locks/l/", is_prefix=True)
            assert len(line.items) == 1

    run(scenario)


def test_a_dead_holder_is_replaced_when_its_lease_ends(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        dead = Lock(store, "l", clock=CLOCK, ttl_s=0.6)
        await dead.__aenter__()
        dead._claim.keeper.abandon()  # noqa: SLF001 - as if its process had died
        async with Lock(store, "l", clock=CLOCK, ttl_s=3.0) as lock:
            assert lock.token > dead.token
            assert not dead.is_held
        await dead.__aexit__(None, None, None)

    run(scenario)


def test_an_election_names_its_winner_and_the_next_when_it_resigns(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        election = Election(store, "boss", clock=CLOCK, ttl_s=3.0)
        seen: list[bytes | None] = []
        is_told = asyncio.Event()

        async def observe() -> None:
            async for winner in election.observe():
                seen.append(None if winner is None else winner.value)
                if seen[-1] == b"second":
                    is_told.set()
                    return

        async def second() -> None:
            async with election.campaign(b"second") as office:
                assert office.token > first_token
                await is_told.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(observe())
            async with election.campaign(b"first") as office:
                first_token = office.token
                winner = await election.leader()
                assert winner is not None
                assert (winner.value, winner.token) == (b"first", office.token)
                tasks.create_task(second())
                while len((await store.range("primacy/", is_prefix=True)).items) < 2:
                    await asyncio.sleep(0.01)
                await office.resign()
        assert seen[-1] == b"second"
        assert await election.leader() is None

    run(scenario)


def test_a_keeper_extends_its_deadline_and_says_so(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        deadlines: list[float] = []
        is_renewed = asyncio.Event()

        def on_extended(deadline_s: float) -> None:
            deadlines.append(deadline_s)
            if len(deadlines) == 4:
                is_renewed.set()

        before_s = CLOCK.boottime_s()
        keeper = await LeaseKeeper.acquire(store, 0.8, CLOCK, margin_s=0.1, on_extended=on_extended)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(keeper.run())
            await is_renewed.wait()
            await keeper.release()
            await running
        assert deadlines == sorted(deadlines)
        assert deadlines[0] >= before_s + 0.95 * 0.8 - 0.1
        assert not keeper.is_held
        assert not keeper.lost.is_set()
        with pytest.raises(LeaseLost):
            await store.renew(keeper.lease)

    run(scenario)


def test_a_keeper_that_may_not_renew_loses_its_lease_at_the_deadline(run: Run) -> None:
    async def scenario(store: DeclaredStore) -> None:
        reasons: list[str] = []
        keeper = await LeaseKeeper.acquire(
            store, 0.5, CLOCK, may_renew=lambda: False, on_lost=reasons.append
        )
        await keeper.run()
        assert keeper.lost.is_set()
        assert len(reasons) == 1
        assert CLOCK.boottime_s() >= keeper.deadline_boottime_s
        await keeper.release()
        assert len(reasons) == 1

    run(scenario)
