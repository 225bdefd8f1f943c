"""How fast a log is pulled onto another disk, against a bare copy of the same bytes.

    python benchmarks/pull.py [--json] [DIRECTORY]

Source and receiver are processes of their own. `catch_up`: the log is there already, and the
receiver starts from nothing. The floor is measured in the same run: a plain socket, `write`, and as
many `fdatasync` calls as the receiver made, evenly spread. Ratio: floor's time / ours.

`round_trip`: one record at a time, from `append` until its acknowledgement is back. The floor: one
byte there and back, with a write and an `fdatasync` between.
"""

import asyncio
import json
import os
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop

from primacy import telemetry
from primacy.clock import SystemClock
from primacy.model import Address, Epoch, Incarnation, Member, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import VERSION, Entry, Kind, Point, epoch_entry
from primacy.replication.pull.door import PullDoor
from primacy.replication.pull.messages import Hop, Report
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import Receiver
from primacy.replication.pull.source import Identity, Reign

A, B, EPOCH = NodeId("a"), NodeId("b"), Epoch(1)
TOTAL_BYTES = 96 << 20
ROUNDS = 3
TRIPS = 500
SIZES = {"rows_150": 150, "rows_4k": 4000}
CLOCK = SystemClock()


def build(directory: Path, size: int) -> Log:
    log = Log.open(directory, limits=LogLimits(), events=telemetry.ignore)
    log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=EPOCH, source=A)
    entry = Entry(Kind.ROWS, os.urandom(size), 1, 2)
    while log.size_bytes < TOTAL_BYTES:
        log.append([entry] * 256, epoch=EPOCH, source=A)
    log.sync()
    return log


# ---- the source's process ---------------------------------------------------------------------


async def serve(directory: Path, secret: bytes, size: int) -> None:
    """Answers one line of its standard input after another: `trips`, or the end."""
    log = (
        build(directory, size)
        if size
        else Log.open(directory, limits=LogLimits(), events=telemetry.ignore)
    )
    if not size:
        log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=EPOCH, source=A)
        log.sync()
    address = Address("127.0.0.1", free_port())
    identity = Identity(cluster="bench", node=A, secret=secret, log_version=VERSION)
    acknowledged = 0
    came = asyncio.Event()

    def on_report(_member: Member, _epoch: Epoch, report: Report) -> None:
        nonlocal acknowledged
        acknowledged = report.received.index
        came.set()

    async with PullDoor(identity, log, listen=address, clock=CLOCK, on_report=on_report) as door:
        door.serve(Reign(EPOCH, (Hop(A),)))
        print(address.port, log.end.index, flush=True)
        loop = asyncio.get_running_loop()
        entry = Entry(Kind.ROWS, os.urandom(150), 1, 2)
        while await loop.run_in_executor(None, sys.stdin.readline):
            await came.wait()  # The receiver's first report: it is attached.
            began_s = CLOCK.now_s()
            for _ in range(TRIPS):
                after = log.end.index
                data = log.append([entry], epoch=EPOCH, source=A)
                door.offer(data, after=after, end=log.end)
                while acknowledged < log.end.index:
                    came.clear()
                    await came.wait()
            print((CLOCK.now_s() - began_s) / TRIPS, flush=True)


def send_raw(total_bytes: int) -> None:
    """The floor's source: every byte that comes is answered, then all are sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            piece = os.urandom(1 << 20)
            left = total_bytes
            while left > 0:
                connection.sendall(piece[: min(left, len(piece))])
                left -= len(piece)
            began_s = CLOCK.now_s()
            for _ in range(TRIPS):
                connection.sendall(b"x")
                connection.recv(1)
            print((CLOCK.now_s() - began_s) / TRIPS, flush=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# ---- the receiver's process -------------------------------------------------------------------


def child(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    if process.stdout is None or not (said := process.stdout.readline()):
        raise SystemExit("the other process ended early; its words are above")
    return said


async def pulled(
    directory: Path, secret: bytes, port: int, end: int, after: Callable[[], float] | None = None
) -> tuple[float, int, float]:
    """Seconds until all of it is durable here, syncs, and what `after` returned."""
    with Log.open(directory, limits=LogLimits(), events=telemetry.ignore) as log:
        syncs = 0
        done = asyncio.Event()

        def count(_point: Point) -> None:
            nonlocal syncs
            syncs += 1

        def on_durable(point: Point) -> None:
            if point.index >= end:
                done.set()

        log.on_durable(count)
        following = Following(
            cluster="bench",
            secret=secret,
            node=B,
            incarnation=Incarnation("b-1"),
            epoch=EPOCH,
            upstream=A,
            log_version=VERSION,
        )
        async with Receiver(
            log,
            clock=CLOCK,
            chance=random.Random(1),
            on_growth=lambda _data, _after, _end: None,
            on_durable=on_durable,
            on_reign=lambda _reign: None,
        ) as receiver:
            began_s = CLOCK.now_s()
            await receiver.follow(following, Address("127.0.0.1", port), acknowledge=True)
            await done.wait()
            took_s = CLOCK.now_s() - began_s
            loop = asyncio.get_running_loop()
            trip_s = await loop.run_in_executor(None, after) if after else 0.0
        return took_s, syncs, trip_s


def copied(path: Path, total_bytes: int, syncs: int) -> tuple[float, float]:
    """The floor: seconds for all bytes, seconds for one trip."""
    source = child("raw", total_bytes)
    with socket.create_connection(("127.0.0.1", int(line(source)))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        began_s, left, unsynced = CLOCK.now_s(), total_bytes, 0
        every = max(1, total_bytes // syncs)
        while left > 0:
            piece = connection.recv(min(left, 1 << 20))
            os.write(fd, piece)
            left -= len(piece)
            unsynced += len(piece)
            if unsynced >= every or left <= 0:
                os.fdatasync(fd)
                unsynced = 0
        took_s = CLOCK.now_s() - began_s
        for _ in range(TRIPS):
            connection.recv(1)
            os.write(fd, bytes(200))
            os.fdatasync(fd)
            connection.sendall(b"x")
        os.close(fd)
    trip_s = float(line(source))
    source.wait()
    return took_s, trip_s


def measure(directory: Path) -> list[dict[str, object]]:
    secret = secrets.token_bytes(32)
    found: list[dict[str, object]] = []
    for name, size in SIZES.items():
        source = child("serve", directory / name, secret.hex(), size)
        port, end = map(int, line(source).split())
        ours, floors, syncs = [], [], 0
        for number in range(ROUNDS):
            where = directory / f"{name}-{number}"
            took_s, syncs, _ = uvloop.run(pulled(where, secret, port, end))
            ours.append(took_s)
            floors.append(copied(directory / "floor", TOTAL_BYTES, syncs)[0])
        source.communicate()
        ours_s, floor_s = statistics.median(ours), statistics.median(floors)
        found.append(
            {
                "name": f"catch_up_{name}",
                "value": round(TOTAL_BYTES / ours_s / 1e6, 1),
                "unit": "MB/s",
                "peer": f"socket + write + {syncs} fdatasync: {TOTAL_BYTES / floor_s / 1e6:.1f}",
                "ratio": round(floor_s / ours_s, 2),
            }
        )
        found[-1]["transactions_per_s"] = round(end / ours_s)
    found.append(trip(directory, secret))
    return found


def trip(directory: Path, secret: bytes) -> dict[str, object]:
    source = child("serve", directory / "trips", secret.hex(), 0)
    port, end = map(int, line(source).split())

    def ask() -> float:
        if source.stdin is not None:
            source.stdin.write("trips\n")
            source.stdin.flush()
        return float(line(source))

    trip_s = uvloop.run(pulled(directory / "trips-b", secret, port, end, ask))[2]
    source.communicate()
    floor_s = copied(directory / "floor", 1, 1)[1]
    return {
        "name": "round_trip",
        "value": round(trip_s * 1e6),
        "unit": "us",
        "peer": f"one byte, write, fdatasync, one byte back: {floor_s * 1e6:.0f}",
        "ratio": round(floor_s / trip_s, 2),
    }


def main() -> None:
    words = sys.argv[1:]
    match words:
        case ["serve", directory, secret, size]:
            uvloop.run(serve(Path(directory), bytes.fromhex(secret), int(size)))
            return
        case ["raw", total_bytes]:
            send_raw(int(total_bytes))
            return
    where = next((each for each in words if not each.startswith("-")), None)
    with tempfile.TemporaryDirectory(dir=where) as name:
        found = measure(Path(name))
    if "--json" in words:
        print(json.dumps(found))
        return
    print(f"{os.cpu_count()} cores")
    for each in found:
        print(
            f"{each['name']:20} {each['value']:>9} {each['unit']:5} {each['ratio']:5} x floor"
            f"   ({each['peer']})"
        )


if __name__ == "__main__":
    main()
