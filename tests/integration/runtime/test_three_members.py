"""Three Raft members over real sockets and real write-ahead logs."""

import asyncio

import pytest
from tests.integration.runtime.conftest import MembersOf, Running

from primacy.model import NodeId

pytestmark = pytest.mark.integration

NODES = [NodeId("a"), NodeId("b"), NodeId("c")]


def commands(count: int, *, prefix: str) -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


def test_they_elect_a_leader_and_replicate(members_of: MembersOf) -> None:
    async def story() -> None:
        async with members_of() as members:
            for node in NODES:
                await members.start(node)
            await members.replicate(commands(200, prefix="x"))
            states = [each.state for each in members.running.values()]
            assert states[0] == states[1] == states[2]
            assert all(each.storage.sync_count > 0 for each in members.running.values())

    asyncio.run(story())


def test_the_death_of_the_leader_is_survived_and_it_comes_back(members_of: MembersOf) -> None:
    async def story() -> None:
        async with members_of() as members:
            for node in NODES:
                await members.start(node)
            await members.replicate(commands(10, prefix="before"))
            dead = (await members.leader()).raft.node
            await members.kill(dead)
            await members.replicate(commands(10, prefix="without"))
            await members.start(dead)
            await members.replicate(commands(10, prefix="after"))
            await members.until(
                lambda: len({tuple(each.state) for each in members.running.values()}) == 1
            )

    asyncio.run(story())


def test_all_members_restart_from_their_disks_with_everything_that_was_applied(
    members_of: MembersOf,
) -> None:
    async def story() -> None:
        async with members_of() as members:
            for node in NODES:
                await members.start(node)
            written = commands(100, prefix="kept")
            await members.replicate(written)
            terms = {node: each.raft.term for node, each in members.running.items()}
            lives = {node: each.storage.identity for node, each in members.running.items()}
            await members.kill_all()
            for node in NODES:
                await members.start(node)
                assert members.running[node].raft.term >= terms[node]
                assert members.running[node].storage.identity == lives[node]
            await members.replicate([b"one more"])
            for each in members.running.values():
                assert [data for data in each.state if data != b"one more"] == written

    asyncio.run(story())


def test_a_member_that_is_far_behind_installs_a_snapshot_and_keeps_it_over_a_restart(
    members_of: MembersOf,
) -> None:
    async def story() -> None:
        async with members_of(trailing=5) as members:
            for node in NODES:
                await members.start(node)
            await members.replicate(commands(10, prefix="early"))
            late = next(each.raft.node for each in members.running.values() if not _leads(each))
            await members.kill(late)
            await members.replicate(commands(300, prefix="missed"))
            for each in members.running.values():
                each.host.save_snapshot(each.applied, iter(list(each.state)))
            await members.until(
                lambda: all(each.raft.log.base_index > 100 for each in members.running.values())
            )
            await members.start(late)
            await members.until(lambda: members.running[late].installed_count == 1)
            await members.replicate(commands(5, prefix="later"))
            whole = members.running[late].state
            await members.kill(late)
            await members.start(late)
            assert members.running[late].storage.restored.snapshot.index > 100
            await members.until(lambda: members.running[late].state == whole)

    asyncio.run(story())


def _leads(each: Running) -> bool:
    return bool(each.raft.leader == each.raft.node)
