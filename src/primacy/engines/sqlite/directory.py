"""SQLite's data directory: the database file, the log beside it, and the mark of both.

data/primacy.json          whose it is, and its incarnation
data/NAME.sqlite           the database
data/log/                  primacy's log (docs/formats/log.md)

Promises  As `engines/directory.py`: FOREIGN data are never touched, and a new directory becomes
          `data` by a rename, whole and durable or not at all.
"""

from pathlib import Path

from primacy.engines.api import ServerState
from primacy.engines.directory import DataDirectory, Mark, new_incarnation
from primacy.engines.layout import Layout
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.model import NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.runtime.files import sync_file
from primacy.telemetry import ignore

ENGINE = "sqlite"
LOG_NAME = "log"


class Directory(DataDirectory[Mark]):
    """The files of one node. The methods block: they belong into a thread."""

    def __init__(self, layout: Layout, *, cluster: str, node: NodeId, database: str) -> None:
        super().__init__(layout, cluster=cluster, node=node, engine=ENGINE, marks=Mark)
        self._database = database

    def make_empty(self) -> None:
        """ABSENT -> STOPPED: an empty database and an empty log, with a new incarnation."""
        self.check_is(ServerState.ABSENT)
        incoming = self.clear_incoming()
        path = database_in(incoming, self._database)
        Applier(path, StorageSettings()).close()
        Log.open(incoming / LOG_NAME, limits=LogLimits(), events=ignore).close()
        sync_file(path)
        self.adopt_incoming()

    def adopt_incoming(self) -> None:
        """`incoming` becomes `data` with a new incarnation; what was there goes aside."""
        mark = Mark(
            engine=self.engine,
            cluster=self.cluster,
            node=self.node,
            incarnation=new_incarnation(),
        )
        self.adopt(mark)


def database_in(folder: Path, name: str) -> Path:
    return folder / f"{name}.sqlite"
