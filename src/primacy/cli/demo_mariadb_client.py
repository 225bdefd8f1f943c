"""One writer's connection to MariaDB, by a plain driver."""

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
    """Connected when it is made."""

    def __init__(self, spec: WriterSpec, whole: WritersSpec) -> None:
        try:
            self._connection = pymysql.connect(
                host=spec.host,
                port=spec.port,
                user=whole.user,
                password=whole.password,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                write_timeout=READ_TIMEOUT_S,
                ssl_disabled=True,  # Making an unused TLS context costs more than the connection.
            )
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT @@server_id")
                found = cursor.fetchone()
        except (pymysql.err.Error, OSError) as error:
            raise _unavailable(error) from error
        server_id = int(found[0]) if found else 0
        self.node = whole.nodes[server_id // SERVER_IDS_PER_NODE - 1]
        """As the engine numbers them: the place among the data nodes, sorted by name, from 1."""

    def insert(self, row: int, door: str, sent_s: float) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO {TABLE} (id, door, sent_s) VALUES (%s, %s, %s)",
                    (row, door, sent_s),
                )
        except (pymysql.err.Error, OSError) as error:
            raise _unavailable(error) from error

    def abandon(self) -> None:
        self._connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # close() would wait for a frozen server.


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"the server: {error}", hint="Try again.")
