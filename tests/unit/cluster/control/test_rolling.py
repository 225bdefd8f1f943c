"""A rolling restart against the memory store and a cluster that is played: the order, the waiting,
and that it stops at the first node that does not heal."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from primacy.clock import SystemClock
from primacy.cluster.control.requests import Desk
from primacy.cluster.control.rolling import Progress, following, restart
from primacy.cluster.control.roster import Roster
from primacy.cluster.control.tasks import perform, reinit
from primacy.cluster.control.wellness import ailments, who_belongs
from primacy.coordination.api import Delete, Op, Put, Txn
from primacy.coordination.memory import MemoryStore
from primacy.errors import Conflict, PrimacyError, Rejected, Unavailable
from primacy.model import Epoch, Incarnation, Member, NodeId, Position, Revision
from primacy.replication.records import (
    CONFIG_SEEN_PREFIX,
    DURABILITY_KEY,
    NODES_PREFIX,
    OUTCOMES_PREFIX,
    PAUSE_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
    TASKS_PREFIX,
    ConfigSeen,
    DurabilityRecord,
    NodeStatus,
    NodeTask,
    Pause,
    PrimaryRecord,
    RequestOutcome,
    SwitchoverRequest,
    decoded,
    encoded,
    node_key,
)

A, B, C, W = NodeId("a"), NodeId("b"), NodeId("c"), NodeId("w")
DATA = (A, B, C)
ROSTER = Roster(cluster="shop", members=(A, B, C, W), data_nodes=DATA)
LIFE = Incarnation("life")
LONG_S = 20.0


class Played:
    """A cluster of three whose nodes do what they are asked, unless told otherwise."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.store = MemoryStore(clock)
        self.desk = Desk(self.store, ROSTER, clock)
        self.primary, self.epoch = A, Epoch(1)
        self.starts = dict.fromkeys(DATA, 1)
        self.lives = dict.fromkeys((*DATA, W), 1)
        self.outside: set[NodeId] = set()
        self.ill: set[NodeId] = set()
        self.quiet: set[NodeId] = set()
        """In the sync set, and not acknowledging yet."""
        self.falls_ill: NodeId | None = None
        """Does not apply any more once it was restarted."""
        self.done: list[str] = []

    def status(self, node: NodeId) -> NodeStatus:
        is_primary = node == self.primary
        return NodeStatus(
            node=node,
            incarnation=LIFE,
            state="running",
            is_read_only=not is_primary,
            received=Position(self.epoch, 5),
            following_epoch=Epoch(0) if is_primary else self.epoch,
            upstream=None if is_primary else self.primary,
            is_receiving=not is_primary,
            is_applying=not is_primary and node not in self.ill,
            acknowledges=not is_primary and node not in self.quiet,
            server_start=self.starts[node],
            agent=f"agent-{self.lives[node]}",
        )

    def records(self) -> list[Op]:
        members = [Member(n, LIFE) for n in DATA if n != self.primary and n not in self.outside]
        primary = PrimaryRecord(node=self.primary, incarnation=LIFE, epoch=self.epoch)
        durability = DurabilityRecord(
            epoch=self.epoch, primary=Member(self.primary, LIFE), acks=1, members=tuple(members)
        )
        return [
            Put(PRIMARY_KEY, encoded(primary)),
            Put(DURABILITY_KEY, encoded(durability)),
            *(Put(node_key(NODES_PREFIX, node), encoded(self.status(node))) for node in DATA),
            Put(node_key(CONFIG_SEEN_PREFIX, W), encoded(self.witness())),
        ]

    def witness(self) -> ConfigSeen:
        return ConfigSeen(node=W, file="x", running="x", agent=f"agent-{self.lives[W]}")

    async def publish(self, *more: Op) -> None:
        await self.store.txn(Txn(then=(*self.records(), *more)))

    async def play(self, revision: Revision) -> None:
        async with self.store.watch(
            "cluster/", is_prefix=True, from_revision=Revision(revision + 1)
        ) as batches:
            async for batch in batches:
                for change in batch.changes:
                    if change.after is None:
                        continue
                    if change.key.startswith(TASKS_PREFIX):
                        await self.perform(decoded(NodeTask, change.after.value))
                    if change.key == SWITCHOVER_KEY:
                        await self.switch(decoded(SwitchoverRequest, change.after.value))

    async def perform(self, task: NodeTask) -> None:
        lives = {
            "restart-database": str(self.starts.get(task.node)),
            "restart-agent": f"agent-{self.lives[task.node]}",
            "reinit": LIFE,
        }
        assert task.of == lives[task.kind]
        assert task.kind == "restart-agent" or task.node != self.primary
        ill_before = self.ill | self.outside
        assert not ill_before, f"{task.node} is restarted while {ill_before} is not well"
        self.done.append(f"{task.node} {task.kind}")
        if task.node != W:
            self.outside.add(task.node)
        if task.kind == "restart-database":
            self.starts[task.node] += 1
        self.lives[task.node] += task.kind == "restart-agent"
        if self.falls_ill == task.node:
            self.ill.add(task.node)
        await self.publish(*_outcome(node_key(TASKS_PREFIX, task.node), task.request_id))
        self.outside.discard(task.node)  # It comes back into the sync set a moment later.
        await self.publish()

    async def switch(self, request: SwitchoverRequest) -> None:
        self.done.append(f"switchover from {self.primary}")
        self.primary, self.epoch = (B if self.primary == A else A), Epoch(self.epoch + 1)
        await self.publish(*_outcome(SWITCHOVER_KEY, request.request_id))


def _outcome(key: str, request_id: str) -> tuple[Op, Op]:
    done = RequestOutcome(request_id=request_id, is_done=True, detail="done")
    return Delete(key), Put(f"{OUTCOMES_PREFIX}{request_id}", encoded(done))


def told(cluster: Played, ask: Coroutine[Any, Any, Any]) -> None:  # Any: of a coroutine.
    """`ask` while the cluster plays its part; its error is raised as it is."""

    async def both() -> None:
        await cluster.publish()
        found = await cluster.store.range("cluster/")
        playing = asyncio.get_running_loop().create_task(cluster.play(found.revision))
        try:
            async with asyncio.timeout(2 * LONG_S):
                await ask
        finally:
            playing.cancel()
            await asyncio.wait([playing])
            if not playing.cancelled() and playing.exception():
                raise AssertionError from playing.exception()

    asyncio.run(both())


def test_replicas_come_first_one_at_a_time_and_the_primary_last_after_a_switchover() -> None:
    cluster, progress = Played(), Progress()
    told(cluster, restart(cluster.desk, parts=["restart-database"], progress=progress))
    assert cluster.done == [
        "b restart-database",
        "c restart-database",
        "switchover from a",
        "a restart-database",
    ]
    assert [each.node for each in progress.done] == [B, C, A]
    assert progress.switched_to == B


def test_of_both_parts_a_node_s_agent_is_first() -> None:
    cluster, lines = Played(), list[str]()
    asked = restart(
        cluster.desk,
        parts=["restart-database", "restart-agent"],
        progress=Progress(),
        tell=lines.append,
    )
    told(cluster, asked)
    assert cluster.done[:4] == [
        "w restart-agent",
        "b restart-agent",
        "b restart-database",
        "c restart-agent",
    ]
    assert any(line.startswith("b: well again after") for line in lines)


def test_it_stops_at_the_first_that_does_not_heal() -> None:
    cluster, progress = Played(), Progress()
    cluster.falls_ill = B
    asked = restart(cluster.desk, parts=["restart-database"], progress=progress, timeout_s=0.3)
    with pytest.raises(Unavailable, match="not well within"):
        told(cluster, asked)
    assert cluster.done == ["b restart-database"]
    assert progress.done == []


@pytest.mark.parametrize(
    ("ill", "outside", "said"),
    [({C}, set(), "c: running"), (set(), {C}, "")],
    ids=["a replica that does not apply", "one that was outside from the beginning"],
)
def test_it_begins_only_where_all_are_well(
    ill: set[NodeId], outside: set[NodeId], said: str
) -> None:
    cluster = Played()
    cluster.ill, cluster.outside = ill, outside
    if not said:
        found = asyncio.run(_ailments(cluster))
        assert found == []  # A node that never counted holds nobody up.
        return
    with pytest.raises(Conflict, match=f"not begun: {said}"):
        told(cluster, restart(cluster.desk, parts=["restart-agent"], progress=Progress()))
    assert cluster.done == []


def test_a_member_that_does_not_acknowledge_yet_holds_the_next_one_up() -> None:
    """If the other member went now, commits would wait for ever, and the primary would give up."""
    cluster = Played()
    cluster.quiet = {C}
    assert asyncio.run(_ailments(cluster)) == ["c does not acknowledge yet"]


async def _ailments(cluster: Played) -> list[str]:
    await cluster.publish()
    async with following(cluster.desk) as watch:
        view = watch.view()
    return ailments(view, DATA, who_belongs(view))


def test_only_one_and_never_the_primary() -> None:
    cluster = Played()
    told(
        cluster,
        restart(cluster.desk, parts=["restart-database"], progress=Progress(), only=C),
    )
    assert cluster.done == ["c restart-database"]
    told(cluster, restart(cluster.desk, parts=["restart-agent"], progress=Progress(), only=W))
    assert cluster.done[1:] == ["w restart-agent"]
    with pytest.raises(Rejected, match="w is a witness"):
        told(
            cluster,
            restart(cluster.desk, parts=["restart-database"], progress=Progress(), only=W),
        )
    with pytest.raises(Conflict, match="a is the primary"):
        told(cluster, restart(cluster.desk, parts=["restart-agent"], progress=Progress(), only=A))


def test_nothing_to_restart_and_nobody_to_take_over_are_wrong_input() -> None:
    cluster = Played()
    with pytest.raises(Rejected, match="nothing to restart"):
        told(cluster, restart(cluster.desk, parts=[], progress=Progress()))
    alone = Desk(cluster.store, Roster(cluster="x", members=(A,), data_nodes=(A,)), SystemClock())
    with pytest.raises(Rejected, match="nobody to take over"):
        told(cluster, restart(alone, parts=["restart-agent"], progress=Progress()))


def test_a_task_that_nobody_takes_up_is_withdrawn() -> None:
    cluster = Played()

    async def story() -> None:
        await cluster.publish()
        with pytest.raises(Unavailable, match="withdrawn"):
            await perform(cluster.desk, B, "restart-agent", timeout_s=0.01)
        assert (await cluster.store.range(TASKS_PREFIX, is_prefix=True)).items == ()

    asyncio.run(story())


def test_a_copy_is_refused_for_the_primary_a_witness_and_during_a_pause() -> None:
    cluster = Played()

    async def refused(node: str) -> PrimacyError:
        with pytest.raises(PrimacyError) as caught:
            await reinit(cluster.desk, node, is_data_given_up=True, timeout_s=LONG_S)
        return caught.value

    async def story() -> None:
        await cluster.publish()
        assert "is the primary" in (await refused("a")).what
        assert "is a witness" in (await refused("w")).what
        assert "there is no node" in (await refused("z")).what
        stopped = msgspec.structs.replace(cluster.status(C), incarnation=None, state="absent")
        await cluster.publish(Put(node_key(NODES_PREFIX, C), encoded(stopped)))
        assert "nothing to reinit" in (await refused("c")).what
        await cluster.publish(Put(PAUSE_KEY, encoded(Pause())))
        assert "paused" in (await refused("b")).what

    asyncio.run(story())


def test_a_copy_names_the_life_that_is_given_up() -> None:
    cluster = Played()
    with pytest.raises(Rejected, match="the data of b would be replaced"):
        told(cluster, reinit(cluster.desk, "b", is_data_given_up=False, timeout_s=LONG_S))
    told(cluster, reinit(cluster.desk, "b", is_data_given_up=True, timeout_s=LONG_S))
    assert cluster.done == ["b reinit"]
