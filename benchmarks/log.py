"""primacy's own log against a plain write and `fdatasync` of the same bytes on the same disk.

    python benchmarks/log.py [--json] [DIRECTORY]

For each number of records in a batch: records per second appended and synced, and the ratio to the
floor, which writes the batch that the log would write and syncs it, again and again. Both take
turns, so that they meet the same moments of the machine; the medians of a batch are compared, too.
Then what one record costs in the processor alone: encoded, received, found again at a restart, read
from a file.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from primacy.clock import SystemClock
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.received import judged
from primacy.replication.log.record import (
    ORIGIN_POINT,
    Entry,
    Kind,
    Point,
    decode,
    encode,
    epoch_entry,
    source_id,
)
from primacy.replication.log.spans import Span
from primacy.telemetry import ignore

PAYLOAD = bytes(range(100))
"""A row image of a narrow table."""

BATCHES = (1, 16, 256)
TURNS = 20
TURN_S = 0.25
A, ONE = NodeId("a"), Epoch(1)
FLOOR = "write + fdatasync"

Figure = dict[str, str | float | None]


class Floor:
    """Appends to a plain file."""

    def __init__(self, directory: Path, data: bytes) -> None:
        self._fd = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._data = data

    def batch(self) -> None:
        os.write(self._fd, self._data)
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class Logged:
    """Appends to a log."""

    def __init__(self, directory: Path, entries: list[Entry]) -> None:
        self._log = Log.open(directory / "log", limits=LogLimits(), events=ignore)
        self._log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=ONE, source=A)
        self._entries = entries

    def batch(self) -> None:
        self._log.append(self._entries, epoch=ONE, source=A)
        self._log.sync()

    def close(self) -> None:
        self._log.close()


def turn_s(batch: Callable[[], None], clock: SystemClock) -> list[float]:
    """Seconds of each batch of one turn."""
    took_s: list[float] = []
    ends_s = clock.now_s() + TURN_S
    while (began_s := clock.now_s()) < ends_s:
        batch()
        took_s.append(clock.now_s() - began_s)
    return took_s


def on_disk(directory: Path, size: int, clock: SystemClock) -> list[Figure]:
    entries = [Entry(Kind.ROWS, PAYLOAD, 7, 1)] * size
    data, _ = encode(entries, after=ORIGIN_POINT, epoch=ONE, source=source_id(A))
    directory.mkdir()
    floor, logged = Floor(directory, data), Logged(directory, entries)
    floor_s: list[float] = []
    logged_s: list[float] = []
    for _ in range(TURNS):
        floor_s += turn_s(floor.batch, clock)
        logged_s += turn_s(logged.batch, clock)
    floor.close()
    logged.close()
    rates = [size * len(each) / sum(each) for each in (logged_s, floor_s)]
    medians_us = [statistics.median(each) * 1e6 for each in (logged_s, floor_s)]
    return [
        figure(f"append_sync_{size}", rates[0], "records/s", rates[0] / rates[1]),
        figure(f"append_sync_{size}_median", medians_us[0], "us", medians_us[1] / medians_us[0]),
    ]


def in_memory(directory: Path, clock: SystemClock) -> list[Figure]:
    """Microseconds for one record of 256, the least of many rounds; of the last two, one round."""
    size = 256
    entries = [Entry(Kind.ROWS, PAYLOAD, 7, 1)] * size
    after, spans = Point(ONE, 1, 0), [Span(ONE, A, 1)]
    source = source_id(A)
    data, _ = encode(entries, after=after, epoch=ONE, source=source)
    found = [
        least_us("encode", lambda: encode(entries, after=after, epoch=ONE, source=source), clock),
        least_us("receive", lambda: judged(data, after=after, spans=spans), clock),
    ]
    with Log.open(directory, limits=LogLimits(), events=ignore) as log:
        log.append([epoch_entry(A, schema_hash=0, commit_time_us=0)], epoch=ONE, source=A)
        for _ in range(400):
            log.append(entries, epoch=ONE, source=A)
    began_s = time.process_time()
    with Log.open(directory, limits=LogLimits(), events=ignore) as log:
        opened_us = (time.process_time() - began_s) * 1e6 / log.end.index
        began_s = time.process_time()
        index = 0
        while data := log.read(index, bytes_max=1 << 20):
            index += sum(1 for _ in decode(data))
        read_us = (time.process_time() - began_s) * 1e6 / log.end.index
    found.append(figure("restart_per_record", opened_us, "us", None))
    return [*found, figure("read_and_decode_per_record", read_us, "us", None)]


def least_us(name: str, work: Callable[[], object], clock: SystemClock) -> Figure:
    best_s = float("inf")
    for _ in range(200):
        began_s = clock.now_s()
        work()
        best_s = min(best_s, clock.now_s() - began_s)
    return figure(f"{name}_per_record", best_s / 256 * 1e6, "us", None)


def figure(name: str, value: float, unit: str, ratio: float | None) -> Figure:
    """A ratio above 1 is better than the floor."""
    peer = None if ratio is None else FLOOR
    return {"name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio}


def main() -> None:
    arguments = [each for each in sys.argv[1:] if each != "--json"]
    clock = SystemClock()
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as name:
        directory = Path(name)
        figures = in_memory(directory / "memory", clock)
        for size in BATCHES:
            figures += on_disk(directory / str(size), size, clock)
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=2))
        return
    for each in figures:
        ratio = "" if each["ratio"] is None else f"{each['ratio']:8.2f} x {each['peer']}"
        print(f"{each['name']:26}{each['value']:12.2f} {each['unit']:10}{ratio}")


if __name__ == "__main__":
    main()
