"""What the store remembers: how each epoch came about, and what each node decided last."""

from collections.abc import Iterable, Mapping

from primacy.cluster.control.answers import (
    DecisionsAnswer,
    HistoryAnswer,
    decision_answer,
    epoch_answer,
)
from primacy.cluster.control.roster import Roster
from primacy.coordination.api import Store
from primacy.model import NodeId
from primacy.replication.records import (
    DECISIONS_PREFIX,
    HISTORY_PREFIX,
    Decision,
    HistoryRecord,
    decoded,
)


async def read_history(store: Store, *, limit: int) -> list[HistoryRecord]:
    """The newest epochs, oldest of them first."""
    found = await store.range(HISTORY_PREFIX, is_prefix=True)
    past = sorted((decoded(HistoryRecord, each.value) for each in found.items), key=_epoch)
    return past[-limit:]


async def read_decisions(
    store: Store, roster: Roster, *, last: int, node: str | None = None
) -> dict[NodeId, list[Decision]]:
    """The newest decisions of each node, or of one; a node that decided nothing has none."""
    wanted = roster.members if node is None else (roster.node(node),)
    prefix = DECISIONS_PREFIX if node is None else f"{DECISIONS_PREFIX}{node}/"
    found = await store.range(prefix, is_prefix=True)
    made = newest_decisions((decoded(Decision, each.value) for each in found.items), last)
    return {name: made.get(name, []) for name in wanted}


def newest_decisions(decisions: Iterable[Decision], count: int) -> dict[NodeId, list[Decision]]:
    """Of each node the newest, oldest of them first."""
    made: dict[NodeId, list[Decision]] = {}
    for each in sorted(decisions, key=lambda decision: (decision.node, decision.number)):
        made.setdefault(each.node, []).append(each)
    return {node: of_node[-count:] for node, of_node in made.items()}


def history_answer(past: Iterable[HistoryRecord]) -> HistoryAnswer:
    return HistoryAnswer(epochs=[epoch_answer(each) for each in past])


def decisions_answer(decisions: Mapping[NodeId, list[Decision]]) -> DecisionsAnswer:
    return DecisionsAnswer(
        nodes={node: [decision_answer(each) for each in made] for node, made in decisions.items()}
    )


def _epoch(record: HistoryRecord) -> int:
    return record.epoch
