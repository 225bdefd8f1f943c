"""What happens to the primary's own processes."""

import asyncio
import signal
from uuid import uuid4

from primacy.cli.demo_faults.stage import HOST_AWAY_S, Stage
from primacy.coordination.api import Put, Txn
from primacy.errors import Unavailable
from primacy.model import NodeId
from primacy.replication.records import SWITCHOVER_KEY, SwitchoverRequest, encoded

AWAY_S = 20.0
"""A frozen host, and an agent whose service manager is slow."""


async def crash(stage: Stage, primary: NodeId) -> None:
    """SIGKILL of the primary's database server."""
    epoch = stage.epoch
    stage.cluster.signal_part(primary, "database", signal.SIGKILL)
    await stage.replaced(epoch)


async def host(stage: Stage, primary: NodeId) -> None:
    """SIGKILL, at one instant, of agent, guard, router and database; the host comes back later."""
    epoch = stage.epoch
    try:
        stage.cluster.kill_host(primary)
        await stage.replaced(epoch)
        await stage.pause(HOST_AWAY_S)
    finally:
        stage.start(primary)


async def switchover(stage: Stage, primary: NodeId) -> None:
    """A planned change, asked for as `primacy switchover` does."""
    view = stage.scene.view()
    able = sorted(member.node for member in view.durability.members) if view.durability else []
    if not able:
        raise Unavailable(f"nobody can take over from {primary}", hint="See the sync set.")
    await hand_over(stage, primary, stage.chance.choice(able))


async def hand_over(stage: Stage, primary: NodeId, target: NodeId) -> None:
    epoch = stage.epoch
    request = SwitchoverRequest(request_id=uuid4().hex, target=target, wall_s=stage.clock.wall_s())
    stage.say("demo", f"switchover from {primary} to {target}")
    await stage.scene.store.txn(Txn(then=(Put(SWITCHOVER_KEY, encoded(request)),)))
    await stage.replaced(epoch)


async def freeze(stage: Stage, primary: NodeId) -> None:
    """SIGSTOP of agent, guard, router and database for 20 s, then SIGCONT, the database first."""
    pids = stage.cluster.pids(primary)
    try:
        stage.cluster.signal_parts(pids, signal.SIGSTOP)
        await stage.pause(AWAY_S)
    finally:
        stage.say("demo", f"{primary} thaws")
        for part in ("database", "router", "guard", "agent"):
            if stage.cluster.pids(primary).get(part) == pids.get(part, 0):
                stage.cluster.signal_part(primary, part, signal.SIGCONT)


async def agent(stage: Stage, primary: NodeId) -> None:
    """SIGKILL of the agent alone, back after 20 s: its guard ends the primary at the deadline."""
    epoch = stage.epoch
    try:
        stage.cluster.signal_part(primary, "agent", signal.SIGKILL)
        await stage.pause(AWAY_S)
        await stage.replaced(epoch)
    finally:
        stage.start(primary)


async def guard(stage: Stage, primary: NodeId) -> None:
    """SIGKILL of the guard alone: the kernel kills its database."""
    epoch = stage.epoch
    stage.cluster.signal_part(primary, "guard", signal.SIGKILL)
    await stage.replaced(epoch)


async def hang(stage: Stage, primary: NodeId) -> None:
    """SIGSTOP of the database alone, for good: its agent has to give it up."""
    epoch = stage.epoch
    stage.cluster.signal_part(primary, "database", signal.SIGSTOP)
    await stage.replaced(epoch)


async def no_restart(stage: Stage, primary: NodeId) -> None:
    """A crash, and the server cannot start again."""
    epoch = stage.epoch
    held = await asyncio.to_thread(stage.database.keep_down, primary)
    try:
        stage.cluster.signal_part(primary, "database", signal.SIGKILL)
        await stage.replaced(epoch)
        await stage.pause(HOST_AWAY_S)
    finally:
        held.close()
        stage.say("demo", f"{primary}'s server can start again")
