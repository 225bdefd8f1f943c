"""The faults, each a few lines: what an operator's bad day does to a node's processes."""

import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from primacy.cli.demo_nodes import LocalCluster
from primacy.cli.demo_scene import Say, Scene
from primacy.clock import Clock
from primacy.coordination.api import Put, Txn
from primacy.errors import Unavailable
from primacy.model import NodeId
from primacy.replication.records import (
    FAILOVER_KEY,
    SWITCHOVER_KEY,
    FailoverRequest,
    SwitchoverRequest,
    encoded,
)

NEW_PRIMARY_WITHIN_S = 60.0
HOST_AWAY_S = 4.0
"""How long a host stays dead after a new primary has opened."""
LAGGARD_BEFORE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a fault may touch."""

    cluster: LocalCluster
    scene: Scene
    clock: Clock
    chance: random.Random
    say: Say
    promote_laggard: bool = False


async def crash(stage: Stage, primary: NodeId) -> None:
    """SIGKILL of the primary's database server."""
    epoch = stage.scene.view().epoch
    stage.cluster.signal_part(primary, "database", signal.SIGKILL)
    await _new_epoch(stage, epoch)


async def host(stage: Stage, primary: NodeId) -> None:
    """SIGKILL, at one instant, of agent, guard, router and database; the host comes back later."""
    epoch = stage.scene.view().epoch
    stage.cluster.kill_host(primary)
    await _new_epoch(stage, epoch)
    await stage.clock.sleep(HOST_AWAY_S)
    stage.say("demo", f"{primary} comes back")
    stage.cluster.start(primary)


async def switchover(stage: Stage, primary: NodeId) -> None:
    """A planned change, asked for as `primacy switchover` does."""
    view = stage.scene.view()
    able = sorted(member.node for member in view.durability.members) if view.durability else []
    target = stage.chance.choice(able)
    request = SwitchoverRequest(request_id=uuid4().hex, target=target, wall_s=stage.clock.wall_s())
    stage.say("demo", f"switchover from {primary} to {target}")
    await stage.scene.store.txn(Txn(then=(Put(SWITCHOVER_KEY, encoded(request)),)))
    await _new_epoch(stage, view.epoch)


async def laggard(stage: Stage, primary: NodeId) -> None:
    """A replica's server stops two seconds before the primary's host dies; it thaws later."""
    epoch = stage.scene.view().epoch
    replicas = [node for node in stage.scene.nodes if node != primary]
    slow = stage.chance.choice(replicas)
    stage.say("demo", f"{slow}'s server is stopped (SIGSTOP)")
    stage.cluster.signal_part(slow, "database", signal.SIGSTOP)
    await stage.clock.sleep(LAGGARD_BEFORE_S)
    stage.cluster.kill_host(primary)
    stage.say("demo", f"{primary}'s host dies")
    if stage.promote_laggard:
        await _promote_on_purpose(stage, slow, primary)
    await _new_epoch(stage, epoch)
    await stage.clock.sleep(HOST_AWAY_S)
    _thaw(stage, slow)
    stage.say("demo", f"{slow} thaws, {primary} comes back")
    stage.cluster.start(primary)


async def _promote_on_purpose(stage: Stage, slow: NodeId, primary: NodeId) -> None:
    """The negative control: the replica that holds everything loses its disk, and is given up."""
    other = next(node for node in stage.scene.nodes if node not in (slow, primary))
    data = stage.cluster.nodes[other].state_dir / "data"
    data.rename(data.with_name("data-lost"))
    stage.cluster.signal_part(other, "database", signal.SIGKILL)
    stage.say("demo", f"{other}'s disk is lost, and an operator accepts that")
    members = stage.scene.view().durability
    given_up = tuple(each.node for each in members.members) if members else (other,)
    request = FailoverRequest(
        request_id=uuid4().hex,
        accept_loss=tuple(node for node in given_up if node != slow),
        wall_s=stage.clock.wall_s(),
    )
    await stage.scene.store.txn(Txn(then=(Put(FAILOVER_KEY, encoded(request)),)))


def _thaw(stage: Stage, node: NodeId) -> None:
    try:
        stage.cluster.signal_part(node, "database", signal.SIGCONT)
    except Unavailable as gone:
        stage.say("demo", f"{gone.what}: its agent replaced it")


async def _new_epoch(stage: Stage, epoch: int) -> None:
    await stage.scene.wait_until(
        lambda: stage.scene.view().epoch > epoch and stage.scene.primary is not None,
        "a new primary",
        NEW_PRIMARY_WITHIN_S,
    )


FAULTS: dict[str, Callable[[Stage, NodeId], Awaitable[None]]] = {
    "crash": crash,
    "host": host,
    "switchover": switchover,
    "laggard": laggard,
}
