"""What a server is started with: one JSON file, written by whoever starts it."""

from pathlib import Path

import msgspec

from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.errors import Rejected

SPEC_BYTES_MAX = 64 << 10


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Each limit that a client can meet."""

    connections_max: int = 1000
    readers: int = 8
    """Queries, cursors and read-only transactions at a time; more wait for one of these to end."""
    login_s: float = 5.0
    transaction_idle_s: float = 5.0
    """A transaction that holds the writer and asks for nothing so long is rolled back."""
    transaction_total_s: float = 30.0
    """And one that takes so long in all."""
    read_idle_s: float = 30.0
    """A cursor or read-only transaction: it keeps the write-ahead log from being cut."""
    read_total_s: float = 300.0
    statement_s: float = 30.0
    """One request at the writer. Others wait meanwhile."""
    waiting_max: int = 4096
    """Requests that wait for the writer. Above, newcomers are refused."""
    group_max: int = 1024
    """Transactions of one group commit."""
    requests_keep_s: float = 86_400.0
    """How long answers are kept for idempotency keys."""
    log_keep_bytes: int = 1 << 30
    """Of the log: older files go once everything in them is applied and nobody holds them."""
    reserve_bytes: int = 64 << 20
    """With less free space than this, writes are refused: what is logged must fit the database
    too, and a log that cannot be written stops the node."""


class PullSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where replicas attach to this node's log, and the cluster's secret that both ends prove."""

    host: str
    port: int
    secret_path: str


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    cluster: str
    node: str
    directory: str
    """Of the database file and the log."""
    database: str = "db"
    host: str = "127.0.0.1"
    port: int = 3306
    epoch: int = 0
    """Above 0: open as the primary of this epoch. 0: reads only."""
    leader: str = ""
    """HOST:PORT of the primary's door, where it is another and known: clients are told."""
    users_path: str = ""
    """Who may connect (`scram.py`). Empty: everybody who reaches the port."""
    page_path: str = ""
    """The deadline page. Empty: there is no guard, and nothing is withheld."""
    pull: PullSpec | None = None
    """None: this node serves its log to nobody."""
    control_path: str = ""
    """The unix socket by which the agent tells it what to be (`control.py`). Empty: nobody does."""
    logging: Logging = Logging.ROW
    limits: Limits = Limits()

    @property
    def database_path(self) -> Path:
        return Path(self.directory) / f"{self.database}.sqlite"

    @property
    def log_path(self) -> Path:
        return Path(self.directory) / "log"

    @property
    def storage(self) -> StorageSettings:
        return StorageSettings(logging=self.logging)


def read_spec(path: Path) -> Spec:
    """`Rejected` says what is wrong with it."""
    try:
        raw = path.read_bytes()
        spec = msgspec.json.decode(raw[: SPEC_BYTES_MAX + 1], type=Spec)
    except OSError as error:
        raise Rejected(f"{path} cannot be read: {error}", hint="Name the server's file.") from error
    except msgspec.DecodeError as error:  # A `ValidationError` is one.
        raise Rejected(
            f"{path} is not a server's specification: {error}", hint="Fix it."
        ) from error
    problems = _problems(spec)
    if problems:
        raise Rejected(f"{path}: {'; '.join(problems)}", hint="Fix the file.")
    return spec


def _problems(spec: Spec) -> list[str]:
    limits = spec.limits
    checks = {
        "node and cluster must have names": bool(spec.node and spec.cluster),
        "database is a file's name: letters, digits, - and _": spec.database.replace(
            "-", "_"
        ).isidentifier(),
        f"port = {spec.port}: 1 to 65535": 0 < spec.port < 65536,
        f"pull.port = {spec.pull.port if spec.pull else 0}: 1 to 65535": spec.pull is None
        or 0 < spec.pull.port < 65536,
        f"epoch = {spec.epoch}: not below 0": spec.epoch >= 0,
        f"readers = {limits.readers}: 1 to 64": 1 <= limits.readers <= 64,
        f"group_max = {limits.group_max}: at least 1": limits.group_max >= 1,
        "every time limit must be above 0": min(
            limits.login_s,
            limits.transaction_idle_s,
            limits.transaction_total_s,
            limits.read_idle_s,
            limits.read_total_s,
            limits.statement_s,
            limits.requests_keep_s,
        )
        > 0,
    }
    return [what for what, holds in checks.items() if not holds]
