"""One writer's way to a SQLite server, by primacy's own driver."""

import primacy
from primacy.cli.demo_writers import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    WriterSpec,
    WritersSpec,
)
from primacy.driver import Connection
from primacy.errors import Unavailable

DATABASE = "db"
TABLE = "writes"


class SqliteClient:
    """See `demo_writers.Client`."""

    def __init__(self, spec: WriterSpec, whole: WritersSpec) -> None:
        self._url = url_of(spec.host, spec.port, user=whole.user, password=whole.password)
        self._connection: Connection | None = None

    @property
    def node(self) -> str:
        return self._connection.server if self._connection is not None else ""

    def connect(self) -> None:
        if not self.node:
            self.close()
            self._connection = primacy.connect(
                self._url,
                isolation_level=None,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                timeout_s=READ_TIMEOUT_S,
            )

    def insert(self, row: int, door: str, sent_s: float) -> None:
        """A refusal leaves the connection as it was."""
        if self._connection is None:
            raise Unavailable("there is no connection", hint="Connect first.")
        self._connection.execute(f"INSERT INTO {TABLE} VALUES (?, ?, ?)", (row, door, sent_s))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def url_of(host: str, port: int, *, user: str, password: str) -> str:
    """Of this door and no other: the driver would leave it for the primary that a replica names,
    and the ledger could not say which door an answer came through."""
    return f"primacy://{user}:{password}@{host}:{port}/{DATABASE}?target=any"
