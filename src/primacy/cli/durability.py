"""`primacy durability`: the policy of the running cluster, shown and changed."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from primacy.cli.format import say, say_json
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.session import roster, store_of
from primacy.clock import SystemClock
from primacy.cluster.control.answers import PolicyAnswer, as_json
from primacy.cluster.control.durability import (
    WITHIN_S,
    Wish,
    policy_line,
    reset_policy,
    set_policy,
    show,
)
from primacy.cluster.control.requests import Desk, Tell, tell_nobody
from primacy.config import ENGINES
from primacy.errors import Rejected

app = typer.Typer(help="Which replicas must hold a write; on the running cluster.")

WithinOption = Annotated[
    float, typer.Option("--within-s", min=0.0, help="Seconds to wait until it is in force.")
]


@app.command(name="show")
def show_command(*, config: ConfigOption = None, is_json: JsonOption = False) -> None:
    """What is in force, where it comes from, and how it differs from the file."""
    _report(config, show, is_json=is_json)


@app.command(name="set")
def set_command(  # noqa: PLR0913 - one parameter per option is typer's way.
    *,
    acks: Annotated[
        int | None, typer.Option(min=0, help="Replicas that must hold a write.")
    ] = None,
    on_timeout: Annotated[
        str | None, typer.Option("--on-timeout", help="block, or degrade.")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout-s", help="Patience before it degrades.")
    ] = None,
    degrade_failover: Annotated[
        str | None,
        typer.Option("--degrade-failover", help="After degrading: refuse, or lossy."),
    ] = None,
    within_s: WithinOption = WITHIN_S,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Change the policy of the running cluster, and wait until it is in force.

    What is not given stays as it is. From then on the file's values are passed over, on every node,
    until `primacy durability reset`.
    """
    wish = Wish(
        acks=acks,
        on_timeout=on_timeout,
        timeout_s=timeout_s,
        degrade_failover=degrade_failover,
    )
    if wish == Wish():
        raise Rejected("nothing to set", hint="Name at least one of --acks, --on-timeout, ...")
    engine = ENGINES[loaded(config).cluster.engine]
    tell = _tell(is_json=is_json)

    async def change(desk: Desk) -> PolicyAnswer:
        return await set_policy(desk, wish, engine, within_s=within_s, tell=tell)

    _report(config, change, is_json=is_json)


@app.command(name="reset")
def reset_command(
    *, within_s: WithinOption = WITHIN_S, config: ConfigOption = None, is_json: JsonOption = False
) -> None:
    """Go by the configuration's values again, and wait until they are in force."""
    tell = _tell(is_json=is_json)

    async def change(desk: Desk) -> PolicyAnswer:
        return await reset_policy(desk, within_s=within_s, tell=tell)

    _report(config, change, is_json=is_json)


def _report(
    config: Path | None, work: Callable[[Desk], Awaitable[PolicyAnswer]], *, is_json: bool
) -> None:
    found = loaded(config)

    async def story() -> PolicyAnswer:
        async with store_of(found) as store:
            return await work(Desk(store, roster(found), SystemClock()))

    answer = run_to_end(story())
    if is_json:
        say_json(as_json(answer))
        return
    say(policy_line(answer))
    for line in answer.differs_from_configuration:
        say(f"  {line}")


def _tell(*, is_json: bool) -> Tell:
    return tell_nobody if is_json else lambda line: say(f"  {line}")
