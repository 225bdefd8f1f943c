"""The demo's clients, in a process of their own: `python -m primacy.cli.demo_writers SPEC.json`.

Each writer inserts rows with ids of its own, one after another, on a plain driver connection; it
never sends an id twice. A write counts when its OK has arrived *and* stands in the ledger, a file
outside the cluster. Writers to `rw` doors reconnect at once; writers attached directly to one
server never stop trying, whatever that server is.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from primacy.cli.demo_nodes import DemoNode
from primacy.clock import SystemClock
from primacy.errors import PrimacyError

PAUSE_S = 0.02
"""Between two writes of one writer: a steady load that a small machine can carry."""
RETRY_S = 0.02
CONNECT_TIMEOUT_S = 12
READ_TIMEOUT_S = 15
"""A commit may wait long for its acknowledgement; after this its outcome is left unknown."""
SYNC_EVERY_S = 0.05

RW_DOOR = "rw"
ROUTER_WRITERS = 4


class WriterSpec(msgspec.Struct, frozen=True):
    """One client: `door` is `rw` or the name of the node that it is attached to."""

    number: int
    door: str
    host: str
    port: int


class WritersSpec(msgspec.Struct, frozen=True):
    engine: str
    nodes: tuple[str, ...]
    """The data nodes, sorted by name."""
    writers: tuple[WriterSpec, ...]
    user: str
    password: str
    ledger: str


class LedgerLine(msgspec.Struct, frozen=True, array_like=True):
    """One acknowledged write. Times are wall seconds of this machine."""

    row: int
    door: str
    sent_s: float
    acked_s: float
    node: str
    """Whose server acknowledged it."""


def at_doors(nodes: Sequence[DemoNode]) -> tuple[WriterSpec, ...]:
    """Four at the routers' doors, one at each server."""
    through = [
        WriterSpec(number, RW_DOOR, node.host, node.ports["rw_port"])
        for number in range(ROUTER_WRITERS)
        for node in (nodes[number % len(nodes)],)
    ]
    direct = [
        WriterSpec(ROUTER_WRITERS + number, node.name, node.host, node.ports["database_port"])
        for number, node in enumerate(nodes)
    ]
    return (*through, *direct)


class Client(Protocol):
    """One writer's way to its door. A `PrimacyError` where anything goes wrong: then `connect`
    again."""

    def connect(self) -> None:
        """Where it is connected already, nothing happens."""
        ...

    @property
    def node(self) -> str:
        """Whose server has answered."""
        ...

    def insert(self, row: int, door: str, sent_s: float) -> None:
        """One row in a transaction of its own; acknowledged when this returns."""
        ...

    def close(self) -> None:
        """Without a word to the server, which may be frozen."""
        ...


Clients = Callable[[WriterSpec, WritersSpec], Client]


class Ledger:
    """Appends acknowledged writes; synced every few hundredths of a second."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, line: LedgerLine) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def sync_until(self, stop: threading.Event) -> None:
        while not stop.wait(SYNC_EVERY_S):
            os.fdatasync(self._file)
        os.fdatasync(self._file)


class Writer:
    """One thread, one connection, one row at a time."""

    def __init__(self, spec: WriterSpec, client: Client, ledger: Ledger) -> None:
        self._door = spec.door
        self._client = client
        self._ledger = ledger
        self._clock = SystemClock()
        self._next_row = (spec.number << 40) + 1

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._write()
                stop.wait(PAUSE_S)
            except PrimacyError:
                stop.wait(RETRY_S)
        self._client.close()

    def _write(self) -> None:
        client = self._client
        client.connect()
        row = self._next_row
        self._next_row += 1
        sent_s = self._clock.wall_s()
        client.insert(row, self._door, sent_s)
        self._ledger.note(LedgerLine(row, self._door, sent_s, self._clock.wall_s(), client.node))


def clients_of(engine: str) -> Clients:
    """Only the driver that is asked for is imported."""
    if engine == "mariadb":
        from primacy.cli.demo_mariadb_client import MariaDbClient

        return MariaDbClient
    from primacy.cli.demo_sqlite_client import SqliteClient

    return SqliteClient


def run(spec: WritersSpec) -> None:
    """Write until standard input ends."""
    stop = threading.Event()
    ledger = Ledger(Path(spec.ledger))
    client_of = clients_of(spec.engine)
    writers = [Writer(each, client_of(each, spec), ledger) for each in spec.writers]
    threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in writers]
    threads.append(threading.Thread(target=ledger.sync_until, args=(stop,)))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join(READ_TIMEOUT_S)


if __name__ == "__main__":
    run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WritersSpec))
