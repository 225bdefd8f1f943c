"""What the file says for one engine only: the keys that mean nothing to another."""

from collections.abc import Mapping
from dataclasses import dataclass

from primacy.engines.api import Capabilities
from primacy.engines.capabilities import MARIADB, SQLITE


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKeys:
    """Of one engine of this version."""

    capabilities: Capabilities
    section: str
    doors: tuple[str, ...]
    """The port keys of a node with a database, beside those that every node has."""
    users_key: str = ""
    """Without it everybody who reaches a door may connect. Empty: the databases know who may."""


ENGINE_KEYS: Mapping[str, EngineKeys] = {
    "mariadb": EngineKeys(
        capabilities=MARIADB, section="mariadb", doors=("clone_port", "database_port")
    ),
    "sqlite": EngineKeys(
        capabilities=SQLITE,
        section="sqlite",
        doors=("clone_port", "pull_port", "database_port"),
        users_key="sqlite.users_file",
    ),
}

ENGINES: Mapping[str, Capabilities] = {
    name: keys.capabilities for name, keys in ENGINE_KEYS.items()
}
"""What each engine of this version keeps. Everything else is refused here."""

ENGINES_PLANNED = ("postgresql",)

MEMBER_DOORS = ("peer_port", "store_port", "api_port")
ROUTER_DOORS = ("rw_port", "ro_port", "peer_router_port")
SERVER_DOORS = ("pull_port", "database_port")
"""Of a database server, which outlives its agent."""

DEFAULT_ENGINE = "sqlite"
"""What `primacy init` writes where nobody says."""


def door_keys(engine: str, *, has_database: bool) -> tuple[str, ...]:
    """The port keys of the doors that such a node opens, in the order of the file. Of an engine
    that is unknown: those that every engine has."""
    keys = ENGINE_KEYS.get(engine)
    own = keys.doors if keys is not None else ("clone_port", "database_port")
    return (*MEMBER_DOORS, *(own if has_database else ()), *ROUTER_DOORS)


def foreign_doors(engine: str) -> frozenset[str]:
    """The port keys that only other engines have."""
    own = ENGINE_KEYS[engine].doors if engine in ENGINE_KEYS else ()
    return frozenset(key for keys in ENGINE_KEYS.values() for key in keys.doors) - {*own}
