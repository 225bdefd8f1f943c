"""`primacy reinit`: a new copy of the data for one node."""

from typing import Annotated

import typer

from primacy.cli.format import say, say_json
from primacy.cli.options import (
    ApiOption,
    ConfigOption,
    JsonOption,
    TokenFileOption,
    run_to_end,
)
from primacy.cli.ways import way_of
from primacy.cluster.control import tasks
from primacy.cluster.control.answers import DoneAnswer, as_json
from primacy.cluster.control.requests import tell_nobody


def reinit(  # noqa: PLR0913 - one parameter per option is typer's way.
    *,
    node: Annotated[str, typer.Argument(help="The node whose data is given up.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Yes: its present data is not needed any more.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for the end.")
    ] = tasks.REINIT_WITHIN_S,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """Give NODE a new copy of the primary's data.

    It leaves the sync set first, and its old data is kept aside until the copy is healthy. Never
    done to the primary.
    """

    async def ask() -> DoneAnswer:
        async with way_of(config, api, token_file) as way:
            tell = tell_nobody if is_json else lambda line: say(f"  {line}")
            return await way.reinit(node, is_data_given_up=yes, timeout_s=timeout_s, tell=tell)

    answer = run_to_end(ask())
    if is_json:
        say_json(as_json(answer))
    else:
        say(f"done: {answer.detail}")
