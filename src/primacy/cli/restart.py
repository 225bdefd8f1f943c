"""`primacy restart`: one node, or the whole cluster one node at a time."""

from typing import Annotated

import typer

from primacy.cli.format import say, say_json
from primacy.cli.options import (
    ApiOption,
    ConfigOption,
    JsonOption,
    StepTimeoutOption,
    TokenFileOption,
    run_to_end,
)
from primacy.cli.ways import RestartWish, way_of
from primacy.cluster.control import tasks
from primacy.cluster.control.answers import RestartAnswer, as_json
from primacy.cluster.control.requests import tell_nobody
from primacy.cluster.control.rolling import Progress
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
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """Restart servers, agents, or both, without an outage.

    With --rolling one node at a time: each must be well and back in the sync set before the next.
    The primary comes last, after a switchover. It stops at the first node that does not heal. An
    agent that is asked by --api does not restart itself.
    """
    if is_rolling == (node is not None):
        raise Rejected("say --rolling for all nodes, or --node for one", hint="Not both.")
    wish = RestartWish(node=node, databases=databases, agents=agents, timeout_s=timeout_s)
    progress = Progress()

    async def ask() -> RestartAnswer:
        async with way_of(config, api, token_file) as way:
            tell = tell_nobody if is_json else lambda line: say(f"  {line}")
            return await way.restart(wish, progress, tell)

    try:
        answer = run_to_end(ask())
    except PrimacyError as error:
        if is_json:
            say_json(as_json(progress.answer(is_done=False, detail=str(error))))
        raise
    if is_json:
        say_json(as_json(answer))
    else:
        say(f"done: {', '.join(each.node for each in answer.restarted)}")
