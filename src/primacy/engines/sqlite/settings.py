"""What one SQLite engine is told, and where its files are.

STATE_DIR/data/                    database file and log, with our mark `primacy.json` beside them
STATE_DIR/run/control.sock         the server's control socket
STATE_DIR/secrets/cluster.secret   what both ends of the pull protocol prove, 0600
STATE_DIR/server.json              what the server is started with
The others are those of engines/layout.py.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from primacy.engines.layout import Layout
from primacy.engines.sqlite.server.spec import Limits
from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.errors import Rejected
from primacy.model import Address, NodeId
from primacy.replication.pull.acks import AckOn

SHARED_MEMORY = Path("/dev/shm")

SOCKET_PATH_BYTES_MAX = 107
"""The kernel's limit for the path of a unix socket that is bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the engine waits for its server."""

    health_s: float = 1.0
    """A server that has not answered `observe` by then is hung."""
    command_s: float = 10.0
    """One request of a command; a disk that is slow but alive must fit."""
    drain_s: float = 30.0
    """To apply what was received; afterwards the call is made again."""
    close_doors_s: float = 4.0
    start_s: float = 600.0
    """To open log and database after a crash."""
    stop_s: float = 20.0
    """A clean stop that takes longer becomes a kill."""
    peer_s: float = 2.0
    """A question to another node, for the first answer."""
    clone_silence_s: float = 30.0
    """A clone that sends nothing for that long has failed."""


@dataclass(frozen=True, slots=True)
class SqliteLayout(Layout):
    """Where the files of one node are."""

    @property
    def control(self) -> Path:
        """The server's control socket."""
        return self.run / "control.sock"

    @property
    def secret(self) -> Path:
        """What both ends of the pull protocol prove."""
        return self.secrets / "cluster.secret"

    @property
    def pid_file(self) -> Path:
        """Of the server's process, for people and their tools."""
        return self.run / "db.pid"

    @property
    def spec(self) -> Path:
        return self.root / "server.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSettings:
    """One node's database. The mappings of doors name all data nodes, this one included: its own
    entry is where its server, or its agent, listens."""

    cluster: str
    node: NodeId
    doors: Mapping[NodeId, Address]
    """Where clients and routers reach each server."""
    pull_doors: Mapping[NodeId, Address]
    """Where each server serves its log."""
    clone_doors: Mapping[NodeId, Address]
    """Where each agent gives copies."""
    state_dir: Path
    cluster_secret: bytes = field(repr=False)
    database: str = "db"
    """The name that clients connect to, and of the file."""
    ack_on: AckOn = AckOn.RECEIVED
    logging: Logging = Logging.ROW
    limits: Limits = field(default_factory=Limits)
    users_path: Path | None = None
    """Who may connect; None: everybody who reaches the door."""
    launcher: Path | None = None
    """The socket of the host's launcher, which then starts the guards; None: the agent does."""
    page_path: Path | None = None
    """The deadline page, on tmpfs; None: a name of its own in shared memory."""
    clone_from_primary_mb_s: int = 200
    """Of its database a primary reads at most that much for a clone; 0: as fast as it can."""
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        if len(str(self.layout.control).encode()) > SOCKET_PATH_BYTES_MAX:
            raise Rejected(
                f"{self.layout.control} is too long for a unix socket",
                hint=f"Choose a state directory whose socket path has at most"
                f" {SOCKET_PATH_BYTES_MAX} bytes.",
            )

    @property
    def layout(self) -> SqliteLayout:
        return SqliteLayout(self.state_dir)

    @property
    def storage(self) -> StorageSettings:
        return StorageSettings(logging=self.logging)

    @property
    def page(self) -> Path:
        """Where guard, agent, server and router find the deadline page of this node."""
        if self.page_path is not None:
            return self.page_path
        tag = hashlib.sha256(str(self.state_dir.absolute()).encode()).hexdigest()[:8]
        return SHARED_MEMORY / f"primacy-{self.cluster}-{self.node}-{tag}.page"

    def check_peer(self, node: NodeId) -> None:
        """`Rejected` for a node that has no database."""
        if node not in self.pull_doors:
            raise Rejected(
                f"{node} is not a data node of {self.cluster}",
                hint=f"The data nodes are {', '.join(sorted(self.pull_doors))}.",
            )
