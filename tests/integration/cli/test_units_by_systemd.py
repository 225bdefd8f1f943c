"""The units as systemd itself reads them: `systemd-analyze verify`, with no systemd running."""

import subprocess
import sys
from pathlib import Path

import pytest

from primacy.cli.units import Placed, agent_unit, guard_unit
from primacy.model import NodeId

pytestmark = pytest.mark.integration

MISTAKES = {
    "a key that it does not know": ("TimeoutStopSec=", "TimoutStopSec="),
    "a value that it does not know": ("KillMode=process", "KillMode=prozess"),
    "a program that is not there": (sys.executable, "/nowhere/python3"),
}


def placed(folder: Path, python: Path) -> Placed:
    return Placed(
        cluster="shop",
        node=NodeId("a"),
        python=python,
        sources=folder / "sources",
        config=folder / "primacy.toml",
        state_dir=folder / "state",
    )


def objections(folder: Path, units: dict[str, str]) -> list[str]:
    """What it has to say of these files; of the host's own units it may say more."""
    for name, text in units.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in units)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return [line for line in done.stderr.splitlines() if "primacy-shop" in line]


def units_of(each: Placed) -> dict[str, str]:
    masked = ("mariadb.service",)
    return {each.guard_unit: guard_unit(each, masked), each.agent_unit: agent_unit(each, masked)}


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    assert objections(tmp_path, units_of(placed(tmp_path, Path(sys.executable)))) == []


def test_systemd_finds_a_program_behind_an_odd_path(tmp_path: Path) -> None:
    odd = tmp_path / "my python 100% $HOME"
    odd.mkdir()
    (odd / "python3").symlink_to(sys.executable)
    assert objections(tmp_path, units_of(placed(odd, odd / "python3"))) == []


@pytest.mark.parametrize(("right", "wrong"), MISTAKES.values(), ids=MISTAKES)
def test_systemd_would_say_so(right: str, wrong: str, tmp_path: Path) -> None:
    each = placed(tmp_path, Path(sys.executable))
    units = units_of(each)
    units[each.guard_unit] = units[each.guard_unit].replace(right, wrong, 1)
    assert objections(tmp_path, units) != []
