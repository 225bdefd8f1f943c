"""One TOML file for the whole cluster: one frozen value, or every mistake at once.

Promises  A `Config` that exists has passed every rule here, also those between keys. A file with
          mistakes raises one `ConfigRejected` that names them all, each with key, value and rule.
          Nothing is written.
Assumes   The file is the same on every host; `--node` says which of its nodes this one is.
Does not  Look at this host: ports, programs and data directories are the preflight's business.
          No other room reads the environment: here it is `PRIMACY_CONFIG`, the file's path.
"""

from primacy.config.engines import (
    DEFAULT_ENGINE,
    ENGINE_KEYS,
    ENGINES,
    ENGINES_PLANNED,
    ROUTER_DOORS,
    SERVER_DOORS,
    door_keys,
)
from primacy.config.problems import ConfigRejected, Problem
from primacy.config.reading import (
    CONFIG_BYTES_MAX,
    CONFIG_NAME,
    CONFIG_VARIABLE,
    load,
    parse,
    path_of,
)
from primacy.config.rules import (
    OWNED_SETTINGS,
    is_loopback,
    warnings,
)
from primacy.config.secret import SECRET_BYTES, token_in, token_problems
from primacy.config.sections import (
    LEASE_TTL_FLOOR_S,
    LEASE_TTL_MAX_S,
    NODES_MAX,
    PROFILES,
    Api,
    Cluster,
    Config,
    Durability,
    MariaDb,
    Node,
    Router,
    Section,
    Sqlite,
)

__all__ = [
    "CONFIG_BYTES_MAX",
    "CONFIG_NAME",
    "CONFIG_VARIABLE",
    "DEFAULT_ENGINE",
    "ENGINES",
    "ENGINES_PLANNED",
    "ENGINE_KEYS",
    "LEASE_TTL_FLOOR_S",
    "LEASE_TTL_MAX_S",
    "NODES_MAX",
    "OWNED_SETTINGS",
    "PROFILES",
    "ROUTER_DOORS",
    "SECRET_BYTES",
    "SERVER_DOORS",
    "Api",
    "Cluster",
    "Config",
    "ConfigRejected",
    "Durability",
    "MariaDb",
    "Node",
    "Problem",
    "Router",
    "Section",
    "Sqlite",
    "door_keys",
    "is_loopback",
    "load",
    "parse",
    "path_of",
    "token_in",
    "token_problems",
    "warnings",
]
