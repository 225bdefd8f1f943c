"""One writer's way to MariaDB, by a plain driver."""

import pymysql

from primacy.cli.demo_writers import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    WriterSpec,
    WritersSpec,
)
from primacy.engines.mariadb.settings import SERVER_IDS_PER_NODE
from primacy.errors import Unavailable

TABLE = "primacy_demo.writes"


class MariaDbClient:
    """See `demo_writers.Client`."""

    def __init__(self, spec: WriterSpec, whole: WritersSpec) -> None:
        self._spec = spec
        self._whole = whole
        self._connection: pymysql.connections.Connection | None = None
        self.node = ""

    def connect(self) -> None:
        if self._connection is not None:
            return
        try:
            connection = pymysql.connect(
                host=self._spec.host,
                port=self._spec.port,
                user=self._whole.user,
                password=self._whole.password,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                write_timeout=READ_TIMEOUT_S,
                ssl_disabled=True,  # Making an unused TLS context costs more than the connection.
            )
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@server_id")
                found = cursor.fetchone()
        except (pymysql.err.Error, OSError) as error:
            raise _unavailable(error) from error
        place = int(found[0]) // SERVER_IDS_PER_NODE if found else 1
        self.node = self._whole.nodes[place - 1]  # As the engine numbers them: sorted, from 1.
        self._connection = connection

    def insert(self, row: int, door: str, sent_s: float) -> None:
        connection = self._connection
        if connection is None:
            raise Unavailable("there is no connection", hint="Connect first.")
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO {TABLE} (id, door, sent_s) VALUES (%s, %s, %s)",
                    (row, door, sent_s),
                )
        except (pymysql.err.Error, OSError) as error:
            self.close()
            raise _unavailable(error) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # close() would wait for a frozen server.


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"the server: {error}", hint="Try again.")
