"""The ro door: replicas within the bound, here first, and never a primary that nobody checks."""

import pytest
from tests.integration.routing.conftest import Told, World

from primacy.model import NodeId
from primacy.routing.doors import Door
from primacy.routing.route import RoutePolicy

pytestmark = pytest.mark.integration

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def test_replicas_elsewhere_are_used_in_turn_and_the_one_here_first(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            for node in (A, B, C):
                await world.report(node)
            await world.start(A, B, C)
            greetings = {await (await world.connect(A, Door.RO)).line() for _ in range(4)}
            assert greetings == {b"i am b\n", b"i am c\n"}
            assert await (await world.connect(B, Door.RO)).line() == b"i am b\n"

    told(story())


def test_a_replica_that_does_not_answer_is_passed_over(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            for node in (A, B, C):
                await world.report(node)
            await world.start(A, B)  # C's router is not running: its door is closed.
            for _ in range(3):
                assert await (await world.connect(A, Door.RO)).line() == b"i am b\n"

    told(story())


def test_without_a_replica_in_the_bound_the_primary_serves_if_the_policy_says_so(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.report(A, sequence=5000)
            await world.report(B, sequence=10)
            await world.start(A)
            await world.start(B, hold_s=0.2, policy=RoutePolicy(ttl_s=1.0, ro_to_primary=False))
            assert await (await world.connect(A, Door.RO)).line() == b"i am a\n"
            packet = await (await world.connect(B, Door.RO)).rest()
            assert b"no replica is within the lag bound" in packet

    told(story())


def test_an_ro_session_is_cut_when_its_replica_becomes_the_primary(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.report(B)
            await world.start(A, B)
            client = await world.connect(B, Door.RO)
            assert await client.line() == b"i am b\n"
            await world.lead(B, 2)
            with pytest.raises(ConnectionResetError):
                await client.rest()

    told(story())
