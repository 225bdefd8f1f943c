"""The server's process: started, watched, ended.

`ServerProcess` is what the engine needs of it. `PlainProcess` is a child of the agent; in a
cluster the guard is the parent (see guarded.py).
"""

import pwd
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from primacy.clock import Clock
from primacy.errors import Rejected
from primacy.runtime.processes import Watched, watch


class ServerProcess(Protocol):
    """At most one server process at a time."""

    async def start(self, argv: Sequence[str]) -> None:
        """`Rejected` where the program cannot be run. Does not wait until the server answers."""
        ...

    def is_alive(self) -> bool:
        """Whether any process of the server runs, adopted from an earlier agent or started here."""
        ...

    async def exited(self) -> None:
        """Return when no process of the server runs."""
        ...

    async def kill(self) -> None:
        """SIGKILL, and wait until every process is gone."""
        ...

    def terminate(self) -> None:
        """SIGTERM: a clean stop."""
        ...


class PlainProcess:
    """A server that is the agent's own child, found again by its pid file."""

    def __init__(self, pid_file: Path, clock: Clock, *, unix_user: str | None) -> None:
        self._pid_file = pid_file
        self._clock = clock
        self._unix_user = unix_user
        self._child: subprocess.Popen[bytes] | None = None
        self._watched: Watched | None = None

    async def start(self, argv: Sequence[str]) -> None:
        user, group = None, None
        if self._unix_user is not None:
            account = pwd.getpwnam(self._unix_user)
            user, group = account.pw_uid, account.pw_gid
        try:
            self._child = subprocess.Popen(  # noqa: ASYNC220 -- returns at exec; nothing is waited for
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            raise Rejected(
                f"{argv[0]} cannot be started: {error}", hint="Install mariadb-server."
            ) from error
        self._watched = watch(self._child.pid)

    def is_alive(self) -> bool:
        if self._watched is None:
            self._watched = self._adopted()
        if self._watched is None:
            return False
        if not self._watched.has_exited():
            return True
        self._reap()
        return False

    async def exited(self) -> None:
        while self.is_alive():
            if self._watched is not None:
                await self._watched.exited()

    async def kill(self) -> None:
        if self.is_alive() and self._watched is not None:
            self._watched.kill()
            await self.exited()

    def terminate(self) -> None:
        if self.is_alive() and self._watched is not None:
            self._watched.kill(signal.SIGTERM)

    def _adopted(self) -> Watched | None:
        """The server that an earlier agent has started."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii").strip())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        if str(self._pid_file.parent.parent).encode() not in command:
            return None  # The number was given to another program since.
        return watch(pid)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()  # It has exited: this does not wait.
            self._child = None
        if self._watched is not None:
            self._watched.close()
            self._watched = None
        self._pid_file.unlink(missing_ok=True)
