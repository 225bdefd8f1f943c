"""SQLite's kit: no programs, a library; its settings from the file, its users."""

import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import apsw

from primacy.cli.kit import HEALTH_SHARE, Surroundings
from primacy.config import Config, Problem
from primacy.driver.target import SCHEME
from primacy.engines.api import Engine, ServerState
from primacy.engines.sqlite.directory import Directory
from primacy.engines.sqlite.engine import SqliteEngine
from primacy.engines.sqlite.server.spec import Limits
from primacy.engines.sqlite.settings import SqliteSettings, Timing
from primacy.engines.sqlite.storage.connection import Logging
from primacy.engines.sqlite.users import users_in
from primacy.errors import Rejected
from primacy.model import NodeId
from primacy.replication.pull.acks import AckOn
from primacy.routing.sqlprotocol import failure_frame
from primacy.routing.words import Refusal

LIBRARY_MIN = (3, 50)
"""Of SQLite: the oldest release that the storage core is tested with."""

NEEDED_OPTION = "ENABLE_PREUPDATE_HOOK"
"""Without it nobody sees what a statement changes."""


class SqliteKit:
    """See `kit.Kit`."""

    server_unit = ""
    log_files = ("server.json",)

    def words(self, refusal: Refusal, message: str) -> bytes:
        return failure_frame(refusal, message)

    def page(self, config: Config, node: NodeId) -> Path:
        return sqlite_settings(config, node).page

    @asynccontextmanager
    async def engine(
        self, config: Config, node: NodeId, around: Surroundings
    ) -> AsyncIterator[Engine]:
        settings = replace(sqlite_settings(config, node), launcher=around.launcher)
        engine = SqliteEngine(settings, around.clock, around.events)
        async with engine.serve():
            yield engine

    def url(self, config: Config, *, user: str, is_read: bool) -> str:
        nodes = [config.node(name) for name in config.members]
        doors = ",".join(str(each.ro if is_read else each.rw) for each in nodes)
        login = f"{quote(user, safe='')}@" if user else ""
        target = "?target=replica" if is_read else ""
        return f"{SCHEME}://{login}{doors}/{config.sqlite.database}{target}"

    def program_problems(self, config: Config) -> Iterator[Problem]:
        yield from library_problems(apsw.sqlitelibversion(), apsw.compile_options)

    def data_problems(self, config: Config, node: NodeId) -> Iterator[Problem]:
        yield from _directory_problems(config, node)
        if config.users_path is not None:
            yield from users_problems(config.users_path)

    def unix_user(self, config: Config) -> str:
        return ""

    def versions(self, config: Config) -> list[str]:
        return [f"sqlite {apsw.sqlitelibversion()}", f"apsw {apsw.apswversion()}"]

    def secrets(self, config: Config) -> set[str]:
        """Whoever has a verifier can pose as the server."""
        try:
            users = {} if config.users_path is None else users_in(config.users_path)
        except (OSError, Rejected):
            return set()  # Not a file of users: the server has not started with it either.
        return {str(verifier) for verifier in users.values()}


def sqlite_settings(config: Config, node: NodeId) -> SqliteSettings:
    return _settings(config, node, secret=config.secret())


def _settings(config: Config, node: NodeId, *, secret: bytes) -> SqliteSettings:
    nodes, sqlite = {name: config.node(name) for name in config.data_nodes}, config.sqlite
    return SqliteSettings(
        cluster=config.cluster.name,
        node=node,
        doors={name: each.database_door for name, each in nodes.items()},
        pull_doors={name: each.pull for name, each in nodes.items()},
        clone_doors={name: each.clone for name, each in nodes.items()},
        state_dir=config.state_dir(node),
        cluster_secret=secret,
        database=sqlite.database,
        ack_on=AckOn(config.durability.ack_on),
        logging=Logging(sqlite.logging),
        limits=Limits(
            connections_max=sqlite.connections_max,
            readers=sqlite.readers,
            transaction_idle_s=sqlite.transaction_idle_s,
            transaction_total_s=sqlite.transaction_total_s,
            read_idle_s=sqlite.read_idle_s,
            read_total_s=sqlite.read_total_s,
            statement_s=sqlite.statement_s,
            requests_keep_s=sqlite.idempotency_keep_s,
            log_keep_bytes=sqlite.log_keep_mb << 20,
            reserve_bytes=sqlite.reserve_mb << 20,
        ),
        users_path=config.users_path,
        clone_from_primary_mb_s=sqlite.clone_mb_s,
        timing=Timing(health_s=min(Timing().health_s, HEALTH_SHARE * config.lease_ttl_s)),
    )


def library_problems(version: str, options: tuple[str, ...]) -> Iterator[Problem]:
    """Of the SQLite that comes with apsw."""
    known = tuple(int(each) for each in version.split(".")[:2])
    if known < LIBRARY_MIN:
        wanted = ".".join(map(str, LIBRARY_MIN))
        rule = f"at least {wanted} is needed: pip install --upgrade apsw"
        yield Problem("the SQLite of apsw", version, rule)
    if NEEDED_OPTION not in options:
        rule = f"was built without {NEEDED_OPTION}: install apsw from a wheel of its own"
        yield Problem("the SQLite of apsw", version, rule)


def users_problems(path: Path) -> Iterator[Problem]:
    key, shown = "sqlite.users_file", repr(str(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        users = users_in(path)
    except OSError as error:
        rule = f"{error.strerror}. Copy it to every host; `primacy sql --new-user` makes its lines"
        yield Problem(key, shown, rule)
        return
    except Rejected as error:
        yield Problem(key, shown, f"{error.what}. {error.hint}")
        return
    if mode & 0o077:
        yield Problem(key, shown, f"others may read it (mode {mode:04o}). Run: chmod 600 {path}")
    if not users:
        yield Problem(key, shown, "names no user: nobody could connect")


def _directory_problems(config: Config, node: NodeId) -> Iterator[Problem]:
    key, shown = f"nodes.{node}.state_dir", repr(str(config.state_dir(node)))
    try:
        settings = _settings(config, node, secret=b"")
    except Rejected as error:
        yield Problem(key, shown, str(error))
        return
    directory = Directory(
        settings.layout, cluster=settings.cluster, node=node, database=settings.database
    )
    state, reason = directory.state()
    if state is ServerState.FOREIGN:
        rule = f"{reason}. It is never touched: move it away, or choose another directory"
        yield Problem(key, shown, rule)
