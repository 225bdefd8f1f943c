"""From a configuration to running objects: every constructor call, as a parts list."""

import ipaddress
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from primacy.clock import Clock
from primacy.cluster.agent import Agent
from primacy.cluster.holding import Holding
from primacy.cluster.hooks import Hooks, HookSettings
from primacy.cluster.paging import PageSight
from primacy.cluster.policy import Policy
from primacy.cluster.showing import Window
from primacy.config import Config
from primacy.consensus.raft.node import Timing
from primacy.coordination.api import Store
from primacy.coordination.embedded.client import ATTEMPT_S, StoreClient
from primacy.coordination.embedded.server import StoreServer, StoreSettings
from primacy.engines.mariadb.engine import MariaDbEngine
from primacy.engines.mariadb.settings import (
    PROXY_NETWORKS,
    MariaDbSettings,
    Programs,
)
from primacy.engines.mariadb.settings import Timing as EngineTiming
from primacy.errors import Rejected
from primacy.model import NodeId
from primacy.routing.doors import DoorLimits
from primacy.routing.latepage import LatePage
from primacy.routing.route import RoutePolicy
from primacy.routing.router import Router, RouterSettings
from primacy.routing.session import Permits
from primacy.telemetry import Sink

ATTEMPTS_PER_LEASE = 4
"""A member of the store that froze or was cut off must not use up a lease by its silence."""

HEALTH_SHARE = 0.6
"""Of the lease: how long a server may be silent before it counts as hung."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the rooms are built from."""

    config: Config
    path: Path
    """Of the configuration: the router is started with the same."""
    node: NodeId
    clock: Clock
    events: Sink
    launcher: Path | None = None
    """The socket of the host's launcher: what outlives the agent is started by it."""


def policy(config: Config) -> Policy:
    """What the operator wants, resolved to numbers."""
    data_nodes = config.data_nodes
    return Policy(
        data_nodes=data_nodes,
        acks=config.acks,
        on_timeout=config.durability.on_timeout,
        timeout_s=config.durability.timeout_s,
        degrade_failover=config.durability.degrade_failover,
        lossy_wait_s=config.durability.wait_s,
        lease_ttl_s=config.lease_ttl_s,
        failovers_before_back_off=config.cluster.failovers_before_back_off,
        priority={name: config.node(name).priority for name in data_nodes},
        never_promote=frozenset(name for name in data_nodes if config.node(name).never_promote),
        preferred=frozenset(config.preferred_nodes),
        return_to_preferred=config.cluster.return_to_preferred,
    )


def mariadb_settings(config: Config, node: NodeId) -> MariaDbSettings:
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
        cluster_secret=config.secret(),
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
        timing=EngineTiming(
            health_s=min(EngineTiming().health_s, HEALTH_SHARE * config.lease_ttl_s)
        ),
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


def store_server(parts: Parts, *, on_leader: Callable[[NodeId], None]) -> StoreServer:
    config, node = parts.config, parts.node
    settings = StoreSettings(
        cluster=config.cluster.name,
        node=node,
        members={name: config.node(name).peer for name in config.members},
        door=config.node(node).store,
        directory=config.state_dir(node) / "store",
        timing=Timing.for_lease(config.lease_ttl_s),
    )
    return StoreServer(
        settings, clock=parts.clock, chance=chance(), events=parts.events, on_leader=on_leader
    )


def router_of(parts: Parts, store: Store) -> Router:
    config, node = parts.config, parts.node
    own = config.node(node)
    settings = RouterSettings(
        node=node,
        databases={name: config.node(name).database_door for name in config.data_nodes},
        peer_doors={name: config.node(name).peer_router for name in config.members},
        rw=own.rw,
        ro=own.ro,
        peer=own.peer_router,
        policy=RoutePolicy(
            ttl_s=config.lease_ttl_s,
            lag_max_transactions=config.router.lag_max_transactions,
            lag_max_s=config.router.lag_max_s,
            ro_to_primary=config.router.ro_to_primary,
        ),
        hold_s=config.router.hold_s,
        limits=DoorLimits(connections_max=config.router.max_connections),
    )
    return Router(
        settings,
        store=store,
        clock=parts.clock,
        permits=_permits(config, node),
        events=parts.events,
    )


def _permits(config: Config, node: NodeId) -> Permits:
    """The deadline page of this host's database; a witness has none, and nothing passes there."""
    if node not in config.data_nodes:
        return LatePage(None)
    return LatePage(mariadb_settings(config, node).page)


def chance() -> random.Random:
    """Spreads timeouts and reconnects; nothing secret comes from it."""
    return random.Random()


def store_client(config: Config, clock: Clock, *, near: NodeId) -> StoreClient:
    """Of an agent or a router on the host of `near`."""
    return StoreClient(
        {name: config.node(name).store for name in config.members},
        clock,
        chance(),
        attempt_s=min(ATTEMPT_S, config.lease_ttl_s / ATTEMPTS_PER_LEASE),
        near=near,
    )


def hooks_of(parts: Parts) -> Hooks:
    config = parts.config
    settings = HookSettings(
        cluster=config.cluster.name,
        node=parts.node,
        command=tuple(config.hooks.role_changed),
        timeout_s=config.hooks.timeout_s,
    )
    return Hooks(settings, clock=parts.clock, events=parts.events)


@asynccontextmanager
async def agent_of(
    parts: Parts,
    store: Store,
    window: Window,
    hooks: Hooks,
    *,
    life: str,
    restart: Callable[[], None],
) -> AsyncIterator[Agent]:
    """The agent of a data node, with its engine's clone door open. It shows itself in `window`;
    `life` names this process, `restart` ends it, to begin again."""
    config, node, clock, events = parts.config, parts.node, parts.clock, parts.events
    if config.cluster.engine != "mariadb":
        raise Rejected(
            f"engine {config.cluster.engine!r} is not in this version", hint="Use mariadb."
        )
    settings = replace(mariadb_settings(config, node), launcher=parts.launcher)
    engine = MariaDbEngine(settings, clock, events)
    holding = Holding(node=node, store=store, engine=engine, clock=clock, events=events)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(engine.serve())
        yield Agent(
            node=node,
            store=store,
            engine=engine,
            holding=holding,
            policy=policy(config),
            clock=clock,
            read_page=PageSight(settings.page),
            events=events,
            show=window.show,
            on_role=hooks.tell,
            life=life,
            restart=restart,
        )
