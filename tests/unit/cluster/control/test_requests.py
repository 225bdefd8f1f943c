"""What an operator asks for, against the memory store: taken up, refused, withdrawn."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from primacy.clock import SystemClock
from primacy.cluster.actions import Swap
from primacy.cluster.control.requests import Desk, failover, pause, resume, switchover
from primacy.cluster.control.roster import Roster
from primacy.cluster.transactions import swap_txn
from primacy.cluster.view import StoreView
from primacy.coordination.api import Delete, Put, Txn
from primacy.coordination.memory import MemoryStore
from primacy.errors import Conflict, NotFound, OutcomeUnknown, PrimacyError, Rejected, Withdrawn
from primacy.model import Epoch, Incarnation, Member, NodeId, Revision
from primacy.replication.records import (
    FAILOVER_KEY,
    OUTCOMES_PREFIX,
    PAUSE_KEY,
    SWITCHOVER_KEY,
    DurabilityRecord,
    FailoverRequest,
    RequestOutcome,
    SwitchoverRequest,
    decoded,
    encoded,
)

A, B, C, W = NodeId("a"), NodeId("b"), NodeId("c"), NodeId("w")
ROSTER = Roster(
    cluster="shop", members=(A, B, C, W), data_nodes=(A, B, C), never_promote=frozenset({C})
)
LONG_S, AT_ONCE_S = 30.0, 0.01

T = TypeVar("T")


def desk() -> Desk:
    clock = SystemClock()
    return Desk(MemoryStore(clock), ROSTER, clock)


async def value_of(at: Desk, key: str) -> bytes:
    """Waits until somebody has written it."""
    found = await at.store.range(key)
    if found.items:
        return found.items[0].value
    async with at.store.watch(key, from_revision=Revision(found.revision + 1)) as batches:
        async for batch in batches:
            for change in batch.changes:
                if change.after is not None:
                    return change.after.value
    raise AssertionError(key)


def told(
    ask: Callable[[Desk], Coroutine[Any, Any, T]],  # Any: what asyncio says of a coroutine.
    answer: Callable[[Desk], Awaitable[None]],
) -> T:
    """`ask` while `answer` plays the cluster."""

    async def both() -> T:
        at = desk()
        async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask(at))
            await answer(at)
            return await asking

    return asyncio.run(both())


async def end(at: Desk, key: str, outcome: RequestOutcome) -> None:
    told_under = f"{OUTCOMES_PREFIX}{outcome.request_id}"
    await at.store.txn(Txn(then=(Delete(key), Put(told_under, encoded(outcome)))))


def test_a_switchover_returns_how_it_ended() -> None:
    async def play(at: Desk) -> None:
        request = decoded(SwitchoverRequest, await value_of(at, SWITCHOVER_KEY))
        assert request.target == B
        done = RequestOutcome(request_id=request.request_id, is_done=True, detail="b leads")
        await end(at, SWITCHOVER_KEY, done)

    outcome = told(lambda at: switchover(at, to="b", timeout_s=LONG_S), play)
    assert outcome.detail == "b leads"


def test_what_the_brain_refuses_is_a_conflict_with_its_reason() -> None:
    async def play(at: Desk) -> None:
        request = decoded(SwitchoverRequest, await value_of(at, SWITCHOVER_KEY))
        no = RequestOutcome(request_id=request.request_id, is_done=False, detail="b lags")
        await end(at, SWITCHOVER_KEY, no)

    with pytest.raises(ExceptionGroup) as refused:
        told(lambda at: switchover(at, to=None, timeout_s=LONG_S), play)
    assert refused.group_contains(Conflict, match="not done: b lags")


def test_a_request_that_nobody_takes_up_is_withdrawn() -> None:
    async def story() -> None:
        at = desk()
        with pytest.raises(Withdrawn, match="withdrawn"):
            await switchover(at, to=None, timeout_s=AT_ONCE_S)
        assert (await at.store.range(SWITCHOVER_KEY)).items == ()

    asyncio.run(story())


def test_a_request_whose_waiter_is_interrupted_is_withdrawn() -> None:
    async def story() -> None:
        at = desk()
        asking = asyncio.get_running_loop().create_task(switchover(at, to=None, timeout_s=LONG_S))
        await value_of(at, SWITCHOVER_KEY)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await at.store.range(SWITCHOVER_KEY)).items == ()

    asyncio.run(story())


def test_a_request_that_was_taken_up_is_not_called_withdrawn() -> None:
    async def story() -> None:
        at = desk()
        asking = asyncio.get_running_loop().create_task(switchover(at, to=None, timeout_s=0.2))
        await value_of(at, SWITCHOVER_KEY)
        await at.store.txn(Txn(then=(Delete(SWITCHOVER_KEY),)))  # Begun; and then no more news.
        with pytest.raises(OutcomeUnknown, match="taken up"):
            await asking

    asyncio.run(story())


def test_one_request_of_a_kind_at_a_time() -> None:
    async def story() -> None:
        at = desk()
        await at.store.txn(Txn(then=(Put(SWITCHOVER_KEY, b"another"),)))
        with pytest.raises(Conflict, match="under way"):
            await switchover(at, to=None, timeout_s=LONG_S)

    asyncio.run(story())


WRONG: dict[str, tuple[Callable[[Desk], Coroutine[Any, Any, object]], str]] = {  # Any: as above.
    "an unknown target": (lambda at: switchover(at, to="z", timeout_s=1), "nodes are a, b, c"),
    "a witness": (lambda at: switchover(at, to="w", timeout_s=1), "w is a witness"),
    "one never to be promoted": (lambda at: switchover(at, to="c", timeout_s=1), "never_promote"),
    "a loss that is not accepted": (
        lambda at: failover(at, nodes=["a"], is_loss_accepted=False, timeout_s=1),
        "may exist only on a",
    ),
    "the loss of nobody": (
        lambda at: failover(at, nodes=[], is_loss_accepted=True, timeout_s=1),
        "names the nodes",
    ),
    "the loss of a stranger": (
        lambda at: failover(at, nodes=["z"], is_loss_accepted=True, timeout_s=1),
        "no node 'z'",
    ),
}


@pytest.mark.parametrize(("ask", "why"), WRONG.values(), ids=WRONG)
def test_nothing_is_written_for(
    ask: Callable[[Desk], Coroutine[Any, Any, object]],  # Any: as above.
    why: str,
) -> None:
    async def story() -> None:
        at = desk()
        with pytest.raises(Rejected, match=why):
            await ask(at)
        for key in (SWITCHOVER_KEY, FAILOVER_KEY):
            assert (await at.store.range(key)).items == ()

    asyncio.run(story())


def test_a_failover_hears_of_the_record_that_accepts_its_loss() -> None:
    async def play(at: Desk) -> None:
        request = decoded(FailoverRequest, await value_of(at, FAILOVER_KEY))
        record = DurabilityRecord(
            epoch=Epoch(4), primary=Member(B, Incarnation("life")), acks=0, members=()
        )
        swap = Swap(record=record, base_mod=Revision(0), reason="the first of its epoch")
        made = await at.store.txn(swap_txn(StoreView(failover=request), swap))
        assert made.is_success

    outcome = told(
        lambda at: failover(at, nodes=["a"], is_loss_accepted=True, timeout_s=LONG_S), play
    )
    assert outcome.is_done
    assert outcome.detail == "b is primary of epoch 4"


def test_a_pause_stands_until_it_is_ended_and_either_may_be_said_twice() -> None:
    async def story() -> None:
        at = desk()
        for _ in range(2):
            await pause(at, reason="new disks")
        assert len((await at.store.range(PAUSE_KEY)).items) == 1
        for _ in range(2):
            await resume(at)
        assert (await at.store.range(PAUSE_KEY)).items == ()

    asyncio.run(story())


def test_a_stranger_is_told_from_a_node_that_cannot_lead() -> None:
    with pytest.raises(NotFound):
        ROSTER.candidate("z")
    with pytest.raises(Rejected) as refused:
        ROSTER.candidate("w")
    assert not isinstance(refused.value, NotFound)


def test_every_refusal_says_what_to_do() -> None:
    with pytest.raises(PrimacyError) as refused:
        ROSTER.candidate("w")
    assert refused.value.hint == "Name one of a, b, c."
