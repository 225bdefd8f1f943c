"""Tells the others what this node sees, and records what its brain decided.

A status is published when it changes (at once where somebody waits for it, else a few times a
second) and at least every second, so that silence means something. Decisions are keys of their own
in a ring per node: they survive the compaction of the log and do not grow without end.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from primacy.clock import Clock
from primacy.cluster.suspicion import STATUS_EVERY_S
from primacy.cluster.transactions import decision_txn, status_txn
from primacy.cluster.view import View
from primacy.coordination.api import Store
from primacy.errors import PrimacyError
from primacy.model import NodeId, Position, Revision
from primacy.replication.records import DECISIONS_PREFIX, Decision, NodeStatus, decoded
from primacy.telemetry import Event, Sink

PUBLISH_AT_MOST_EVERY_S = 0.25
"""Positions of a busy server change all the time: four times a second is enough for a person."""

DECISIONS_WAITING_MAX = 100
"""While the store is away; the oldest is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """What a node is at, and by which records that was decided."""

    doing: str = ""
    durability: Revision = Revision(0)
    policy: Revision = Revision(0)
    donor: NodeId | None = None
    """From whom it copies its data, or wants to."""


class Publisher:
    def __init__(self, *, node: NodeId, store: Store, clock: Clock, events: Sink) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._events = events
        self._wake = asyncio.Event()
        self._decisions: deque[Decision] = deque(maxlen=DECISIONS_WAITING_MAX)
        self._number: int | None = None
        self._last_gist = ""

    def wake(self) -> None:
        self._wake.set()

    def decide(self, action: str, reason: str, view: View, steps_s: dict[str, float]) -> None:
        """Record a decision; a wait whose reason differs only in its figures is the same one."""
        gist = action + "".join(letter for letter in reason if not letter.isdigit())
        if gist == self._last_gist:
            return
        self._last_gist = gist
        self._decisions.append(
            Decision(
                node=self._node,
                number=0,
                action=action,
                reason=reason,
                epoch=view.store.epoch,
                wall_s=view.wall_s,
                steps_s=steps_s,
            )
        )
        self._wake.set()

    async def run(
        self, look: Callable[[], tuple[View, Acting]], is_urgent: Callable[[], bool]
    ) -> None:
        published: NodeStatus | None = None
        published_at_s = float("-inf")
        while True:
            status = status_of(*look())
            age_s = self._clock.now_s() - published_at_s
            if _is_due(status, published, age_s=age_s, is_urgent=is_urgent()):
                try:
                    await self._store.txn(status_txn(status))
                    published, published_at_s = status, self._clock.now_s()
                except PrimacyError as error:
                    self._events(Event("publish-failed", {"reason": error.what}))
                    await self._clock.sleep(PUBLISH_AT_MOST_EVERY_S)
            await self._publish_decisions()
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PUBLISH_AT_MOST_EVERY_S):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def _publish_decisions(self) -> None:
        while self._decisions:
            try:
                if self._number is None:
                    self._number = await self._last_number()
                decision = msgspec.structs.replace(self._decisions[0], number=self._number + 1)
                await self._store.txn(decision_txn(decision))
            except PrimacyError as error:
                self._events(Event("publish-failed", {"reason": error.what}))
                return
            self._number += 1
            self._decisions.popleft()

    async def _last_number(self) -> int:
        found = await self._store.range(f"{DECISIONS_PREFIX}{self._node}/", is_prefix=True)
        return max((decoded(Decision, item.value).number for item in found.items), default=0)


def status_of(view: View, acting: Acting) -> NodeStatus:
    """What is told of a view, which may show newer records already than were acted on. Pure."""
    engine = view.engine
    alone = [
        each
        for each in view.store.diverged.values()
        if each.node == view.node and not each.dismissed_wall_s
    ]
    durability = view.store.durability
    is_blocked = engine.sending.waiting_commits > 0 and durability is not None
    return NodeStatus(
        node=view.node,
        incarnation=engine.incarnation,
        state=engine.state.name.lower(),
        is_read_only=engine.is_read_only,
        received=engine.received,
        applied=engine.applied,
        position_text=engine.position_text,
        sealed_epoch=engine.sealed_epoch,
        following_epoch=engine.following_epoch,
        upstream=engine.replication.upstream,
        is_receiving=engine.replication.is_receiving,
        is_applying=engine.replication.is_applying,
        acknowledges=engine.replication.acknowledges,
        lag_bytes=engine.replication.lag_bytes,
        durability_revision=acting.durability,
        policy_revision=acting.policy,
        donor=acting.donor,
        error=engine.replication.error,
        is_diverged=engine.replication.is_diverged,
        is_disk_full=engine.is_disk_full,
        is_cut=engine.is_cut,
        waiting_commits=engine.sending.waiting_commits,
        heartbeat=engine.heartbeat,
        heartbeat_age_s=round(engine.heartbeat_age_s, 3),
        lease_left_s=round(view.lease.left_s, 3) if view.lease else None,
        diverged_count=sum(each.count for each in alone),
        diverged_path=alone[0].path if alone else "",
        doing=acting.doing,
        server_start=engine.starts,
        agent=view.agent,
        suspicion=_rounded(view),
        blocked_on=tuple(each.node for each in durability.members)
        if is_blocked and durability
        else (),
        unexpected_clients=view.unexpected_clients,
        wall_s=view.wall_s,
    )


def _rounded(view: View) -> dict[NodeId, float]:
    return {node: round(phi, 1) for node, phi in view.store.suspicion.items() if node != view.node}


def _is_due(
    status: NodeStatus, published: NodeStatus | None, *, age_s: float, is_urgent: bool
) -> bool:
    """Anything new is told; what matters to others at once, what only moves on in a while."""
    if published is None or age_s >= STATUS_EVERY_S:
        return True
    if _substance(status) != _substance(published):
        return True
    has_moved = (status.received, status.applied) != (published.received, published.applied)
    return has_moved and (is_urgent or age_s >= PUBLISH_AT_MOST_EVERY_S)


def _substance(status: NodeStatus) -> NodeStatus:
    """A status without what changes all the time."""
    return msgspec.structs.replace(
        status,
        received=Position(status.received.epoch, 0),
        applied=Position(status.applied.epoch, 0),
        position_text="",
        lag_bytes=None,
        heartbeat=0,
        heartbeat_age_s=0.0,
        lease_left_s=None,
        waiting_commits=min(status.waiting_commits, 1),
        doing="",
        suspicion={},
        wall_s=0.0,
    )
