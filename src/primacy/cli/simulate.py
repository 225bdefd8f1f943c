"""`primacy sim`: the cluster under a seed. The simulator is imported only when it is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from primacy.cli.format import Json, complain, say, say_json
from primacy.cli.options import JsonOption
from primacy.clock import SystemClock
from primacy.errors import Rejected

if TYPE_CHECKING:
    from primacy.sim.choices import Choices
    from primacy.sim.report import Report, Verdict

PROGRESS_EVERY = 25
"""Seeds between two lines of progress: a few a minute."""

EngineOption = Annotated[
    Literal["mariadb", "sqlite"], typer.Option("--engine", help="Whose servers are modelled.")
]

app = typer.Typer(help="Run the cluster in a simulated world, from a seed.", no_args_is_help=True)


@app.command()
def run(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 1,
    duration_s: Annotated[float, typer.Option("--seconds", help="Simulated seconds each.")] = 60.0,
    engine: EngineOption = "mariadb",
    as_json: JsonOption = False,
) -> None:
    """Many seeds, all invariants after each step. Exits with 1 where one of them was broken."""
    from primacy.sim.run import run_seeds

    done = 0

    def tell(verdict: "Verdict") -> None:
        nonlocal done
        done += 1
        if verdict.broken is not None:
            complain(str(verdict))
        if done % PROGRESS_EVERY == 0:
            complain(f"{done} of {seeds} seeds")

    report = run_seeds(first_seed, seeds, duration_s, engine=engine, on_verdict=tell)
    if as_json:
        say_json(report_json(report))
    else:
        for line in report.lines():
            say(line)
    raise typer.Exit(0 if report.is_clean else 1)


@app.command()
def replay(
    *,
    seed: Annotated[int, typer.Argument(help="The seed.")],
    trace: Annotated[bool, typer.Option("--trace", help="Every event, one line each.")] = False,
    duration_s: Annotated[float, typer.Option("--seconds", help="Simulated seconds.")] = 60.0,
    engine: EngineOption = "mariadb",
    choices: Annotated[
        Path | None, typer.Option("--choices", help="A file of `sim shrink`: what to choose.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One seed again, exactly as it was; or as a file of choices says, the engine too."""
    from primacy.sim import run as simulator

    told = None if choices is None else _choices_in(choices, seed)
    tell = complain if as_json else say
    verdict = simulator.replay(
        seed,
        duration_s=duration_s,
        engine=engine,
        listener=tell if trace else None,
        choices=told,
    )
    command = verdict.replay_command if choices is None else _replay_command(seed, choices)
    found = None if verdict.broken is None else verdict.broken.name
    if told is not None and told.broken != found:
        complain(
            f"{choices} was saved with {told.broken or 'nothing'} broken; now it is"
            f" {found or 'nothing'}: the code has changed, or the file"
        )
    if as_json:
        say_json(verdict_json(verdict) | {"replay": command})
    elif told is None:
        say(str(verdict))
    else:
        ended = "nothing broke" if verdict.broken is None else str(verdict.broken)
        say(f"seed {seed} by {choices} ({told}): at {verdict.at_s:.3f} s {ended}")
    raise typer.Exit(0 if verdict.broken is None else 1)


@app.command()
def shrink(
    *,
    seed: Annotated[int, typer.Argument(help="A seed that fails.")],
    duration_s: Annotated[float, typer.Option("--seconds", help="Simulated seconds.")] = 60.0,
    engine: EngineOption = "mariadb",
    within_s: Annotated[
        float, typer.Option("--within-s", min=0.0, help="Stop after so many real seconds.")
    ] = 120.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; else ./seed-SEED.choices.json.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take away faults, clients and nodes while the seed still breaks what it broke."""
    from primacy.cli.shrinking import Shrinking

    path = out or Path(f"seed-{seed}.choices.json")
    shrinking = Shrinking(
        seed, path, SystemClock(), within_s=within_s, replay=_replay_command(seed, path)
    )
    shrinking.run(duration_s, engine=engine)
    if as_json:
        say_json(shrinking.as_json())
        return
    for line in shrinking.lines():
        say(line)


def _choices_in(path: Path, seed: int) -> "Choices":
    from primacy.sim.choices import decoded

    choices = decoded(path.read_bytes(), str(path))
    if choices.seed != seed:
        raise Rejected(
            f"{path} is of seed {choices.seed}, not of {seed}",
            hint=f"Say: primacy sim replay {choices.seed} --choices {path}",
        )
    return choices


def _replay_command(seed: int, path: Path) -> str:
    return f"primacy sim replay {seed} --choices {path} --trace"


def report_json(report: "Report") -> dict[str, Json]:
    return {
        "engine": report.engine,
        "seeds": report.verdicts_count,
        "is_clean": report.is_clean,
        "failures": [verdict_json(each) for each in report.failures],
        "simulated_s": report.simulated_s,
        "cpu_s": report.cpu_s,
        "simulated_per_cpu_s": report.simulated_per_cpu_s,
        "events": report.events_count,
        "commits": report.commits_count,
        "sometimes": dict(report.counters),
        "never_seen": report.never_seen,
    }


def verdict_json(verdict: "Verdict") -> dict[str, Json]:
    return {
        "seed": verdict.seed,
        "engine": verdict.setup.engine,
        "is_clean": verdict.broken is None,
        "broken": None if verdict.broken is None else str(verdict.broken),
        "at_s": verdict.at_s,
        "replay": verdict.replay_command,
    }
