"""What the demo asks of a database, and what some of its faults do to one: one contract, an
implementation for each engine.

The agents know nothing of it: here is an application with its table, and a clumsy person at the
servers.
"""

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Protocol

from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_writers import WritersSpec
from primacy.errors import Rejected
from primacy.model import NodeId


class Held(Protocol):
    """Something done to a server that ends with `close`, whatever became of the server."""

    def close(self) -> None: ...


class DemoDatabase(Protocol):
    """Of one cluster. Everything blocks: call it in a thread. `Unavailable` where a server does not
    answer or refuses."""

    settings: ClassVar[str]
    """Lines of the configuration for servers that share one small machine."""
    answers_by_page: ClassVar[bool]
    """Its server looks at the deadline page before each answer, also where no router stands between
    it and the client."""
    bears_room: ClassVar[bool]
    """Its agents and servers run where they are taken for root and are not (`demo_disks`)."""

    def __init__(self, cluster: LocalCluster) -> None:
        """Before the cluster is started: it may write what the configuration names."""
        ...

    def prepare(self, primary: NodeId) -> None:
        """The clients' table, and whoever may write to it. Called again: nothing changes."""
        ...

    def writers(self) -> WritersSpec:
        """Four clients at the routers' doors, and one attached directly to each server."""
        ...

    def rows(self, node: NodeId) -> set[int]:
        """The ids of all rows that this node's server shows."""
        ...

    def checksums(self) -> dict[NodeId, tuple[int, int]]:
        """Per node: rows and a checksum of them."""
        ...

    def block_applier(self, node: NodeId) -> Held:
        """What this node receives is not applied any more, until `close` or its server's end."""
        ...

    def put_in_the_way(self, node: NodeId, rows: Collection[int]) -> None:
        """On this node alone, past its server's rules: rows that the primary does not have. Where
        the clients' rows of these ids come, its applier stops on an error."""
        ...

    def keep_down(self, node: NodeId) -> Held:
        """Once it has ended, this node's server cannot start again, until `close`. `Unavailable`
        where the node has no data."""
        ...

    def data_directory(self, node: NodeId) -> Path:
        """Of the node's server: without it the node has lost all data."""
        ...


def database_of(engine: str) -> type[DemoDatabase]:
    """`Rejected` with the engines that there are. Only the one that is asked for is imported."""
    match engine:
        case "mariadb":
            from primacy.cli.demo_mariadb import MariaDbDemo

            return MariaDbDemo
        case "sqlite":
            from primacy.cli.demo_sqlite import SqliteDemo

            return SqliteDemo
        case _:
            raise Rejected(
                f"--engine {engine}: this version has the engines mariadb and sqlite",
                hint="Name one of these.",
            )
