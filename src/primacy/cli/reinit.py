"""`primacy reinit`: a new copy of the data for one node."""

from typing import Annotated

import typer

from primacy.cli.format import say, say_json
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.session import roster, store_of
from primacy.clock import SystemClock
from primacy.cluster.control import tasks
from primacy.cluster.control.answers import as_json, done_answer
from primacy.cluster.control.requests import Desk, tell_nobody
from primacy.errors import Rejected
from primacy.replication.records import RequestOutcome


def reinit(
    *,
    node: Annotated[str, typer.Argument(help="The node whose data is given up.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Yes: its present data is not needed any more.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for the end.")
    ] = tasks.REINIT_WITHIN_S,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Give NODE a new copy of the primary's data.

    It leaves the sync set first, and its old data is kept aside until the copy is healthy. Never
    done to the primary.
    """
    found = loaded(config)
    found.node(node)
    if not yes:
        raise Rejected(
            f"the data of {node} would be replaced by a copy of the primary's",
            hint="If that is what you want, say so with --yes.",
        )

    async def ask() -> RequestOutcome:
        async with store_of(found) as store:
            desk = Desk(store, roster(found), SystemClock())
            tell = tell_nobody if is_json else lambda line: say(f"  {line}")
            return await tasks.reinit(desk, node, timeout_s=timeout_s, tell=tell)

    outcome = run_to_end(ask())
    if is_json:
        say_json(as_json(done_answer(outcome)))
    else:
        say(f"done: {outcome.detail}")
