"""`primacy diverged`: transactions that a lost primary had alone. docs/guides/diverged.md."""

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
    DivergedAnswer,
    DivergedListAnswer,
    DivergedTextAnswer,
    as_json,
)
from primacy.cluster.control.wording import Json, when

app = typer.Typer(help="Transactions that lost their place in the history, and were saved.")

COLUMNS = ("id", "node", "saved", "transactions", "tables", "node's data", "dismissed")


@app.command(name="list")
def list_command(
    *,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """All that were saved, oldest first."""

    async def read() -> DivergedListAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.diverged()

    answer = run_to_end(read())
    if is_json:
        say_json(as_json(answer))
    elif not answer.diverged:
        say("nothing has diverged")
    else:
        console().print(table(COLUMNS, [_row(each) for each in answer.diverged]))


@app.command(name="show")
def show_command(
    *,
    ident: Annotated[str, typer.Argument(metavar="ID", help="As `list` names it.")],
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """What they changed, statement by statement; on the host that saved them, or by --api of the
    agent there."""

    async def read() -> DivergedTextAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.diverged_text(ident)

    answer = run_to_end(read())
    if is_json:
        shown: dict[str, Json] = {
            **as_json(answer.facts),
            "content": answer.text,
            "more_lines": answer.more_lines,
        }
        say_json(shown)
        return
    say(_facts(answer.facts))
    say(answer.text)
    if answer.more_lines:
        say(f"... {answer.more_lines} more lines beside {answer.facts.path}")


@app.command(name="dismiss")
def dismiss_command(
    *,
    ident: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As `list` names it; else all of them.")
    ] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    is_json: JsonOption = False,
) -> None:
    """You have seen to them: `status` says no more of it. Files and records stay."""

    async def write() -> DivergedListAnswer:
        async with way_of(config, api, token_file) as way:
            return await way.dismiss(ident)

    answer = run_to_end(write())
    if is_json:
        say_json(as_json(answer))
    else:
        names = ", ".join(each.id for each in answer.diverged)
        say(f"dismissed: {names}" if names else "nothing was left to dismiss")


def _row(answer: DivergedAnswer) -> list[str]:
    least = "" if answer.is_certain else "at least "
    return [
        answer.id,
        answer.node,
        when(answer.saved_at_s),
        f"{least}{answer.count}",
        ", ".join(answer.tables) or "-",
        answer.ended or "not yet back",
        "-" if answer.dismissed_at_s is None else when(answer.dismissed_at_s),
    ]


def _facts(answer: DivergedAnswer) -> str:
    own = f" (and {answer.own_count} of primacy's own)" if answer.own_count else ""
    where = f"written while {answer.node} was a replica in" if answer.is_errant else "not in"
    why = f"\nnot taken back row by row: {answer.obstacle}" if answer.obstacle else ""
    return (
        f"{answer.count} transaction(s){own} on {answer.node}, {answer.first} to {answer.last}:"
        f" {where} epoch {answer.epoch} and later; its data was"
        f" {answer.ended or 'not replaced yet'}"
        f"{why}\nto replay: {answer.path}\n"
    )
