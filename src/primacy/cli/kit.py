"""What the commands ask about the engine of a cluster. Each has a kit, which is imported only when
its cluster is meant: a cluster of one engine needs no package of another.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from primacy.clock import Clock
from primacy.config import Config, Problem
from primacy.engines.api import Engine
from primacy.errors import Rejected
from primacy.model import NodeId
from primacy.routing.words import Refusal
from primacy.telemetry import Sink

HEALTH_SHARE = 0.6
"""Of the lease: how long a server may be silent before it counts as hung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Of an engine that an agent runs."""

    launcher: Path | None
    """The socket of the host's launcher; None: there is none, the agent starts the guard."""
    clock: Clock
    events: Sink


class Kit(Protocol):
    """All that differs between engines, outside of the engine itself."""

    @property
    def server_unit(self) -> str:
        """A distribution's service that would start a second server; empty: there is none."""
        ...

    @property
    def log_files(self) -> Sequence[str]:
        """Of a node, below its directory: what a report takes, beside what all nodes have."""
        ...

    def words(self, refusal: Refusal, message: str) -> bytes:
        """How a router sends a client away (`routing/words.py`)."""
        ...

    def page(self, config: Config, node: NodeId) -> Path:
        """The deadline page of a node with a database."""
        ...

    def engine(
        self, config: Config, node: NodeId, around: Surroundings
    ) -> AbstractAsyncContextManager[Engine]:
        """Of this host, with its clone door open until the context ends."""
        ...

    def url(self, config: Config, *, user: str, is_read: bool) -> str:
        """Of the cluster, through all its routers, for `primacy sql`. `Rejected` where that speaks
        another protocol."""
        ...

    def program_problems(self, config: Config) -> Iterator[Problem]:
        """What is missing on this host."""
        ...

    def data_problems(self, config: Config, node: NodeId) -> Iterator[Problem]:
        """What is wrong with what stands in the node's directory, and with files of its own."""
        ...

    def unix_user(self, config: Config) -> str:
        """Whom the server runs as where primacy is root; empty: as primacy does."""
        ...

    def versions(self, config: Config) -> list[str]:
        """Of its programs and libraries, a line for each."""
        ...

    def secrets(self, config: Config) -> set[str]:
        """What a report must not show, beside the cluster's own secret."""
        ...


def kit_of(config: Config) -> Kit:
    """`Rejected` where a package is missing."""
    name = config.cluster.engine
    module, source = NEEDS[name]
    if importlib.util.find_spec(module) is None:
        raise Rejected(
            f"engine {name!r} needs the package {module}, which is not installed",
            hint=f"pip install '{source}'",
        )
    return KITS[name]()


def _mariadb() -> Kit:
    from primacy.cli.kits.mariadb import MariaDbKit

    return MariaDbKit()


def _sqlite() -> Kit:
    from primacy.cli.kits.sqlite import SqliteKit

    return SqliteKit()


KITS: Mapping[str, Callable[[], Kit]] = {"mariadb": _mariadb, "sqlite": _sqlite}

NEEDS: Mapping[str, tuple[str, str]] = {
    "mariadb": ("pymysql", "primacy[mariadb]"),
    "sqlite": ("apsw", "apsw"),
}
"""Engine -> a module that it needs, and what to install for it."""
