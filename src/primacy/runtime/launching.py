"""Starting a process that outlives its starter: directly, or by the host's launcher.

Directly, the child is in a session of its own, but in the starter's control group: a service
manager that ends the one ends the other. The launcher (`launcher.py`) is a service of its own, so
what it starts stays when the agent's service is stopped or replaced.

Standard library only, and no event loop: the launcher imports this module.
"""

import array
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from primacy.errors import Conflict, Unavailable
from primacy.runtime.unixsockets import connect

MESSAGE_BYTES_MAX = 65536
ANSWER_WITHIN_S = 5.0
"""The launcher answers within milliseconds; one that does not is frozen or starved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started. The environment is all of it: nothing is inherited."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    stdout: int | None = None
    """A file descriptor of the caller's; None: its own, or the launcher's."""
    stderr: int | None = None


def launch(what: Launch, *, launcher: Path | None) -> int:
    """Start it, by the launcher at that socket if there is one; returns its pid. Blocks for
    milliseconds. `Unavailable`: no launcher answers. `Conflict`: it could not start the program."""
    return spawn(what) if launcher is None else _asked(what, launcher)


def spawn(what: Launch) -> int:
    """In a session of its own, with none of this process's files but those that are handed on."""
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    for target, source in ((1, what.stdout), (2, what.stderr)):
        if source is not None:
            actions.append((os.POSIX_SPAWN_DUP2, source, target))
    try:
        return os.posix_spawn(
            what.argv[0],
            list(what.argv),
            dict(what.environment),
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE],
        )
    except OSError as error:
        raise Conflict(
            f"{what.argv[0]} cannot be started: {error.strerror}", hint="Look at its path and mode."
        ) from error


def _asked(what: Launch, launcher: Path) -> int:
    files = [fd for fd in (what.stdout, what.stderr) if fd is not None]
    message = {
        "argv": list(what.argv),
        "environment": dict(what.environment),
        "has_stdout": what.stdout is not None,
        "has_stderr": what.stderr is not None,
    }
    with connected(launcher) as sock:
        try:
            socket.send_fds(sock, [json.dumps(message).encode()], files)
            answer = json.loads(sock.recv(MESSAGE_BYTES_MAX) or b"{}")
        except (OSError, ValueError) as error:
            raise _away(launcher, str(error)) from error
    if "pid" not in answer:
        reason = answer.get("reason", "it closed the connection")
        raise Conflict(f"the launcher refused: {reason}", hint="See the log of its unit.")
    return int(answer["pid"])


def connected(path: Path) -> socket.socket:
    """To the launcher. `Unavailable` where none listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(ANSWER_WITHIN_S)
    try:
        connect(sock, path)
    except OSError as error:
        sock.close()
        raise _away(path, error.strerror or str(error)) from error
    return sock


def received(sock: socket.socket) -> tuple[Launch | None, list[int]]:
    """The launcher's end: one request and the files that came with it, which the caller closes.
    None: nothing that this version understands. Raises `OSError`."""
    message, files, _, _ = socket.recv_fds(
        sock,
        MESSAGE_BYTES_MAX,
        2,
        socket.MSG_CMSG_CLOEXEC,  # Else the child would hold them open.
    )
    try:
        raw = json.loads(message)
        wanted = int(bool(raw["has_stdout"])) + int(bool(raw["has_stderr"]))
        if len(files) != wanted:
            return None, files
        handed = iter(files)
        return (
            Launch(
                argv=[str(word) for word in raw["argv"]],
                environment={str(k): str(v) for k, v in raw["environment"].items()},
                stdout=next(handed) if raw["has_stdout"] else None,
                stderr=next(handed) if raw["has_stderr"] else None,
            ),
            files,
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None, files


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end, by the kernel's word."""
    credentials = array.array("i")
    credentials.frombytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return credentials[1]


def _away(path: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"the launcher at {path} does not answer: {reason}",
        hint="Is the unit that keeps it (primacy-...-guard.service) running?",
    )
