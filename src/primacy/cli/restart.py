"""`primacy restart`: one node, or the whole cluster one node at a time."""

from typing import Annotated

import typer

from primacy.cli.format import Json, say, say_json
from primacy.cli.options import (
    ConfigOption,
    JsonOption,
    StepTimeoutOption,
    loaded,
    run_to_end,
)
from primacy.cli.session import roster, store_of
from primacy.clock import SystemClock
from primacy.cluster.control import rolling, tasks
from primacy.cluster.control.requests import Desk, tell_nobody
from primacy.cluster.control.rolling import Progress
from primacy.config import Config
from primacy.errors import PrimacyError, Rejected


def restart(  # noqa: PLR0913 - one parameter per option is typer's way.
    *,
    is_rolling: Annotated[
        bool, typer.Option("--rolling", help="All data nodes: replicas first, the primary last.")
    ] = False,
    node: Annotated[str | None, typer.Option("--node", "-n", help="Only this node.")] = None,
    databases: Annotated[bool, typer.Option("--databases", help="Restart servers.")] = False,
    agents: Annotated[
        bool, typer.Option("--agents", help="Restart agents: with what is installed now.")
    ] = False,
    timeout_s: StepTimeoutOption = tasks.RESTART_WITHIN_S,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Restart servers, agents, or both, without an outage.

    With --rolling one node at a time: each must be well and back in the sync set before the next.
    The primary comes last, after a switchover. It stops at the first node that does not heal.
    """
    found = loaded(config)
    if is_rolling == (node is not None):
        raise Rejected("say --rolling for all nodes, or --node for one", hint="Not both.")
    parts: list[tasks.Kind] = []
    parts += ["restart-agent"] if agents else []
    parts += ["restart-database"] if databases else []
    progress = Progress()
    try:
        run_to_end(_restart(found, node, parts, progress, timeout_s, is_json=is_json))
    except PrimacyError as error:
        if is_json:
            say_json({**as_json(progress), "is_done": False, "detail": str(error)})
        raise
    if is_json:
        say_json({**as_json(progress), "is_done": True, "detail": "all are well"})
    else:
        say(f"done: {', '.join(each.node for each in progress.done)}")


async def _restart(
    config: Config,
    node: str | None,
    parts: list[tasks.Kind],
    progress: Progress,
    timeout_s: float,
    *,
    is_json: bool,
) -> None:
    async with store_of(config) as store:
        desk = Desk(store, roster(config), SystemClock())
        await rolling.restart(
            desk,
            parts=parts,
            only=None if node is None else desk.roster.node(node),
            progress=progress,
            timeout_s=timeout_s,
            tell=tell_nobody if is_json else lambda line: say(f"  {line}"),
        )


def as_json(progress: Progress) -> dict[str, Json]:
    return {
        "restarted": [
            {"node": each.node, "parts": list(each.parts), "took_s": each.took_s}
            for each in progress.done
        ],
        "switched_to": progress.switched_to,
    }
