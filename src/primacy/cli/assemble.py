"""From a configuration to running objects: every constructor call, as a parts list."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from primacy.cli.kit import Surroundings, kit_of
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
from primacy.model import NodeId
from primacy.routing.doors import DoorLimits
from primacy.routing.latepage import LatePage
from primacy.routing.route import RoutePolicy
from primacy.routing.router import Router, RouterSettings
from primacy.routing.session import Permits
from primacy.telemetry import Sink

ATTEMPTS_PER_LEASE = 4
"""A member of the store that froze or was cut off must not use up a lease by its silence."""


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
        words=kit_of(config).words,
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
    return LatePage(kit_of(config).page(config, node))


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
    kit = kit_of(config)
    around = Surroundings(launcher=parts.launcher, clock=clock, events=events)
    async with kit.engine(config, node, around) as engine:
        holding = Holding(node=node, store=store, engine=engine, clock=clock, events=events)
        yield Agent(
            node=node,
            store=store,
            engine=engine,
            holding=holding,
            policy=policy(config),
            clock=clock,
            read_page=PageSight(kit.page(config, node)),
            events=events,
            show=window.show,
            on_role=hooks.tell,
            life=life,
            restart=restart,
        )
