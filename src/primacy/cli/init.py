"""`primacy init`: the cluster's file and its secret, and what to do with them.

Promises  Nothing is written where anything is wrong, and no file is ever overwritten.
"""

import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from primacy.cli.format import complain, say, say_json
from primacy.cli.options import ConfigOption, JsonOption
from primacy.cli.users import user_line
from primacy.config import (
    DEFAULT_ENGINE,
    ENGINE_KEYS,
    ENGINES,
    SECRET_BYTES,
    Config,
    ConfigRejected,
    Node,
    Problem,
    door_keys,
    parse,
    path_of,
    warnings,
)

TOKEN_FILE = "primacy.token"
USERS_FILE = "primacy.users"

USER = re.compile(r"[A-Za-z0-9_-]{1,32}")

PORT_STEP = 10
"""Between the doors of two nodes on one host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asks for."""

    name: str
    engine: str
    nodes: tuple[tuple[str, str], ...]
    """(name, host) of each data node."""
    witnesses: tuple[tuple[str, str], ...] = ()
    profile: str = "default"
    acks: int | str = 1
    on_timeout: Literal["block", "degrade"] = "block"
    state_dir: str = ""
    is_insecure: bool = False
    has_token: bool = False
    """Requests over HTTP that change something need the token of `TOKEN_FILE`."""
    has_users: bool = False
    """Clients must be in `USERS_FILE`; with an engine whose users are in a file."""


def rendered(wish: Wish) -> str:
    """The file's text. Nodes that share a host get ports of their own."""
    lines = [
        "# One file for the whole cluster, the same on every host. docs/configuration.md has all.",
        "[cluster]",
        f"name = {_quoted(wish.name)}",
        f"engine = {_quoted(wish.engine)}",
        f"profile = {_quoted(wish.profile)}",
    ]
    if wish.state_dir:
        lines.append(f"state_dir = {_quoted(wish.state_dir)}")
    if wish.is_insecure:
        lines.append(
            "insecure = true  # Traffic between hosts is not encrypted: a trusted LAN only."
        )
    if wish.has_token:
        lines += ["", "[api]", f"token_file = {_quoted(TOKEN_FILE)}"]
    if wish.has_users:
        section, key = ENGINE_KEYS[wish.engine].users_key.split(".")
        lines += ["", f"[{section}]", f"{key} = {_quoted(USERS_FILE)}"]
    lines += ["", "[durability]", f"acks = {_acks(wish.acks)}"]
    lines.append(f"on_timeout = {_quoted(wish.on_timeout)}")
    seen: dict[str, int] = {}
    for name, host in (*wish.nodes, *wish.witnesses):
        lines += ["", f"[nodes.{_key(name)}]", f"host = {_quoted(host)}"]
        if (name, host) in wish.witnesses:
            lines.append("database = false  # A witness: it votes and holds no data.")
        place = seen.get(host, 0)
        seen[host] = place + 1
        if place:
            has_database = (name, host) not in wish.witnesses
            ports = base_ports(wish.engine, has_database=has_database)
            lines += [f"{key} = {port + PORT_STEP * place}" for key, port in ports.items()]
    return "\n".join(lines) + "\n"


def base_ports(engine: str, *, has_database: bool = True) -> dict[str, int]:
    """Key -> port, of the first node on a host."""
    keys = door_keys(engine, has_database=has_database)
    return {key: int(Node.model_fields[key].default) for key in keys}


def checked(text: str, directory: Path) -> Config:
    """The value that the text gives. Raises `ConfigRejected` with every mistake."""
    config, problems = parse(tomllib.loads(text), directory)
    if problems or config is None:
        raise ConfigRejected("the command line", tuple(problems))
    return config


def next_steps(config: Config, path: Path, *, user: str = "") -> list[str]:
    """What a person does now, in order. `user`: who has been made."""
    hosts = sorted({node.host for node in config.nodes.values()})
    steps: list[str] = []
    files = [path.name, config.secret_path.name]
    if config.api.token_file:
        files.append(config.api.token_file)
    if config.users_path is not None:
        files.append(config.users_path.name)
    if len(hosts) > 1:
        steps.append(
            f"Copy {', '.join(files[:-1])} and {files[-1]} (mode 0600) into one directory on"
            f" each of {', '.join(hosts)}."
        )
    steps += [
        f"On {config.nodes[name].host}: `primacy run --node {name}`." for name in config.members
    ]
    first = config.nodes[config.members[0]]
    steps.append("Anywhere with these files: `primacy status`.")
    steps.append(
        f"Clients write through any node's door, such as {first.rw}; they read at {first.ro}."
    )
    if config.users_path is not None:
        steps.append(
            f"They log in by {config.users_path.name}: `primacy sql --new-user NAME` makes a line."
        )
    if user:
        login = f"--user {user} --password-file {user}.password"
        steps.append(f"A shell: `primacy sql --config {path.name} {login}`.")
    return steps


def init(  # noqa: PLR0913 - one parameter per option is typer's way.
    *,
    name: Annotated[str, typer.Option(help="The cluster's name.")],
    node: Annotated[list[str], typer.Option(help="NAME=HOST of a data node; once for each.")],
    witness: Annotated[
        list[str] | None, typer.Option(help="NAME=HOST of a voter without data.")
    ] = None,
    engine: Annotated[str, typer.Option(help=" or ".join(ENGINES))] = DEFAULT_ENGINE,
    profile: Annotated[str, typer.Option(help="default or fast")] = "default",
    acks: Annotated[
        str | None,
        typer.Option(
            help="Replicas that must hold a write: a number, quorum or all.",
            show_default="1; 0 for a single node",
        ),
    ] = None,
    degrade: Annotated[
        bool, typer.Option("--degrade", help="Go on without a replica after a while.")
    ] = False,
    state_dir: Annotated[str, typer.Option(help="Where every node keeps its data.")] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow doors beyond loopback without TLS.")
    ] = False,
    token: Annotated[
        bool, typer.Option("--token", help="Requests over HTTP that change something need one.")
    ] = False,
    user: Annotated[
        str,
        typer.Option(help="With sqlite: who may connect; writes NAME.password beside the file."),
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the cluster's file and its secret, and say what comes next."""
    problems: list[Problem] = []
    nodes = _pairs("--node", node, problems)
    witnesses = _pairs("--witness", witness or [], problems)
    path = path_of(config).absolute()
    if path.exists():
        problems.append(Problem("--config", repr(str(path)), "exists and is never overwritten"))
    problems += _user_problems(user, engine, path.parent)
    if problems:
        raise ConfigRejected("the command line", tuple(problems))
    is_one_machine = {host for _, host in (*nodes, *witnesses)} <= {"127.0.0.1", "::1", "localhost"}
    wish = Wish(
        name=name,
        engine=engine,
        nodes=nodes,
        witnesses=witnesses,
        profile=profile,
        acks=_acks_wished(acks, len(nodes)),
        on_timeout="degrade" if degrade else "block",
        state_dir=state_dir or ("state" if is_one_machine else ""),
        is_insecure=insecure,
        has_token=token,
        has_users=bool(user) and engine in ENGINE_KEYS,  # One that is unknown is refused below.
    )
    text = rendered(wish)
    made = checked(text, path.parent)
    is_new_secret = _write_secret(made.secret_path)
    if token:
        _write_secret(path.parent / TOKEN_FILE)
    if user:
        _write_user(path.parent, user)
    _write_new(path, text, mode=0o644)
    _tell(made, path, is_new_secret=is_new_secret, user=user, as_json=as_json)


def _tell(made: Config, path: Path, *, is_new_secret: bool, user: str, as_json: bool) -> None:
    steps, said = next_steps(made, path, user=user), warnings(made)
    if as_json:
        say_json(
            {
                "config": str(path),
                "secret": str(made.secret_path),
                "is_new_secret": is_new_secret,
                "warnings": said,
                "next": steps,
            }
        )
        return
    kept = "written" if is_new_secret else "kept as it was"
    say(f"{path} is written, {made.secret_path.name} beside it is {kept}.")
    for each in said:
        complain(f"note: {each}")
    for number, step in enumerate(steps, 1):
        say(f"{number}. {step}")


def _pairs(
    option: str, given: Sequence[str], problems: list[Problem]
) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for each in given:
        name, equals, host = each.partition("=")
        if not (name and equals and host):
            problems.append(Problem(option, repr(each), "must be NAME=HOST, such as a=10.0.0.1"))
        elif name in pairs:
            problems.append(Problem(option, repr(each), f"{name} is named already"))
        pairs[name] = host
    return tuple(pairs.items())


def _user_problems(user: str, engine: str, directory: Path) -> Iterator[Problem]:
    if not user:
        return
    if engine in ENGINE_KEYS and not ENGINE_KEYS[engine].users_key:
        yield Problem("--user", repr(user), f"{engine}'s users are made in SQL, once it runs")
    if not USER.fullmatch(user):
        rule = "letters, digits, hyphens, underscores; at most 32: it names a file, too"
        yield Problem("--user", repr(user), rule)
    for path in (directory / USERS_FILE, directory / f"{user}.password"):
        if path.exists():
            yield Problem("--user", repr(user), f"{path} exists and is never overwritten")


def _write_user(directory: Path, name: str) -> None:
    password = secrets.token_urlsafe(24)
    _write_new(directory / f"{name}.password", f"{password}\n", mode=0o600)
    _write_new(directory / USERS_FILE, f"{user_line(name, password)}\n", mode=0o600)


def _write_secret(path: Path) -> bool:
    """Whether it is new. One that exists is kept: it may be in use."""
    if path.exists():
        return False
    _write_new(path, secrets.token_hex(SECRET_BYTES) + "\n", mode=0o600)
    return True


def _write_new(path: Path, text: str, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(opened, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _acks_wished(given: str | None, data_node_count: int) -> int | str:
    if given is None:
        return min(1, data_node_count - 1)
    return int(given) if given.isdecimal() else given


def _acks(acks: int | str) -> str:
    return str(acks) if isinstance(acks, int) else _quoted(acks)


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else _quoted(name)


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are a subset of its own."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return (
        '"'
        + "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in escaped)
        + '"'
    )
