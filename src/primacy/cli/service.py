"""`primacy service`: the units of this host's node, written and removed.

Promises  `uninstall` removes exactly what `install` wrote, and unmasks exactly what it masked. A
          file of somebody else's is never touched. With `--dry-run` nothing is.
Does not  Start or stop anything: that is `systemctl`'s, and the operator's.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import primacy
from primacy.cli.format import say, say_json
from primacy.cli.kit import kit_of
from primacy.cli.options import ConfigOption, JsonOption, NodeOption, loaded
from primacy.cli.units import (
    Placed,
    agent_unit,
    guard_unit,
    is_ours,
    masked_by,
)
from primacy.config import Config, path_of
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import NodeId

UNIT_DIR = Path("/etc/systemd/system")
UNIT_BYTES_MAX = 1 << 16
NOWHERE = Path("/dev/null")
SYSTEMCTL_WITHIN_S = 60.0

Run = Callable[[Sequence[str]], int]
"""Runs a program and returns its exit code."""

app = typer.Typer(help="This host's service units.", no_args_is_help=True)

UnitDirOption = Annotated[
    Path, typer.Option("--unit-dir", help="Where units are; elsewhere systemctl is not called.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]


@app.command()
def install(
    *,
    node: NodeOption,
    unit_dir: UnitDirOption = UNIT_DIR,
    is_dry: DryRunOption = False,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Write two units for NODE: the agent, and apart from it guard, database and router.

    Stopping or upgrading the agent then leaves the database running. With MariaDB the
    distribution's own unit is masked, since it would start a second server.
    """
    found = loaded(config)
    placed = placed_of(found, node, path_of(config))
    server_unit = kit_of(found).server_unit if found.node(node).database else ""
    plan = planned(placed, unit_dir, server_unit=server_unit)
    if is_dry:
        _show(plan, is_json=is_json)
        return
    write(plan)
    systemctl = systemctl_of(unit_dir)
    systemctl(["daemon-reload"])
    systemctl(["enable", placed.guard_unit, placed.agent_unit])
    start = f"systemctl start {placed.guard_unit} {placed.agent_unit}"
    if is_json:
        say_json({"written": [str(each) for each in plan.files], "masked": list(plan.masks)})
        return
    for path in plan.files:
        say(f"written: {path}")
    for name in plan.masks:
        say(f"masked: {name}")
    say(f"Start them with: {start}")


@app.command()
def uninstall(
    *,
    node: NodeOption,
    unit_dir: UnitDirOption = UNIT_DIR,
    is_dry: DryRunOption = False,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Remove the units that `install` wrote for NODE, and unmask what it masked.

    Refused while they run: stopping the guard's unit ends the database, so that is your decision.
    """
    found = loaded(config)
    placed = placed_of(found, node, path_of(config))
    systemctl = systemctl_of(unit_dir)
    removed = to_remove(placed, unit_dir)
    if not is_dry:
        refuse_while_running(placed, systemctl)
        if removed:
            systemctl(["disable", placed.guard_unit, placed.agent_unit])
        for path in removed:
            path.unlink()
        systemctl(["daemon-reload"])
    if is_json:
        say_json({"removed": [str(each) for each in removed], "is_dry_run": is_dry})
        return
    for path in removed:
        say(f"{'would remove' if is_dry else 'removed'}: {path}")
    if not removed:
        say(f"no unit of {node} that `primacy service install` wrote is in {unit_dir}")


# ---- what is written and removed


@dataclass(frozen=True, slots=True)
class Plan:
    files: dict[Path, str]
    masks: dict[str, Path]
    """Units to be masked: a link to /dev/null at that place."""


def placed_of(config: Config, node: str, path: Path) -> Placed:
    config.node(node)
    return Placed(
        cluster=config.cluster.name,
        node=NodeId(node),
        python=Path(sys.executable),
        sources=Path(primacy.__file__).resolve().parents[1],
        config=path.absolute(),
        state_dir=config.state_dir(node),
    )


def planned(placed: Placed, unit_dir: Path, *, server_unit: str) -> Plan:
    """`server_unit` is to be masked, unless it is empty. `Conflict` where a file of somebody else's
    stands in the way."""
    before = [_read_own(unit_dir / placed.agent_unit), _read_own(unit_dir / placed.guard_unit)]
    masked_before = masked_by(before[0] or "")
    mask = unit_dir / server_unit
    is_mask = mask.is_symlink() and mask.readlink() == NOWHERE
    masks: dict[str, Path] = {}
    if server_unit and not is_mask:
        if mask.is_symlink() or mask.exists():
            raise Conflict(
                f"{mask} is a unit of somebody's own: it would start a second server",
                hint="Remove it, or move it to another name.",
            )
        masks[server_unit] = mask
    masked = tuple(masks) or masked_before
    return Plan(
        {
            unit_dir / placed.guard_unit: guard_unit(placed, masked),
            unit_dir / placed.agent_unit: agent_unit(placed, masked),
        },
        masks,
    )


def write(plan: Plan) -> None:
    """Each file at once or not at all. `Rejected` without the right to."""
    try:
        for mask in plan.masks.values():
            mask.symlink_to(NOWHERE)
        for path, text in plan.files.items():
            beside = path.with_suffix(".new")
            beside.write_text(text)
            beside.chmod(0o644)
            beside.replace(path)
    except OSError as error:
        raise Rejected(
            f"the units cannot be written: {error.strerror}: {error.filename}",
            hint="Run it as root, or name another --unit-dir.",
        ) from error


def to_remove(placed: Placed, unit_dir: Path) -> list[Path]:
    """The files of ours that are there. `Conflict` where one has our name and is not ours."""
    found: list[Path] = []
    masked: set[str] = set()
    for name in (placed.agent_unit, placed.guard_unit):
        text = _read_own(unit_dir / name)
        if text is not None:
            found.append(unit_dir / name)
            masked |= set(masked_by(text))
    for name in sorted(masked):
        mask = unit_dir / name
        if mask.is_symlink() and mask.readlink() == NOWHERE:
            found.append(mask)
    return found


def refuse_while_running(placed: Placed, systemctl: Run) -> None:
    for unit in (placed.agent_unit, placed.guard_unit):
        if systemctl(["is-active", "--quiet", unit]) == 0:
            raise Conflict(
                f"{unit} is running",
                hint=f"systemctl stop {placed.agent_unit} {placed.guard_unit} ends the database"
                " of this host: switch over first if it is the primary.",
            )


def _read_own(path: Path) -> str | None:
    """A unit that was written here before; None: there is none. `Conflict`: it is another's."""
    if not path.exists():
        return None
    text = path.read_bytes()[:UNIT_BYTES_MAX].decode(errors="replace")
    if not is_ours(text):
        raise Conflict(
            f"{path} was not written by `primacy service install`",
            hint="It is not touched. Move it away first.",
        )
    return text


def systemctl_of(unit_dir: Path) -> Run:
    """`systemctl` where it manages that directory; elsewhere nobody, who finds nothing running."""
    program = shutil.which("systemctl")
    is_systems = unit_dir == UNIT_DIR and Path("/run/systemd/system").is_dir()
    if program is None or not is_systems:
        return lambda _arguments: 1

    def run(arguments: Sequence[str]) -> int:
        try:
            done = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                timeout=SYSTEMCTL_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(
                f"systemctl {' '.join(arguments)} failed: {error}", hint="Run it by hand."
            ) from error
        if done.returncode != 0 and arguments[0] != "is-active":
            raise Unavailable(
                f"systemctl {' '.join(arguments)} ended with {done.returncode}",
                hint="The files are as they are: run it by hand.",
            )
        return done.returncode

    return run


def _show(plan: Plan, *, is_json: bool) -> None:
    if is_json:
        say_json(
            {
                "files": {str(path): text for path, text in plan.files.items()},
                "masked": list(plan.masks),
                "is_dry_run": True,
            }
        )
        return
    for path, text in plan.files.items():
        say(f"# {path}\n{text}")
    for name, path in plan.masks.items():
        say(f"# masked: {name}, by {path} -> {NOWHERE}")
    if os.geteuid() != 0:
        say("# writing them needs root")
