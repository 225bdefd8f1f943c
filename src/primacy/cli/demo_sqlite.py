"""What the demo does to SQLite servers: a table and a user, by primacy's own driver; and what a
clumsy person may do to the files of one, by a plain SQLite."""

import os
import secrets
import sqlite3
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

import primacy
from primacy.cli.demo_nodes import LocalCluster, there
from primacy.cli.demo_sqlite_client import DATABASE, TABLE, url_of
from primacy.cli.demo_writers import WritersSpec, at_doors
from primacy.driver import Connection
from primacy.engines.sqlite.scram import SALT_BYTES, verifier_of
from primacy.errors import PrimacyError, Unavailable
from primacy.model import NodeId

CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 30.0
BUSY_S = 5.0
"""How long an applier may be in the middle of a commit."""
PAGE_ROWS = 20_000
"""Asked for at a time: a server does not answer with any number of rows."""
USER = "demo"
USERS_FILE = "demo.users"


class Away:
    """A file is gone, and something that is no file stands in its place: root may read any file,
    whatever its mode. What was cloned anew meanwhile is left alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = file.with_name(f"{file.name}.away")
        with there(file):
            file.rename(self._kept)
        file.mkdir()

    def close(self) -> None:
        if self._kept.exists():
            self._file.rmdir()
            self._kept.rename(self._file)


class SqliteDemo:
    """See `demo_database.DemoDatabase`."""

    settings: ClassVar[str] = f'[sqlite]\nusers_file = "{USERS_FILE}"'
    answers_by_page: ClassVar[bool] = True
    bears_room: ClassVar[bool] = True

    def __init__(self, cluster: LocalCluster) -> None:
        """Writes the file of those who may connect."""
        self._cluster = cluster
        self._password = secrets.token_hex(16)
        path = cluster.root / USERS_FILE
        path.touch(0o600)
        path.write_text(f"{USER} {verifier_of(self._password, salt=os.urandom(SALT_BYTES))}\n")

    def prepare(self, primary: NodeId) -> None:
        with self._connected(primary) as connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {TABLE} "
                "(id INTEGER PRIMARY KEY, door TEXT NOT NULL, sent_s REAL NOT NULL)"
            )

    def writers(self) -> WritersSpec:
        nodes = list(self._cluster.nodes.values())
        return WritersSpec(
            engine="sqlite",
            nodes=tuple(sorted(node.name for node in nodes if not node.is_witness)),
            writers=at_doors(nodes),
            user=USER,
            password=self._password,
            ledger=str(self._cluster.root / "ledger"),
        )

    def rows(self, node: NodeId) -> set[int]:
        return {row for row, _, _ in self._all(node)}

    def checksums(self) -> dict[NodeId, tuple[int, int]]:
        found = {}
        for name, node in self._cluster.nodes.items():
            if node.is_witness:
                continue
            count = checksum = 0
            for row in self._all(name):
                count += 1
                checksum = zlib.crc32(repr(row).encode(), checksum)
            found[name] = (count, checksum)
        return found

    # ---- faults

    def block_applier(self, node: NodeId) -> sqlite3.Connection:
        """By a transaction that holds the file's only lock for writing."""
        connection = self._opened(node)
        with _told(f"{node}'s file"):
            connection.execute("BEGIN IMMEDIATE")
        return connection

    def put_in_the_way(self, node: NodeId, rows: Collection[int]) -> None:
        """Written into the file behind its server's back."""
        with closing(self._opened(node)) as connection, _told(f"{node}'s file"), connection:
            connection.executemany(
                f"INSERT INTO {TABLE} VALUES (?, 'x', 0)", ((row,) for row in rows)
            )

    def keep_down(self, node: NodeId) -> Away:
        return Away(self._file(node))

    def data_directory(self, node: NodeId) -> Path:
        return self._cluster.nodes[node].state_dir / "data"

    # ---- inside

    def _file(self, node: NodeId) -> Path:
        return self.data_directory(node) / f"{DATABASE}.sqlite"

    def _opened(self, node: NodeId) -> sqlite3.Connection:
        with _told(f"{node}'s file"):
            return sqlite3.connect(
                f"{self._file(node).as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_S,
                check_same_thread=False,  # Made in a thread, and closed by whoever made the thread.
            )

    def _all(self, node: NodeId) -> Iterator[tuple[int, str, float]]:
        """All rows of one moment, by their ids."""
        with self._connected(node) as connection:
            connection.begin(read_only=True)
            after: int | None = -1
            while after is not None:
                page = connection.execute(
                    f"SELECT id, door, sent_s FROM {TABLE} WHERE id > ? ORDER BY id LIMIT ?",
                    (after, PAGE_ROWS),
                ).fetchall()
                yield from page
                after = page[-1][0] if page else None

    @contextmanager
    def _connected(self, node: NodeId) -> Iterator[Connection]:
        """To that node's server, past every router."""
        door = self._cluster.nodes[node].address("database_port")
        url = url_of(door.host, door.port, user=USER, password=self._password)
        try:
            with closing(
                primacy.connect(
                    url,
                    isolation_level=None,
                    connect_timeout_s=CONNECT_TIMEOUT_S,
                    timeout_s=TIMEOUT_S,
                )
            ) as connection:
                yield connection
        except PrimacyError as error:
            raise Unavailable(f"{node}'s server: {error}", hint="See its log.") from error


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Plain SQLite's errors, in the words of the tree."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"{what}: {error}", hint="Is its server running?") from error
