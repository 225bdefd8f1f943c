"""`run`, `router` and `demo`: the long-lived processes. What they are made of is elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from primacy.cli.format import complain
from primacy.cli.options import ConfigOption, JsonOption, NodeOption, loaded
from primacy.cli.preflight import check_router, check_run, serves_http
from primacy.config import path_of, warnings

LauncherOption = Annotated[
    Path | None,
    typer.Option(help="Socket of the host's launcher, as `primacy service install` sets it up."),
]


def run(
    *,
    node: NodeOption,
    config: ConfigOption = None,
    launcher: LauncherOption = None,
    as_json: JsonOption = False,
) -> None:
    """This host's agent: it votes, decides, and keeps its database and its router running.

    Its events go to stderr, one per line; with --json each is one JSON object. Stopping it leaves
    database and router alone: an upgrade of the agent is no outage if it is back within the lease.
    """
    found = loaded(config)
    check_run(found, node)
    for each in warnings(found):
        complain(f"note: {each}")
    if found.api.enabled and not serves_http(found):
        complain("note: no HTTP API and no metrics here: pip install 'primacy[http]'.")
    from primacy.cli.agent import run_node

    run_node(found, node, path=path_of(config), launcher=launcher, is_json=as_json)


def router(*, node: NodeOption, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """This host's doors for clients: `rw` to the primary, `ro` to replicas. `run` starts it."""
    found = loaded(config)
    check_router(found, node)
    from primacy.cli.agent import run_router

    run_router(found, node, path=path_of(config), is_json=as_json)


def demo(  # noqa: PLR0913 - one parameter per option is typer's way.
    *,
    engine: Annotated[Literal["sqlite", "mariadb"], typer.Option()] = "sqlite",
    fault: Annotated[
        str,
        typer.Option(
            help="One of the faults of docs/faults.md, several with commas, all, or random: faults"
            " and pairs of faults by chance."
        ),
    ] = "all",
    profile: Annotated[Literal["default", "fast"], typer.Option(help="The lease.")] = "default",
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each fault; how many random ones.")
    ] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the directory for a look.")] = False,
    seed: Annotated[int | None, typer.Option(help="Chooses the victims.")] = None,
    relay: Annotated[
        bool, typer.Option("--relay", help="Cut the network by a relay, as where one is not root.")
    ] = False,
    promote_laggard: Annotated[bool, typer.Option("--promote-laggard", hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Three servers on this machine, one fault after another, and a ledger of every write."""
    from primacy.cli.demo import DemoOptions, run_demo

    options = DemoOptions(
        engine=engine,
        fault=fault,
        profile=profile,
        rounds=rounds,
        is_kept=keep,
        seed=seed,
        is_relayed=relay,
        promote_laggard=promote_laggard,
        is_json=as_json,
    )
    raise typer.Exit(run_demo(options))
