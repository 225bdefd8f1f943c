"""What one MariaDB engine is told, and where its files are.

STATE_DIR/data/            the server's data directory, with our mark `primacy.json` in it
STATE_DIR/run/             the unix socket and the pid file
STATE_DIR/secrets/         passwords, 0600
STATE_DIR/notes/           what must survive a crash of the agent (notes.py)
STATE_DIR/old-data/        what a clone set aside
STATE_DIR/diverged/        transactions that lost their place in the history
STATE_DIR/server.cnf, server.log
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from primacy.engines import layout as engine_layout
from primacy.errors import Rejected
from primacy.model import Address, NodeId

SHARED_MEMORY = Path("/dev/shm")
SERVER_IDS_PER_NODE = 10_000_000
"""A server id has 32 bits: 400 nodes, and ten million starts of each."""

PROXY_NETWORKS = ("127.0.0.1/32", "::1/128")
"""Loopback. A server that is bound elsewhere adds its own host's addresses."""

SOCKET_PATH_BYTES_MAX = 107
"""The kernel's limit for the path of a unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the engine waits for its server."""

    health_s: float = 1.0
    """A server that has not answered `observe` by then is hung."""
    connect_s: float = 1.0
    command_s: float = 10.0
    """One statement of a command; a disk that is slow but alive must fit."""
    drain_s: float = 30.0
    """To apply the received tail before re-pointing; afterwards the call is made again."""
    close_doors_s: float = 4.0
    start_s: float = 600.0
    """Crash recovery grows with the redo log that it applies."""
    stop_s: float = 20.0
    """A clean stop that takes longer becomes a kill."""
    peer_s: float = 2.0
    """A question to another node's server, or to its clone door, for the first answer."""
    clone_silence_s: float = 30.0
    """A clone that sends nothing for that long has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """MariaDB's own programs, by name or by path."""

    server: str = "mariadbd"
    install: str = "mariadb-install-db"
    backup: str = "mariadb-backup"
    unpack: str = "mbstream"
    binlog: str = "mariadb-binlog"
    client: str = "mariadb"


class Layout(engine_layout.Layout):
    """Where the files of one node are."""

    __slots__ = ()

    @property
    def temporary(self) -> Path:
        """The server's own: at its start a server deletes every `#sql*` file that it finds there,
        and another server whose temporary table that was crashes with signal 11."""
        return self.root / "tmp"

    @property
    def socket(self) -> Path:
        return self.run / "db.sock"

    @property
    def pid_file(self) -> Path:
        return self.run / "db.pid"

    @property
    def config_file(self) -> Path:
        return self.root / "server.cnf"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class MariaDbSettings:
    """One node's database. `peers` and `clone_doors` name all data nodes, this one included."""

    cluster: str
    node: NodeId
    server_id: int
    """From 1: the place of the node among the data nodes, sorted by name."""
    peers: Mapping[NodeId, Address]
    clone_doors: Mapping[NodeId, Address]
    state_dir: Path
    bind_host: str
    port: int
    cluster_secret: bytes = field(repr=False)
    unix_user: str | None = "mysql"
    """Whom the server runs as when the agent is root; otherwise it runs as the agent's user."""
    programs: Programs = field(default_factory=Programs)
    launcher: Path | None = None
    """The socket of the host's launcher, which then starts the guards; None: the agent does."""
    page_path: Path | None = None
    """The deadline page, on tmpfs; None: a name of its own in shared memory."""
    buffer_pool_bytes: int = 128 * 1024 * 1024
    connections_max: int = 500
    clone_from_primary_mb_s: int = 200
    """Of its data files a primary reads at most that much for a clone; 0: as fast as it can."""
    log_days: int = 7
    """Binary logs older than that are removed."""
    proxy_networks: tuple[str, ...] = PROXY_NETWORKS
    """From here the server accepts a PROXY header: the router on this host."""
    further: Mapping[str, str] = field(default_factory=dict)
    """Server variables of the operator; they come last in the file."""
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        if len(str(self.layout.socket).encode()) > SOCKET_PATH_BYTES_MAX:
            raise Rejected(
                f"{self.layout.socket} is too long for a unix socket",
                hint=f"Choose a state directory whose socket path has at most"
                f" {SOCKET_PATH_BYTES_MAX} bytes.",
            )

    @property
    def layout(self) -> Layout:
        return Layout(self.state_dir)

    def server_id_of_start(self, starts: int) -> int:
        """Another for each start. A replica ignores events under its own server id; those of an
        earlier life, which a cut removed here and others hold, must come back to it."""
        return self.server_id * SERVER_IDS_PER_NODE + starts % SERVER_IDS_PER_NODE

    @property
    def page(self) -> Path:
        """Where guard, agent and router find the deadline page of this node."""
        if self.page_path is not None:
            return self.page_path
        tag = hashlib.sha256(str(self.state_dir.absolute()).encode()).hexdigest()[:8]
        return SHARED_MEMORY / f"primacy-{self.cluster}-{self.node}-{tag}.page"

    def peer(self, node: NodeId) -> Address:
        """`Rejected` for a node that has no database."""
        address = self.peers.get(node)
        if address is None:
            raise Rejected(
                f"{node} is not a data node of {self.cluster}",
                hint=f"The data nodes are {', '.join(sorted(self.peers))}.",
            )
        return address
