"""The accounts and tables that primacy makes in a server, and their passwords.

Every password is derived from the cluster's secret, so that all hosts agree without telling one
another; a copy of each stands in a 0600 file for people. The statements run inside the first
bootstrap of a data directory: nothing of it reaches a binary log, and every node has the same.

Promises  No account without a password but root, which logs in as the unix user of the agent.
          Applications get none of the privileges that bypass `read_only`.
"""

import getpass
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from primacy.engines.notes import replace_durably
from primacy.model import NodeId

OWN_PREFIX = "primacy_"
"""Of every account that primacy makes."""
ADMIN = "primacy_admin"
MAINTENANCE = "primacy_maintenance"
REPLICATION_PREFIX = "primacy_repl_"
ACCOUNT_NAME_MAX = 80
"""MariaDB's limit for a user name."""

_ADMIN_PRIVILEGES = (
    "REPLICATION SLAVE, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, SLAVE MONITOR,"
    " BINLOG MONITOR, BINLOG ADMIN, BINLOG REPLAY, READ ONLY ADMIN, CONNECTION ADMIN, PROCESS,"
    " RELOAD, SHUTDOWN, CREATE USER"
)

_TABLES = """
CREATE DATABASE primacy;
CREATE TABLE primacy.epochs (
  epoch BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  node VARCHAR(64) NOT NULL,
  sequence BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB COMMENT='where each epoch begins in the log: replicated';
CREATE TABLE primacy.heartbeat (
  id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  n BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB COMMENT='numbered heartbeats of the primary: replicated';
CREATE TABLE primacy.marker (
  id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  n BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB COMMENT='marker rows of changes of the sync set: replicated';
CREATE TABLE primacy.health (
  id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  n BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB COMMENT='is this server able to write: local, never replicated';
INSERT INTO primacy.heartbeat VALUES (1, 0);
INSERT INTO primacy.marker VALUES (1, 0);
INSERT INTO primacy.health VALUES (1, 0);
"""


@dataclass(frozen=True, slots=True)
class Login:
    """A name and its password."""

    user: str
    password: str = field(repr=False)


def login(cluster_secret: bytes, account: str) -> Login:
    """The same on every host that knows the secret. 32 hexadecimal digits."""
    digest = hmac.new(cluster_secret, b"mariadb-account:" + account.encode(), hashlib.sha256)
    return Login(account, digest.hexdigest()[:32])


def replication_account(node: NodeId) -> str:
    """One for each node, so that one node can be kept from attaching."""
    return f"{REPLICATION_PREFIX}{node}"


def node_of_account(account: str) -> NodeId | None:
    """Whose replication account this is; None for all others."""
    if not account.startswith(REPLICATION_PREFIX):
        return None
    return NodeId(account.removeprefix(REPLICATION_PREFIX))


def bootstrap_sql(cluster_secret: bytes, nodes: Collection[NodeId]) -> str:
    """For `mariadb-install-db --extra-file`."""
    lines = ["FLUSH PRIVILEGES;", *_TABLES.strip().split("\n")]
    for name in (ADMIN, MAINTENANCE):
        lines.append(_create(login(cluster_secret, name), "localhost"))
    lines += [
        f"GRANT {_ADMIN_PRIVILEGES} ON *.* TO '{ADMIN}'@'localhost';",
        f"GRANT ALL ON primacy.* TO '{ADMIN}'@'localhost';",
        f"GRANT SELECT ON mysql.global_priv TO '{ADMIN}'@'localhost';",
        f"GRANT ALL ON *.* TO '{MAINTENANCE}'@'localhost' WITH GRANT OPTION;",
    ]
    for node in sorted(nodes):
        name = replication_account(node)
        lines += [
            _create(login(cluster_secret, name), "%"),
            f"GRANT REPLICATION SLAVE ON *.* TO '{name}'@'%';",
            f"GRANT SELECT ON primacy.epochs TO '{name}'@'%';",
        ]
    lines += [
        "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'mysql' AND Host = 'localhost');",
        "FLUSH PRIVILEGES;",
    ]
    return "\n".join(lines) + "\n"


def write_secrets(folder: Path, cluster_secret: bytes, node: NodeId) -> None:
    """A 0600 file for each account that this host uses, for people and for mariadb-backup."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (ADMIN, MAINTENANCE, replication_account(node)):
        path = folder / f"{name}.password"
        content = login(cluster_secret, name).password.encode() + b"\n"
        if not path.exists() or path.read_bytes() != content:
            replace_durably(path, content)


def client_file(login_: Login, *, socket: Path, data: Path) -> bytes:
    """An option file for MariaDB's own programs: a password on a command line is public."""
    return (
        f"[client]\nuser={login_.user}\npassword={login_.password}\nsocket={socket}\n"
        f"[mariadb-backup]\ndatadir={data}\n"
    ).encode()


def agent_user() -> str:
    """The unix user that may log in as root."""
    return getpass.getuser()


def _create(each: Login, host: str) -> str:
    return f"CREATE USER '{each.user}'@'{host}' IDENTIFIED BY '{each.password}';"
