"""The database's process, forked by its guard so that it cannot outlive it.

The order in the child is the point of this file: it drops its uid first and asks for its
parent's death signal afterwards, because the kernel clears that wish at a change of credentials;
then it looks whether its parent still is the guard, which may have died before the wish.

Standard library only: it is a part of the guard.
"""

import ctypes
import json
import os
import pwd
import resource
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from primacy.runtime.processes import ProcessName, process_start_time

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class StartRefused(Exception):
    """The database cannot be started as the specification has it. A person must act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSpec:
    """All that a guard is told, once. Written as JSON by whoever starts it."""

    argv: tuple[str, ...]
    page_path: Path
    """On tmpfs; its directory exists."""
    socket_path: Path
    status_path: Path
    log_path: Path
    """Where the database's standard output and error go, appended."""
    user: str | None = None
    """Who the database runs as, where the guard is root. None: as the guard."""
    directory: Path = Path("/")
    environment: dict[str, str] = field(default_factory=dict)
    """All of it: nothing is inherited."""
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    """`{"NOFILE": (soft, hard)}`; -1 is unlimited."""
    umask: int = 0o077

    def encode(self) -> bytes:
        paths = ("page_path", "socket_path", "status_path", "log_path", "directory")
        raw = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(raw | {name: str(raw[name]) for name in paths}, indent=1).encode()


def read_spec(path: Path) -> GuardSpec:
    """`StartRefused` where the file is not a specification."""
    try:
        raw = json.loads(path.read_bytes())
        return GuardSpec(
            argv=tuple(str(word) for word in raw["argv"]),
            page_path=Path(raw["page_path"]),
            socket_path=Path(raw["socket_path"]),
            status_path=Path(raw["status_path"]),
            log_path=Path(raw["log_path"]),
            user=None if raw.get("user") is None else str(raw["user"]),
            directory=Path(raw.get("directory", "/")),
            environment={str(k): str(v) for k, v in raw.get("environment", {}).items()},
            rlimits={str(k): (int(v[0]), int(v[1])) for k, v in raw.get("rlimits", {}).items()},
            umask=int(raw.get("umask", 0o077)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartRefused(f"{path} is no guard specification: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Forked:
    """The database's process, which runs its program."""

    name: ProcessName
    pidfd: int

    def kill(self) -> None:
        """SIGKILL to it and to its process group."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.killpg(self.name.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # Gone already: what a killer wants.


def fork_database(spec: GuardSpec) -> Forked:
    """Fork from the calling thread, which must be the guard's main thread, and return once the
    program runs. `StartRefused` with the reason where it does not."""
    account = _account(spec)
    limits = _limits(spec)
    log_fd = _open_log(spec.log_path, account)
    error_reader, error_writer = os.pipe2(os.O_CLOEXEC)
    guard_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_database(
            spec, account, limits=limits, log_fd=log_fd, error_fd=error_writer, guard_pid=guard_pid
        )
    os.close(error_writer)
    os.close(log_fd)
    pidfd = os.pidfd_open(pid)
    name = ProcessName(pid, process_start_time(pid) or 0)
    with os.fdopen(error_reader, "rb") as errors:
        reason = errors.read()  # Ends at exec, which closes the other end.
    if reason:
        os.waitpid(pid, 0)
        raise StartRefused(reason.decode(errors="replace"))
    return Forked(name, pidfd)


def _become_database(
    spec: GuardSpec,
    account: pwd.struct_passwd | None,
    *,
    limits: list[tuple[int, tuple[int, int]]],
    log_fd: int,
    error_fd: int,
    guard_pid: int,
) -> NoReturn:
    """In the child. Never returns into the guard's code."""
    step = "prepare"
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        null_fd = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null_fd, 0)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        step = "set the limits of"
        for limit, values in limits:
            resource.setrlimit(limit, values)
        step = "change to the user of"
        if account is not None:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        step = "bind to the guard"  # After the uid: the kernel clears it at a change of that.
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != guard_pid:
            os._exit(1)  # The guard died before the wish was noted: nobody is left to tell.
        step = "enter the directory of"
        os.chdir(spec.directory)
        os.umask(spec.umask)
        step = "execute"
        os.execve(spec.argv[0], spec.argv, spec.environment)
    except (OSError, ValueError) as error:
        os.write(error_fd, f"cannot {step} {spec.argv[0]}: {error}".encode())
    finally:
        os._exit(127)


def _account(spec: GuardSpec) -> pwd.struct_passwd | None:
    if spec.user is None:
        return None
    try:
        account = pwd.getpwnam(spec.user)
    except KeyError as error:
        raise StartRefused(f"there is no user {spec.user!r} on this host") from error
    if account.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise StartRefused(f"only root can run the database as {spec.user!r}")
    return account


def _limits(spec: GuardSpec) -> list[tuple[int, tuple[int, int]]]:
    limits = []
    for name, values in spec.rlimits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if not isinstance(number, int):
            raise StartRefused(f"rlimits: {name!r} is no resource limit of this system")
        limits.append((number, values))
    return limits


def _open_log(path: Path, account: pwd.struct_passwd | None) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartRefused(f"the log {path} cannot be opened: {error}") from error
    if account is not None:
        os.fchown(fd, account.pw_uid, account.pw_gid)
    return fd
