"""`primacy sql`: a plain shell for the SQLite server, over the driver."""

import getpass
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import primacy.driver as db
from primacy.cli.format import complain, say
from primacy.cli.kit import kit_of
from primacy.cli.options import JsonOption, loaded
from primacy.cli.sql_shell import Shell
from primacy.cli.users import checked_user, user_line
from primacy.driver.connection import Connection
from primacy.driver.scripts import is_complete, statements_in
from primacy.driver.target import target_of
from primacy.errors import PrimacyError, Rejected

DEFAULT_URL = "primacy://127.0.0.1/"
HISTORY = Path("~/.primacy_sql_history")
HISTORY_LINES_MAX = 2000
PASSWORD_BYTES_MAX = 4096


def sql(  # noqa: PLR0913 - one parameter per option is typer's way.
    url: Annotated[
        str | None,
        typer.Argument(
            help="primacy://USER@HOST1,HOST2:PORT/DATABASE?option=value",
            show_default=DEFAULT_URL,
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The cluster's file instead of a URL: by its routers."),
    ] = None,
    user: Annotated[str, typer.Option(help="With --config: who connects.")] = "",
    is_read: Annotated[
        bool, typer.Option("--read", help="With --config: the doors to replicas.")
    ] = False,
    command: Annotated[
        list[str] | None,
        typer.Option("--command", "-c", help="Run this and exit; may be given several times."),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Holds the password: one line.")
    ] = None,
    new_user: Annotated[
        str | None,
        typer.Option(help="Connect nowhere: print a line for the server's users file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run SQL: from -c, from stdin, or line by line."""
    if new_user is not None:
        checked_user(new_user)
        say(user_line(new_user, _new_password(password_file)))
        return
    connection = _connected(_url(url, config, user, is_read=is_read), password_file)
    try:
        shell = Shell(connection, is_json=as_json)
        if command:
            for text in command:
                _run_script(shell, text)
        elif sys.stdin.isatty():
            _converse(shell)
        else:
            _run_script(shell, sys.stdin.read())
    finally:
        connection.close()


def _url(url: str | None, config: Path | None, user: str, *, is_read: bool) -> str:
    if config is None:
        if user or is_read:
            raise Rejected("--user and --read belong to --config", hint="Say it in the URL.")
        return url or DEFAULT_URL
    if url is not None:
        raise Rejected(f"both {url!r} and --config", hint="Name the cluster in one way.")
    found = loaded(config)
    return kit_of(found).url(found, user=user, is_read=is_read)


def _connected(url: str, password_file: Path | None) -> Connection:
    options: dict[str, str] = {}
    target = target_of(url)
    if password_file is not None:
        options["password"] = _password_in(password_file)
    elif target.user and not target.password and sys.stdin.isatty():
        options["password"] = getpass.getpass(f"password of {target.user}: ")
    return db.connect(url, isolation_level=None, **options)


def _run_script(shell: Shell, text: str) -> None:
    """The first error ends it."""
    if text.lstrip().startswith("."):
        shell.run(text.strip())
        return
    for statement in statements_in(text):
        shell.run(statement)


def _converse(shell: Shell) -> None:
    """Until the end of input. An error is shown, and the next statement may be better."""
    import readline  # Changes how stdin behaves: only where a person types.

    history = HISTORY.expanduser()
    with suppress(OSError):  # There is none yet, or it is not this user's: the shell works without.
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES_MAX)
    say(f"{shell.banner}  .help for help, Ctrl-D to leave")
    try:
        while not shell.is_over:
            text = _typed(shell)
            if text is None:
                break
            if not text:
                continue
            try:
                shell.run(text)
            except PrimacyError as error:
                complain(str(error))
            except KeyboardInterrupt:
                complain("interrupted")
    finally:
        try:
            readline.write_history_file(history)
        except OSError as error:
            complain(f"note: what was typed is not kept in {history}: {error.strerror}")


def _typed(shell: Shell) -> str | None:
    """A whole statement, over as many lines as it takes. None: the end of input."""
    lines: list[str] = []
    while True:
        try:
            lines.append(input(shell.prompt if not lines else "   ...> "))
        except EOFError:
            say("")
            return None
        except KeyboardInterrupt:
            say("")
            return ""
        text = "\n".join(lines).strip()
        if not text or text.startswith(".") or is_complete(text):
            return text


def _new_password(password_file: Path | None) -> str:
    if password_file is not None:
        return _password_in(password_file)
    password = getpass.getpass("password: ")
    if getpass.getpass("again: ") != password:
        raise Rejected("the two passwords differ", hint="Try again.")
    return password


def _password_in(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(PASSWORD_BYTES_MAX + 1)
    if len(raw) > PASSWORD_BYTES_MAX:
        raise Rejected(
            f"{path} is larger than {PASSWORD_BYTES_MAX} bytes", hint="It holds one line."
        )
    return raw.decode(errors="replace").rstrip("\r\n")
