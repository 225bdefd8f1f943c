"""`switchover`, `failover`, `pause` and `resume`: what an operator asks for, and how it ended."""

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
from primacy.cluster.control.answers import DoneAnswer, as_json
from primacy.cluster.control.requests import (
    FAILOVER_WITHIN_S,
    SWITCHOVER_WITHIN_S,
    Tell,
    tell_nobody,
)

TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the end.")]


def switchover(
    *,
    to: Annotated[
        str | None, typer.Option(help="The node to become primary; else the best.")
    ] = None,
    timeout_s: TimeoutOption = SWITCHOVER_WITHIN_S,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """Move the primary to another node, without losing or refusing what clients sent."""

    async def ask() -> DoneAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.switchover(to=to, timeout_s=timeout_s, tell=_tell(is_json=is_json))

    _report(run_to_end(ask()), is_json=is_json)


def failover(  # noqa: PLR0913 - as above
    *,
    nodes: Annotated[list[str], typer.Argument(help="Nodes whose data is given up.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Yes: what only these nodes hold may be lost.")
    ] = False,
    timeout_s: TimeoutOption = FAILOVER_WITHIN_S,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """Promote although acknowledged writes may be only on NODES, which are gone for good.

    It still waits for the old primary's lease to end, and records what was given up.
    """

    async def ask() -> DoneAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.failover(
                nodes=nodes,
                is_loss_accepted=accept_loss,
                timeout_s=timeout_s,
                tell=_tell(is_json=is_json),
            )

    _report(run_to_end(ask()), is_json=is_json)


def pause(
    *,
    reason: Annotated[str, typer.Option(help="Shown to whoever looks at the status.")] = "",
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """No elections and no rejoins until `resume`. Fencing goes on."""

    async def ask() -> DoneAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.pause(reason=reason)

    _done(run_to_end(ask()), is_json=is_json)


def resume(
    *,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """End a pause."""

    async def ask() -> DoneAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.resume()

    _done(run_to_end(ask()), is_json=is_json)


def _tell(*, is_json: bool) -> Tell:
    return tell_nobody if is_json else lambda line: say(f"  {line}")


def _report(answer: DoneAnswer, *, is_json: bool) -> None:
    if is_json:
        say_json(as_json(answer))
    else:
        say(f"done: {answer.detail}")


def _done(answer: DoneAnswer, *, is_json: bool) -> None:
    if is_json:
        say_json(as_json(answer))
    else:
        say(answer.detail)
