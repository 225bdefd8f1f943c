"""Two units per node: what they say, and that exactly what was written is removed again."""

import configparser
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from primacy.cli.main import exit_code_of
from primacy.cli.service import placed_of, planned, refuse_while_running, to_remove
from primacy.cli.units import Placed, agent_unit, guard_unit, masked_by
from primacy.config import Config, load
from primacy.errors import Conflict, Rejected
from primacy.model import NodeId

FILE = """
[cluster]
name = "shop"
engine = "mariadb"
state_dir = "state"
[nodes.a]
host = "127.0.0.1"
[nodes.b]
host = "127.0.0.2"
[nodes.w]
host = "127.0.0.3"
database = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "primacy.toml").write_text(FILE)
    secret = tmp_path / "primacy.secret"
    secret.touch(0o600)
    secret.write_text("0f" * 32)
    (tmp_path / "units").mkdir()
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Config:
    return load(folder / "primacy.toml")


def placed(config: Config, folder: Path, node: str = "a") -> Placed:
    return placed_of(config, node, folder / "primacy.toml")


def parsed(text: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # Keys of units have case.
    found.read_string(text)
    return found


def snapshot(folder: Path) -> dict[str, str]:
    return {
        path.name: str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in folder.iterdir()
    }


def service(folder: Path, command: str, *more: str) -> int:
    return exit_code_of(
        [
            "service", command, "--node", "a", "--config", str(folder / "primacy.toml"),
            "--unit-dir", str(folder / "units"), *more,
        ]
    )  # fmt: skip


def test_the_agent_s_unit_reaches_nothing_of_the_guard_s(config: Config, folder: Path) -> None:
    agent = parsed(agent_unit(placed(config, folder), ()))
    guard = parsed(guard_unit(placed(config, folder), ()))
    started, launcher = agent["Service"]["ExecStart"], guard["Service"]["ExecStart"]
    assert shlex.split(started)[-1] == shlex.split(launcher)[-1]  # The same socket.
    assert shlex.split(started)[-2] == "--launcher"
    unit = agent["Unit"]
    assert "primacy-shop-a-guard.service" in unit["Wants"]
    assert not {"Requires", "BindsTo", "PartOf"} & set(unit)  # It may be stopped alone.
    assert not {"Requires", "BindsTo", "PartOf", "Wants"} & set(guard["Unit"])
    assert (agent["Service"]["KillMode"], guard["Service"]["KillMode"]) == ("mixed", "process")


def test_the_guard_keeps_what_it_needs(config: Config, folder: Path) -> None:
    guard = parsed(guard_unit(placed(config, folder), ()))["Service"]
    taken = {"User", "CapabilityBoundingSet", "PrivateTmp", "PrivateUsers", "SystemCallFilter"}
    assert not taken & set(guard)
    assert int(guard["OOMScoreAdjust"]) < 0
    assert guard["OOMPolicy"] == "continue"
    assert int(guard["LimitNOFILE"]) >= 65535
    assert guard["LimitMEMLOCK"] == "infinity"
    assert int(guard["TimeoutStopSec"]) >= 30


def test_odd_paths_are_quoted_as_systemd_reads_them() -> None:
    odd = Placed(
        cluster="shop",
        node=NodeId("a"),
        python=Path("/opt/my python/bin/python3"),
        sources=Path("/opt/100%/src"),
        config=Path('/etc/a "b".toml'),
        state_dir=Path("/srv/$HOME"),
    )
    text = agent_unit(odd, ())
    assert 'ExecStart="/opt/my python/bin/python3" -P' in text
    assert "Environment=PYTHONPATH=/opt/100%%/src" in text
    assert r'"/etc/a \"b\".toml"' in text
    assert '"/srv/$$HOME/launcher/launcher.sock"' in text
    dollar = agent_unit(replace(odd, python=Path("/opt/$x/python3")), ())
    assert 'ExecStart="/opt/$x/python3" -P' in dollar
    with pytest.raises(Rejected, match="quotes"):
        agent_unit(replace(odd, python=Path('/opt/"x"/python3')), ())


def test_a_dry_run_prints_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert service(folder, "install", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "primacy-shop-a.service" in said
    assert "masked: mariadb.service" in said
    assert snapshot(folder / "units") == {}
    assert service(folder, "install", "--dry-run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 2


def test_exactly_what_was_written_is_removed(folder: Path) -> None:
    units = folder / "units"
    (units / "other.service").write_text("[Unit]\n")
    (units / "primacy-shop-b.service").write_text("another node's")
    before = snapshot(units)
    assert service(folder, "install") == 0
    written = snapshot(units)
    assert set(written) - set(before) == {
        "primacy-shop-a.service",
        "primacy-shop-a-guard.service",
        "mariadb.service",
    }
    assert written["mariadb.service"] == "/dev/null"
    assert service(folder, "uninstall", "--dry-run") == 0
    assert snapshot(units) == written
    assert service(folder, "uninstall") == 0
    assert snapshot(units) == before
    assert service(folder, "uninstall") == 0  # Nothing left to remove.


def test_installing_again_remembers_what_was_masked(folder: Path) -> None:
    assert service(folder, "install") == 0
    assert service(folder, "install") == 0
    assert masked_by((folder / "units" / "primacy-shop-a.service").read_text()) == (
        "mariadb.service",
    )
    assert service(folder, "uninstall") == 0
    assert snapshot(folder / "units") == {}


def test_a_mask_of_the_operator_s_own_stays(folder: Path) -> None:
    (folder / "units" / "mariadb.service").symlink_to("/dev/null")
    assert service(folder, "install") == 0
    assert service(folder, "uninstall") == 0
    assert snapshot(folder / "units") == {"mariadb.service": "/dev/null"}


@pytest.mark.parametrize("name", ["primacy-shop-a.service", "mariadb.service"])
def test_a_file_of_somebody_else_s_is_not_touched(folder: Path, name: str) -> None:
    (folder / "units" / name).write_text("[Unit]\nDescription=mine\n")
    before = snapshot(folder / "units")
    assert service(folder, "install") == 1
    assert snapshot(folder / "units") == before


def test_a_witness_masks_nothing(config: Config, folder: Path) -> None:
    plan = planned(placed(config, folder, "w"), folder / "units", server_unit="")
    assert plan.masks == {}
    assert len(plan.files) == 2


def test_an_unknown_node_is_wrong_input(folder: Path) -> None:
    arguments = ["service", "install", "--node", "z", "--config", str(folder / "primacy.toml")]
    assert exit_code_of(arguments) == 2


def test_units_that_run_are_not_removed(config: Config, folder: Path) -> None:
    asked: list[list[str]] = []

    def running(arguments: Sequence[str]) -> int:
        asked.append(list(arguments))
        return 0

    with pytest.raises(Conflict, match="is running"):
        refuse_while_running(placed(config, folder), running)
    assert asked == [["is-active", "--quiet", "primacy-shop-a.service"]]
    assert to_remove(placed(config, folder), folder / "units") == []


def test_the_commands_name_programs_that_exist(config: Config, folder: Path) -> None:
    for text in (agent_unit(placed(config, folder), ()), guard_unit(placed(config, folder), ())):
        words = shlex.split(parsed(text)["Service"]["ExecStart"])
        assert words[0] == sys.executable
        sources = parsed(text)["Service"]["Environment"].removeprefix("PYTHONPATH=")
        module = words[words.index("-m") + 1].replace(".", "/")
        assert (Path(sources) / f"{module}.py").exists()
