"""`history` and `why`: how each epoch came about, and what each node decided last."""

from typing import Annotated

import typer

from primacy.cli.format import console, say, say_json, table
from primacy.cli.options import (
    ApiOption,
    ConfigOption,
    JsonOption,
    TokenFileOption,
    run_to_end,
)
from primacy.cli.ways import way_of
from primacy.cluster.control.answers import (
    DecisionAnswer,
    DecisionsAnswer,
    EpochAnswer,
    HistoryAnswer,
    as_json,
)
from primacy.cluster.control.wording import steps, when

WAIT = "Wait"
"""The brain's name for: nothing to do but look again."""

HISTORY_COLUMNS = ("epoch", "when (UTC)", "kind", "primary", "lost", "reason", "steps")


def history(
    *,
    limit: Annotated[int, typer.Option(min=1, help="The newest epochs only.")] = 20,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """How each epoch came about: which node, why, how long each step took, what was lost."""

    async def ask() -> HistoryAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.history(limit=limit)

    answer = run_to_end(ask())
    if is_json:
        say_json(as_json(answer)["epochs"])
    elif answer.epochs:
        console().print(table(HISTORY_COLUMNS, [history_row(each) for each in answer.epochs]))
    else:
        say("there was no primary yet")


def why(
    *,
    node: Annotated[str | None, typer.Option(help="Only this node.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many decisions of each node.")] = 1,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """The last decision of each node and its reason, in words."""

    async def ask() -> DecisionsAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.decisions(last=last, node=node)

    answer = run_to_end(ask())
    if is_json:
        decided = {name: made for name, made in answer.nodes.items() if made}
        say_json(as_json(DecisionsAnswer(nodes=decided))["nodes"])
        return
    for name, made in answer.nodes.items():
        for each in made:
            say(decision_line(each))
        if not made:
            say(f"{name}: nothing decided yet")


def decision_line(decision: DecisionAnswer) -> str:
    at = f"{decision.node}: {when(decision.at_s)} epoch {decision.epoch}:"
    if decision.action == WAIT:
        return f"{at} nothing to do now: {decision.reason}"
    taken = f" ({steps(decision.steps_s)})" if decision.steps_s else ""
    return f"{at} {decision.action}, because {decision.reason}{taken}"


def history_row(record: EpochAnswer) -> list[str]:
    """In the order of `HISTORY_COLUMNS`."""
    lost = "-"
    if record.lost_count:
        lost = f"{record.lost_count} (saved: {record.lost_path})"
    elif record.accepted_loss:
        lost = f"given up: {', '.join(record.accepted_loss)}"
    return [
        str(record.epoch),
        when(record.at_s),
        record.kind,
        record.node,
        lost,
        record.reason,
        steps(record.steps_s),
    ]
