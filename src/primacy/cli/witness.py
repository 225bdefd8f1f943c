"""A witness has no brain: what an operator asks of its agent is done here.

Does not  Decide anything: the only task of a node without data is to begin again.
"""

import msgspec

from primacy.clock import Clock
from primacy.cluster.actions import EndTask
from primacy.cluster.transactions import end_task_txn
from primacy.coordination.api import KeyValue, Store
from primacy.errors import PrimacyError
from primacy.model import NodeId, Revision
from primacy.replication.records import TASKS_PREFIX, NodeTask, decoded, node_key
from primacy.telemetry import Event, Sink

AGAIN_AFTER_S = 1.0


class WitnessTasks:
    """Of this life of the agent."""

    def __init__(
        self, node: NodeId, life: str, *, store: Store, clock: Clock, events: Sink
    ) -> None:
        self._node = node
        self._life = life
        self._store = store
        self._clock = clock
        self._events = events
        self._key = node_key(TASKS_PREFIX, node)

    async def asked_to_begin_again(self) -> None:
        """Returns when somebody asks for it; answers whatever else is asked."""
        while True:
            try:
                found = await self._store.range(self._key)
                for item in found.items:
                    if await self._is_restart(item):
                        return
                if await self._watched(Revision(found.revision + 1)):
                    return
            except (PrimacyError, msgspec.ValidationError) as error:
                self._events(Event("tasks-not-followed", {"reason": str(error)}))
                await self._clock.sleep(AGAIN_AFTER_S)

    async def _watched(self, revision: Revision) -> bool:
        async with self._store.watch(self._key, from_revision=revision) as batches:
            async for batch in batches:
                for change in batch.changes:
                    if change.after is not None and await self._is_restart(change.after):
                        return True
        return False

    async def _is_restart(self, item: KeyValue) -> bool:
        task = decoded(NodeTask, item.value)
        if task.kind == "restart-agent" and task.of == self._life:
            return True
        is_done = task.kind == "restart-agent"
        end = EndTask(
            node=self._node,
            mod=item.mod,
            request_id=task.request_id,
            is_done=is_done,
            reason="the agent has started again" if is_done else f"{self._node} is a witness",
        )
        await self._store.txn(end_task_txn(end))
        return False
