"""Logs that are pulled over real sockets, onto real disks."""

import asyncio
import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.replication.nodes import LIMITS, Node, Wire, logs_are_equal, until

from primacy.errors import Conflict, Corrupt
from primacy.model import Epoch, NodeId
from primacy.replication.log.record import Entry, Kind
from primacy.replication.pull.messages import Hop, Refusal
from primacy.replication.pull.receiving import ReceiverState
from primacy.replication.pull.source import Reign

pytestmark = pytest.mark.integration

STREAMING = ReceiverState.STREAMING


def reign_of(node: Node, epoch: int) -> Reign:
    return Reign(Epoch(epoch), (Hop(node.name),))


def test_a_replica_gets_the_log_byte_for_byte_and_acknowledges(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            for number in range(200):
                a.write(1, b"before %d" % number)
            await b.follow(a, 1)
            await until(lambda: b.state is STREAMING)
            for number in range(200):
                a.write(1, b"after %d" % number, b"x" * number)
                await asyncio.sleep(0)
            end = a.log.end
            await until(lambda: a.last_ack(b) == end.index)
            assert b.log.durable == end
            assert logs_are_equal(a, b)
            await until(lambda: b.receiver.status.source_end == end)
            assert b.receiver.status.lag.transactions == 0
            b.receiver.applied(end)
            await until(lambda: a.door.receivers[0].applied == end)
            [view] = a.door.receivers
            assert (view.node, view.received, view.lag.size_bytes) == ("b", end, 0)
            assert {each[1] for each in a.acks} == {1}

    asyncio.run(story())


def test_a_replica_that_comes_back_for_many_small_writes_gets_them_all(tmp_path: Path) -> None:
    """All of them are still at hand, piece by piece, and it is not level."""

    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == 1)
            await b.receiver.stop()
            for number in range(1200):
                a.write(1, b"meanwhile %d" % number)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == a.log.end.index)
            assert logs_are_equal(a, b)
            assert a.door.counts.reads > 0  # In batches: a frame for each would be slower.

    asyncio.run(story())


def test_a_switch_decides_whether_what_is_received_is_an_acknowledgement(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1, acknowledge=False)
            end = a.write(1, b"one")
            await until(lambda: a.door.receivers and a.door.receivers[0].received == end)
            assert a.acks == []
            b.receiver.acknowledge(wanted=True)
            await until(lambda: a.last_ack(b) == end.index)
            b.receiver.acknowledge(wanted=False)
            await until(lambda: not a.door.receivers[0].acknowledges)
            count = len(a.acks)
            end = a.write(1, b"two")
            await until(lambda: a.door.receivers[0].received == end)
            assert len(a.acks) == count

    asyncio.run(story())


def test_an_excluded_node_is_cut_off_and_acknowledges_nothing_until_it_is_admitted(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == 1)
            a.write(1, b"its acknowledgement is on the way")
            a.door.exclude(NodeId("b"))
            count = len(a.acks)
            assert a.door.receivers == []
            await until(lambda: b.receiver.status.refusal is Refusal.EXCLUDED)
            end = a.write(1, b"later")
            assert len(a.acks) == count
            a.door.admit(NodeId("b"))
            await until(lambda: a.last_ack(b) == end.index)
            assert logs_are_equal(a, b)

    asyncio.run(story())


def test_when_stop_returns_nothing_more_is_written_or_acknowledged(tmp_path: Path) -> None:
    async def story() -> None:
        chance = random.Random(3)
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            for _ in range(20):
                await b.follow(a, 1)
                await until(lambda: b.state is STREAMING)
                for _ in range(chance.randrange(30)):
                    a.write(1, chance.randbytes(2000))
                    await asyncio.sleep(0)
                durable = await b.receiver.stop()
                assert b.log.durable == durable
                assert b.state is ReceiverState.STOPPED
                a.write(1, b"too late")
                await until(lambda: not a.door.receivers)
                assert a.last_ack(b) <= durable.index
                assert b.log.durable == durable
            with pytest.raises(Conflict, match="over"):
                await b.follow(a, 0)

    asyncio.run(story())


# ---- turned away -----------------------------------------------------------------------------


def test_wrong_secret_other_cluster_newer_version_and_wrong_epochs_are_refused(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(3)
            right = b.identity

            async def is_refused(refusal: Refusal) -> None:
                await until(lambda: b.receiver.status.refusal is refusal)
                assert b.state is ReceiverState.REJECTED
                assert b.receiver.status.reason
                assert a.door.receivers == []
                await b.receiver.stop()

            await b.follow(a, 2)
            await is_refused(Refusal.NEW_EPOCH)
            await b.follow(a, 3, secret=b"another secret, of 32 bytes too.")
            await is_refused(Refusal.SECRET)
            b.identity = replace(right, cluster="shed")
            await b.follow(a, 3)
            await is_refused(Refusal.CLUSTER)
            b.identity = replace(right, log_version=0)
            await b.follow(a, 3)
            await is_refused(Refusal.VERSION)
            b.identity = right
            await b.follow(a, 4)
            await is_refused(Refusal.OLD_EPOCH)
            a.lead(4)
            await b.follow(a, 4)
            await until(lambda: a.last_ack(b) == 2)
            assert len(a.said("pull-refused")) >= 4

    asyncio.run(story())


def test_noise_at_the_door_harms_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1)
            chance = random.Random(5)
            for size in (1, 9, 10, 100, 5000, 200_000):
                reader, writer = await asyncio.open_connection(a.address.host, a.address.port)
                writer.write(chance.randbytes(size))
                with contextlib.suppress(ConnectionResetError):  # What it had sent was not read.
                    async with asyncio.timeout(10):
                        assert await reader.read() == b""
                writer.close()
            end = a.write(1, b"one")
            await until(lambda: a.last_ack(b) == end.index)

    asyncio.run(story())


# ---- forks, and what is gone --------------------------------------------------------------


def test_a_fork_is_found_at_connect_and_never_applied(tmp_path: Path) -> None:
    """a crashes with records that only b has, c wins, b's tail is no part of its history."""

    async def story() -> None:
        async with (
            Node("a", tmp_path).running() as a,
            Node("b", tmp_path).running() as b,
            Node("c", tmp_path).running() as c,
        ):
            a.lead(1)
            await b.follow(a, 1)
            await c.follow(a, 1)
            shared = a.write(1, b"both have it")
            await until(lambda: a.last_ack(c) == a.last_ack(b) == shared.index)
            await c.receiver.stop()
            only_b = a.write(1, b"only b has it", b"and this")
            await until(lambda: a.last_ack(b) == only_b.index)
            c.lead(2)
            c.write(2, b"another history", b"goes on", b"for longer")
            await b.follow(c, 2)
            await until(lambda: b.state is ReceiverState.DIVERGED)
            parted = b.receiver.status.parted
            assert parted is not None
            assert (parted.common, parted.own_end) == (shared, only_b)
            assert b.log.end == only_b
            assert "share 1/2" in b.receiver.status.reason
            # Whoever rejoins it cuts the tail; then it follows.
            await b.receiver.stop()
            b.log.cut(shared.index)
            await b.follow(c, 2)
            await until(lambda: c.last_ack(b) == c.log.end.index)
            assert logs_are_equal(b, c)

    asyncio.run(story())


def test_a_replica_ahead_of_a_primary_that_lost_its_tail_waits_and_then_knows(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1)
            held = a.write(1, b"durable on both")
            ahead = a.write(1, b"sent, and not synced at a before the power went")
            await until(lambda: a.last_ack(b) == ahead.index)
            a.door.withdraw()
            a.log.cut(held.index)
            a.door.serve(reign_of(a, 2))
            await b.follow(a, 2)
            await until(lambda: "it waits" in b.receiver.status.reason)
            assert b.log.end == ahead
            a.lead(2)
            await until(lambda: b.state is ReceiverState.DIVERGED)
            assert b.receiver.status.parted is not None
            assert b.receiver.status.parted.common == held

    asyncio.run(story())


def test_what_was_purged_is_told_and_another_source_may_still_have_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Node("a", tmp_path, file_bytes=4096).running() as a,
            Node("b", tmp_path).running() as b,
            Node("c", tmp_path).running() as c,
        ):
            a.lead(1)
            await c.follow(a, 1)
            for number in range(100):
                a.write(1, b"%d" % number * 100)
            end = a.log.end
            await until(lambda: a.log.holds.get("receiver c") == end.index)
            await asyncio.to_thread(a.log.purge, keep_bytes=0, before_index=a.log.end.index)
            assert a.log.first.index > 0
            await b.follow(a, 1)
            await until(lambda: b.state is ReceiverState.PURGED)
            assert b.receiver.status.purged == a.log.first
            await b.follow(c, 1)
            await until(lambda: b.log.durable == a.log.end)
            assert logs_are_equal(b, c)

    asyncio.run(story())


def test_a_purge_leaves_what_an_attached_replica_needs(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Node("a", tmp_path, file_bytes=4096).running() as a,
            Node("b", tmp_path).running() as b,
        ):
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: a.log.holds.get("receiver b") == 1)
            await b.receiver.stop()
            for number in range(100):
                a.write(1, b"%d" % number * 100)
            await asyncio.to_thread(a.log.purge, keep_bytes=0, before_index=90)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == a.log.end.index)
            assert logs_are_equal(a, b)

    asyncio.run(story())


def test_a_replica_that_is_gone_for_good_does_not_keep_the_log(tmp_path: Path) -> None:
    async def story() -> None:
        limits = replace(LIMITS, held_s=0.2)
        async with (
            Node("a", tmp_path, limits=limits).running() as a,
            Node("b", tmp_path).running() as b,
        ):
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: "receiver b" in a.log.holds)
            await asyncio.sleep(2 * limits.held_s)
            assert "receiver b" in a.log.holds  # It is here.
            await b.receiver.stop()
            await until(lambda: not a.log.holds)
            assert not a.door.receivers

    asyncio.run(story())


def test_a_door_that_serves_as_many_as_it_can_says_so_and_lets_the_next_one_in(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with (
            Node("a", tmp_path, limits=replace(LIMITS, receivers_max=1)).running() as a,
            Node("b", tmp_path).running() as b,
            Node("c", tmp_path).running() as c,
        ):
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == 1)
            await c.follow(a, 1)
            await until(lambda: c.receiver.status.refusal is Refusal.FULL)
            assert c.receiver.status.reason == "a has 1 connections already"
            await b.receiver.stop()
            await until(lambda: a.last_ack(c) == 1)

    asyncio.run(story())


# ---- cuts, slowness, cascades -----------------------------------------------------------------


def test_connections_cut_at_random_bytes_lose_and_repeat_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        chance = random.Random(11)
        async with (
            Node("a", tmp_path).running() as a,
            Node("b", tmp_path).running() as b,
            Wire(a.address).up() as wire,
        ):
            a.lead(1)
            await b.follow(a, 1, address=wire.address)
            for _ in range(60):
                wire.cut_after = chance.choice([1, 50, 300, 2000, 60_000])
                a.write(1, *(chance.randbytes(chance.randrange(4000)) for _ in range(20)))
                await until(lambda: wire.cut_after is None)
            await until(lambda: a.last_ack(b) == a.log.end.index)
            assert logs_are_equal(a, b)
            assert wire.cuts == 60

    asyncio.run(story())


def test_a_slow_replica_holds_up_neither_the_source_nor_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        limits = replace(LIMITS, window_bytes=256 << 10, batch_bytes=64 << 10, silence_s=60.0)
        async with (
            Node("a", tmp_path, limits=limits).running() as a,
            Node("b", tmp_path, limits=limits).running() as b,
            Node("c", tmp_path, limits=limits).running() as c,
            Wire(a.address).up() as wire,
        ):
            a.lead(1)
            await b.follow(a, 1)
            await c.follow(a, 1, address=wire.address)
            await until(lambda: a.last_ack(b) == a.last_ack(c) == 1)
            wire.flows.clear()
            for _ in range(200):
                a.write(1, b"x" * 20_000)
                await asyncio.sleep(0)
            await until(lambda: a.last_ack(b) == a.log.end.index)
            slow = next(each for each in a.door.receivers if each.node == "c")
            assert slow.lag.transactions >= 150
            assert slow.lag.size_bytes >= 150 * 20_000
            behind = sum(1 for each in a.events if each.name == "pull-detached")
            assert behind == 0
            wire.flows.set()
            await until(lambda: a.last_ack(c) == a.log.end.index)
            assert logs_are_equal(a, b, c)

    asyncio.run(story())


def test_a_record_that_takes_longer_than_silence_may_last_gets_through(tmp_path: Path) -> None:
    async def story() -> None:
        limits = replace(LIMITS, silence_s=0.5)
        async with (
            Node("a", tmp_path).running() as a,
            Node("b", tmp_path, limits=limits).running() as b,
            Wire(a.address).up() as wire,
        ):
            a.lead(1)
            await b.follow(a, 1, address=wire.address)
            await until(lambda: a.last_ack(b) == 1)
            wire.pause_s = 0.05
            end = a.write(1, b"x" * (2 << 20))
            await until(lambda: a.last_ack(b) == end.index)
            assert not b.said("pull-state")[1:]  # One session, which streams.

    asyncio.run(story())


def test_one_record_larger_than_a_batch_and_the_window_gets_through(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            a.write(1, b"x" * (15 << 20))
            await b.follow(a, 1)
            end = a.write(1, b"y" * (15 << 20), b"z")
            await until(lambda: a.last_ack(b) == end.index)
            assert logs_are_equal(a, b)

    asyncio.run(story())


def test_a_cascade_serves_the_same_bytes_and_finds_another_way_when_its_middle_dies(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("c", tmp_path).running() as c:
            async with Node("b", tmp_path).running() as b:
                a.lead(1)
                await b.follow(a, 1)
                await c.follow(b, 1)
                for number in range(50):
                    a.write(1, b"%d" % number)
                    await asyncio.sleep(0)
                await until(lambda: c.log.durable == a.log.end)
                assert logs_are_equal(a, b, c)
                assert [each.node for each in c.receiver.status.path] == ["a", "b", "c"]
                # Nobody acknowledges to the primary for somebody further down.
                assert {each[0].node for each in a.acks} == {"b"}
                # A circle is refused by both of its halves.
                await b.follow(c, 1)
                await until(lambda: b.receiver.status.refusal is Refusal.CYCLE)
                await b.follow(a, 1)
                await until(lambda: b.state is STREAMING)
            await until(lambda: c.state is ReceiverState.CONNECTING)
            end = a.write(1, b"while the middle is dead")
            await c.follow(a, 1)
            await until(lambda: a.last_ack(c) == end.index)
            assert logs_are_equal(a, c)
            assert [each.node for each in c.receiver.status.path] == ["a", "c"]

    asyncio.run(story())


def test_a_new_epoch_ends_the_sessions_of_the_old_one_on_every_hop(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Node("a", tmp_path).running() as a,
            Node("b", tmp_path).running() as b,
            Node("c", tmp_path).running() as c,
        ):
            a.lead(1)
            await b.follow(a, 1)
            await c.follow(b, 1)
            end = a.write(1, b"one")
            await until(lambda: c.log.durable == end)
            await b.receiver.stop()
            b.lead(2)
            await until(lambda: c.receiver.status.refusal is Refusal.NEW_EPOCH)
            with pytest.raises(Conflict, match="never returns"):
                b.door.serve(reign_of(b, 1))
            await c.follow(b, 2)
            await until(lambda: b.last_ack(c) == b.log.end.index)
            assert {each[1] for each in b.acks if each[0].node == "c"} == {1, 2}
            assert logs_are_equal(b, c)

    asyncio.run(story())


def test_damaged_records_of_a_source_are_not_written(tmp_path: Path) -> None:
    """A source whose memory lies: the frames are sound, the records in them are not."""

    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            await b.follow(a, 1)
            await until(lambda: a.last_ack(b) == 1)
            good = bytearray(
                a.log.append([Entry(Kind.ROWS, b"payload", 1, 2)], epoch=Epoch(1), source=a.name)
            )
            good[-1] ^= 1
            a.door.offer(bytes(good), after=1, end=a.log.end)
            await until(lambda: b.receiver.status.refusal is Refusal.BROKEN)
            a.door.withdraw()
            a.door.serve(reign_of(a, 1))
            await until(lambda: b.log.durable == a.log.end)
            assert logs_are_equal(a, b)

    asyncio.run(story())


def test_a_record_that_cannot_be_read_is_shown_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(after: int, *, bytes_max: int) -> bytes:
        raise Corrupt(f"file 1, behind {after}, {bytes_max} bytes asked for", hint="Clone it.")

    async def story() -> None:
        async with Node("a", tmp_path).running() as a, Node("b", tmp_path).running() as b:
            a.lead(1)
            a.write(1, b"payload")
            monkeypatch.setattr(a.log, "read", damaged)
            a.door.withdraw()  # What was appended last is not at hand any more.
            a.door.serve(reign_of(a, 1))
            await b.follow(a, 1)
            await until(lambda: a.door.counts.damage.startswith("file 1, behind 0"))
            assert b.log.end.index == 0

    asyncio.run(story())
