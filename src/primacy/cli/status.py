"""`primacy status`: the picture as a table or as JSON, once or again and again."""

from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from primacy.cli.format import console, say_json, table
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.picture import COLUMNS, Picture, as_json, headline, problems, rows
from primacy.cli.reading import read_picture
from primacy.cli.session import singles_of, store_of
from primacy.clock import SystemClock
from primacy.config import Config

WATCH_EVERY_S = 1.0
"""A person cannot read faster, and each reading costs the store's leader a round."""


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    config: ConfigOption = None,
    as_json_: JsonOption = False,
) -> None:
    """Each node's role, health, position and lag; the sync set; whom a blocked write waits for.

    Exits with 0 when all is well, and with 1 when something needs a look.
    """
    found = loaded(config)
    is_well = run_to_end(
        _watch(found, is_json=as_json_) if watch else _once(found, is_json=as_json_)
    )
    raise typer.Exit(0 if is_well else 1)


async def _once(config: Config, *, is_json: bool) -> bool:
    async with store_of(config) as store, singles_of(config) as singles:
        picture = await read_picture(config, store, singles, clock=SystemClock())
    if is_json:
        say_json(as_json(picture))
    else:
        console().print(drawn(picture))
    return not problems(picture)


async def _watch(config: Config, *, is_json: bool) -> bool:
    clock = SystemClock()
    async with store_of(config) as store, singles_of(config) as singles:
        with Live(console=console(), auto_refresh=False, screen=False) as live:
            while True:  # Until Ctrl-C.
                picture = await read_picture(config, store, singles, clock=clock)
                if is_json:
                    say_json(as_json(picture), is_compact=True)
                else:
                    live.update(drawn(picture), refresh=True)
                await clock.sleep(WATCH_EVERY_S)


def drawn(picture: Picture) -> Group:
    """The picture for people."""
    parts: list[Text] = [Text(line) for line in headline(picture)]
    said = problems(picture)
    notes = [Text(f"! {each}", style="bold yellow") for each in said]
    return Group(
        *parts, Text(), table(COLUMNS, rows(picture)), *([Text()] if notes else []), *notes
    )
