"""A cluster that does at once whatever it is asked for, over the memory store."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.integration.web.conftest import CONFIGURED, WITHIN_S, A, B, W

from primacy.coordination.api import Delete, Op, Put, Store, Txn
from primacy.model import Epoch, Incarnation, Member, NodeId, Position
from primacy.replication.records import (
    CONFIG_SEEN_PREFIX,
    DURABILITY_KEY,
    FAILOVER_KEY,
    NODES_PREFIX,
    OUTCOMES_PREFIX,
    POLICY_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    TASKS_PREFIX,
    ConfigSeen,
    DurabilityPolicy,
    DurabilityRecord,
    FailoverRequest,
    NodeStatus,
    NodeTask,
    PrimaryRecord,
    RequestOutcome,
    SwitchoverRequest,
    decoded,
    encoded,
    node_key,
)

Asked = SwitchoverRequest | FailoverRequest | NodeTask

KINDS: Mapping[str, type[SwitchoverRequest] | type[FailoverRequest] | type[NodeTask]] = {
    SWITCHOVER_KEY: SwitchoverRequest,
    FAILOVER_KEY: FailoverRequest,
    **{node_key(TASKS_PREFIX, node): NodeTask for node in (A, B, W)},
}
EPOCH = Epoch(6)
LIFE = Incarnation("life")


class Obedient:
    """`a` is primary of epoch 6, until a switchover or failover makes `b` primary of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._primary = A
        self._shown: list[Op] = []
        self.taken: list[Asked] = []

    async def look(self) -> None:
        for key, kind in KINDS.items():
            for item in (await self._store.range(key)).items:
                await self._end(key, decoded(kind, item.value))
        shown = await self._records()
        if shown != self._shown:
            self._shown = shown
            await self._store.txn(Txn(then=tuple(shown)))

    async def _end(self, key: str, request: Asked) -> None:
        self.taken.append(request)
        if not isinstance(request, NodeTask):
            self._primary = B
        done = RequestOutcome(
            request_id=request.request_id, is_done=True, detail="b is primary of epoch 6"
        )
        told_under = f"{OUTCOMES_PREFIX}{request.request_id}"
        self._shown = await self._records()
        await self._store.txn(Txn(then=(Delete(key), Put(told_under, encoded(done)), *self._shown)))

    async def _records(self) -> list[Op]:
        """All are well, and the policy that was set last is in force."""
        found = (await self._store.range(POLICY_KEY)).items
        policy = decoded(DurabilityPolicy, found[0].value) if found else CONFIGURED
        other = B if self._primary == A else A
        durability = DurabilityRecord(
            epoch=EPOCH,
            primary=Member(self._primary, LIFE),
            acks=policy.acks,
            members=(Member(other, LIFE),) if policy.acks else (),
            is_lossy=policy.acks == 0,
        )
        primary = PrimaryRecord(node=self._primary, incarnation=LIFE, epoch=EPOCH)
        witness = ConfigSeen(node=W, file="x", running="x", agent="agent")
        revision = found[0].mod if found else 0
        return [
            Put(PRIMARY_KEY, encoded(primary)),
            Put(DURABILITY_KEY, encoded(durability)),
            Put(node_key(CONFIG_SEEN_PREFIX, W), encoded(witness)),
            *(
                Put(node_key(NODES_PREFIX, node), encoded(self._status(node, revision)))
                for node in (A, B)
            ),
        ]

    def _status(self, node: NodeId, policy_revision: int) -> NodeStatus:
        is_primary = node == self._primary
        return NodeStatus(
            node=node,
            incarnation=LIFE,
            state="running",
            is_read_only=not is_primary,
            received=Position(EPOCH, 5),
            following_epoch=Epoch(0) if is_primary else EPOCH,
            upstream=None if is_primary else self._primary,
            is_receiving=not is_primary,
            is_applying=not is_primary,
            acknowledges=not is_primary,
            server_start=1,
            agent="agent",
            policy_revision=policy_revision,
        )


@contextmanager
def cluster_that_obeys(store: Store) -> Iterator[list[Asked]]:
    """Ends every request as done. Its own loop and thread: the memory store has no locks, and
    needs none, since each of its calls is one step of Python."""
    is_over, is_there = threading.Event(), threading.Event()
    cluster = Obedient(store)

    async def play() -> None:
        while not is_over.is_set():
            await cluster.look()
            is_there.set()
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(play()))
    thread.start()
    try:
        assert is_there.wait(WITHIN_S)
        yield cluster.taken
    finally:
        is_over.set()
        thread.join(WITHIN_S)
