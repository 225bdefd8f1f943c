"""What the demo does inside MariaDB with a plain driver: a table, a user, the rows, checksums."""

import secrets
from contextlib import closing

import pymysql

from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_writers import TABLE, WriterSpec, WritersSpec
from primacy.engines.mariadb.accounts import agent_user
from primacy.errors import Unavailable
from primacy.model import NodeId

ROUTER_WRITERS = 4
TIMEOUT_S = 10
USER = "demo"


class Lock:
    """A table lock of a session of its own. Its server may die meanwhile."""

    def __init__(self, session: "pymysql.connections.Connection") -> None:
        self._session = session

    def close(self) -> None:
        self._session._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # close() would talk to a server that may be dead.


class MariaDbDemo:
    """Blocking: call it in a thread."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.password = secrets.token_hex(16)

    def server_number(self, node: str) -> int:
        """As the engine numbers them: the place among the data nodes, sorted by name, from 1."""
        return sorted(self._cluster.nodes).index(NodeId(node)) + 1

    def prepare(self, primary: NodeId) -> None:
        """The demo's table and user, made by the database's own root over its socket."""
        account = f"'{USER}'@'{self._cluster.network.clients_host}'"
        self.as_root(
            primary,
            "CREATE DATABASE IF NOT EXISTS primacy_demo",
            f"CREATE TABLE IF NOT EXISTS {TABLE} (id BIGINT PRIMARY KEY, door VARCHAR(16) NOT NULL,"
            " sent_s DOUBLE NOT NULL) ENGINE=InnoDB",
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{self.password}'",
            f"GRANT SELECT, INSERT ON primacy_demo.* TO {account}",
        )

    def as_root(self, node: NodeId, *statements: str) -> None:
        """On that node's server, by its own socket. `Unavailable` where it refuses."""
        with closing(self._root_session(node, *statements)):
            return

    def lock(self, node: NodeId) -> "Lock":
        """Lock the clients' table on that node, against its applier too, until `close`."""
        return Lock(self._root_session(node, f"LOCK TABLES {TABLE} READ"))

    def _root_session(self, node: NodeId, *statements: str) -> "pymysql.connections.Connection":
        socket = self._cluster.nodes[node].state_dir / "run" / "db.sock"
        try:
            made = pymysql.connect(
                unix_socket=str(socket), user=agent_user(), autocommit=True, read_timeout=TIMEOUT_S
            )
            with made.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        except (pymysql.err.Error, OSError) as error:
            raise Unavailable(f"{node}'s server: {error}", hint="See its log.") from error
        return made

    def writers(self) -> WritersSpec:
        """Four at the routers' doors, one at each server."""
        nodes = list(self._cluster.nodes.values())
        through = [
            WriterSpec(number, "rw", node.host, node.ports["rw_port"])
            for number in range(ROUTER_WRITERS)
            for node in (nodes[number % len(nodes)],)
        ]
        direct = [
            WriterSpec(ROUTER_WRITERS + number, node.name, node.host, node.ports["database_port"])
            for number, node in enumerate(nodes)
        ]
        return WritersSpec(
            writers=(*through, *direct),
            user=USER,
            password=self.password,
            ledger=str(self._cluster.root / "ledger"),
        )

    def rows(self, node: NodeId) -> set[int]:
        """The ids of all rows that this node's server shows."""
        return {int(row[0]) for row in self._ask(node, f"SELECT id FROM {TABLE}")}

    def checksums(self) -> dict[NodeId, tuple[int, int]]:
        """Per node: rows and a checksum of them."""
        found = {}
        for node in self._cluster.nodes:
            ((count, checksum),) = self._ask(
                node,
                f"SELECT COUNT(*), COALESCE(BIT_XOR(CRC32(CONCAT_WS(':', id, door, sent_s))), 0)"
                f" FROM {TABLE}",
            )
            found[node] = (int(count), int(checksum))
        return found

    def _ask(self, node: NodeId, statement: str) -> list[tuple[int, ...]]:
        where = self._cluster.nodes[node].address("database_port")
        try:
            with (
                pymysql.connect(
                    host=where.host,
                    port=where.port,
                    user=USER,
                    password=self.password,
                    connect_timeout=TIMEOUT_S,
                    read_timeout=TIMEOUT_S * 3,
                ) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(statement)
                return list(cursor.fetchall())
        except (pymysql.err.Error, OSError) as error:
            raise Unavailable(
                f"{node} did not answer {statement!r}: {error}", hint="See its log."
            ) from error
