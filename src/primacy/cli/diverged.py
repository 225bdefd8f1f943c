"""`primacy diverged`: transactions that a lost primary had alone. docs/guides/diverged.md."""

from typing import Annotated

import typer

from primacy.cli.format import console, say, say_json, table
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.session import roster, store_of
from primacy.clock import SystemClock
from primacy.cluster.control import diverged as control
from primacy.cluster.control.answers import DivergedAnswer, DivergedListAnswer, as_json
from primacy.cluster.control.requests import Desk
from primacy.cluster.control.wording import Json, when
from primacy.config import Config

app = typer.Typer(help="Transactions that lost their place in the history, and were saved.")

COLUMNS = ("id", "node", "saved", "transactions", "tables", "node's data", "dismissed")


@app.command(name="list")
def list_command(*, config: ConfigOption = None, is_json: JsonOption = False) -> None:
    """All that were saved, oldest first."""
    found = loaded(config)

    async def read() -> DivergedListAnswer:
        async with store_of(found) as store:
            return await control.list_diverged(store)

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
    is_json: JsonOption = False,
) -> None:
    """What they changed, statement by statement; on the host that saved them."""
    found = loaded(config)

    async def read() -> DivergedAnswer:
        async with store_of(found) as store:
            return await control.find_diverged(store, ident)

    answer = run_to_end(read())
    text, more_count = control.read_file(answer, _host(found, answer))
    if is_json:
        shown: dict[str, Json] = {**as_json(answer), "content": text, "more_lines": more_count}
        say_json(shown)
        return
    say(_facts(answer))
    say(text)
    if more_count:
        say(f"... {more_count} more lines beside {answer.path}")


@app.command(name="dismiss")
def dismiss_command(
    *,
    ident: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As `list` names it; else all of them.")
    ] = None,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """You have seen to them: `status` says no more of it. Files and records stay."""
    found = loaded(config)

    async def write() -> DivergedListAnswer:
        async with store_of(found) as store:
            return await control.dismiss(Desk(store, roster(found), SystemClock()), ident)

    answer = run_to_end(write())
    if is_json:
        say_json(as_json(answer))
    else:
        names = ", ".join(each.id for each in answer.diverged)
        say(f"dismissed: {names}" if names else "nothing was left to dismiss")


def _host(config: Config, answer: DivergedAnswer) -> str:
    node = config.nodes.get(answer.node)
    return answer.node if node is None else node.host


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
