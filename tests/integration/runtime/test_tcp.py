"""The transport between members over real sockets."""

import asyncio
import contextlib
import functools
import random
import socket
from collections.abc import Callable

import msgspec
import pytest
from tests.ports import free_addresses

from primacy.clock import SystemClock
from primacy.errors import Rejected
from primacy.model import Address, NodeId
from primacy.runtime.tcp import Hello, TcpTransport
from primacy.wire import encode_frame

pytestmark = pytest.mark.integration

A, B = NodeId("a"), NodeId("b")
DEADLINE_S = 10.0


def transport_of(
    node: NodeId, addresses: dict[NodeId, Address], *, cluster: str = "shop"
) -> TcpTransport:
    return TcpTransport(
        node,
        cluster=cluster,
        listen=addresses[node],
        peers={peer: where for peer, where in addresses.items() if peer != node},
        clock=SystemClock(),
        chance=random.Random(7),
    )


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.005)


def test_payloads_arrive_in_order_and_name_their_sender() -> None:
    async def story() -> None:
        addresses = {A: free_addresses(1)[0], B: free_addresses(1)[0]}
        heard: list[tuple[NodeId, bytes]] = []
        async with transport_of(A, addresses) as a, transport_of(B, addresses) as b:
            b.deliver_to(lambda sender, payload: heard.append((sender, payload)))
            await until(lambda: a.is_connected(B))
            sent = [b"%d" % number for number in range(1000)] + [b"x" * 3_000_000]
            for payload in sent:
                a.send(B, payload)
            await until(lambda: len(heard) == len(sent))
            assert heard == [(A, payload) for payload in sent]

    asyncio.run(story())


def test_a_peer_that_restarts_is_found_again_and_losses_are_counted() -> None:
    async def story() -> None:
        addresses = {A: free_addresses(1)[0], B: free_addresses(1)[0]}
        async with transport_of(A, addresses) as a:
            a.send(B, b"nobody is there")
            assert a.counts.dropped_unconnected == 1
            for _ in range(3):
                heard: list[bytes] = []
                async with transport_of(B, addresses) as b:
                    b.deliver_to(functools.partial(_note, heard))
                    await until(lambda: a.is_connected(B))
                    a.send(B, b"hello")
                    await until(functools.partial(heard.__eq__, [b"hello"]))
                await until(lambda: not a.is_connected(B))

    asyncio.run(story())


@pytest.mark.parametrize(
    "first",
    [
        encode_frame(msgspec.msgpack.encode(Hello(1, "other", A))),
        encode_frame(msgspec.msgpack.encode(Hello(1, "shop", NodeId("stranger")))),
        encode_frame(msgspec.msgpack.encode(Hello(2, "shop", A))),
        encode_frame(b"no hello"),
        b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n",
        encode_frame(b"x" * 5000)[:4000],
    ],
    ids=["other cluster", "unknown sender", "other version", "no hello", "http", "too long"],
)
def test_a_stranger_is_cut_and_counted(first: bytes) -> None:
    async def story() -> None:
        addresses = {A: free_addresses(1)[0], B: free_addresses(1)[0]}
        heard: list[bytes] = []
        async with transport_of(B, addresses) as b:
            b.deliver_to(lambda _sender, payload: heard.append(payload))
            loop = asyncio.get_running_loop()
            with socket.socket() as stranger:
                stranger.setblocking(False)  # noqa: FBT003 - the socket's own signature
                where = addresses[B]
                await loop.sock_connect(stranger, (where.host, where.port))
                await loop.sock_sendall(stranger, first)
                async with asyncio.timeout(DEADLINE_S):
                    with contextlib.suppress(ConnectionResetError):
                        assert await loop.sock_recv(stranger, 1) == b""
            assert b.counts.refused_connections == 1
            assert heard == []

    asyncio.run(story())


def test_a_peer_that_does_not_read_costs_a_bounded_queue_and_holds_nobody() -> None:
    async def story() -> None:
        addresses = {A: free_addresses(1)[0], B: free_addresses(1)[0]}
        with socket.socket() as deaf:
            deaf.bind((addresses[B].host, addresses[B].port))
            deaf.listen()
            async with transport_of(A, addresses) as a:
                await until(lambda: a.is_connected(B))
                for _ in range(90):
                    a.send(B, b"x" * 1_000_000)
                assert a.counts.dropped_full > 0

    asyncio.run(story())


def test_a_port_in_use_is_a_clear_message() -> None:
    async def story() -> None:
        addresses = {A: free_addresses(1)[0], B: free_addresses(1)[0]}
        async with transport_of(A, addresses):
            with pytest.raises(Rejected, match=r"cannot listen on 127.0.0.1:.*Stop what uses"):
                await transport_of(A, addresses).__aenter__()

    asyncio.run(story())


def _note(heard: list[bytes], _sender: NodeId, payload: bytes) -> None:
    heard.append(payload)
