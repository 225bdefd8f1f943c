"""Gathers the facts: the agent's newest view, the deadline page, and this node's own member."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from primacy.clock import Clock
from primacy.cluster.showing import Window
from primacy.coordination.api import Store, StoreStatus
from primacy.errors import OutcomeUnknown, Unavailable
from primacy.model import NodeId
from primacy.runtime.page import PageReader, PageState, boottime_ns
from primacy.runtime.processes import boot_id
from primacy.web.facts import Facts, PageFacts, ProcessFacts

MEMBER_WITHIN_S = 1.0
"""This node's own member is in the same process: longer means that its loop stands still."""

NS_PER_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Which node this is, and how patient one is with it."""

    cluster: str
    name: NodeId
    is_witness: bool
    lease_ttl_s: float
    status_stale_after_s: float
    page: Path | None
    """Of the deadline page; None on a witness."""


class Look:
    """For one event loop."""

    def __init__(
        self,
        node: Node,
        *,
        window: Window,
        count: Callable[[], ProcessFacts],
        member: Store,
        clock: Clock,
    ) -> None:
        """`member`: a store of this node's member alone."""
        self._node = node
        self._window = window
        self._count = count
        self._member = member
        self._clock = clock
        self._page = PageLook(node.page)

    @property
    def node(self) -> NodeId:
        return self._node.name

    @property
    def is_witness(self) -> bool:
        return self._node.is_witness

    def facts(self) -> Facts:
        """At once, and without the store."""
        node, shown = self._node, self._window.newest
        return Facts(
            cluster=node.cluster,
            node=node.name,
            is_witness=node.is_witness,
            lease_ttl_s=node.lease_ttl_s,
            status_stale_after_s=node.status_stale_after_s,
            shown=shown,
            shown_age_s=0.0 if shown is None else max(0.0, self._clock.now_s() - shown.at_s),
            page=self._page(),
            process=self._count(),
        )

    async def facts_with_member(self) -> Facts:
        return replace(self.facts(), store=await self._status())

    async def _status(self) -> StoreStatus | None:
        try:
            async with asyncio.timeout(MEMBER_WITHIN_S):
                return await self._member.status()
        except (Unavailable, OutcomeUnknown, TimeoutError):
            return None


class PageLook:
    """Call it for the page as it stands. There is none until the guard has made it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reader: PageReader | None = None
        self._boot = boot_id()

    def __call__(self) -> PageFacts:
        if self._reader is None:
            if self._path is None:
                return PageFacts()
            try:
                self._reader = PageReader(self._path)
            except Unavailable:
                return PageFacts()
        page = self._reader.read()
        if page.boot != self._boot:
            return PageFacts(state="closed", epoch=page.epoch)
        # The page is read before the clock: whoever is frozen in between says no.
        left_s = max(0.0, (page.deadline_ns - boottime_ns()) / NS_PER_S)
        return PageFacts(
            state=page.state.name.lower(),
            epoch=page.epoch,
            left_s=left_s if page.state is not PageState.CLOSED else 0.0,
        )
