"""Which modules a command line loads, and that every command is there."""

import subprocess
import sys

import typer

from primacy.cli.main import COMMANDS, application

NOT_FOR_THE_AGENT = ("rich", "starlette", "uvicorn", "primacy.sim", "primacy.driver", "primacy.web")


def test_an_agent_starts_without_what_only_other_commands_need() -> None:
    """A primary's next agent has to be there before the lease ends, on a busy host too."""
    script = (
        "import sys; from primacy.cli.main import application; import primacy.cli.agent;"
        " from primacy.cli.kit import KITS; KITS['mariadb']();"
        " application('run'); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert "primacy.engines.mariadb.engine" in loaded
    assert [each for each in NOT_FOR_THE_AGENT if each in loaded] == []


def test_every_command_is_there_alone_as_among_all() -> None:
    for name in COMMANDS:
        assert names_of(name) == [name]
    assert set(names_of("")) == set(COMMANDS)


def names_of(wanted: str) -> list[str]:
    command = typer.main.get_command(application(wanted))
    context = typer.Context(command)
    return command.list_commands(context)  # type: ignore[attr-defined, no-any-return]  # A group.
