"""The file's sections, each a frozen value with its defaults; and what follows from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from primacy.cluster.policy import AcksWord, acks_of
from primacy.config.engines import door_keys
from primacy.config.problems import ConfigRejected, Problem
from primacy.config.secret import secret_problems, token_in, token_problems
from primacy.model import Address, NodeId

LEASE_TTL_FLOOR_S = 1.0
"""Below it the store's own election no longer fits into the lease (heartbeat ttl/20)."""
LEASE_TTL_MAX_S = 60.0
NODES_MAX = 9

PROFILES: Mapping[str, float] = {"default": 3.0, "fast": 1.0}
"""Profile -> lease_ttl_s."""

SITE = r"^([a-z0-9][a-z0-9-]{0,31})?$"
"""A site's name; empty: none."""

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Cluster(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    engine: str
    profile: Literal["default", "fast"] = "default"
    lease_ttl_s: Annotated[float, Field(ge=LEASE_TTL_FLOOR_S, le=LEASE_TTL_MAX_S)] | None = None
    """Overrides the profile's."""
    state_dir: str = ""
    """Of every node: its own directory below this. Default /var/lib/primacy/<cluster name>."""
    failovers_before_back_off: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Automatic failovers within five minutes that wait for nothing; each further one waits 5 s,
    doubling to 60 s."""
    preferred_site: Annotated[str, Field(pattern=SITE)] = ""
    """Whose nodes go first among equally advanced ones."""
    return_to_preferred: bool = False
    """Move the primary back there by a switchover, once the cluster has been calm for a minute."""
    insecure: bool = False
    """Allow doors beyond loopback although there is no TLS yet."""
    secret_file: str = "primacy.secret"


class Durability(Section):
    acks: Annotated[int, Field(ge=0)] | AcksWord = 1
    ack_on: Literal["received", "applied"] = "received"
    on_timeout: Literal["block", "degrade"] = "block"
    timeout_s: Seconds = 10.0
    degrade_failover: Literal["refuse", "lossy"] = "refuse"
    wait_s: Annotated[float, Field(ge=0, le=3600)] = 3.0
    """With acks = 0: how long a lost primary may take to return before a loss is risked."""


class Router(Section):
    hold_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1000
    lag_max_transactions: Annotated[int, Field(ge=0)] = 1000
    lag_max_s: Seconds = 5.0
    ro_to_primary: bool = True
    """Send `ro` connections to the primary where no replica is within the lag bound."""


class MariaDb(Section):
    server: str = "mariadbd"
    install_db: str = "mariadb-install-db"
    backup: str = "mariadb-backup"
    binlog: str = "mariadb-binlog"
    client: str = "mariadb"
    user: str = "mysql"
    """Who the server runs as when primacy runs as root. Otherwise it runs as primacy does."""
    clone_mb_s: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Of its data files a primary reads at most that much for a copy; 0: as fast as it can."""
    innodb_buffer_pool_mb: Annotated[int, Field(ge=16)] = 128
    settings: dict[str, str | int | bool] = {}
    """Further server variables."""


class Sqlite(Section):
    database: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "db"
    """Its name, as in a client's URL."""
    logging: Literal["row", "statement", "mixed"] = "row"
    """What a statement leaves in the log."""
    users_file: str = ""
    """Who may connect. Empty: everybody who reaches a door."""
    connections_max: Annotated[int, Field(ge=1, le=100_000)] = 1000
    readers: Annotated[int, Field(ge=1, le=64)] = 8
    """Queries, cursors and read-only transactions at a time."""
    transaction_idle_s: Seconds = 5.0
    transaction_total_s: Seconds = 30.0
    """Of a transaction that holds the writer; past it, it is rolled back."""
    statement_s: Seconds = 30.0
    """One request at the writer."""
    read_idle_s: Seconds = 30.0
    read_total_s: Seconds = 300.0
    """Of a cursor or a read-only transaction."""
    idempotency_keep_s: Annotated[float, Field(ge=60, le=31_536_000)] = 86_400.0
    """How long an answer is kept for its key."""
    log_keep_mb: Annotated[int, Field(ge=64)] = 1024
    reserve_mb: Annotated[int, Field(ge=16)] = 64
    """With less free space than this, writes are refused."""
    clone_mb_s: Annotated[int, Field(ge=0, le=100_000)] = 200
    """A primary reads at most that much of its data for a copy; 0: as fast as it can."""


class Api(Section):
    """The HTTP API of each agent."""

    enabled: bool = True
    """Where the file does not say it: if the packages are installed."""
    listen: Annotated[str, Field(max_length=253, pattern=r"^[^\s/]*$")] = ""
    """The address to listen at, such as 127.0.0.1 or 0.0.0.0. Default: the node's host."""
    token_file: str = ""
    """Who asks for a change must know what stands in it. Default: none is needed on loopback, and
    beyond it no change can be asked for."""

    @property
    def is_asked_for(self) -> bool:
        """The file says it, or something of it: then its packages must be there."""
        return self.enabled and bool(self.model_fields_set)


class Hooks(Section):
    role_changed: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=32)] = []
    """Program and arguments, run by the agent when its database's role has changed. No shell."""
    timeout_s: Annotated[float, Field(ge=0.1, le=600)] = 10.0


class Node(Section):
    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s/]+$")]
    database: bool = True
    """False: a witness; it votes and holds no data."""
    site: Annotated[str, Field(pattern=SITE)] = ""
    """Where the host stands: a building, a zone."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    never_promote: bool = False
    peer_port: Port = 7101
    store_port: Port = 7102
    clone_port: Port = 7103
    api_port: Port = 7104
    pull_port: Port = 7105
    """Where replicas fetch the log, with an engine that has one of primacy's own."""
    database_port: Port = 3306
    rw_port: Port = 3307
    ro_port: Port = 3308
    peer_router_port: Port = 3309
    state_dir: str = ""
    """This node's own directory. Default: its name, below the cluster's `state_dir`."""

    @property
    def peer(self) -> Address:
        return Address(self.host, self.peer_port)

    @property
    def store(self) -> Address:
        return Address(self.host, self.store_port)

    @property
    def clone(self) -> Address:
        return Address(self.host, self.clone_port)

    @property
    def database_door(self) -> Address:
        return Address(self.host, self.database_port)

    @property
    def rw(self) -> Address:
        return Address(self.host, self.rw_port)

    @property
    def ro(self) -> Address:
        return Address(self.host, self.ro_port)

    @property
    def peer_router(self) -> Address:
        return Address(self.host, self.peer_router_port)

    @property
    def pull(self) -> Address:
        return Address(self.host, self.pull_port)


class Config(Section):
    """The whole cluster, as its operator wants it. Paths are absolute."""

    cluster: Cluster
    durability: Durability = Durability()
    router: Router = Router()
    mariadb: MariaDb = MariaDb()
    sqlite: Sqlite = Sqlite()
    api: Api = Api()
    hooks: Hooks = Hooks()
    nodes: Annotated[dict[str, Node], Field(min_length=1, max_length=NODES_MAX)]
    directory: Path = Field(default=Path(), exclude=True)
    """Where the file stands: its relative paths begin here. Not a key of the file."""

    @property
    def lease_ttl_s(self) -> float:
        given = self.cluster.lease_ttl_s
        return PROFILES[self.cluster.profile] if given is None else given

    @property
    def members(self) -> tuple[NodeId, ...]:
        """All nodes, by name; each votes."""
        return tuple(NodeId(name) for name in sorted(self.nodes))

    @property
    def data_nodes(self) -> tuple[NodeId, ...]:
        return tuple(name for name in self.members if self.nodes[name].database)

    @property
    def acks(self) -> int:
        """`durability.acks` as a number, for the data nodes that there are."""
        return acks_of(self.durability.acks, data_node_count=len(self.data_nodes))

    @property
    def preferred_nodes(self) -> tuple[NodeId, ...]:
        """Those of the preferred site that may be primary."""
        nodes, site = self.nodes, self.cluster.preferred_site
        return tuple(
            name
            for name in self.data_nodes
            if site and nodes[name].site == site and not nodes[name].never_promote
        )

    @property
    def secret_path(self) -> Path:
        return self.directory / self.cluster.secret_file

    def node(self, name: str) -> Node:
        """Raises `ConfigRejected` for a name that the file does not have."""
        found = self.nodes.get(name)
        if found is None:
            rule = f"the file's nodes are {', '.join(self.members)}"
            raise ConfigRejected("the command line", (Problem("--node", repr(name), rule),))
        return found

    def ports(self, name: str) -> dict[str, int]:
        """Key -> port, of the doors that this node opens."""
        node = self.node(name)
        keys = door_keys(self.cluster.engine, has_database=node.database)
        return {key: getattr(node, key) for key in keys}

    def state_dir(self, name: str) -> Path:
        """Where this node keeps its data, store and accounts."""
        own = self.node(name).state_dir
        if own:
            return self.directory / own
        shared = self.cluster.state_dir or f"/var/lib/primacy/{self.cluster.name}"
        return self.directory / shared / name

    @property
    def users_path(self) -> Path | None:
        """Who may connect to the databases; None: everybody who reaches a door."""
        return self.directory / self.sqlite.users_file if self.sqlite.users_file else None

    def api_door(self, name: str) -> Address:
        """Where this node's HTTP API listens."""
        node = self.node(name)
        return Address(self.api.listen or node.host, node.api_port)

    def api_token(self) -> str | None:
        """What must be known to ask for a change over HTTP; None: no token is configured. Raises
        `ConfigRejected` where its file cannot be used."""
        if not self.api.token_file:
            return None
        path = self.directory / self.api.token_file
        problems = list(token_problems(path, "api.token_file"))
        if problems:
            raise ConfigRejected(str(path), tuple(problems))
        return token_in(path)

    def secret(self) -> bytes:
        """What the members share. Raises `ConfigRejected` where it cannot be used."""
        problems = list(secret_problems(self.secret_path))
        if problems:
            raise ConfigRejected(str(self.secret_path), tuple(problems))
        return bytes.fromhex(self.secret_path.read_text().strip())
