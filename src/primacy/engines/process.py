"""The server's process: a child of its guard, which kills it at the lease's deadline.

Promises  At most one server of this node runs. The agent's end leaves guard and server running;
          `attach` finds them again.
"""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from primacy.clock import Clock
from primacy.engines.guarding import Guarded, attach, guard_spec, start_guard
from primacy.errors import Conflict, OutcomeUnknown, Rejected, Unavailable
from primacy.model import Address
from primacy.runtime.outgoing import cut_outgoing

SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Debian keeps the server in a folder that is not on everybody's path."""

READY_POLL_S = 0.01

OUTPUT_NAME = "server.out"
"""What the server writes to its standard output and error, in the guard's folder."""


class ServerProcess:
    """The server under its guard. Used from one event loop."""

    def __init__(
        self,
        guard_dir: Path,
        *,
        page: Path,
        port: int,
        launcher: Path | None,
        unix_user: str | None = None,
    ) -> None:
        """`port` is the server's own door for clients; the launcher starts the guard, if any."""
        self._guard_dir = guard_dir
        self._page = page
        self._port = port
        self._launcher = launcher
        self._unix_user = unix_user
        self._guarded: Guarded | None = None

    @property
    def guarded(self) -> Guarded | None:
        """Guard and server, while both run."""
        return self._guarded if self.is_alive() else None

    async def attach(self) -> bool:
        """Take over what an earlier agent left; False where nothing runs."""
        if not self.is_alive():
            await self._bury()
            self._guarded = await attach(self._guard_dir)
        return self._guarded is not None

    async def start(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """`Rejected` where the program cannot be run. Does not wait until the server answers."""
        if self.is_alive():
            raise Conflict("the server runs already", hint="Observe it.")
        await self._bury()
        spec = guard_spec(
            (program_path(argv[0]), *argv[1:]),
            state_dir=self._guard_dir,
            page_path=self._page,
            log_path=self._guard_dir / OUTPUT_NAME,
            user=self._unix_user,
            environment={**(environment or {}), "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"},
        )
        self._guarded = await start_guard(spec, launcher=self._launcher)

    async def ready(
        self,
        ask: Callable[[], Awaitable[object]],
        *,
        within_s: float,
        clock: Clock,
        last_words: Callable[[], str],
        log: Path,
    ) -> None:
        """Until it answers. `Rejected` with its last words where it ended; `Unavailable` where it
        took too long."""
        deadline_s = clock.now_s() + within_s
        while True:
            if not self.is_alive():
                words = last_words().rstrip(".")
                raise Rejected(
                    f"the server ended while it started: {words}", hint=f"Its log is {log}."
                )
            try:
                await ask()
            except (Unavailable, OutcomeUnknown) as error:
                if clock.now_s() >= deadline_s:
                    raise Unavailable(
                        f"no answer {within_s:.0f} s after the start",
                        hint="Crash recovery may still run; its log shows how far.",
                    ) from error
                await clock.sleep(READY_POLL_S)
            else:
                return

    def is_alive(self) -> bool:
        """Neither the guard nor the server has been heard to exit."""
        return self._guarded is not None and not self._guarded.exited.is_set()

    async def kill(self) -> None:
        """SIGKILL, and wait until every process is gone."""
        if self._guarded is not None:
            await self._guarded.kill()
            await self._bury()

    async def stop(self, *, within_s: float) -> None:
        """SIGTERM, a clean stop; SIGKILL for one that takes longer."""
        if self._guarded is not None and self.is_alive():
            self._guarded.database.kill(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await self._bury()
        except TimeoutError:
            await self.kill()

    def cut_outgoing(self, to: Address) -> int:
        """Shut down what the server has opened to that address. Blocks for milliseconds. `OSError`
        where this process may not."""
        if self._guarded is None or not self.is_alive():
            return 0
        return cut_outgoing(self._guarded.database, to, own_port=self._port)

    async def _bury(self) -> None:
        """Wait for the end of a server; while it lives, that is for as long as it lives."""
        guarded = self._guarded
        if guarded is None:
            return
        await guarded.gone()
        if self._guarded is guarded:
            guarded.detach()
            self._guarded = None


def program_path(name: str) -> str:
    """`Rejected` where there is no such program."""
    found = shutil.which(name, path=SEARCH_PATH) if "/" not in name else name
    if found is None or not Path(found).exists():
        raise Rejected(f"{name} is not installed", hint="Install the package that has it.")
    return found
