"""What an operator asks of one node, and how it ended: functions over a `Store`.

Errors as in `requests`. A task that the node has not ended in time is withdrawn; what it has begun
(a copy, a start) goes on by itself.
"""

import secrets
from typing import Literal

from primacy.cluster.control.requests import Desk, Tell, ask, tell_nobody
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import NodeId
from primacy.replication.records import (
    CONFIG_SEEN_PREFIX,
    NODES_PREFIX,
    PAUSE_KEY,
    PRIMARY_KEY,
    TASKS_PREFIX,
    ConfigSeen,
    NodeStatus,
    NodeTask,
    PrimaryRecord,
    RequestOutcome,
    decoded,
    node_key,
)

Kind = Literal["reinit", "restart-database", "restart-agent"]

REINIT_WITHIN_S = 3600.0
RESTART_WITHIN_S = 120.0
"""How long a caller waits who does not say: a copy is as long as the data is large."""


async def reinit(
    desk: Desk,
    node: str,
    *,
    is_data_given_up: bool,
    timeout_s: float = REINIT_WITHIN_S,
    tell: Tell = tell_nobody,
) -> RequestOutcome:
    """Give the node a new copy of the primary's data. It leaves the sync set first; its old data is
    kept until the new one is healthy."""
    name = data_node(desk, node)
    if not is_data_given_up:
        raise Rejected(
            f"the data of {name} would be replaced by a copy of the primary's",
            hint="If that is what you want, say so with --yes.",
        )
    if (await desk.store.range(PAUSE_KEY)).items:
        raise Conflict("paused: no copy of the data is made", hint="Run `primacy resume` first.")
    if await primary_of(desk) == name:
        raise Rejected(
            f"{name} is the primary: its data is what the others follow",
            hint="Run `primacy switchover` first.",
        )
    return await perform(desk, name, "reinit", timeout_s=timeout_s, tell=tell)


async def perform(
    desk: Desk, node: NodeId, kind: Kind, *, timeout_s: float, tell: Tell = tell_nobody
) -> RequestOutcome:
    """Ask the node, naming the life that is to end, and wait for its answer."""
    of = await _life(desk, node, kind)
    task = NodeTask(
        request_id=secrets.token_hex(8), node=node, kind=kind, of=of, wall_s=desk.clock.wall_s()
    )
    return await ask(desk.store, node_key(TASKS_PREFIX, node), task, timeout_s, tell)


async def _life(desk: Desk, node: NodeId, kind: Kind) -> str:
    """The one that is to end. `Conflict` where there is none now."""
    if node in desk.roster.witnesses:
        return await _witness_life(desk, node)
    status = await status_of(desk, node)
    of = {
        "reinit": status.incarnation or "",
        "restart-database": str(status.server_start),
        "restart-agent": status.agent,
    }[kind]
    if not of or (kind == "restart-database" and status.state != "running"):
        raise Conflict(
            f"{node} has nothing to {kind.replace('-', ' the ')} now: its server is {status.state}",
            hint="See `primacy status`; it repairs itself where it can.",
        )
    return of


async def _witness_life(desk: Desk, node: NodeId) -> str:
    found = (await desk.store.range(node_key(CONFIG_SEEN_PREFIX, node))).items
    if not found:
        raise Unavailable(f"{node} has not reported yet", hint="Is `primacy run` at work there?")
    return decoded(ConfigSeen, found[0].value).agent


def data_node(desk: Desk, name: str) -> NodeId:
    """`Rejected` for a name without a database."""
    node = desk.roster.node(name)
    if node in desk.roster.witnesses:
        raise Rejected(f"{node} is a witness: it has no data", hint="Name a data node.")
    return node


async def primary_of(desk: Desk) -> NodeId | None:
    found = (await desk.store.range(PRIMARY_KEY)).items
    return decoded(PrimaryRecord, found[0].value).node if found else None


async def status_of(desk: Desk, node: NodeId) -> NodeStatus:
    """`Unavailable` where the node's agent has never reported."""
    found = (await desk.store.range(node_key(NODES_PREFIX, node))).items
    if not found:
        raise Unavailable(f"{node} has not reported yet", hint="Is `primacy run` at work there?")
    return decoded(NodeStatus, found[0].value)
