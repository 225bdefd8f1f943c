"""The options that many commands share, and how their coroutines are run."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from primacy.config import Config, load, path_of

R = TypeVar("R")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The cluster's file. Else $PRIMACY_CONFIG, else ./primacy.toml."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ApiOption = Annotated[
    str | None,
    typer.Option("--api", help="Ask one agent, such as http://10.0.0.1:7104, not the store."),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="What --api shows for requests that change something."),
]
StepTimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds for each step of each node.")
]
NodeOption = Annotated[str, typer.Option("--node", "-n", help="Which node of the file this is.")]


def loaded(config: Path | None) -> Config:
    """The configuration that the command line means. Raises `ConfigRejected`."""
    return load(path_of(config))


def run_to_end(work: Coroutine[Any, Any, R]) -> R:  # Any: what asyncio itself says of a coroutine.
    """Run one command's coroutine. uvloop is for the long-lived processes, not for this."""
    return asyncio.run(work)
