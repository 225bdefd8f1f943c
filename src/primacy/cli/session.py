"""The commands' way to the store: its client, pointed at the members that the file names."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from primacy.clock import SystemClock
from primacy.cluster.control.roster import Roster
from primacy.config import Config
from primacy.coordination.api import Store
from primacy.coordination.embedded.client import StoreClient
from primacy.coordination.guarantees import DeclaredStore
from primacy.model import NodeId
from primacy.replication.records import DurabilityPolicy


def roster(config: Config) -> Roster:
    """Who there is, for reading and asking."""
    return Roster(
        cluster=config.cluster.name,
        members=config.members,
        data_nodes=config.data_nodes,
        never_promote=frozenset(name for name in config.members if config.node(name).never_promote),
        durability=configured_durability(config),
    )


def configured_durability(config: Config) -> DurabilityPolicy:
    """What the file says, as the record that an operator may set above it."""
    return DurabilityPolicy(
        request_id="",
        acks=config.acks,
        on_timeout=config.durability.on_timeout,
        timeout_s=config.durability.timeout_s,
        degrade_failover=config.durability.degrade_failover,
    )


@asynccontextmanager
async def store_of(config: Config) -> AsyncIterator[DeclaredStore]:
    """The store, by whichever member leads it."""
    addresses = {name: config.node(name).store for name in config.members}
    async with StoreClient(addresses, SystemClock(), random.Random()) as client:
        yield client


@asynccontextmanager
async def singles_of(config: Config) -> AsyncIterator[Mapping[NodeId, Store]]:
    """One store per member, each of that member alone: for its own view."""
    async with AsyncExitStack() as stack:
        singles: dict[NodeId, Store] = {}
        for name in config.members:
            client = StoreClient({name: config.node(name).store}, SystemClock(), random.Random())
            singles[name] = await stack.enter_async_context(client)
        yield singles
