"""The agent's side of the guard: start it, find it again, hold its deadline up, see it off.

    start_guard / attach --> Guarded --arm, extend, open, close--> ... --exited--> gone()

Promises: `exited` is set the moment the kernel reports the end of guard or database; `gone`
returns only after the page is closed and every process of the database has exited by its own
pidfd, so that the lease may be given up.
Assumes: one agent per state directory (it holds a lock of its own).
Does not: retry. `Conflict`: the guard refused and says why. `OutcomeUnknown`: it did not answer.
"""

import asyncio
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

import primacy
from primacy.engines.guardchild import GuardSpec, StartRefused, read_spec
from primacy.engines.guardclient import ANSWER_BYTES_MAX, Client, Standing, obeyed
from primacy.errors import Conflict, OutcomeUnknown, Rejected, Unavailable
from primacy.model import Epoch
from primacy.runtime.launching import Launch, launch
from primacy.runtime.page import PageReader, close_page
from primacy.runtime.processes import ProcessName, Watched, boot_id, family, reap, watch
from primacy.runtime.threads import to_its_end

START_WITHIN_S = 10.0
KILL_ANSWER_WITHIN_S = 0.25
"""Then the guard itself is killed, and the kernel kills the database."""
GUARD_LEAVES_WITHIN_S = 1.0
"""After its database has exited; then it is killed, which can harm nobody any more."""
SPEC_NAME, SOCKET_NAME, STATUS_NAME, LOG_NAME = (
    "guard-spec.json",
    "guard.sock",
    "guard.json",
    "guard.log",
)


class _Status(msgspec.Struct, frozen=True):
    """What the guard's status file is read for."""

    boot: str
    database: ProcessName


def guard_spec(
    argv: tuple[str, ...],
    *,
    state_dir: Path,
    page_path: Path,
    log_path: Path,
    user: str | None = None,
    environment: dict[str, str] | None = None,
) -> GuardSpec:
    """The specification of a guard whose files lie in `state_dir`, where `attach` finds them."""
    return GuardSpec(
        argv=argv,
        page_path=page_path,
        socket_path=state_dir / SOCKET_NAME,
        status_path=state_dir / STATUS_NAME,
        log_path=log_path,
        user=user,
        environment={} if environment is None else environment,
    )


class Guarded:
    """One database under one guard. Owned by the agent; leaving it leaves both running."""

    def __init__(
        self,
        *,
        guard: Watched,
        database: Watched,
        client: Client,
        page_path: Path,
    ) -> None:
        """Use `start_guard` or `attach`, within the event loop that is to hear of the exits."""
        self.guard = guard
        self.database = database
        self.page_path = page_path
        self.exited = asyncio.Event()
        """Set at once when the guard or the database has exited."""
        self.exit_reason = ""
        self._client = client
        self._burial = asyncio.Lock()
        self._is_gone = False
        loop = asyncio.get_running_loop()
        for watched, reason in (
            (guard, "the guard exited"),
            (database, "the database exited"),
        ):
            watched.exit_future(loop).add_done_callback(functools.partial(self._heard, reason))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Let go: guard and database live on, and the deadline stands."""
        self._client.close()
        self.guard.close()
        self.database.close()

    # -- the deadline

    async def arm(self, epoch: Epoch, deadline_s: float) -> Standing:
        """closed -> armed. `deadline_s` is on CLOCK_BOOTTIME."""
        return await self._request("arm", epoch=epoch, deadline_ns=int(deadline_s * 1e9))

    async def extend(self, epoch: Epoch, deadline_s: float) -> Standing:
        """Raise the deadline of an armed or open epoch; a lower one changes nothing."""
        return await self._request("extend", epoch=epoch, deadline_ns=int(deadline_s * 1e9))

    async def open(self, epoch: Epoch) -> Standing:
        """armed -> open, at most once for each epoch."""
        return await self._request("open", epoch=epoch)

    async def close(self, epoch: Epoch, *, keep_deadline: bool = False) -> Standing:
        """-> closed, for good. `keep_deadline`: the guard still kills at the deadline, until a
        second `close` without it, after the engine has confirmed that it is read-only."""
        return await self._request("close", epoch=epoch, keep_deadline=keep_deadline)

    async def status(self) -> Standing:
        return await self._request("status")

    # -- the end

    async def kill(self) -> None:
        """Close the page, SIGKILL the database, and return when all is gone (as `gone`)."""
        try:
            async with asyncio.timeout(KILL_ANSWER_WITHIN_S):
                await self._request("kill")
        except (TimeoutError, OutcomeUnknown, Conflict):
            self.guard.kill()  # Frozen, gone, or another agent's: the kernel kills its child.
        await self.gone()

    async def gone(self) -> None:
        """Wait until guard or database has exited, then until the page is closed and every
        process of the database has exited. Processes that are left over are killed.

        Any number of tasks may wait; the page of a successor is left alone.
        """
        await self.exited.wait()
        async with self._burial:
            if self._is_gone:
                return
            if not await _leaves(self.guard):
                self.guard.kill()
                await self.guard.exited()
            reap(self.guard.name.pid)
            self.close_page_of_dead_guard()
            self.database.kill()
            await self.database.exited()
            await see_off(self.database.name)
            self._is_gone = True

    def close_page_of_dead_guard(self) -> None:
        """`Conflict` where the guard still lives: then only it may write the page."""
        if not self.guard.has_exited():
            raise Conflict(
                f"the guard {self.guard.name.pid} lives: its page is not for others to write",
                hint="Ask it to close the page, or kill it first.",
            )
        close_page(self.page_path)

    # -- inside

    async def _request(self, operation: str, **fields: int) -> Standing:
        return await obeyed(self._client.send(operation, fields))

    def _heard(self, reason: str, exit_future: "asyncio.Future[None]") -> None:
        if not exit_future.cancelled():
            self.exit_reason = self.exit_reason or reason
            self.exited.set()


async def start_guard(spec: GuardSpec, *, launcher: Path | None = None) -> Guarded:
    """Start a guard with its database, detached from this process, and say hello. By the
    `launcher` at that socket, it is not even in this process's control group.

    `Rejected`: the specification cannot be met. `Conflict`: a living guard holds the page.
    `Unavailable`: it did not start in time. In each case, and when cancelled, nothing runs.
    """
    state_dir = spec.status_path.parent
    spec_path = state_dir / SPEC_NAME
    await to_its_end(_write_private, spec_path, spec.encode())
    guard, reader = await _spawned(spec_path, state_dir / LOG_NAME, launcher)
    database_name: ProcessName | None = None
    try:
        standing = await _first_answer(reader)
        database_name = standing.database
        return await _say_hello(guard, spec)
    except BaseException:
        guard.kill()
        await asyncio.shield(guard.exited())
        reap(guard.name.pid)
        guard.close()
        if database_name is not None:
            await see_off(database_name)
        raise


async def attach(state_dir: Path) -> Guarded | None:
    """Take over the guard that an earlier agent left: its hello drops that agent.

    None: no guard lives; its page is closed and no process of its database is left.
    """
    spec = await asyncio.to_thread(_known_spec, state_dir)
    if spec is None:
        return None
    guard = _page_owner(spec.page_path)
    if guard is None:
        await _clear(spec)
        return None
    try:
        return await _say_hello(guard, spec)
    except (OutcomeUnknown, Unavailable):
        if not await _leaves(guard):
            guard.close()
            raise
        await _clear(spec)  # It was on its way out: its database had exited.
        guard.close()
        return None
    except BaseException:
        guard.close()
        raise


async def _leaves(guard: Watched) -> bool:
    """Whether the guard exits within the time that a guard without a database needs."""
    try:
        async with asyncio.timeout(GUARD_LEAVES_WITHIN_S):
            await guard.exited()
    except TimeoutError:
        return False
    return True


async def _say_hello(guard: Watched, spec: GuardSpec) -> Guarded:
    client = await Client.connect(spec.socket_path)
    try:
        standing = await obeyed(client.send("hello", {"pid": os.getpid()}))
        database = watch(standing.database.pid, started=standing.database.started)
        if database is None:
            raise Unavailable(
                "the database has exited, and its guard is about to",
                hint=f"Try again; its last words are in {spec.log_path}.",
            )
    except BaseException:
        client.close()
        raise
    return Guarded(guard=guard, database=database, client=client, page_path=spec.page_path)


async def see_off(leader: ProcessName) -> None:
    """Kill what is left of a database's family and wait for each by its own pidfd."""
    while names := await asyncio.to_thread(family, leader):
        for name in names:
            process = watch(name.pid, started=name.started)
            if process is None:
                continue
            try:
                process.kill()
                await process.exited()
            finally:
                process.close()


async def _first_answer(reader_fd: int) -> Standing:
    """The guard's one line on its standard output, or what its silence means."""
    try:
        async with asyncio.timeout(START_WITHIN_S):
            line = await _read_line(reader_fd)
    except TimeoutError as error:
        raise Unavailable("the guard did not start in time", hint="Look at guard.log.") from error
    finally:
        os.close(reader_fd)
    if not line.endswith(b"\n"):
        raise Unavailable("the guard died while it started", hint="Look at guard.log.")
    standing = msgspec.json.decode(line, type=Standing)
    if standing.ok:
        return standing
    error_type = {"rejected": Rejected, "conflict": Conflict}.get(standing.kind, Unavailable)
    raise error_type(f"the guard did not start: {standing.reason}", hint="Nothing runs.")


async def _read_line(fd: int) -> bytes:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    line = bytearray()

    def read() -> None:
        chunk = os.read(fd, ANSWER_BYTES_MAX)
        line.extend(chunk)
        if (not chunk or line.endswith(b"\n")) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, read)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    return bytes(line)


async def _spawned(spec_path: Path, log_path: Path, launcher: Path | None) -> tuple[Watched, int]:
    """Off the loop, since a launcher may be slow. Cancelled: whatever was started has ended."""
    spawning = asyncio.get_running_loop().run_in_executor(
        None, _spawn, spec_path, log_path, launcher
    )
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        guard, reader = await spawning  # Its own error instead: then nothing was started.
        os.close(reader)
        guard.kill()
        await guard.exited()
        reap(guard.name.pid)
        guard.close()
        raise


def _spawn(spec_path: Path, log_path: Path, launcher: Path | None) -> tuple[Watched, int]:
    """The guard in a session of its own, with none of this process's files but a pipe."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    root = str(Path(primacy.__file__).resolve().parent.parent)
    argv = [sys.executable, "-S", "-P", "-m", "primacy.engines.guard", str(spec_path)]
    what = Launch(argv=argv, environment={"PYTHONPATH": root}, stdout=writer, stderr=log)
    try:
        pid = launch(what, launcher=launcher)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        os.close(log)
    guard = watch(pid)
    if guard is None:
        os.close(reader)
        raise Unavailable("the guard exited at once", hint=f"Look at {log_path}.")
    return guard, reader


def _write_private(path: Path, content: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    opener: Callable[[str, int], int] = functools.partial(os.open, mode=0o600)
    with open(beside, "xb", opener=opener) as file:
        file.write(content)
    beside.replace(path)


def _known_spec(state_dir: Path) -> GuardSpec | None:
    path = state_dir / SPEC_NAME
    if not path.exists():
        return None
    try:
        return read_spec(path)
    except StartRefused as error:
        raise Rejected(str(error), hint="Stop the database by hand and remove the file.") from error


def _page_owner(page_path: Path) -> Watched | None:
    """The living guard that the page names; None: there is none in this boot."""
    if not page_path.exists():
        return None
    try:
        reader = PageReader(page_path)
    except Unavailable:
        return None  # Made, and never written: its guard died at once.
    try:
        page = reader.read()
    finally:
        reader.close()
    if page.boot != boot_id():
        return None
    guard = watch(page.guard.pid, started=page.guard.started)
    if guard is not None and guard.has_exited():
        guard.close()
        return None
    return guard


async def _clear(spec: GuardSpec) -> None:
    """After a guard's death: the page closed, then no process of its database left."""
    close_page(spec.page_path)
    try:
        status = msgspec.json.decode(
            await asyncio.to_thread(spec.status_path.read_bytes), type=_Status
        )
    except (FileNotFoundError, msgspec.DecodeError):
        return  # No guard came as far as to name a database; a forked one died with its guard.
    if status.boot == boot_id().hex():
        await see_off(status.database)
