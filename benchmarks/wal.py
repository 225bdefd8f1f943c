"""Group commit of the write-ahead log against a bare write and `fdatasync` on the same disk.

    python benchmarks/wal.py [DIRECTORY]

Prints, for several numbers of writes under way at a time, writes per second and the ratio to the
floor: one record of the same size, written and synced, again and again.
"""

import os
import sys
import tempfile
import threading
from pathlib import Path

from primacy.clock import SystemClock
from primacy.consensus.machine import Entry, Persist
from primacy.model import LogIndex, Term
from primacy.runtime.wal import Wal

DATA = b"x" * 200
SECONDS = 2.0


def floor_per_s(directory: Path, clock: SystemClock) -> float:
    fd = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    record = b"x" * (len(DATA) + 40)
    began_s, count = clock.now_s(), 0
    while clock.now_s() - began_s < SECONDS:
        os.write(fd, record)
        os.fdatasync(fd)
        count += 1
    os.close(fd)
    return count / (clock.now_s() - began_s)


def wal_per_s(directory: Path, clock: SystemClock, *, under_way: int) -> tuple[float, float]:
    """Writes per second, syncs per second."""
    directory.mkdir()
    wal = Wal.open(directory)
    changed = threading.Condition()
    durable = 0

    def on_durable(write_id: int) -> None:
        nonlocal durable
        with changed:
            durable = write_id
            changed.notify()

    def on_failure(error: Exception) -> None:
        sys.exit(str(error))

    wal.start(on_durable, on_failure)
    asked = 0
    began_s = clock.now_s()
    while clock.now_s() - began_s < SECONDS:
        while asked < durable + under_way:
            asked += 1
            wal.write(Persist(asked, entries=(Entry(Term(1), LogIndex(asked), DATA),)))
        with changed:
            changed.wait_for(lambda limit=asked: durable + under_way > limit)
    took_s = clock.now_s() - began_s
    rates = durable / took_s, wal.sync_count / took_s
    wal.close()
    return rates


def main() -> None:
    clock = SystemClock()
    where = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        directory = Path(name)
        floor = floor_per_s(directory, clock)
        print(f"bare write + fdatasync   {floor:10.0f} /s   {os.cpu_count()} cores, {directory}")
        for under_way in (1, 8, 64, 512):
            writes, syncs = wal_per_s(directory / str(under_way), clock, under_way=under_way)
            print(
                f"wal, {under_way:4} under way      {writes:10.0f} /s   "
                f"{writes / floor:6.2f} x floor, {syncs:6.0f} syncs/s"
            )


if __name__ == "__main__":
    main()
