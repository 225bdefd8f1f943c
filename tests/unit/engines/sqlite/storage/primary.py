"""A primary's database and its log, without a server."""

import random
import threading
from pathlib import Path

from primacy.clock import SystemClock
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.engines.sqlite.storage.copying import Copy, copy_database
from primacy.engines.sqlite.storage.writer import Writer
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Entry, Kind, epoch_entry
from primacy.telemetry import ignore

EPOCH, NODE = Epoch(1), NodeId("a")
SETTINGS = StorageSettings()


class Primary:
    """A new one begins its epoch at once."""

    def __init__(self, folder: Path, *, is_new: bool = True) -> None:
        self.path = folder / "db.sqlite"
        self.log = Log.open(folder / "log", limits=LogLimits(), events=ignore)
        self.writer = Writer(self.path, SETTINGS, clock=SystemClock(), seeds=random.Random(1))
        self.epoch, self.node = EPOCH, NODE
        if is_new:
            self.begin_epoch(EPOCH, NODE)

    def begin_epoch(self, epoch: Epoch, node: NodeId) -> int:
        """Where its record stands."""
        self.epoch, self.node = epoch, node
        self.writer.begin()
        entry = epoch_entry(node, schema_hash=self.writer.schema_hash, commit_time_us=0)
        self._commit([entry])
        return self.log.end.index

    def run(self, sql: str, *params: int | str | bytes) -> None:
        self.writer.begin()
        self.writer.run(sql, params)
        change = self.writer.change()
        assert change is not None
        self._commit([Entry(change.kind, change.payload, change.schema_hash, 0)])

    def _commit(self, entries: list[Entry]) -> None:
        self.log.append(entries, epoch=self.epoch, source=self.node)
        self.writer.commit(self.log.sync())

    def append(self, count: int) -> None:
        """Markers that the database does not have yet."""
        marker = Entry(Kind.MARKER, b"", self.writer.schema_hash, 0)
        self.log.append([marker] * count, epoch=self.epoch, source=self.node)
        self.log.sync()

    def copy(self, into: Path, *, stop: threading.Event | None = None) -> Copy:
        return copy_database(
            self.log,
            SETTINGS,
            database_path=self.path,
            into=into,
            bytes_per_s=0,
            stop=stop or threading.Event(),
        )

    def close(self) -> None:
        self.writer.close()
        self.log.close()
