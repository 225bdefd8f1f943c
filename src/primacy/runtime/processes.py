"""Processes by name, and their end as an event.

A pid alone is no name: it is given again. A pid with its start time is one, within one boot.
`Watched` holds a pidfd, so that a signal can never reach somebody else and an exit is heard at
once, without polling.

Promises: `has_exited` is the kernel's word (a zombie has exited).
Does not: know of a descendant that left both its parents and its session.

Standard library only, and no event loop until `exited` is awaited: the guard imports this module.
"""

import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio

_STATE, _PARENT, _SESSION, _STARTED = 0, 1, 3, 19
"""Places in /proc/PID/stat after the command's closing bracket: fields 3, 4, 6 and 22."""


class ProcessName(NamedTuple):
    """One process of this boot, never another one with the same number."""

    pid: int
    started: int
    """Clock ticks since boot."""


class _Entry(NamedTuple):
    name: ProcessName
    parent: int
    session: int
    is_zombie: bool


def boot_id() -> bytes:
    """16 bytes that are new with every boot of this kernel."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


def process_start_time(pid: int) -> int | None:
    """Clock ticks since boot; None where there is no such process."""
    entry = _entry(pid)
    return None if entry is None else entry.name.started


def own_name() -> ProcessName:
    """This process."""
    return ProcessName(os.getpid(), process_start_time(os.getpid()) or 0)


def family(leader: ProcessName) -> list[ProcessName]:
    """Every living process of `leader`'s session or descent, itself included.

    Orphans are found by the session that `leader` led: its number is not given again while
    they live. Reads all of /proc once: milliseconds, so not for the event loop.
    """
    entries = [entry for entry in map(_entry, _pids()) if entry is not None]
    here = {entry.name.pid: entry.name for entry in entries}
    is_reused = leader.pid in here and here[leader.pid] != leader
    if is_reused:
        return []
    members = {leader.pid}
    members.update(
        entry.name.pid
        for entry in entries
        if entry.session == leader.pid and entry.name.started >= leader.started
    )
    found = 0
    while found != len(members):  # Ends: a round without a new member is the last.
        found = len(members)
        members.update(entry.name.pid for entry in entries if entry.parent in members)
    return [entry.name for entry in entries if entry.name.pid in members and not entry.is_zombie]


def children(pid: int) -> list[ProcessName]:
    """The direct children of `pid`, zombies left out."""
    entries = (_entry(other) for other in _pids())
    return [e.name for e in entries if e is not None and e.parent == pid and not e.is_zombie]


class Watched:
    """A process that is watched by its pidfd. Close it when done."""

    def __init__(self, name: ProcessName, pidfd: int) -> None:
        """Use `watch`, which checks that the two belong together."""
        self.name = name
        self._pidfd = pidfd
        self._exit: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        """Readable once the process has exited."""
        return self._pidfd

    def has_exited(self) -> bool:
        """Once closed: whether the exit was heard before."""
        if self._pidfd < 0:
            return self._exit is not None and not self._exit.cancelled()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to exactly this process. Exited already, or closed: nothing happens."""
        if self._pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, signal_number)
        except ProcessLookupError:
            return  # It has exited, which is what a killer wants.

    async def exited(self) -> None:
        """Return when the process has exited. Any number of tasks may wait."""
        import asyncio  # Here and not above: the guard must not load an event loop.

        await asyncio.shield(self.exit_future(asyncio.get_running_loop()))

    def exit_future(self, loop: "asyncio.AbstractEventLoop") -> "asyncio.Future[None]":
        """Done when the process has exited; cancelled by `close`. One loop for its life."""
        if self._exit is None:
            self._exit = self._listen(loop)
        return self._exit

    def close(self) -> None:
        """Stop watching. Tasks that still wait are cancelled."""
        if self._pidfd < 0:
            return
        if self._exit is not None and not self._exit.done():
            if not self._exit.get_loop().is_closed():
                self._exit.get_loop().remove_reader(self._pidfd)
            self._exit.cancel()
        os.close(self._pidfd)
        self._pidfd = -1

    def _listen(self, loop: "asyncio.AbstractEventLoop") -> "asyncio.Future[None]":
        future: asyncio.Future[None] = loop.create_future()

        def heard() -> None:
            loop.remove_reader(self._pidfd)
            if not future.done():
                future.set_result(None)

        loop.add_reader(self._pidfd, heard)
        return future


def watch(pid: int, *, started: int | None = None) -> Watched | None:
    """Watch `pid`, if it is the process that began at `started` (None: whoever has the number
    now). None: that process has exited and was reaped, or the number belongs to another one."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    begun = process_start_time(pid)
    watched = Watched(ProcessName(pid, 0 if begun is None else begun), pidfd)
    # Read after the pidfd was opened: a process that has the right start time now had the number
    # then too, so the pidfd is its own.
    if begun is None or (started is not None and begun != started):
        watched.close()
        return None
    return watched


def reap(pid: int) -> None:
    """Take the exit code of a child that has exited, so that it is no zombie any more. Whoever is
    not this process's child has a parent of its own for that."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # Somebody reaped it already.


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 -- no Path object for each process: this runs while a database is being fenced


def _entry(pid: int) -> _Entry | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 -- as above
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    rest = text[text.rindex(b")") + 2 :].split()
    return _Entry(
        name=ProcessName(pid, int(rest[_STARTED])),
        parent=int(rest[_PARENT]),
        session=int(rest[_SESSION]),
        is_zombie=rest[_STATE] in (b"Z", b"X"),
    )
