"""What an operator asks of one node: done once, never at the cost of writes or of a primary."""

from dataclasses import replace
from typing import Any  # A table row overrides any field of the view.

import pytest
from tests.unit.cluster.situations import (
    E1,
    INC,
    POLICY,
    A,
    B,
    C,
    durability,
    primary,
    record,
    replica,
    seen,
    status,
    store,
)

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.view import View
from primacy.engines.api import Diverged, Replication, ServerState
from primacy.model import Incarnation, Position, Revision
from primacy.replication.records import NodeTask, Pause

LIVES = {"reinit": INC[B], "restart-database": "7", "restart-agent": "life-1"}


def asked(kind: Any, *, of: str = "", node: Any = B, **more: Any) -> Any:  # Any: as above.
    task = NodeTask(request_id="x", node=node, kind=kind, of=of or LIVES[kind])
    fields = {"primary": record(), "tasks": {node: task}, "task_mods": {node: Revision(9)}}
    return store(**fields | more)


def silent(**more: Any) -> Any:  # Any: fields of the observation.
    """B follows and does not acknowledge: the record does not name it."""
    following = Replication(upstream=A, is_receiving=True, is_applying=True)
    return seen(B, following_epoch=E1, replication=following, **more)


def loud(**more: Any) -> Any:  # Any: as above.
    return replace(replica().engine, **more)


WITHOUT_B = durability(E1, A, C)
STOPPED = seen(B, state=ServerState.STOPPED)

SITUATIONS: dict[str, tuple[View, type[do.Action] | None]] = {
    # a new copy of the data
    "reinit: the primary takes the member out first": (primary(store=asked("reinit")), do.Exclude),
    "reinit: not from a sync set that could not do without it": (
        primary(store=asked("reinit", nodes={B: status(B), C: status(C, is_applying=False)})),
        None,
    ),
    "reinit: a node that is to be copied does not come in": (
        primary(store=asked("reinit", durability=WITHOUT_B)),
        None,
    ),
    "reinit: the new life comes in": (
        primary(store=asked("reinit", of="older", durability=WITHOUT_B)),
        do.Mark,
    ),
    "reinit: it goes on following while the record names it": (
        replica(store=asked("reinit")),
        None,
    ),
    "reinit: copied once the record does without it": (
        replica(
            engine=silent(),
            store=asked("reinit", durability=WITHOUT_B, nodes={A: status(A)}),
        ),
        do.Clone,
    ),
    "reinit: a stopped server's logs are read first": (
        replica(engine=STOPPED, store=asked("reinit", durability=WITHOUT_B)),
        do.SaveDiverged,
    ),
    "reinit: then it is copied, not started": (
        replica(
            engine=STOPPED,
            diverged={E1: Diverged()},
            store=asked("reinit", durability=WITHOUT_B, nodes={A: status(A)}),
        ),
        do.Clone,
    ),
    "reinit: the old data is kept until the copy is healthy": (
        replica(engine=loud(has_old_data=True), store=asked("reinit", of="older")),
        do.ForgetOldData,
    ),
    "reinit: then it has ended": (replica(store=asked("reinit", of="older")), do.EndTask),
    "reinit: never of a primary": (
        primary(store=asked("reinit", node=A, of=INC[A])),
        do.EndTask,
    ),
    "reinit: not during a pause": (
        replica(store=asked("reinit", pause=Pause(), durability=WITHOUT_B), engine=silent()),
        do.EndTask,
    ),
    # a restart of the server
    "restart: a replica's server stops": (
        replica(engine=loud(starts=7), store=asked("restart-database")),
        do.StopDatabase,
    ),
    "restart: not where writes would wait": (
        replica(
            engine=loud(starts=7),
            store=asked("restart-database", nodes={C: status(C, acknowledges=False)}),
        ),
        None,
    ),
    "restart: a node outside the sync set blocks nobody": (
        replica(
            engine=silent(starts=7),
            store=asked("restart-database", durability=WITHOUT_B, nodes={}),
        ),
        do.StopDatabase,
    ),
    "restart: a stopped server is started again like any other": (
        replica(engine=STOPPED, diverged={E1: Diverged()}, store=asked("restart-database")),
        do.Start,
    ),
    "restart: it has ended once the next start follows": (
        replica(engine=loud(starts=8), store=asked("restart-database")),
        do.EndTask,
    ),
    "restart: not before it applies": (
        replica(
            engine=loud(starts=8, replication=replace(loud().replication, is_applying=False)),
            store=asked("restart-database"),
        ),
        None,
    ),
    "restart: never of a primary": (
        primary(store=asked("restart-database", node=A)),
        do.EndTask,
    ),
    # a restart of the agent
    "agent: of a replica": (replica(agent="life-1", store=asked("restart-agent")), do.RestartAgent),
    "agent: of a primary too, whose database runs on": (
        primary(agent="life-1", store=asked("restart-agent", node=A)),
        do.RestartAgent,
    ),
    "agent: the next one says that it is there": (
        replica(agent="life-2", store=asked("restart-agent")),
        do.EndTask,
    ),
    "somebody else's task is not ours": (
        replica(C, agent="life-1", store=asked("restart-agent")),
        None,
    ),
    # a pause stops rejoins
    "paused: a blank node is not copied to": (
        replica(
            engine=seen(B, state=ServerState.ABSENT, incarnation=None),
            store=store(primary=record(), pause=Pause(), nodes={A: status(A)}),
        ),
        None,
    ),
    "paused: nothing is cut": (
        replica(
            engine=STOPPED,
            diverged={E1: Diverged(count=2, path="/x")},
            store=store(primary=record(), pause=Pause(), durability=WITHOUT_B),
        ),
        None,
    ),
    "paused: a diverged server is left alone": (
        replica(
            store=store(primary=record(), pause=Pause()),
            engine=loud(
                replication=replace(
                    loud().replication, is_diverged=True, error="1236", acknowledges=False
                )
            ),
        ),
        None,
    ),
    "paused: a server whose log is a part of the history starts": (
        replica(
            engine=STOPPED,
            diverged={E1: Diverged()},
            store=store(primary=record(), pause=Pause()),
        ),
        do.Start,
    ),
    "paused: fencing goes on": (
        replica(engine=loud(is_read_only=False), store=store(primary=record(), pause=Pause())),
        do.Kill,
    ),
}


@pytest.mark.parametrize(("view", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_next_step(view: View, expected: type[do.Action] | None) -> None:
    step = plan(view, POLICY)
    assert (type(step.action) if step.action else None) is expected, step.reason


@pytest.mark.parametrize(
    ("view", "is_done"),
    [
        (replica(store=asked("reinit", of="older")), True),
        (primary(store=asked("reinit", node=A, of=INC[A])), False),
        (primary(store=asked("restart-database", node=A)), False),
        (replica(engine=loud(starts=8), store=asked("restart-database")), True),
    ],
)
def test_the_outcome_says_whether_it_was_done(view: View, is_done: bool) -> None:  # noqa: FBT001 - a column of the table
    action = plan(view, POLICY).action
    assert isinstance(action, do.EndTask)
    assert (action.is_done, action.mod, action.request_id) == (is_done, Revision(9), "x")


def test_only_the_life_that_was_named_is_given_up() -> None:
    """A copy that has begun its life while the request stood is not copied again."""
    view = replica(
        store=asked("reinit", durability=durability(E1, A, C)),
        engine=silent(incarnation=Incarnation("new"), received=Position(E1, 9)),
    )
    assert not isinstance(plan(view, POLICY).action, do.Clone)
