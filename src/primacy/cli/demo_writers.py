"""The demo's clients, in a process of their own: `python -m primacy.cli.demo_writers SPEC.json`.

Each writer inserts rows with ids of its own, one after another, on a plain driver connection; it
never sends an id twice. A write counts when its OK has arrived *and* stands in the ledger, a file
outside the cluster. Writers to `rw` doors reconnect at once; writers attached directly to one
server never stop trying, whatever that server is.
"""

import os
import sys
import threading
from pathlib import Path

import msgspec
import pymysql

from primacy.clock import SystemClock

PAUSE_S = 0.02
"""Between two writes of one writer: a steady load that a small machine can carry."""
RETRY_S = 0.02
CONNECT_TIMEOUT_S = 12
READ_TIMEOUT_S = 15
"""A commit may wait long for its acknowledgement; after this its outcome is left unknown."""
SYNC_EVERY_S = 0.05

TABLE = "primacy_demo.writes"


class WriterSpec(msgspec.Struct, frozen=True):
    """One client: `door` is `rw` or the name of the node that it is attached to."""

    number: int
    door: str
    host: str
    port: int


class WritersSpec(msgspec.Struct, frozen=True):
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
    server_id: int


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

    def __init__(self, spec: WriterSpec, whole: WritersSpec, ledger: Ledger) -> None:
        self._spec = spec
        self._whole = whole
        self._ledger = ledger
        self._clock = SystemClock()
        self._next_row = (spec.number << 40) + 1
        self._connection: pymysql.connections.Connection | None = None
        self._server_id = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._write()
                stop.wait(PAUSE_S)
            except (pymysql.err.Error, OSError):
                self._disconnect()
                stop.wait(RETRY_S)
        self._disconnect()

    def _write(self) -> None:
        connection = self._connection or self._connect()
        row = self._next_row
        self._next_row += 1
        sent_s = self._clock.wall_s()
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {TABLE} (id, door, sent_s) VALUES (%s, %s, %s)",
                (row, self._spec.door, sent_s),
            )
        self._ledger.note(
            LedgerLine(row, self._spec.door, sent_s, self._clock.wall_s(), self._server_id)
        )

    def _connect(self) -> "pymysql.connections.Connection":
        connection = pymysql.connect(
            host=self._spec.host,
            port=self._spec.port,
            user=self._whole.user,
            password=self._whole.password,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            write_timeout=READ_TIMEOUT_S,
            ssl_disabled=True,  # Making an unused TLS context costs more than the connection.
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@server_id")
            found = cursor.fetchone()
        self._server_id = int(found[0]) if found else 0
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # close() would wait for a frozen server.


def run(spec: WritersSpec) -> None:
    """Write until standard input ends."""
    stop = threading.Event()
    ledger = Ledger(Path(spec.ledger))
    writers = [Writer(each, spec, ledger) for each in spec.writers]
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
