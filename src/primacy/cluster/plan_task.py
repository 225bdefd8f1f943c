"""What an operator asks of one node: a new copy of its data, a restart of its server or its agent.

Each task names the very life that is to end (`of`), so that it is done once: whoever is another
life already only says that it is well. What it would take from the sync set is waited for.
"""

from primacy.cluster.actions import EndTask, Plan, RestartAgent, StopDatabase, act, wait
from primacy.cluster.view import View
from primacy.engines.api import ServerState
from primacy.replication.records import NodeTask, PrimaryRecord

LOOK_AGAIN_S = 0.2


def plan_task(view: View) -> Plan | None:
    """The next step of this node's task; None: there is none, or something else comes first."""
    task, record = view.store.tasks.get(view.node), view.store.primary
    if task is None or record is None:
        return None
    if view.store.pause is not None and task.kind == "reinit":
        return _ended(view, task, is_done=False, reason="paused: no copy of the data is made")
    match task.kind:
        case "restart-agent":
            if task.of == view.agent:
                return act(RestartAgent(reason=f"asked for ({task.request_id})"))
            return _ended(view, task, is_done=True, reason="the agent has started again")
        case "restart-database":
            return _restart_database(view, record, task)
        case "reinit":
            return _reinit(view, record, task)


def is_to_be_copied(view: View) -> bool:
    """This life of the data is given up, and the sync set of this epoch goes on without it."""
    task, durability = view.store.tasks.get(view.node), view.store.durability
    record = view.store.primary
    return (
        task is not None
        and task.kind == "reinit"
        and task.of == view.incarnation
        and record is not None
        and durability is not None
        and durability.epoch == record.epoch
        and not durability.names(view.node, view.incarnation)
    )


def _restart_database(view: View, record: PrimaryRecord, task: NodeTask) -> Plan | None:
    if record.node == view.node:
        return _ended(view, task, is_done=False, reason=f"{view.node} is the primary: {SWITCH}")
    if view.engine.state is not ServerState.RUNNING:
        return None
    if task.of != str(view.engine.starts):
        return _ended(view, task, is_done=True, reason="the server has started again and follows")
    lacking = _would_block(view)
    if lacking:
        return wait(lacking, LOOK_AGAIN_S)
    return act(StopDatabase(reason=f"a restart was asked for ({task.request_id})"))


def _reinit(view: View, record: PrimaryRecord, task: NodeTask) -> Plan | None:
    if record.node == view.node:
        return _ended(view, task, is_done=False, reason=f"{view.node} is the primary: {SWITCH}")
    if task.of == view.incarnation or view.engine.has_old_data:
        return None  # The primary takes it out first; then it is copied (plan_replica).
    return _ended(view, task, is_done=True, reason=f"a new copy of {record.node}'s data")


SWITCH = "ask for a switchover first"


def _ended(view: View, task: NodeTask, *, is_done: bool, reason: str) -> Plan | None:
    """The task's outcome. Done: only once the node is well in its role."""
    replication, record = view.engine.replication, view.store.primary
    is_primary = record is not None and record.node == view.node
    is_well = is_primary or (
        view.engine.state is ServerState.RUNNING
        and replication.is_receiving
        and replication.is_applying
        and replication.error is None
    )
    if is_done and not is_well:
        return None
    return act(
        EndTask(
            node=view.node,
            mod=view.store.task_mods[view.node],
            request_id=task.request_id,
            is_done=is_done,
            reason=reason,
        )
    )


def _would_block(view: View) -> str:
    """Why writes would wait if this node's server stopped now; empty: they would not."""
    durability = view.store.durability
    if durability is None or not durability.names(view.node, view.incarnation):
        return ""
    others = [
        each.node
        for each in durability.members
        if each.node != view.node
        and (status := view.store.nodes.get(each.node)) is not None
        and status.is_healthy_replica
        and status.acknowledges
    ]
    if len(others) >= durability.acks:
        return ""
    return (
        f"a restart would block writes: {len(others)} other member(s) of the sync set acknowledge,"
        f" {durability.acks} must"
    )
