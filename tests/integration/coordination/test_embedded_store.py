"""The embedded store with real sockets and disks, while its members come and go."""

import asyncio
import contextlib
import random
import socket
from typing import Any

import pytest

from primacy.clock import SystemClock
from primacy.consensus.raft.timing import Timing
from primacy.coordination.api import LeaseId, Put, Txn, holds_value
from primacy.coordination.embedded.client import StoreClient
from primacy.coordination.embedded.protocol import Request, WatchKeys, payload_of
from primacy.coordination.embedded.server import StoreServer, StoreSettings
from primacy.coordination.leasing import LeaseKeeper
from primacy.errors import LeaseLost, OutcomeUnknown, Rejected, Unavailable
from primacy.model import Address, NodeId, Revision
from primacy.telemetry import ignore
from primacy.wire import encode_frame

pytestmark = pytest.mark.integration

WITHIN_S = 60.0


def put(key: str, value: bytes = b"v", lease: LeaseId | None = None) -> Txn:
    return Txn(then=(Put(key, value, lease or LeaseId(0)),))


def run(scenario: Any) -> None:  # Any: what asyncio yields inside.
    asyncio.run(asyncio.wait_for(scenario, WITHIN_S))


def test_writes_go_on_and_take_effect_once_while_leaders_die(cluster: Any) -> None:
    async def count(client: StoreClient, rounds: int) -> None:
        """A counter by compare-and-swap: a write done twice or lost would show in it."""
        for number in range(rounds):
            old, new = b"%d" % number, b"%d" % (number + 1)
            result = await client.txn(Txn((holds_value("n", old),), (Put("n", new),)))
            assert result.is_success, number

    async def scenario() -> None:
        async with cluster.running(), cluster.client() as client:
            await client.txn(put("n", b"0"))
            async with asyncio.TaskGroup() as tasks:
                counting = tasks.create_task(count(client, 600))
                for _ in range(3):
                    leader = await cluster.leader()
                    await asyncio.sleep(0.2)
                    await cluster.stop(leader)
                    await asyncio.sleep(0.2)
                    await cluster.start(leader)
                await counting
            assert (await client.range("n")).items[0].value == b"600"

    run(scenario())


def test_a_watch_goes_on_without_gap_or_repeat_while_members_die(cluster: Any) -> None:
    async def follow(client: StoreClient, seen: list[tuple[int, str]]) -> None:
        async with client.watch("w/", is_prefix=True, from_revision=Revision(1)) as batches:
            async for batch in batches:
                seen += [(batch.revision, change.key) for change in batch.changes]
                if seen and seen[-1][1] == "w/end":
                    return

    async def scenario() -> None:
        seen: list[tuple[int, str]] = []
        async with cluster.running(), cluster.client() as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(client, seen))
            for number in range(6):
                for part in range(20):
                    await client.txn(put(f"w/{number}/{part:02d}"))
                node = cluster.nodes[number % 3]
                await cluster.stop(node)
                await client.txn(put(f"w/{number}/x"))
                await cluster.start(node)
            await client.txn(put("w/end"))
        assert [revision for revision, _ in seen] == list(range(1, len(seen) + 1))
        assert len(seen) == 6 * 21 + 1

    run(scenario())


def test_what_was_acknowledged_is_there_after_all_members_were_stopped(small_log: Any) -> None:
    async def scenario() -> None:
        async with small_log.running(), small_log.client() as client:
            lease = await client.grant(20.0)
            for number in range(350):
                await client.txn(put(f"k{number:03d}", b"v", lease.lease))
            for node in small_log.nodes:
                await small_log.stop(node)
            names = {event.name for _, event in small_log.events}
            assert "snapshot-saved" in names
            for node in small_log.nodes:
                await small_log.start(node)
            assert len((await client.range("k", is_prefix=True)).items) == 350
            await client.renew(lease.lease)
            await client.revoke(lease.lease)
            assert not (await client.range("k", is_prefix=True)).items

    run(scenario())


def test_a_lone_member_serves_old_reads_and_its_status_and_nothing_else(cluster: Any) -> None:
    async def scenario() -> None:
        async with cluster.running(), cluster.client() as client:
            await client.txn(put("k"))
            last, *others = cluster.nodes
            while cluster.servers[last].member.kv.revision < 1:
                await asyncio.sleep(0.01)
            for node in others:
                await cluster.stop(node)
            async with cluster.client(within_s=1.0) as impatient:
                assert (await impatient.range("k", is_serializable=True)).items
                assert (await impatient.status(last)).node == last
                with pytest.raises(Unavailable):
                    await impatient.range("k")
                with pytest.raises((Unavailable, OutcomeUnknown)):
                    await impatient.txn(put("k"))
                with pytest.raises(Unavailable):
                    await impatient.status(others[0])

    run(scenario())


class Silent(asyncio.Protocol):
    """A member that hears and says nothing."""

    def __init__(self, asked: asyncio.Event) -> None:
        self._asked = asked

    def data_received(self, _: bytes) -> None:
        self._asked.set()


def test_who_waits_for_a_silent_member_is_answered_by_the_leader_that_another_names(
    cluster: Any,
) -> None:
    """Nothing but the word of the member on this host ends the wait here."""

    async def scenario() -> None:
        async with cluster.running():
            leader = await cluster.leader()
            while set(cluster.followed.items()) != {(node, leader) for node in cluster.nodes}:
                await asyncio.sleep(0.01)
            silent, asked = NodeId("silent"), asyncio.Event()
            loop = asyncio.get_running_loop()
            door = await loop.create_server(lambda: Silent(asked), "127.0.0.1", 0)
            doors = {
                silent: Address("127.0.0.1", door.sockets[0].getsockname()[1]),
                leader: cluster.doors[leader],
            }
            patient = StoreClient(
                doors, SystemClock(), random.Random(1), within_s=WITHIN_S, attempt_s=WITHIN_S
            )
            async with door, patient:
                patient.led_by(silent)
                writing = asyncio.create_task(patient.txn(put("k")))
                await asked.wait()
                patient.led_by(NodeId("nobody knows it"))
                patient.led_by(leader)
                await writing
                assert (await patient.range("k")).items

    run(scenario())


def test_a_kept_lease_survives_the_death_of_the_stores_leader(cluster: Any) -> None:
    async def scenario() -> None:
        async with cluster.running(), cluster.client() as client:
            keeper = await LeaseKeeper.acquire(client, 3.0, SystemClock())
            await client.txn(put("held", b"", keeper.lease))
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(keeper.run())
                await cluster.stop(await cluster.leader())
                before_s = keeper.deadline_boottime_s
                while keeper.deadline_boottime_s < before_s + 2.0:
                    assert not keeper.lost.is_set()
                    await asyncio.sleep(0.05)
                assert (await client.range("held")).items
                await keeper.release()
                await keeping
            with pytest.raises(LeaseLost):
                await client.renew(keeper.lease)

    run(scenario())


def test_a_write_whose_session_is_gone_and_was_never_sent_before_gets_a_new_one(
    cluster: Any,
) -> None:
    async def scenario() -> None:
        async with cluster.running(), cluster.client() as client, cluster.client() as other:
            await client.txn(put("a"))
            session = client._session  # noqa: SLF001 - to make it one that the store forgot
            assert session is not None
            session.name += 1_000_000
            await client.txn(put("b"))
            assert len((await other.range("", is_prefix=True)).items) == 2

    run(scenario())


def test_a_client_that_does_not_speak_the_protocol_is_cut_and_others_go_on(cluster: Any) -> None:
    async def scenario() -> None:
        async with cluster.running(), cluster.client() as client:
            door = cluster.doors[cluster.nodes[0]]
            reader, writer = await asyncio.open_connection(door.host, door.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
            with contextlib.suppress(ConnectionError):  # Reset, or closed: either is a cut.
                assert await reader.read() == b""
            writer.close()
            await client.txn(put("k"))

    run(scenario())


def test_a_watch_that_is_not_read_is_cut_and_loses_nothing_but_its_connection(
    cluster: Any,
) -> None:
    async def fill(client: StoreClient, part: int) -> None:
        for number in range(100):
            await client.txn(put(f"w/{part}/{number}", b"v" * 20_000))

    async def scenario() -> None:
        async with cluster.running(), cluster.client() as client:
            door = cluster.doors[await cluster.leader()]
            reader, writer = await asyncio.open_connection(door.host, door.port, limit=1024)
            asked = Request(1, WatchKeys("w/", is_prefix=True, from_revision=Revision(1)))
            writer.write(encode_frame(payload_of(asked)))
            async with asyncio.TaskGroup() as tasks:
                for part in range(16):
                    tasks.create_task(fill(client, part))
            # By the door for its backlog, or by the kernel for its closed window: either is told.
            told = {"store-watch-cut", "store-client-lost"}
            while not any(event.name in told for _, event in cluster.events):
                await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 20):
                    pass
            writer.close()
            async with client.watch("w/", is_prefix=True, from_revision=Revision(1)) as batches:
                async for batch in batches:
                    if batch.revision == 1600:
                        break

    run(scenario())


def test_a_taken_port_is_said_clearly(tmp_path: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = NodeId("a")
        settings = StoreSettings(
            cluster="c",
            node=node,
            members={node: Address("127.0.0.1", 0)},
            door=Address("127.0.0.1", port),
            directory=tmp_path,
            timing=Timing.for_lease(3.0),
        )
        server = StoreServer(settings, clock=SystemClock(), chance=random.Random(1), events=ignore)
        with pytest.raises(Rejected, match=str(port)):
            run(server.run())
