"""The parts list of the agent's HTTP API. Its packages are an extra: only `run` imports this."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.types import ASGIApp

from primacy.cli.assemble import Parts, policy
from primacy.cli.kit import kit_of
from primacy.cli.session import roster, singles_of, store_of
from primacy.cluster.control.requests import Desk
from primacy.cluster.showing import Window
from primacy.config import ENGINES, is_loopback
from primacy.coordination.embedded.server import StoreServer
from primacy.telemetry import Counted
from primacy.web.access import Access
from primacy.web.app import Api
from primacy.web.facts import ProcessFacts
from primacy.web.looking import Look, Node
from primacy.web.serving import ApiServer


def api_server(parts: Parts, *, window: Window, server: StoreServer, counted: Counted) -> ApiServer:
    """The API of this node, for a task of the agent."""
    config, node = parts.config, parts.node
    listen = config.api_door(node)
    access = Access(config.api_token(), is_loopback=is_loopback(listen.host))

    def count() -> ProcessFacts:
        return process_facts(server, counted)

    @asynccontextmanager
    async def build() -> AsyncIterator[ASGIApp]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(store_of(config))
            singles = await stack.enter_async_context(singles_of(config))
            look = Look(
                node_of(parts),
                window=window,
                count=count,
                member=singles[node],
                clock=parts.clock,
            )
            yield Api(
                desk=Desk(store, roster(config), parts.clock),
                singles=singles,
                look=look,
                capabilities=ENGINES[config.cluster.engine],
                access=access,
                events=parts.events,
            ).application()

    return ApiServer(listen, build, clock=parts.clock, events=parts.events)


def node_of(parts: Parts) -> Node:
    config, node = parts.config, parts.node
    is_witness = node not in config.data_nodes
    return Node(
        cluster=config.cluster.name,
        name=node,
        is_witness=is_witness,
        lease_ttl_s=config.lease_ttl_s,
        status_stale_after_s=policy(config).status_stale_after_s,
        page=None if is_witness else kit_of(config).page(config, node),
    )


def process_facts(server: StoreServer, counted: Counted) -> ProcessFacts:
    """Plain numbers, read from another thread: each is right, and they may be of two moments."""
    counts, stalls = server.counts, server.stalls
    return ProcessFacts(
        loop_stalls=0 if stalls is None else stalls.stall_count,
        loop_stall_longest_s=0.0 if stalls is None else stalls.longest_s,
        log_writes=counts.log_writes,
        log_write_total_s=counts.log_write_total_s,
        log_write_longest_s=counts.log_write_longest_s,
        events=dict(counted.counts),
    )
