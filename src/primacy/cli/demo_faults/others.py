"""What happens to replicas, to winners and to the store's leader."""

import asyncio
import signal
from uuid import uuid4

from primacy.cli.demo_faults.primary import hand_over
from primacy.cli.demo_faults.stage import HOST_AWAY_S, Stage
from primacy.cli.demo_ledger import read_ledger
from primacy.cli.demo_writers import RW_DOOR
from primacy.coordination.api import Put, Txn
from primacy.errors import Unavailable
from primacy.model import NodeId
from primacy.replication.records import FAILOVER_KEY, FailoverRequest, encoded

LAGGARD_BEFORE_S = 2.0
BLOCKED_S = 1.0
"""Long enough for the relay log to hold what the tables do not."""
AGENT_DEAD_S = 1.0
"""Shorter than the silence after which a primary stops counting on a replica."""
ROWS_AHEAD = 50
"""Beyond the newest that the clients have: about a second's worth."""
ROWS_IN_THE_WAY = 200
LEADER_WITHIN_S = 10.0


async def laggard(stage: Stage, primary: NodeId) -> None:
    """A replica's server stops two seconds before the primary's host dies; it thaws later."""
    epoch = stage.epoch
    slow = stage.any_replica(primary)
    stage.say("demo", f"{slow}'s server is stopped (SIGSTOP)")
    try:
        stage.cluster.signal_part(slow, "database", signal.SIGSTOP)
        await stage.pause(LAGGARD_BEFORE_S)
        stage.cluster.kill_host(primary)
        stage.say("demo", f"{primary}'s host dies")
        if stage.promote_laggard:
            await _promote_on_purpose(stage, slow, primary)
        await stage.replaced(epoch)
        await stage.pause(HOST_AWAY_S)
    finally:
        _thaw(stage, slow)
        stage.start(primary)


async def _promote_on_purpose(stage: Stage, slow: NodeId, primary: NodeId) -> None:
    """The negative control: the replica that holds everything loses its disk, and is given up."""
    other = next(node for node in stage.scene.nodes if node not in (slow, primary))
    data = stage.database.data_directory(other)
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
    else:
        stage.say("demo", f"{node} thaws")


async def store_leader(stage: Stage, primary: NodeId) -> None:
    """SIGKILL of the agent that leads the store, not the primary's: no write waits for it."""
    leader = await _leader_of_the_store(stage)
    if leader == primary:
        await hand_over(stage, primary, stage.any_replica(primary))
        await stage.healed()
        leader = await _leader_of_the_store(stage)
    if leader == stage.scene.primary:
        raise Unavailable(f"{leader} leads the store, and the data", hint="Run the fault again.")
    stage.begin()
    stage.say("demo", f"{leader}'s agent leads the store: it is killed")
    try:
        stage.cluster.signal_part(leader, "agent", signal.SIGKILL)
        await stage.pause(HOST_AWAY_S)
    finally:
        stage.start(leader)


async def _leader_of_the_store(stage: Stage) -> NodeId:
    """A member that has just come back, and was asked, does not know it yet."""
    deadline_s = stage.clock.now_s() + LEADER_WITHIN_S
    while (leader := (await stage.scene.store.status()).leader) is None:
        if stage.clock.now_s() > deadline_s:
            raise Unavailable(
                f"no member of the store leads it after {LEADER_WITHIN_S:.0f} s",
                hint="The agents' logs in the demo's directory say why (--keep keeps it).",
            )
        await stage.clock.sleep(0.1)
    return leader


async def replica_restart(stage: Stage, primary: NodeId) -> None:
    """A replica whose applier is blocked is killed and restarted, then the primary is killed: what
    only its relay log holds has to be salvaged."""
    epoch = stage.epoch
    replica = stage.any_replica(primary)
    old_pid = stage.cluster.pids(replica).get("database")
    stage.say("demo", f"{replica}'s applier is blocked by a lock")
    lock = await asyncio.to_thread(stage.database.block_applier, replica)
    try:
        await stage.pause(BLOCKED_S)
        stage.cluster.signal_part(replica, "database", signal.SIGKILL)
        lock.close()
        await stage.until(
            lambda: stage.cluster.pids(replica).get("database") not in (old_pid, None),
            f"{replica}'s server is started again",
        )
        stage.cluster.signal_part(primary, "database", signal.SIGKILL)
        stage.say("demo", f"{replica}'s server was killed and is back; {primary}'s is killed")
        await stage.replaced(epoch)
    finally:
        lock.close()


async def mid_promotion(stage: Stage, primary: NodeId) -> None:
    """The primary crashes, and the host of whoever wins dies before it has opened."""
    epoch = stage.epoch
    pids = {node: stage.cluster.pids(node) for node in stage.replicas(primary)}
    stage.cluster.signal_part(primary, "database", signal.SIGKILL)
    await stage.until(lambda: stage.winner_after(epoch) is not None, "a new primary record")
    winner = stage.winner_after(epoch)
    if winner is None or winner == primary:
        stage.say("demo", f"{primary} won again: nobody to kill")
        return
    try:
        stage.cluster.signal_parts(pids[winner], signal.SIGKILL)
        stage.cluster.kill_host(winner)
        opened = "after it had opened" if stage.scene.primary == winner else "before it opened"
        stage.say("demo", f"{winner}'s host dies {opened}")
        await stage.replaced(epoch + 1)
        await stage.pause(HOST_AWAY_S)
    finally:
        stage.start(winner)


async def replica_agent(stage: Stage, primary: NodeId) -> None:
    """The agent of an acknowledging replica is killed, then the primary's host dies. The store has
    no majority until that agent is back: it is started first."""
    epoch = stage.epoch
    replica = stage.any_replica(primary)
    stage.say("demo", f"{replica}'s agent is killed, its server goes on acknowledging")
    try:
        stage.cluster.signal_part(replica, "agent", signal.SIGKILL)
        await stage.pause(AGENT_DEAD_S)
        stage.cluster.kill_host(primary)
        stage.say("demo", f"{primary}'s host dies")
        await stage.pause(HOST_AWAY_S)
        stage.start(replica)
        await stage.replaced(epoch)
    finally:
        stage.start(replica)
        stage.start(primary)


async def broken_replica(stage: Stage, primary: NodeId) -> None:
    """A replica's applier stops on an error: rows of its own stand where the clients' will come."""
    replica = stage.any_replica(primary)
    before = stage.scene.view().nodes[replica].incarnation
    lines = await asyncio.to_thread(read_ledger, stage.cluster.root / "ledger")
    newest = max(line.row for line in lines if line.door == RW_DOOR)
    rows = range(newest + ROWS_AHEAD, newest + ROWS_AHEAD + ROWS_IN_THE_WAY)
    stage.say("demo", f"{replica}'s tables get rows that the primary does not have")
    await asyncio.to_thread(stage.database.put_in_the_way, replica, rows)
    await stage.until(
        lambda: stage.scene.view().nodes[replica].incarnation not in (before, None),
        "the broken replica is cloned anew",
    )
