"""The rw door: to the primary wherever it is, and to nothing else."""

from functools import partial

import pytest
from tests.integration.routing.conftest import Told, World

from primacy.model import Epoch, NodeId
from primacy.replication.records import (
    HANDOVER_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    Handover,
    SwitchoverRequest,
    encoded,
)
from primacy.routing.doors import Door, DoorLimits
from primacy.routing.router import Router

pytestmark = pytest.mark.integration

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def test_every_routers_rw_door_leads_to_the_primary_with_the_clients_own_address(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            for door in (A, B):
                client = await world.connect(door)
                assert await client.line() == b"i am a\n"
                assert await client.ask("hello") == b"echo hello\n"
                assert world.databases[A].headers[-1].ends.client == ("127.0.0.1", client.port)
            assert world.databases[B].accepted == 0

    told(story())


def test_a_half_closed_client_still_hears_the_rest(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            client = await world.connect(B)
            assert await client.line() == b"i am a\n"
            client.writer.write(b"one\ntwo\n")
            client.writer.write_eof()
            assert await client.rest() == b"echo one\necho two\nbye\n"
            await world.until(
                lambda: (
                    not any(router.status().open_connections for router in world.routers.values())
                ),
                "both sessions end",
            )

    told(story())


def test_a_connection_without_a_primary_is_held_until_there_is_one(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.start(A, B)
            client = await world.connect(B)
            await world.until(lambda: "router-held" in world.names(), "the connection is held")
            await world.lead(A, 1)
            assert await client.line() == b"i am a\n"
            assert world.routers[B].status().held_connections == 0

    told(story())


def test_a_record_whose_doors_are_not_open_yet_holds_the_connection(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.lead(B, 2)
            world.pages[B].open_epoch = None
            await world.start(A, B)
            client = await world.connect(B)
            await world.until(lambda: "router-held" in world.names(), "the connection is held")
            assert world.databases[B].accepted == 0
            world.pages[B].open_epoch = 2
            assert await client.line() == b"i am b\n"

    told(story())


def test_a_held_client_that_leaves_is_forgotten(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.start(A)
            client = await world.connect(A)
            await world.until(lambda: "router-held" in world.names(), "the connection is held")
            client.writer.close()
            await world.until(
                lambda: world.routers[A].status().open_connections == 0, "the session ends"
            )

    told(story())


def test_past_the_hold_time_the_client_is_told_why_in_an_error_packet(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.start(A, hold_s=0.2)
            client = await world.connect(A)
            packet = await client.rest()
            assert packet[4:13] == b"\xff" + (1053).to_bytes(2, "little") + b"#08S01"
            assert b"no database for 0.2 s: there is no primary yet" in packet
            assert world.routers[A].status().refused == 1

    told(story())


def test_connections_past_the_limit_are_refused_at_once(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.start(A, limits=DoorLimits(held_max=2))
            clients = [await world.connect(A) for _ in range(3)]
            assert b"#08004primacy: 2 connections wait" in await clients[2].rest()

    told(story())


def test_an_answer_that_the_page_does_not_permit_is_withheld_to_the_last_byte(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            clients = [await world.connect(node) for node in (A, B)]
            for client in clients:
                assert await client.line() == b"i am a\n"
            world.pages[A].open_epoch = None
            for client in clients:
                client.writer.write(b"late\n")
                with pytest.raises(ConnectionResetError):
                    await client.rest()
            assert "router-cut" in world.names()

    told(story())


def test_sessions_of_a_demoted_primary_are_cut_when_the_record_goes(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            clients = [await world.connect(node) for node in (A, B)]
            for client in clients:
                assert await client.line() == b"i am a\n"
            await world.delete(PRIMARY_KEY)
            for client in clients:
                with pytest.raises(ConnectionResetError):
                    await client.rest()
            assert world.pages[A].open_epoch == 1  # The record alone was enough.

    told(story())


def test_a_view_that_nobody_confirms_closes_rw_and_reopens_when_the_store_is_back(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            client = await world.connect(B)
            assert await client.line() == b"i am a\n"
            world.lines[B].is_cut = True
            with pytest.raises(ConnectionResetError):
                await client.rest()
            assert not world.routers[B].status().is_rw_open
            waiting = await world.connect(B)
            await world.until(lambda: world.routers[B].status().held_connections == 1, "it is held")
            world.lines[B].is_cut = False
            assert await waiting.line() == b"i am a\n"

    told(story())


def test_routers_with_stale_views_never_send_a_connection_round_in_a_loop(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(B, 1)
            await world.start(A, hold_s=0.5)
            await world.until(lambda: world.routers[A].view.open_epoch == 1, "A knows of B")
            world.lines[A].is_cut = True
            await world.lead(A, 2)
            await world.start(B, hold_s=0.5)
            client = await world.connect(A)  # A believes in B, and B in A.
            assert b"no database for 0.5 s" in await client.rest()
            assert world.databases[A].accepted == world.databases[B].accepted == 0

    told(story())


def test_a_peer_that_is_no_primary_sends_the_connection_back_and_it_finds_the_right_one(
    world: World,
    told: Told,
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B, C)
            await world.until(lambda: world.routers[C].view.open_epoch == 1, "C knows of A")
            world.lines[C].is_cut = True
            await world.lead(B, 2)
            await world.until(lambda: world.routers[A].view.open_epoch == 2, "A knows of B")
            client = await world.connect(C)
            world.lines[C].is_cut = False
            assert await client.line() == b"i am b\n"

    told(story())


def test_in_a_switchover_new_connections_wait_and_open_ones_are_cut_once(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A, B)
            opened = await world.connect(B)
            assert await opened.line() == b"i am a\n"
            await world.put(
                SWITCHOVER_KEY, encoded(SwitchoverRequest(request_id="1", is_begun=True))
            )
            for router in world.routers.values():
                await world.until(partial(_is_switching, router), "it is seen")
            before = world.databases[A].received_bytes
            opened.writer.write(b"too late\n")
            fresh = await world.connect(B)
            await world.until(lambda: "router-held" in world.names(), "the new one is held")
            assert world.databases[A].received_bytes == before
            await world.lead(B, 2)
            assert await fresh.line() == b"i am b\n"
            with pytest.raises(ConnectionResetError):
                await opened.rest()
            assert world.databases[A].received_bytes == before

    told(story())


def test_a_switchover_that_is_withdrawn_lets_the_open_session_go_on(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A)
            opened = await world.connect(A)
            assert await opened.line() == b"i am a\n"
            offer = Handover(request_id="1", epoch=Epoch(1), target=B, last_sequence=1)
            await world.put(SWITCHOVER_KEY, encoded(SwitchoverRequest(request_id="1")))
            await world.put(HANDOVER_KEY, encoded(offer))
            await world.until(lambda: world.routers[A].view.is_switching, "it is seen")
            opened.writer.write(b"patience\n")
            fresh = await world.connect(A)
            await world.delete(HANDOVER_KEY)
            await world.delete(SWITCHOVER_KEY)
            assert await opened.line() == b"echo patience\n"
            assert await fresh.line() == b"i am a\n"

    told(story())


def test_a_database_that_accepts_and_never_greets_is_named_after_the_hold_time(
    world: World, told: Told
) -> None:
    async def story() -> None:
        async with world:
            world.databases[A].is_greeting.clear()
            await world.lead(A, 1)
            await world.start(A, hold_s=0.3)
            client = await world.connect(A)
            assert b"a accepts connections and does not answer" in await client.rest()
            world.databases[A].is_greeting.set()

    told(story())


def test_the_peer_door_refuses_whoever_brings_no_header(world: World, told: Told) -> None:
    async def story() -> None:
        async with world:
            await world.lead(A, 1)
            await world.start(A)
            client = await world.connect(A, Door.PEER)
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                await client.rest()
            assert "router-peer-refused" in world.names()

    told(story())


def _is_switching(router: Router) -> bool:
    return router.view.is_switching
