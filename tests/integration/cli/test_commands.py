"""The commands against a real store: three members, real sockets, real processes."""

import asyncio
import json
import os
import select
import signal
from pathlib import Path
from typing import Any, Protocol

import pytest

from primacy.coordination.api import Delete, Put, Store, Txn
from primacy.coordination.embedded.client import StoreClient
from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.records import (
    DECISIONS_PREFIX,
    DURABILITY_KEY,
    EPOCH_KEY,
    FAILOVER_KEY,
    HISTORY_PREFIX,
    NODES_PREFIX,
    OUTCOMES_PREFIX,
    PAUSE_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    Decision,
    DurabilityRecord,
    FailoverRequest,
    HistoryRecord,
    NodeStatus,
    PrimaryRecord,
    RequestOutcome,
    SwitchoverRequest,
    decoded,
    encoded,
    epoch_key,
)

pytestmark = [
    pytest.mark.integration,
    # A member's loop that is stopped between a connection's arrival and its acceptance leaves that
    # socket to the garbage collector: asyncio's doing, and harmless in a process that ends.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LINE_WITHIN_S = 60.0


class ShopLike(Protocol):
    """What the fixture offers (conftest.py beside this file)."""

    folder: Path

    def run(self, *arguments: str) -> Any: ...  # Any: the fixture's own value.
    def running(self, *arguments: str) -> Any: ...  # Any: as above.
    def client(self) -> StoreClient: ...
    def start(self, node: NodeId) -> None: ...
    def stop(self, node: NodeId) -> None: ...


def told(shop: ShopLike, *ops: Put | Delete) -> None:
    async def tell() -> None:
        async with shop.client() as store:
            await store.txn(Txn(then=ops))

    asyncio.run(tell())


async def first_value(store: Store, key: str) -> bytes:
    """Waits until the key is there."""
    async with asyncio.timeout(LINE_WITHIN_S):
        found = await store.range(key)
        if found.items:
            return found.items[0].value
        async with store.watch(key, from_revision=found.revision) as batches:
            async for batch in batches:
                for change in batch.changes:
                    if change.after is not None:
                        return change.after.value
    raise AssertionError(f"the watch of {key} ended")


def test_a_key_is_put_read_listed_and_removed(shop: ShopLike) -> None:
    assert shop.run("kv", "put", "colours/sky", "blue").code == 0
    assert shop.run("kv", "get", "colours/sky").out == "blue\n"
    item = shop.run("kv", "get", "colours/sky", "--json").json()
    assert (item["value"], item["version"]) == ("blue", 1)
    assert shop.run("kv", "list", "colours/").out == "colours/sky\n"
    assert shop.run("kv", "delete", "colours/sky", "--json").json()["count"] == 1
    gone = shop.run("kv", "get", "colours/sky")
    assert (gone.code, gone.err) == (1, "primacy: there is no key colours/sky\n")


def test_keys_of_the_agents_are_not_written_by_hand(shop: ShopLike) -> None:
    refused = shop.run("kv", "put", "cluster/epoch", "9")
    assert refused.code == 2
    assert "belongs to the agents" in refused.err


def test_a_watch_tells_each_change(shop: ShopLike) -> None:
    with shop.running("kv", "watch", "watched/", "--from-revision", "1", "--json") as process:
        shop.run("kv", "put", "watched/x", "1")
        change = json.loads(process.stdout.readline())
    assert (change["key"], change["after"]["value"]) == ("watched/x", "1")


def test_status_shows_what_the_store_says_of_each_node(shop: ShopLike) -> None:
    life = Incarnation("life")
    position = Position(Epoch(3), 40)
    status = NodeStatus(
        node=NodeId("b"),
        incarnation=life,
        state="running",
        received=position,
        applied=position,
        is_receiving=True,
        is_applying=True,
        position_text="0-1-40",
    )
    record = DurabilityRecord(
        epoch=Epoch(3),
        primary=Member(NodeId("a"), life),
        acks=1,
        members=(Member(NodeId("b"), life),),
    )
    told(
        shop,
        Put(EPOCH_KEY, encoded(Epoch(3))),
        Put(
            PRIMARY_KEY,
            encoded(PrimaryRecord(node=NodeId("a"), incarnation=life, epoch=Epoch(3))),
        ),
        Put(DURABILITY_KEY, encoded(record)),
        Put(f"{NODES_PREFIX}b", encoded(status)),
    )
    shown = shop.run("status", "--json").json()
    assert (shown["primary"], shown["epoch"]) == ("a", 3)
    assert shown["store"]["has_majority"] is True
    assert shown["store"]["leader"] in {"a", "b", "c"}
    assert shown["nodes"][1]["is_in_sync_set"] is True
    text = shop.run("status")
    assert text.code == 1  # Node a has not reported: something needs a look.
    assert "cluster shop: primary a, epoch 3" in text.out
    assert "0-1-40" in text.out


def test_pause_and_resume_write_and_remove_one_key(shop: ShopLike) -> None:
    assert shop.run("pause", "--reason", "new disks").code == 0
    assert "new disks" in shop.run("status").out
    assert shop.run("resume").code == 0
    assert shop.run("kv", "get", PAUSE_KEY).code == 1


def test_history_and_why_read_what_the_agents_recorded(shop: ShopLike) -> None:
    record = HistoryRecord(
        epoch=Epoch(3),
        node=NodeId("a"),
        kind="failover",
        reason="most advanced of 2 sealed",
        steps_s={"sealing": 0.12},
        wall_s=1_800_000_000.0,
    )
    decision = Decision(
        node=NodeId("b"),
        number=4,
        action="follow a",
        reason="a holds the primary record of epoch 3",
        epoch=Epoch(3),
        wall_s=1_800_000_000.0,
    )
    told(
        shop,
        Put(epoch_key(HISTORY_PREFIX, Epoch(3)), encoded(record)),
        Put(f"{DECISIONS_PREFIX}b/4", encoded(decision)),
    )
    assert "most advanced of 2 sealed" in shop.run("history").out
    assert "follow a, because a holds the primary record" in shop.run("why").out
    assert "a: nothing decided yet" in shop.run("why").out
    assert list(shop.run("why", "--json").json()) == ["b"]


def test_a_switchover_waits_for_its_outcome(shop: ShopLike) -> None:
    async def answer() -> SwitchoverRequest:
        async with shop.client() as store:
            request = decoded(SwitchoverRequest, await first_value(store, SWITCHOVER_KEY))
            outcome = RequestOutcome(
                request_id=request.request_id, is_done=True, detail="b is primary in epoch 4"
            )
            key = f"{OUTCOMES_PREFIX}{request.request_id}"
            await store.txn(Txn(then=(Delete(SWITCHOVER_KEY), Put(key, encoded(outcome)))))
            return request

    with shop.running("switchover", "--to", "b") as process:
        request = asyncio.run(answer())
        out, err = process.communicate(timeout=LINE_WITHIN_S)
    assert (process.returncode, err) == (0, "")
    assert "done: b is primary in epoch 4" in out
    assert request.target == "b"


def test_a_switchover_that_nobody_takes_up_is_withdrawn(shop: ShopLike) -> None:
    ended = shop.run("switchover", "--timeout", "0.5")
    assert ended.code == 1
    assert "withdrawn" in ended.err
    assert shop.run("kv", "get", SWITCHOVER_KEY).code == 1


def test_a_switchover_to_nowhere_is_refused_before_it_is_asked(shop: ShopLike) -> None:
    ended = shop.run("switchover", "--to", "z")
    assert ended.code == 2
    assert "the file's nodes are a, b, c" in ended.err


def test_a_failover_that_is_refused_says_why_and_fails(shop: ShopLike) -> None:
    async def answer() -> FailoverRequest:
        async with shop.client() as store:
            request = decoded(FailoverRequest, await first_value(store, FAILOVER_KEY))
            outcome = RequestOutcome(
                request_id=request.request_id, is_done=False, detail="a is primary and well"
            )
            key = f"{OUTCOMES_PREFIX}{request.request_id}"
            await store.txn(Txn(then=(Delete(FAILOVER_KEY), Put(key, encoded(outcome)))))
            return request

    with shop.running("failover", "c", "b", "--accept-loss") as process:
        request = asyncio.run(answer())
        _, err = process.communicate(timeout=LINE_WITHIN_S)
    assert process.returncode == 1
    assert "not done: a is primary and well" in err
    assert request.accept_loss == ("b", "c")


def test_a_failover_needs_the_words(shop: ShopLike) -> None:
    ended = shop.run("failover", "b")
    assert ended.code == 2
    assert "--accept-loss" in ended.err


def test_a_lock_runs_its_command_and_hands_over_code_and_token(shop: ShopLike) -> None:
    ended = shop.run("lock", "nightly", "--", "sh", "-c", "echo token $PRIMACY_TOKEN; exit 7")
    assert ended.code == 7
    assert ended.out.startswith("token ")
    again = shop.run("lock", "nightly", "--", "sh", "-c", "echo token $PRIMACY_TOKEN")
    assert int(again.out.split()[1]) > int(ended.out.split()[1])


def test_a_second_holder_waits_for_the_first(shop: ShopLike) -> None:
    with shop.running("lock", "one", "--", "sh", "-c", "echo held; exec sleep 600") as process:
        assert process.stdout.readline() == "held\n"
        late = shop.run("lock", "one", "--within", "0.5", "--", "true")
        assert late.code == 1
        assert "was not free within 0.5 s" in late.err
    assert shop.run("lock", "one", "--within", "30", "--", "true").code == 0


def test_a_command_that_cannot_be_run_is_wrong_input(shop: ShopLike) -> None:
    ended = shop.run("lock", "odd", "--", "/no/such/program")
    assert ended.code == 2
    assert "/no/such/program" in ended.err


def test_an_elected_command_dies_with_primacy(shop: ShopLike) -> None:
    with shop.running("elect", "boss", "--", "sh", "-c", "echo $$; exec sleep 600") as process:
        pid = int(process.stdout.readline())
        watched = os.pidfd_open(pid)
        process.send_signal(signal.SIGKILL)
        ended = has_exited(watched)
        os.close(watched)
    assert ended


def test_an_election_passes_on_when_its_winner_ends(shop: ShopLike) -> None:
    with shop.running("elect", "heir", "--", "sh", "-c", "echo one; exec sleep 600") as first:
        assert first.stdout.readline() == "one\n"
        with shop.running("elect", "heir", "--", "sh", "-c", "echo two; exec sleep 600") as second:
            first.send_signal(signal.SIGTERM)
            assert second.stdout.readline() == "two\n"


def test_without_a_majority_the_command_is_stopped_and_the_status_says_so(
    shop: ShopLike,
) -> None:
    # The last test of this file: it takes two of three members away, and brings them back.
    try:
        with shop.running(
            "lock", "lost", "--ttl", "2", "--", "sh", "-c", "echo held; exec sleep 600"
        ) as process:
            assert process.stdout.readline() == "held\n"
            shop.stop(NodeId("a"))
            shop.stop(NodeId("b"))
            _, err = process.communicate(timeout=LINE_WITHIN_S)
        assert process.returncode == 1
        assert "the lock lost was lost and the command stopped" in err
        status = shop.run("status", "--json").json()
        assert status["store"]["has_majority"] is False
        assert status["source"] == "c"
        assert status["primary"] == "a"
        assert "no majority: 1 of 3 members answer" in status["problems"][0]
    finally:
        shop.start(NodeId("a"))
        shop.start(NodeId("b"))


def has_exited(pidfd: int) -> bool:
    """Waits for it: a pidfd becomes readable when its process has exited."""
    readable, _, _ = select.select([pidfd], [], [], LINE_WITHIN_S)
    return bool(readable)
