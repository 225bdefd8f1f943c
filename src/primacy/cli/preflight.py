"""Is this host fit for what the file asks of it? Asked before anything is started or written.

Promises  Every mistake at once, each with key, value and rule, and nothing changed on disk.
Does not  Hold what it checked: a port may be taken a moment later, and the agent then says so.
          Object to ports that this node's own server or router holds: they outlive an agent.
"""

import importlib.util
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

from primacy.cli.kit import kit_of
from primacy.config import (
    ROUTER_DOORS,
    SERVER_DOORS,
    Config,
    ConfigRejected,
    Problem,
    door_keys,
)
from primacy.model import NodeId

HTTP_PACKAGES = ("prometheus_client", "starlette", "uvicorn")
"""Of the extra `http`."""


def check_run(config: Config, node: str) -> None:
    """Raises `ConfigRejected` where `primacy run` could not do its work here."""
    run_dir, has_database = config.state_dir(node) / "run", config.node(node).database
    agent = _running(run_dir / "agent.pid", ("run", node))
    if agent is not None:
        rule = f"it runs here already, as process {agent}"
        raise ConfigRejected(f"node {node} cannot start here", (Problem("--node", node, rule),))
    keys = set(door_keys(config.cluster.engine, has_database=has_database)) - {"api_port"}
    if _running(run_dir / "router.pid", ("router", node)) is not None:
        keys -= {*ROUTER_DOORS}
    if _running(run_dir / "db.pid", ()) is not None:
        keys -= {*SERVER_DOORS}
    problems = list(_port_problems(config, node, keys))
    problems += _api_problems(config, node)
    problems += _state_dir_problems(config, node)
    if has_database:
        problems += _engine_problems(config, node)
    if problems:
        raise ConfigRejected(f"node {node} cannot start here", tuple(problems))


def check_router(config: Config, node: str) -> None:
    """Raises `ConfigRejected` where `primacy router` could not open its doors here."""
    problems = list(_port_problems(config, node, ROUTER_DOORS))
    if problems:
        raise ConfigRejected(f"the router of {node} cannot start here", tuple(problems))


def _port_problems(config: Config, node: str, keys: Collection[str]) -> Iterator[Problem]:
    host = config.node(node).host
    for key, port in config.ports(node).items():
        if key in keys:
            yield from _port_problem(f"nodes.{node}.{key}", host, port)


def _port_problem(key: str, host: str, port: int) -> Iterator[Problem]:
    reason = _refusal(host, port)
    if reason is not None:
        yield Problem(key, str(port), f"{host}:{port}: {reason}")


def _api_problems(config: Config, node: str) -> Iterator[Problem]:
    missing = missing_http_packages()
    if not config.api.enabled or (missing and not config.api.is_asked_for):
        return
    door = config.api_door(node)
    yield from _port_problem(f"nodes.{node}.api_port", door.host, door.port)
    if missing:
        rule = f"{', '.join(missing)} not found: pip install 'primacy[http]', or set it to false"
        yield Problem("api.enabled", "true", rule)
    try:
        config.api_token()
    except ConfigRejected as error:
        yield from error.problems


def missing_http_packages() -> list[str]:
    return [name for name in HTTP_PACKAGES if importlib.util.find_spec(name) is None]


def serves_http(config: Config) -> bool:
    """Whether an agent here opens its HTTP API: where nobody says, if its packages are there."""
    return config.api.enabled and (config.api.is_asked_for or not missing_http_packages())


def _refusal(host: str, port: int) -> str | None:
    """Why nobody could listen there now; None: somebody could."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _running(pid_file: Path, words: tuple[str, ...]) -> int | None:
    """The living process that the file names, if it is what we think: a number is given again.

    A command of ours has these words among its arguments; a server has our directory in them.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError, IndexError):
        return None
    if words:
        return pid if all(word in arguments for word in words) else None
    own = str(pid_file.parent.parent)
    return pid if any(own in argument for argument in arguments) else None


def _state_dir_problems(config: Config, node: str) -> Iterator[Problem]:
    place = config.state_dir(node)
    key, shown = f"nodes.{node}.state_dir", repr(str(place))
    standing = next(each for each in (place, *place.parents) if each.exists())
    if not standing.is_dir():
        yield Problem(key, shown, f"{standing} is no directory")
    elif not os.access(standing, os.W_OK | os.X_OK):
        rule = f"{standing} is not writable for this user. Set cluster.state_dir, or run as root"
        yield Problem(key, shown, rule)
    elif os.geteuid() == 0 and config.node(node).database:
        user = kit_of(config).unix_user(config)
        closed = [each for each in (standing, *standing.parents) if not each.stat().st_mode & 0o001]
        if user and closed and not _is_owner(closed, user):
            rule = f"{user}, whom the server runs as, may not enter {closed[-1]}"
            yield Problem(key, shown, rule)


def _is_owner(places: list[Path], user: str) -> bool:
    return all(each.owner() == user for each in places)


def _engine_problems(config: Config, node: str) -> Iterator[Problem]:
    kit = kit_of(config)
    yield from kit.program_problems(config)
    try:
        yield from kit.data_problems(config, NodeId(node))
    except OSError as error:
        key, shown = f"nodes.{node}.state_dir", repr(str(config.state_dir(node)))
        yield Problem(key, shown, (error.strerror or str(error)).lower())
