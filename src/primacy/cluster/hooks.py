"""The operator's command on a change of role: told, never asked.

    brain --tell(role)--> queue --one at a time--> child process, at most `timeout_s`

Promises  `tell` returns at once. The command runs in a session of its own, with the role in its
          environment; past its time the whole session's group is killed. Its end is an event, its
          output too.
Does not  Hold up anything: no plan, lease or guard waits for it, and its exit code changes nothing.
          A command that hangs delays only the next one; where they pile up the oldest is dropped.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from dataclasses import dataclass

from primacy.clock import Clock
from primacy.cluster.roles import RoleSeen
from primacy.model import NodeId
from primacy.telemetry import Event, Sink, Value

WAITING_MAX = 8
"""Changes of role that wait for their turn."""

OUTPUT_BYTES_MAX = 4096
"""Of one run: the rest is read and dropped, so that the command never blocks on it."""

REAPED_WITHIN_S = 2.0
"""After SIGKILL: longer only if the kernel itself is stuck."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    cluster: str
    node: NodeId
    command: tuple[str, ...]
    """Program and arguments; no shell. Empty: there is no hook."""
    timeout_s: float = 10.0


class Hooks:
    """`tell` from the agent; `run` in a task of the owner."""

    def __init__(self, settings: HookSettings, *, clock: Clock, events: Sink) -> None:
        self._settings = settings
        self._clock = clock
        self._events = events
        self._waiting: deque[RoleSeen] = deque()
        self._wake = asyncio.Event()
        self._told: RoleSeen | None = None

    def tell(self, seen: RoleSeen) -> None:
        """Remember a change of role; the same role again is none."""
        known = self._told.role if self._told else "none"
        if seen.role == known or not self._settings.command:
            return
        self._told = seen
        if len(self._waiting) >= WAITING_MAX:
            dropped = self._waiting.popleft()
            self._events(Event("hook-dropped", {"role": dropped.role, "epoch": dropped.epoch}))
        self._waiting.append(seen)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._run_one(self._waiting.popleft())

    async def _run_one(self, seen: RoleSeen) -> None:
        began_s = self._clock.now_s()
        fields: dict[str, Value] = {"role": seen.role, "epoch": seen.epoch}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._settings.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env=self._environment(seen),
            )
        except OSError as error:
            self._events(Event("hook-failed", fields | {"reason": str(error)}))
            return
        output = bytearray()
        outcome = "ended"
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await _read(process, output)
                await process.wait()
        except TimeoutError:
            outcome = "killed"
        finally:
            await _end(process)
        for line in output.decode(errors="replace").splitlines():
            self._events(Event("hook-said", {"line": line}))
        code = -1 if process.returncode is None else process.returncode
        took_s = self._clock.now_s() - began_s
        self._events(Event("hook-ended", fields | {"how": outcome, "code": code, "took_s": took_s}))

    def _environment(self, seen: RoleSeen) -> dict[str, str]:
        """All of it: nothing is inherited."""
        return {
            "PATH": SEARCH_PATH,
            "LC_ALL": "C.UTF-8",
            "PRIMACY_CLUSTER": self._settings.cluster,
            "PRIMACY_NODE": self._settings.node,
            "PRIMACY_ROLE": seen.role,
            "PRIMACY_EPOCH": str(seen.epoch),
            "PRIMACY_PRIMARY": seen.primary or "",
        }


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    if process.stdout is None:
        return
    while chunk := await process.stdout.read(OUTPUT_BYTES_MAX):
        output.extend(chunk[: OUTPUT_BYTES_MAX - len(output)])


async def _end(process: asyncio.subprocess.Process) -> None:
    """Whatever is left of its group dies, also where it has ended itself."""
    with contextlib.suppress(ProcessLookupError):  # All have ended, which is what was wanted.
        os.killpg(process.pid, signal.SIGKILL)
    try:
        async with asyncio.timeout(REAPED_WITHIN_S):
            await process.wait()
    except TimeoutError:
        return  # The kernel holds it; the loop's child watcher reaps it when it lets go.
