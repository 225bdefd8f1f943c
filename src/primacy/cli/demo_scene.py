"""What the demo sees of its cluster: the store's records, watched, and a live timeline of them."""

import asyncio
import random
from collections.abc import Callable

from primacy.cli.demo_nodes import LocalCluster
from primacy.clock import Clock
from primacy.cluster.control.wellness import ailments
from primacy.cluster.view import StoreView
from primacy.cluster.viewing import Records
from primacy.coordination.api import Change
from primacy.coordination.embedded.client import StoreClient
from primacy.errors import PrimacyError, Unavailable
from primacy.model import NodeId, Revision
from primacy.replication.durability import shown
from primacy.replication.records import (
    DECISIONS_PREFIX,
    DURABILITY_KEY,
    HISTORY_PREFIX,
    PREFIX,
    PRIMARY_KEY,
    Decision,
    DurabilityRecord,
    HistoryRecord,
    PrimaryRecord,
    decoded,
)

Say = Callable[[str, str], None]
"""Shows one line of the timeline: who, and what."""


class Scene:
    """Follows the store of a cluster. `run` it in a task; then wait for what should become true."""

    def __init__(self, cluster: LocalCluster, *, clock: Clock, say: Say) -> None:
        self._clock = clock
        self._say = say
        self._records = Records(NodeId(""), clock.now_s())
        self._changed = asyncio.Event()
        self.nodes = tuple(name for name, node in cluster.nodes.items() if not node.is_witness)
        addresses = {name: node.address("store_port") for name, node in cluster.nodes.items()}
        self.store = StoreClient(addresses, clock, random.Random())  # For backoff only.
        self.primaries: dict[int, tuple[NodeId, float]] = {}
        """Of each epoch: its primary, and when its record was first seen here, in wall seconds."""
        self.history: dict[int, HistoryRecord] = {}

    async def run(self) -> None:
        async with self.store:
            while True:
                try:
                    found = await self.store.range(PREFIX, is_prefix=True)
                    self._records.load(found.items, found.revision, self._clock.now_s())
                    self._note_primary(self.view().primary)
                    self._changed.set()
                    async with self.store.watch(
                        PREFIX, is_prefix=True, from_revision=Revision(found.revision + 1)
                    ) as batches:
                        async for batch in batches:
                            self._apply(batch.changes, batch.revision)
                except PrimacyError:
                    await self._clock.sleep(0.1)

    def _apply(self, changes: tuple[Change, ...], revision: Revision) -> None:
        for change in changes:
            self._tell(change)
        self._records.apply(changes, revision, self._clock.now_s())
        self._changed.set()

    def _tell(self, change: Change) -> None:
        if change.key == PRIMARY_KEY and change.after is None:
            self._say("store", "no primary: the lease ended or was given up")
        elif change.after is None:
            return
        elif change.key == PRIMARY_KEY:
            record = decoded(PrimaryRecord, change.after.value)
            self._note_primary(record)
            self._say("store", f"{record.node} may be primary of epoch {record.epoch}")
        elif change.key == DURABILITY_KEY:
            durability = decoded(DurabilityRecord, change.after.value)
            self._say("store", f"epoch {durability.epoch}: acknowledged by {shown(durability)}")
        elif change.key.startswith(HISTORY_PREFIX):
            history = decoded(HistoryRecord, change.after.value)
            self.history[history.epoch] = history
            if history.lost_count:
                self._say(history.node, f"{history.lost_count} transaction(s) saved aside")
        elif change.key.startswith(DECISIONS_PREFIX):
            decision = decoded(Decision, change.after.value)
            if decision.action != "Wait":
                self._say(decision.node, f"{decision.action}: {decision.reason}")

    def _note_primary(self, record: PrimaryRecord | None) -> None:
        if record is not None:
            self.primaries.setdefault(record.epoch, (record.node, self._clock.wall_s()))

    def view(self) -> StoreView:
        return self._records.view(self._clock.now_s(), self._clock.wall_s())

    @property
    def primary(self) -> NodeId | None:
        """Whose doors are open, as the store has it."""
        view = self.view()
        if view.primary is None or view.durability is None:
            return None
        return view.primary.node if view.durability.epoch == view.primary.epoch else None

    def ailments(self) -> list[str]:
        """What is not well yet; empty where all is, every replica in the sync set included."""
        view = self.view()
        acks = view.durability.acks if view.durability else 0
        return ailments(view, self.nodes, self.nodes if acks else ())

    def lag(self) -> int:
        """How many transactions the last of the replicas has still to apply."""
        view = self.view()
        primary = view.nodes.get(view.primary.node) if view.primary else None
        if primary is None:
            return 0
        applied = [status.applied.sequence for status in view.nodes.values()]
        return max(0, primary.received.sequence - min(applied))

    async def wait_until(self, holds: Callable[[], bool], what: str, within_s: float) -> None:
        """`Unavailable` with what is still missing where it does not come true in time."""
        deadline_s = self._clock.now_s() + within_s
        while not holds():
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                raise Unavailable(
                    f"not within {within_s:.0f} s: {what}. Still: {'; '.join(self.ailments())}",
                    hint="The agents' logs in the demo's directory say why (--keep keeps it).",
                )
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left_s, 0.5)):
                    await self._changed.wait()
            except TimeoutError:
                continue
