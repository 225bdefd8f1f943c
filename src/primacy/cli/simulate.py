"""`primacy sim`: the cluster under a seed. The simulator is imported only when it is asked for."""

from typing import Annotated

import typer

from primacy.cli.options import JsonOption

app = typer.Typer(help="Run the cluster in a simulated world, from a seed.", no_args_is_help=True)


@app.command()
def run(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 1,
    duration_s: Annotated[float, typer.Option("--seconds", help="Simulated seconds each.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Many seeds, all invariants after each step. Exits with 1 at the first violation."""
    from primacy.sim.run import run_seeds

    raise typer.Exit(
        run_seeds(seeds=seeds, first_seed=first_seed, duration_s=duration_s, is_json=as_json)
    )


@app.command()
def replay(
    *,
    seed: Annotated[int, typer.Argument(help="The seed.")],
    trace: Annotated[bool, typer.Option("--trace", help="Every event, one line each.")] = False,
    duration_s: Annotated[float, typer.Option("--seconds", help="Simulated seconds.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """One seed again, exactly as it was."""
    from primacy.sim.run import replay_seed

    raise typer.Exit(
        replay_seed(seed=seed, is_traced=trace, duration_s=duration_s, is_json=as_json)
    )
