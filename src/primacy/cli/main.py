"""`primacy`: arguments to commands, and every failure to one message and an exit code.

Exit codes: 0 done; 1 not now, or not known whether; 2 wrong input, a person must act;
70 a bug in primacy, whose traceback is kept in a file; 130 interrupted.
"""

import importlib
import sys
import tempfile
import traceback
from collections.abc import Sequence

import typer

from primacy.cli.format import complain
from primacy.errors import InvariantBroken, PrimacyError, Rejected

EXIT_NOT_NOW = 1
EXIT_REJECTED = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


COMMANDS = {
    "init": "init",
    "run": "processes",
    "router": "processes",
    "service": "service",
    "status": "status",
    "switchover": "requests",
    "failover": "requests",
    "durability": "durability",
    "diverged": "diverged",
    "history": "past",
    "why": "past",
    "pause": "requests",
    "resume": "requests",
    "reinit": "reinit",
    "restart": "restart",
    "report": "report",
    "config": "configuring",
    "kv": "kv",
    "log": "log",
    "lock": "hold",
    "elect": "hold",
    "sql": "sql",
    "demo": "processes",
    "sim": "simulate",
}
"""Of each command: the module that has it, as its group `app` or as a function of the same name.
`primacy --help` shows the functions in this order, then the groups."""


def application(wanted: str = "") -> typer.Typer:
    """All commands; or the one that is wanted, and no other is imported: a primary's next agent
    has to be there before the lease ends, on a busy host too."""
    app = typer.Typer(
        help="One primary at a time, and no acknowledged write lost.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_all_commands)
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        module = importlib.import_module(f"primacy.cli.{COMMANDS[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _all_commands() -> None:
    # Without it typer takes a single command for the whole program.
    return


def main() -> None:
    """The entry point of the `primacy` program."""
    sys.exit(exit_code_of(sys.argv[1:]))


def exit_code_of(arguments: Sequence[str]) -> int:
    """Run one command line. Never raises, and never shows a traceback."""
    try:
        wanted = arguments[0] if arguments else ""
        application(wanted)(args=list(arguments), prog_name="primacy")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_NOT_NOW if end.code else 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost edge: an operator gets a sentence.
        return _explained(_cause(error))
    return 0


def _explained(error: BaseException) -> int:
    match error:
        case Rejected():
            complain(str(error))
            return EXIT_REJECTED
        case PrimacyError():
            complain(str(error))
            return EXIT_NOT_NOW
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            complain(f"the system refused: {error.strerror or error}{where}")
            return EXIT_NOT_NOW
        case _:
            complain(_bug(error))
            return EXIT_BUG


def _cause(error: BaseException) -> BaseException:
    """The first error of a group: a TaskGroup wraps what a person wants to read."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _bug(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    kind = "a promise is broken" if isinstance(error, InvariantBroken) else type(error).__name__
    with tempfile.NamedTemporaryFile(
        "w", prefix="primacy-bug-", suffix=".txt", delete=False
    ) as file:
        file.write(text)
    return f"this is a bug in primacy: {kind}: {error}. The traceback is in {file.name}"


if __name__ == "__main__":
    main()
