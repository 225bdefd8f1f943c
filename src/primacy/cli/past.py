"""`history` and `why`: how each epoch came about, and what each node decided last."""

from collections.abc import Iterable
from typing import Annotated

import typer

from primacy.cli.format import Json, console, say, say_json, steps, table, when
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.session import store_of
from primacy.config import Config
from primacy.coordination.api import KeyValue
from primacy.model import NodeId
from primacy.replication.records import (
    DECISIONS_PREFIX,
    HISTORY_PREFIX,
    Decision,
    HistoryRecord,
    decoded,
)

WAIT = "Wait"
"""The brain's name for: nothing to do but look again."""

HISTORY_COLUMNS = ("epoch", "when (UTC)", "kind", "primary", "lost", "reason", "steps")


def history(
    *,
    limit: Annotated[int, typer.Option(help="The newest epochs only.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """How each epoch came about: which node, why, how long each step took, what was lost."""
    found = loaded(config)
    items = run_to_end(_items(found, HISTORY_PREFIX))
    past = sorted((decoded(HistoryRecord, each.value) for each in items), key=lambda h: h.epoch)
    newest = past[-limit:]
    if as_json:
        say_json([history_json(each) for each in newest])
    elif newest:
        console().print(table(HISTORY_COLUMNS, [history_row(each) for each in newest]))
    else:
        say("there was no primary yet")


def why(
    *,
    node: Annotated[str | None, typer.Option(help="Only this node.")] = None,
    last: Annotated[int, typer.Option(help="How many decisions of each node.")] = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The last decision of each node and its reason, in words."""
    found = loaded(config)
    if node is not None:
        found.node(node)
    items = run_to_end(_items(found, DECISIONS_PREFIX))
    decisions = newest_decisions((decoded(Decision, each.value) for each in items), last)
    if node is not None:
        decisions = {name: made for name, made in decisions.items() if name == node}
    if as_json:
        say_json({name: [decision_json(each) for each in made] for name, made in decisions.items()})
        return
    wanted = found.members if node is None else (NodeId(node),)
    for name in wanted:
        made = decisions.get(name, [])
        for each in made:
            say(decision_line(each))
        if not made:
            say(f"{name}: nothing decided yet")


def newest_decisions(decisions: Iterable[Decision], count: int) -> dict[NodeId, list[Decision]]:
    """Of each node the newest, oldest of them first."""
    made: dict[NodeId, list[Decision]] = {}
    for each in sorted(decisions, key=lambda decision: (decision.node, decision.number)):
        made.setdefault(each.node, []).append(each)
    return {node: of_node[-count:] for node, of_node in made.items()}


def decision_line(decision: Decision) -> str:
    at = f"{decision.node}: {when(decision.wall_s)} epoch {decision.epoch}:"
    if decision.action == WAIT:
        return f"{at} nothing to do now: {decision.reason}"
    taken = f" ({steps(decision.steps_s)})" if decision.steps_s else ""
    return f"{at} {decision.action}, because {decision.reason}{taken}"


def decision_json(decision: Decision) -> dict[str, Json]:
    return {
        "node": decision.node,
        "number": decision.number,
        "action": decision.action,
        "reason": decision.reason,
        "epoch": decision.epoch,
        "at_s": decision.wall_s,
        "steps_s": decision.steps_s,
    }


def history_row(record: HistoryRecord) -> list[str]:
    """In the order of `HISTORY_COLUMNS`."""
    lost = "-"
    if record.lost_count:
        lost = f"{record.lost_count} (saved: {record.lost_path})"
    elif record.accepted_loss:
        lost = f"given up: {', '.join(record.accepted_loss)}"
    return [
        str(record.epoch),
        when(record.wall_s),
        record.kind,
        record.node,
        lost,
        record.reason,
        steps(record.steps_s),
    ]


def history_json(record: HistoryRecord) -> dict[str, Json]:
    return {
        "epoch": record.epoch,
        "node": record.node,
        "kind": record.kind,
        "reason": record.reason,
        "steps_s": record.steps_s,
        "at_s": record.wall_s,
        "lost_count": record.lost_count,
        "lost_path": record.lost_path,
        "accepted_loss": list(record.accepted_loss),
    }


async def _items(config: Config, prefix: str) -> tuple[KeyValue, ...]:
    async with store_of(config) as store:
        return (await store.range(prefix, is_prefix=True)).items
