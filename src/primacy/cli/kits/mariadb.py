"""MariaDB's kit: its programs, its settings from the file, what of it is secret."""

import ipaddress
import os
import pwd
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from primacy.cli.kit import HEALTH_SHARE, Surroundings
from primacy.cli.programs import said_by
from primacy.config import Config, Problem
from primacy.engines.api import Engine, ServerState
from primacy.engines.mariadb.accounts import ADMIN, MAINTENANCE, login, replication_account
from primacy.engines.mariadb.directory import Directory
from primacy.engines.mariadb.engine import MariaDbEngine
from primacy.engines.mariadb.settings import PROXY_NETWORKS, MariaDbSettings, Programs, Timing
from primacy.errors import Rejected
from primacy.model import NodeId
from primacy.routing.mysql import error_packet
from primacy.routing.words import Refusal

SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where servers are installed, and where a user's PATH often does not look."""

PROGRAMS = {
    "mariadb-install-db": "mariadb-server",
    "mariadb-binlog": "mariadb-server",
    "mariadb-backup": "mariadb-backup",
    "mbstream": "mariadb-backup",
}
"""Program -> Debian's package."""


class MariaDbKit:
    """See `kit.Kit`."""

    server_unit = "mariadb.service"
    log_files = ("server.log", "server.cnf")

    def words(self, refusal: Refusal, message: str) -> bytes:
        return error_packet(refusal, message)

    def page(self, config: Config, node: NodeId) -> Path:
        return mariadb_settings(config, node).page

    @asynccontextmanager
    async def engine(
        self, config: Config, node: NodeId, around: Surroundings
    ) -> AsyncIterator[Engine]:
        settings = replace(mariadb_settings(config, node), launcher=around.launcher)
        engine = MariaDbEngine(settings, around.clock, around.events)
        async with engine.serve():
            yield engine

    def url(self, config: Config, *, user: str, is_read: bool) -> str:
        door = config.node(config.members[0]).rw
        raise Rejected(
            "`primacy sql` speaks to the SQLite engine, and this cluster is MariaDB's",
            hint=f"Use its own client: mariadb -h {door.host} -P {door.port}.",
        )

    def program_problems(self, config: Config) -> Iterator[Problem]:
        programs = {config.mariadb.server: "mariadb-server", **PROGRAMS}
        missing = sorted(each for each in programs if _program(each) is None)
        if missing:
            packages = " ".join(sorted({programs[each] for each in missing}))
            rule = f"not found. On Debian: apt-get install --no-install-recommends {packages}"
            yield Problem("MariaDB's programs", ", ".join(missing), rule)
        if os.geteuid() == 0:
            try:
                pwd.getpwnam(config.mariadb.user)
            except KeyError:
                yield Problem(
                    "mariadb.user", repr(config.mariadb.user), "no such user on this host"
                )

    def data_problems(self, config: Config, node: NodeId) -> Iterator[Problem]:
        key, place = f"nodes.{node}.state_dir", config.state_dir(node)
        try:
            state, reason = Directory(_settings(config, node, secret=b"")).state()
        except Rejected as error:
            yield Problem(key, repr(str(place)), str(error))
            return
        if state is ServerState.FOREIGN:
            rule = f"{reason}. It is never touched: move it away, or choose another directory"
            yield Problem(key, repr(str(place)), rule)

    def unix_user(self, config: Config) -> str:
        return config.mariadb.user

    def versions(self, config: Config) -> list[str]:
        return [
            f"server {said_by(config.mariadb.server, '--version')}",
            f"backup {said_by(config.mariadb.backup, '--version')}",
        ]

    def secrets(self, config: Config) -> set[str]:
        accounts = [ADMIN, MAINTENANCE, *map(replication_account, config.data_nodes)]
        return {login(config.secret(), account).password for account in accounts}


def mariadb_settings(config: Config, node: NodeId) -> MariaDbSettings:
    return _settings(config, node, secret=config.secret())


def _settings(config: Config, node: NodeId, *, secret: bytes) -> MariaDbSettings:
    own = config.node(node)
    data_nodes = config.data_nodes
    mariadb = config.mariadb
    return MariaDbSettings(
        cluster=config.cluster.name,
        node=node,
        server_id=data_nodes.index(node) + 1,
        peers={name: config.node(name).database_door for name in data_nodes},
        clone_doors={name: config.node(name).clone for name in data_nodes},
        state_dir=config.state_dir(node),
        bind_host=own.host,
        port=own.database_port,
        cluster_secret=secret,
        unix_user=mariadb.user,
        programs=Programs(
            server=mariadb.server,
            install=mariadb.install_db,
            backup=mariadb.backup,
            binlog=mariadb.binlog,
            client=mariadb.client,
        ),
        clone_from_primary_mb_s=mariadb.clone_mb_s,
        buffer_pool_bytes=mariadb.innodb_buffer_pool_mb << 20,
        proxy_networks=tuple(dict.fromkeys((*PROXY_NETWORKS, *_networks_of(own.host)))),
        further={name: str(value) for name, value in mariadb.settings.items()},
        timing=Timing(health_s=min(Timing().health_s, HEALTH_SHARE * config.lease_ttl_s)),
    )


def _networks_of(host: str) -> list[str]:
    """The addresses from which this host's router reaches the server on the same host. A name that
    has none is the preflight's business: the server could not be bound to it either."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    addresses = {ipaddress.ip_address(str(entry[4][0])) for entry in found}
    return [f"{each}/{each.max_prefixlen}" for each in sorted(addresses, key=str)]


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PROGRAMS)
