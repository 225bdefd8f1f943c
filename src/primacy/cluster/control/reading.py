"""From the store to a picture: what the cluster says, and what is left of it without a majority."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from primacy.clock import Clock
from primacy.cluster.control.picture import Picture, picture_of
from primacy.cluster.control.roster import Roster
from primacy.coordination.api import KeyValue, Store, StoreStatus
from primacy.errors import OutcomeUnknown, Unavailable
from primacy.model import NodeId
from primacy.replication.records import (
    DIVERGED_PREFIX,
    DURABILITY_KEY,
    EPOCH_KEY,
    FAILOVER_KEY,
    HISTORY_PREFIX,
    NODES_PREFIX,
    PAUSE_KEY,
    POLICY_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
)

ANSWER_WITHIN_S = 2.0
"""A member that takes longer to show itself is shown as silent."""

READ_WITHIN_S = 4.0
"""Longer than an election: past it the store has no majority as far as this reader can tell."""

KEYS = (
    EPOCH_KEY, PRIMARY_KEY, DURABILITY_KEY, POLICY_KEY, PAUSE_KEY, SWITCHOVER_KEY, FAILOVER_KEY
)  # fmt: skip
PREFIXES = (NODES_PREFIX, HISTORY_PREFIX, DIVERGED_PREFIX)


async def read_items(store: Store, *, is_serializable: bool = False) -> list[KeyValue]:
    """All that a picture is made of. Not one instant: each key is current when it is read."""
    items: list[KeyValue] = []
    for key in (*KEYS, *PREFIXES):
        found = await store.range(key, is_prefix=key in PREFIXES, is_serializable=is_serializable)
        items += found.items
    return items


async def read_picture(
    roster: Roster, store: Store, singles: Mapping[NodeId, Store], *, clock: Clock
) -> Picture:
    """Never raises for a member that is away: the picture says what could not be seen.

    `singles` are stores of one member each.
    """
    stores: dict[NodeId, StoreStatus] = {}
    async with asyncio.TaskGroup() as tasks:
        for node, single in singles.items():
            tasks.create_task(_note_status(node, single, stores))
    base = Picture(
        cluster=roster.cluster,
        members=roster.members,
        witnesses=roster.witnesses,
        configured=roster.durability,
        read_at_s=clock.wall_s(),
        stores=stores,
    )
    if not stores:
        return replace(base, has_majority=False)
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            return picture_of(base, await read_items(store))
    except (Unavailable, OutcomeUnknown, TimeoutError):
        return await _remembered(base, singles)


async def _note_status(node: NodeId, store: Store, stores: dict[NodeId, StoreStatus]) -> None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            stores[node] = await store.status()
    except (Unavailable, OutcomeUnknown, TimeoutError):
        return  # Silence is what the picture shows of it.


async def _remembered(base: Picture, singles: Mapping[NodeId, Store]) -> Picture:
    """What the member that got furthest still has, without asking anybody else."""
    furthest = sorted(base.stores.values(), key=lambda each: each.applied_index, reverse=True)
    for status in furthest:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                items = await read_items(singles[status.node], is_serializable=True)
        except (Unavailable, OutcomeUnknown, TimeoutError):
            continue
        return replace(picture_of(base, items), has_majority=False, source=status.node)
    return replace(base, has_majority=False)
