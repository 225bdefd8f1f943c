"""One TOML file for the whole cluster: one frozen value, or every mistake at once.

Promises  A `Config` that exists has passed every rule here, also those between keys. A file with
          mistakes raises one `ConfigRejected` that names them all, each with key, value and rule.
          Nothing is written.
Assumes   The file is the same on every host; `--node` says which of its nodes this one is.
Does not  Look at this host: ports, programs and data directories are the preflight's business.
          No other module reads the environment: here it is `PRIMACY_CONFIG`, the file's path.
"""

import difflib
import ipaddress
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from primacy.engines.api import Capabilities
from primacy.errors import Rejected
from primacy.model import Address, NodeId

CONFIG_NAME = "primacy.toml"
CONFIG_VARIABLE = "PRIMACY_CONFIG"
CONFIG_BYTES_MAX = 1 << 20
"""A file beyond this is no configuration of ours."""

LEASE_TTL_FLOOR_S = 1.0
"""Below it the store's own election no longer fits into the lease (heartbeat ttl/20)."""
LEASE_TTL_MAX_S = 60.0
NODES_MAX = 9
SECRET_BYTES = 32

PROFILES: Mapping[str, float] = {"default": 3.0, "fast": 1.0}
"""Profile -> lease_ttl_s."""

ENGINES: Mapping[str, Capabilities] = {
    "mariadb": Capabilities(
        name="mariadb",
        acks=frozenset({"0", "1"}),
        ack_on=frozenset({"received"}),
        alternative="sqlite (planned; not in this version)",
    ),
}
"""What each engine of this version keeps. Everything else is refused here."""

ENGINES_PLANNED = ("sqlite", "postgresql")

OWNED_SETTINGS = frozenset(
    """
    bind_address binlog_format binlog_row_image datadir gtid_domain_id gtid_strict_mode
    init_rpl_role innodb_buffer_pool_size innodb_flush_log_at_trx_commit log_bin
    log_slave_updates pid_file port proxy_protocol_networks read_only relay_log report_host
    report_port server_id skip_slave_start slave_net_timeout socket sync_binlog sync_relay_log user
    """.split()  # noqa: SIM905 - a list of words is easier to read than 25 quoted lines.
)
"""Server variables that safety rests on, or that other keys set. All `rpl_semi_sync_*` are, too."""

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
    insecure: bool = False
    """Allow doors beyond loopback although there is no TLS yet."""
    secret_file: str = "primacy.secret"


class Durability(Section):
    acks: Annotated[int, Field(ge=0)] | Literal["quorum", "all"] = 1
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
    innodb_buffer_pool_mb: Annotated[int, Field(ge=16)] = 128
    settings: dict[str, str | int | bool] = {}
    """Further server variables."""


class Node(Section):
    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s/]+$")]
    database: bool = True
    """False: a witness; it votes and holds no data."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    never_promote: bool = False
    peer_port: Port = 7101
    store_port: Port = 7102
    clone_port: Port = 7103
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

    def ports(self) -> dict[str, int]:
        """Key -> port, of the doors that this kind of node opens."""
        names = ["peer_port", "store_port"]
        if self.database:
            names += ["clone_port", "database_port"]
        names += ["rw_port", "ro_port", "peer_router_port"]
        return {name: getattr(self, name) for name in names}


class Config(Section):
    """The whole cluster, as its operator wants it. Paths are absolute."""

    cluster: Cluster
    durability: Durability = Durability()
    router: Router = Router()
    mariadb: MariaDb = MariaDb()
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
    def secret_path(self) -> Path:
        return self.directory / self.cluster.secret_file

    def node(self, name: str) -> Node:
        """Raises `ConfigRejected` for a name that the file does not have."""
        found = self.nodes.get(name)
        if found is None:
            rule = f"the file's nodes are {', '.join(self.members)}"
            raise ConfigRejected("the command line", (Problem("--node", repr(name), rule),))
        return found

    def state_dir(self, name: str) -> Path:
        """Where this node keeps its data, store and accounts."""
        own = self.node(name).state_dir
        if own:
            return self.directory / own
        shared = self.cluster.state_dir or f"/var/lib/primacy/{self.cluster.name}"
        return self.directory / shared / name

    def secret(self) -> bytes:
        """What the members share. Raises `ConfigRejected` where it cannot be used."""
        problems = list(_secret_problems(self.secret_path))
        if problems:
            raise ConfigRejected(str(self.secret_path), tuple(problems))
        return bytes.fromhex(self.secret_path.read_text().strip())


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, what stands there, and the rule that it breaks."""

    key: str
    value: str
    rule: str

    def __str__(self) -> str:
        return (
            f"{self.key} = {self.value}: {self.rule}" if self.value else f"{self.key}: {self.rule}"
        )


class ConfigRejected(Rejected):
    """The configuration cannot be used; `problems` holds every mistake."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "".join(f"\n  - {each}" for each in problems)
        super().__init__(
            f"{source}: {count}{lines}\nNothing was changed", hint="Correct and retry."
        )
        self.problems = problems


def path_of(given: Path | None) -> Path:
    """The file to read: as given, else from the environment, else `primacy.toml` here."""
    return given or Path(os.environ.get(CONFIG_VARIABLE, CONFIG_NAME))


def load(path: Path) -> Config:
    """Read, parse and check the file, the secret's file mode included."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        rule = f"{error.strerror}. Write one with `primacy init`, or name it with --config"
        raise ConfigRejected(str(path), (Problem("file", "", rule),)) from error
    try:
        if len(raw) > CONFIG_BYTES_MAX:
            raise ValueError(f"longer than {CONFIG_BYTES_MAX} bytes")
        tree: dict[str, object] = tomllib.loads(raw.decode())
    except ValueError as error:
        raise ConfigRejected(str(path), (Problem("file", "", f"not TOML: {error}"),)) from error
    config, problems = parse(tree, path.absolute().parent)
    if config is not None:
        problems += _secret_problems(config.secret_path)
    if problems or config is None:
        raise ConfigRejected(str(path), tuple(problems))
    return config


def parse(tree: dict[str, object], directory: Path) -> tuple[Config | None, list[Problem]]:
    """The value, and every mistake. Where a key is wrong, the rules between keys are still
    checked with that key left out; the value is None where too little is left for that."""
    problems: list[Problem] = []
    if "directory" in tree:
        problems.append(Problem("directory", repr(tree["directory"]), "unknown key"))
    rest: dict[str, object] = {**tree, "directory": directory}
    for _ in range(2):
        try:
            config = Config.model_validate(rest)
        except ValidationError as error:
            for each in error.errors():
                found = _problem(each["loc"], each["type"], each["msg"], each["input"])
                if found not in problems:
                    problems.append(found)
            rest = _judgeable(rest, [each["loc"] for each in error.errors()])
        else:
            return config, problems + list(_cross_problems(config))
    return None, problems


def warnings(config: Config) -> list[str]:
    """What is allowed and will surprise somebody one day."""
    said: list[str] = []
    data, voters = len(config.data_nodes), len(config.members)
    is_strict = config.durability.acks != 0 and config.durability.on_timeout == "block"
    if voters < 3:
        said.append(
            f"{voters} node(s): nothing survives the loss of one. Use three, or two and a witness."
        )
    elif voters % 2 == 0:
        said.append(
            f"{voters} voters tolerate no more losses than {voters - 1}: use an odd number."
        )
    if data == 2 and is_strict:
        said.append(
            "two data nodes: while one is down or reboots, the other's writes are blocked, since"
            ' acks = 1 needs a replica. Add a third, or set durability.on_timeout = "degrade".'
        )
    if config.durability.acks == 0:
        said.append(
            "acks = 0: a failover may lose acknowledged writes. They are counted and saved."
        )
    if any(not _is_loopback(node.host) for node in config.nodes.values()):
        said.append(
            "insecure = true: traffic between hosts is not encrypted yet. Use a private LAN."
        )
    return said


# ---- rules between keys -----------------------------------------------------------------------


def _cross_problems(config: Config) -> Iterator[Problem]:
    yield from _engine_problems(config)
    yield from _address_problems(config)
    yield from _node_problems(config)
    yield from _setting_problems(config)


def _engine_problems(config: Config) -> Iterator[Problem]:
    name, acks, ack_on = config.cluster.engine, config.durability.acks, config.durability.ack_on
    engine = ENGINES.get(name)
    if engine is None:
        planned = " It is planned, and not in this version." if name in ENGINES_PLANNED else ""
        rule = f"this version has: {', '.join(ENGINES)}.{planned}"
        yield Problem("cluster.engine", repr(name), rule)
        return
    if str(acks) not in engine.acks:
        kept = " or ".join(sorted(engine.acks))
        rule = f"{name} keeps {kept}; for any number: {engine.alternative}"
        yield Problem("durability.acks", repr(acks), rule)
    elif acks == 1 and len(config.data_nodes) == 1:
        yield Problem("durability.acks", "1", "one data node has no replica that could acknowledge")
    if ack_on not in engine.ack_on:
        kept = " or ".join(sorted(engine.ack_on))
        rule = f"{name} keeps {kept}; for others: {engine.alternative}"
        yield Problem("durability.ack_on", repr(ack_on), rule)


def _address_problems(config: Config) -> Iterator[Problem]:
    taken: dict[tuple[str, int], str] = {}
    for name in config.members:
        node = config.nodes[name]
        host = "127.0.0.1" if node.host == "localhost" else node.host.lower()
        for key, port in node.ports().items():
            full = f"nodes.{name}.{key}"
            other = taken.setdefault((host, port), full)
            if other != full:
                yield Problem(full, str(port), f"{node.host}:{port} is {other} already")
    beyond = [name for name in config.members if not _is_loopback(config.nodes[name].host)]
    if beyond and not config.cluster.insecure:
        rule = (
            f"{', '.join(beyond)} would listen beyond loopback, and TLS is not in this version."
            " On a network that you trust, set insecure = true"
        )
        yield Problem("cluster.insecure", "false", rule)


def _node_problems(config: Config) -> Iterator[Problem]:
    for name in config.members:
        if not all(each.isalnum() or each == "-" for each in name) or not name[:1].isalpha():
            rule = "a node's name is letters, digits and hyphens, a letter first"
            yield Problem(f"nodes.{name}", "", rule)
        elif len(name) > 32 or not name.isascii() or name != name.lower():
            yield Problem(f"nodes.{name}", "", "a node's name is lower-case ASCII, at most 32 long")
    if not config.data_nodes:
        yield Problem("nodes", "", "no node has a database: every one is a witness")
    elif all(config.nodes[name].never_promote for name in config.data_nodes):
        yield Problem("nodes", "", "every data node says never_promote: nobody could be primary")
    taken: dict[tuple[str, Path], str] = {}
    for name in config.members:
        place = config.state_dir(name)
        other = taken.setdefault((config.nodes[name].host, place), name)
        if other != name:
            rule = f"{other} on the same host has the same directory"
            yield Problem(f"nodes.{name}.state_dir", repr(str(place)), rule)


def _setting_problems(config: Config) -> Iterator[Problem]:
    for key, value in config.mariadb.settings.items():
        name = key.replace("-", "_").removeprefix("loose_")
        if name in OWNED_SETTINGS or name.startswith("rpl_semi_sync_"):
            rule = "primacy sets this one itself: what it promises rests on it"
            yield Problem(f"mariadb.settings.{key}", repr(value), rule)
        elif not name.replace("_", "").isalnum() or "\n" in str(value):
            yield Problem(f"mariadb.settings.{key}", repr(value), "not the name of a variable")


def _secret_problems(path: Path) -> Iterator[Problem]:
    key, shown = "cluster.secret_file", repr(str(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        yield Problem(key, shown, f"{reason}. `primacy init` makes it; copy it to every host")
        return
    if mode & 0o077:
        yield Problem(key, shown, f"others may read it (mode {mode:04o}). Run: chmod 600 {path}")
    if len(content.strip()) != 2 * SECRET_BYTES or not set(content.strip()) <= set(
        "0123456789abcdef"
    ):
        yield Problem(key, shown, f"must hold {SECRET_BYTES} bytes as lower-case hex digits")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---- pydantic's findings in our words ---------------------------------------------------------


def _problem(loc: tuple[int | str, ...], kind: str, message: str, value: object) -> Problem:
    # A union adds its branches' names to the place; a key never begins so.
    place = [str(each) for each in loc if not str(each).startswith(("literal[", "constrained-"))]
    if loc[:2] == ("durability", "acks"):
        place, message = place[:2], "must be a whole number >= 0, 'quorum' or 'all'"
    elif loc[:2] == ("mariadb", "settings"):
        place, message = place[:3], "must be a text, a whole number, true or false"
    key = ".".join(place)
    match kind:
        case "extra_forbidden":
            return Problem(key, _shown(value), f"unknown key{_suggestion(place)}")
        case "missing":
            return Problem(key, "", "is required")
        case "string_pattern_mismatch" if key == "cluster.name":
            rule = "lower-case letters, digits and hyphens, a letter first, at most 31 long"
            return Problem(key, _shown(value), rule)
        case _:
            rule = message.removeprefix("Input should be ").replace("Input should", "should")
            return Problem(key, _shown(value), rule)


def _suggestion(place: list[str]) -> str:
    sections: dict[str, type[Section]] = {
        "cluster": Cluster,
        "durability": Durability,
        "router": Router,
        "mariadb": MariaDb,
        "nodes": Node,
    }
    section = sections.get(place[0]) if len(place) > 1 else None
    known = sorted(section.model_fields if section else sections)
    close = difflib.get_close_matches(place[-1], known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _judgeable(
    tree: Mapping[str, object], places: list[tuple[int | str, ...]]
) -> dict[str, object]:
    """The tree without the keys that are wrong, so that the rules between the others can speak."""
    left = _without(tree, places)
    cluster, nodes = left.get("cluster"), left.get("nodes")
    known = cluster if isinstance(cluster, dict) else {}
    left["cluster"] = {"name": "unnamed", "engine": "mariadb", **known}
    if isinstance(nodes, dict):
        left["nodes"] = {
            name: node for name, node in nodes.items() if isinstance(node, dict) and "host" in node
        }
    return left


def _without(tree: Mapping[str, object], places: list[tuple[int | str, ...]]) -> dict[str, object]:
    left: dict[str, object] = {}
    for key, value in tree.items():
        inner = [place[1:] for place in places if place[0] == key]
        if not inner:
            left[key] = value
        elif all(inner) and isinstance(value, dict):
            left[key] = _without(value, inner)
    return left
