"""Every failure is one message and an exit code; never a traceback."""

from pathlib import Path

import pytest

from primacy.cli.main import exit_code_of


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "primacy.toml"
    path.write_text('[cluster]\nname = "shop"\nengine = "mariadb"\nlease_ttl_s = 0.1\nx = 1\n')
    return path


COMMANDS = {
    "status": ["status"],
    "switchover": ["switchover", "--to", "b"],
    "failover": ["failover", "b", "--accept-loss"],
    "history": ["history"],
    "why": ["why"],
    "pause": ["pause"],
    "resume": ["resume"],
    "kv get": ["kv", "get", "x"],
    "kv put": ["kv", "put", "x", "1"],
    "kv delete": ["kv", "delete", "x"],
    "kv list": ["kv", "list"],
    "kv watch": ["kv", "watch", "x"],
    "lock": ["lock", "x", "--config", "FILE", "--", "true"],
    "elect": ["elect", "x", "--config", "FILE", "--", "true"],
    "run": ["run", "--node", "a"],
    "router": ["router", "--node", "a"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_wrong_file_stops_every_command_with_all_mistakes(
    command: list[str], wrong: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [str(wrong) if each == "FILE" else each for each in command]
    if "FILE" not in command:
        given += ["--config", str(wrong)]
    assert exit_code_of(given) == 2
    said = capfd.readouterr()
    assert "cluster.lease_ttl_s = 0.1" in said.err
    assert "cluster.x = 1: unknown key" in said.err
    assert "nodes: is required" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert [each.name for each in wrong.parent.iterdir()] == ["primacy.toml"]


WRONG_LINES = {
    "an unknown command": ["stauts"],
    "an unknown option": ["status", "--wathc"],
    "a missing argument": ["kv", "get"],
    "a number that is none": ["sim", "run", "--seeds", "many"],
}


@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES)
def test_a_wrong_line_is_exit_code_2(line: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(line) == 2
    assert "Traceback" not in capfd.readouterr().err


TOP_LEVEL = (
    "init", "run", "router", "status", "switchover", "failover", "history", "why", "pause",
    "resume", "kv", "lock", "elect", "demo", "sim",
)  # fmt: skip


def test_help_lists_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(["--help"]) == 0
    shown = capfd.readouterr().out
    for command in TOP_LEVEL:
        assert f" {command} " in shown


@pytest.mark.parametrize("command", [*COMMANDS.values(), ["init"], ["demo"]])
def test_every_command_has_json(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    words = command[:2] if command[0] == "kv" else command[:1]
    assert exit_code_of([*words, "--help"]) == 0
    assert "--json" in capfd.readouterr().out


def test_a_missing_file_says_how_to_make_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["status", "--config", str(tmp_path / "none.toml")]) == 2
    assert "primacy init" in capfd.readouterr().err


def test_an_amount_of_acknowledgements_that_is_none_is_refused_in_words(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of(["durability", "set", "--acks", "most"]) == 2
    assert "acks = 'most'. Say a number from 0, quorum, or all" in capfd.readouterr().err
