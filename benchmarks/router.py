"""What the router's door costs, against the same server asked directly in the same run.

    python benchmarks/router.py [--seconds 3] [--megabytes 400]

Three processes: an echo server, a router over the store in memory, and the client that measures.
Rounds alternate between the two ways, so that other load on the machine falls on both. Read the
ratios: the times are those of this machine at this moment.
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from multiprocessing.connection import Connection

import uvloop

from primacy.clock import SystemClock
from primacy.coordination.api import Put, Txn
from primacy.coordination.memory import MemoryStore
from primacy.model import Address, Epoch, Incarnation, Member, NodeId
from primacy.replication.records import (
    DURABILITY_KEY,
    PRIMARY_KEY,
    DurabilityRecord,
    PrimaryRecord,
    encoded,
)
from primacy.routing.doors import Door
from primacy.routing.route import RoutePolicy
from primacy.routing.router import Router, RouterSettings
from primacy.telemetry import ignore

NODE = NodeId("a")
QUESTION = b"q" * 128
ROUNDS = 6
BULK = b"b" * 65536


class Echo(asyncio.Protocol):
    """Greets with one byte; answers each byte string with itself, or, asked with `B`, with bulk."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.left = 0
        transport.write(b"!")  # type: ignore[attr-defined]  # A stream, as create_server makes it.

    def data_received(self, data: bytes) -> None:
        if data[:1] == b"B":
            self.left = int(data[1:])
            self.is_full = False
            self.pump()
        else:
            self.transport.write(data)  # type: ignore[attr-defined]  # As above.

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self.pump()

    def pump(self) -> None:
        while self.left > 0 and not self.is_full:
            self.left -= len(BULK)
            self.transport.write(BULK)  # type: ignore[attr-defined]  # As above.


class Always:
    """A page that is open."""

    def permits(self, epoch: int) -> bool:
        return epoch == 1


def serve(told: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(run())


def route(told: Connection, database_port: int) -> None:
    async def run() -> None:
        store = MemoryStore(SystemClock())
        record = PrimaryRecord(node=NODE, incarnation=Incarnation("1"), epoch=Epoch(1))
        durability = DurabilityRecord(
            epoch=Epoch(1), primary=Member(NODE, Incarnation("1")), acks=0, members=()
        )
        puts = (Put(PRIMARY_KEY, encoded(record)), Put(DURABILITY_KEY, encoded(durability)))
        await store.txn(Txn(then=puts))
        anywhere = Address("127.0.0.1", 0)
        settings = RouterSettings(
            node=NODE,
            databases={NODE: Address("127.0.0.1", database_port)},
            peer_doors={},
            rw=anywhere,
            ro=anywhere,
            peer=anywhere,
            policy=RoutePolicy(ttl_s=3.0),
            send_proxy_header=False,
        )
        router = Router(settings, store=store, clock=SystemClock(), permits=Always(), events=ignore)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(router.run())
            await router.listening.wait()
            told.send((os.getpid(), router.addresses[Door.RW].port))

    uvloop.run(run())


def connected(port: int) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if found.recv(1) != b"!":
        raise SystemExit("the echo server did not greet")
    return found


def round_trips_s(port: int, seconds: float) -> list[float]:
    """One question at a time on one connection."""
    took: list[float] = []
    with connected(port) as line:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            line.sendall(QUESTION)
            left = len(QUESTION)
            while left:
                left -= len(line.recv(left))
            took.append(time.perf_counter() - began)
    return took


def bulk_bytes_per_s(port: int, size: int) -> float:
    with connected(port) as line:
        began = time.perf_counter()
        line.sendall(b"B%d" % size)
        left, buffer = size, bytearray(1 << 18)
        while left > 0:
            left -= line.recv_into(buffer)
        return size / (time.perf_counter() - began)


def connections_per_s(port: int, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        connected(port).close()
        count += 1
    return count / (time.perf_counter() - began)


def measure(direct: int, door: int, *, seconds: float, size: int) -> None:
    trips: dict[int, list[float]] = {direct: [], door: []}
    bulk: dict[int, list[float]] = {direct: [], door: []}
    opens: dict[int, list[float]] = {direct: [], door: []}
    for _ in range(ROUNDS):
        for port in (direct, door):
            trips[port] += round_trips_s(port, seconds / ROUNDS)
            bulk[port].append(bulk_bytes_per_s(port, size // ROUNDS // len(BULK) * len(BULK)))
            opens[port].append(connections_per_s(port, seconds / ROUNDS))
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {ROUNDS} rounds each way")
    print(f"{'':24}{'direct':>12}{'door':>12}{'ratio':>8}")
    for name, at in (("round trip p50, us", 0.5), ("round trip p99, us", 0.99)):
        a, b = (sorted(trips[p])[int(len(trips[p]) * at)] * 1e6 for p in (direct, door))
        print(f"{name:24}{a:12.1f}{b:12.1f}{b / a:8.2f}")
    for name, found, unit in (("bulk, MB/s", bulk, 1e6), ("new connections/s", opens, 1.0)):
        a, b = (statistics.median(found[p]) / unit for p in (direct, door))
        print(f"{name:24}{a:12.0f}{b:12.0f}{b / a:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="of round trips, each way")
    parser.add_argument("--megabytes", type=int, default=400, help="of bulk, each way")
    asked = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=serve, args=(there,), daemon=True)
    server.start()
    direct = here.recv()
    router = spawn.Process(target=route, args=(there, direct), daemon=True)
    router.start()
    pid, door = here.recv()
    print(f"router is process {pid}: py-spy top --pid {pid}")
    try:
        measure(direct, door, seconds=asked.seconds, size=asked.megabytes * 1_000_000)
    finally:
        router.terminate()
        server.terminate()


if __name__ == "__main__":
    main()
