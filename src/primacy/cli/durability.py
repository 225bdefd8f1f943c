"""`primacy durability`: the policy of the running cluster, shown and changed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from primacy.cli.format import say, say_json
from primacy.cli.options import (
    ApiOption,
    ConfigOption,
    JsonOption,
    TokenFileOption,
    run_to_end,
)
from primacy.cli.ways import Way, way_of
from primacy.cluster.control.answers import PolicyAnswer, as_json
from primacy.cluster.control.durability import WITHIN_S, Wish, policy_line
from primacy.cluster.control.requests import Tell, tell_nobody
from primacy.cluster.policy import AcksWord
from primacy.errors import Rejected

app = typer.Typer(help="Which replicas must hold a write; on the running cluster.")

WithinOption = Annotated[
    float, typer.Option("--within-s", min=0.0, help="Seconds to wait until it is in force.")
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where, as the command line says."""

    config: Path | None
    api: str | None
    token_file: Path | None


@app.command(name="show")
def show_command(
    *,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """What is in force, where it comes from, and how it differs from the file."""

    async def read(way: Way) -> PolicyAnswer:
        return await way.policy()

    _report(_Asked(config, api, token_file), read, is_json=is_json)


@app.command(name="set")
def set_command(  # noqa: PLR0913 - one parameter per option is typer's way.
    *,
    acks: Annotated[
        str | None, typer.Option(help="Replicas that must hold a write: a number, quorum or all.")
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
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """Change the policy of the running cluster, and wait until it is in force.

    What is not given stays as it is. From then on the file's values are passed over, on every node,
    until `primacy durability reset`.
    """
    wish = Wish(
        acks=None if acks is None else acks_wished(acks),
        on_timeout=on_timeout,
        timeout_s=timeout_s,
        degrade_failover=degrade_failover,
    )
    if wish == Wish():
        raise Rejected("nothing to set", hint="Name at least one of --acks, --on-timeout, ...")
    tell = _tell(is_json=is_json)

    async def change(way: Way) -> PolicyAnswer:
        return await way.set_policy(wish, within_s=within_s, tell=tell)

    _report(_Asked(config, api, token_file), change, is_json=is_json)


@app.command(name="reset")
def reset_command(
    *,
    within_s: WithinOption = WITHIN_S,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """Go by the configuration's values again, and wait until they are in force."""
    tell = _tell(is_json=is_json)

    async def change(way: Way) -> PolicyAnswer:
        return await way.reset_policy(within_s=within_s, tell=tell)

    _report(_Asked(config, api, token_file), change, is_json=is_json)


def acks_wished(text: str) -> int | AcksWord:
    """Of a command line. `Rejected` where it is neither a number nor a word for one."""
    for word in get_args(AcksWord):
        if text == word:
            return cast(AcksWord, word)  # `get_args` does not say of what type they are.
    if not text.isdecimal():
        raise Rejected(f"acks = {text!r}", hint="Say a number from 0, quorum, or all.")
    return int(text)


def _report(
    asked: _Asked, work: Callable[[Way], Awaitable[PolicyAnswer]], *, is_json: bool
) -> None:
    async def story() -> PolicyAnswer:
        async with way_of(asked.config, asked.api, asked.token_file) as way:
            return await work(way)

    answer = run_to_end(story())
    if is_json:
        say_json(as_json(answer))
        return
    say(policy_line(answer))
    for line in answer.differs_from_configuration:
        say(f"  {line}")


def _tell(*, is_json: bool) -> Tell:
    return tell_nobody if is_json else lambda line: say(f"  {line}")
