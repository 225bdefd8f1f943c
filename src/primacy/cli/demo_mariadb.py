"""What the demo does inside MariaDB with a plain driver: a table, a user, the rows, checksums."""

import secrets
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pymysql

from primacy.cli.demo_mariadb_client import TABLE
from primacy.cli.demo_nodes import LocalCluster, there
from primacy.cli.demo_writers import WritersSpec, at_doors
from primacy.engines.mariadb.accounts import agent_user
from primacy.errors import Unavailable
from primacy.model import NodeId

TIMEOUT_S = 10
USER = "demo"


class Lock:
    """A table lock of a session of its own. Its server may die meanwhile."""

    def __init__(self, session: "pymysql.connections.Connection") -> None:
        self._session = session

    def close(self) -> None:
        self._session._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # close() would talk to a server that may be dead.


class Unreadable:
    """A file that may not be read any more. It may be gone when it may be again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with there(file):
            self._mode = file.stat().st_mode
            file.chmod(0)

    def close(self) -> None:
        if self._file.exists():
            self._file.chmod(self._mode)


class MariaDbDemo:
    """See `demo_database.DemoDatabase`."""

    settings: ClassVar[str] = "[mariadb]\ninnodb_buffer_pool_mb = 32"
    answers_by_page: ClassVar[bool] = False
    bears_room: ClassVar[bool] = False  # Of root it becomes a user who does not exist there.

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.password = secrets.token_hex(16)

    def prepare(self, primary: NodeId) -> None:
        """The demo's table and user, made by the database's own root over its socket."""
        account = f"'{USER}'@'{self._cluster.network.clients_host}'"
        self._as_root(
            primary,
            "CREATE DATABASE IF NOT EXISTS primacy_demo",
            f"CREATE TABLE IF NOT EXISTS {TABLE} (id BIGINT PRIMARY KEY, door VARCHAR(16) NOT NULL,"
            " sent_s DOUBLE NOT NULL) ENGINE=InnoDB",
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{self.password}'",
            f"GRANT SELECT, INSERT ON primacy_demo.* TO {account}",
        )

    def writers(self) -> WritersSpec:
        nodes = list(self._cluster.nodes.values())
        return WritersSpec(
            engine="mariadb",
            nodes=tuple(sorted(node.name for node in nodes if not node.is_witness)),
            writers=at_doors(nodes),
            user=USER,
            password=self.password,
            ledger=str(self._cluster.root / "ledger"),
        )

    def rows(self, node: NodeId) -> set[int]:
        return {int(row[0]) for row in self._ask(node, f"SELECT id FROM {TABLE}")}

    def checksums(self) -> dict[NodeId, tuple[int, int]]:
        found = {}
        for node in self._cluster.nodes:
            ((count, checksum),) = self._ask(
                node,
                f"SELECT COUNT(*), COALESCE(BIT_XOR(CRC32(CONCAT_WS(':', id, door, sent_s))), 0)"
                f" FROM {TABLE}",
            )
            found[node] = (int(count), int(checksum))
        return found

    # ---- faults

    def block_applier(self, node: NodeId) -> Lock:
        """By a lock on the clients' table."""
        return Lock(self._root_session(node, f"LOCK TABLES {TABLE} READ"))

    def put_in_the_way(self, node: NodeId, rows: Collection[int]) -> None:
        values = ", ".join(f"({row}, 'x', 0)" for row in rows)
        self._as_root(
            node,
            "SET SESSION sql_log_bin = 0",
            f"INSERT INTO {TABLE} (id, door, sent_s) VALUES {values}",
        )

    def keep_down(self, node: NodeId) -> Unreadable:
        """One of its files may not be read any more."""
        return Unreadable(self.data_directory(node) / "ibdata1")

    def data_directory(self, node: NodeId) -> Path:
        return self._cluster.nodes[node].state_dir / "data"

    # ---- inside

    def _as_root(self, node: NodeId, *statements: str) -> None:
        """On that node's server, by its own socket. `Unavailable` where it refuses."""
        with closing(self._root_session(node, *statements)):
            return

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
