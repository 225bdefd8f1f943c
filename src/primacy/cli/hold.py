"""`lock` and `elect`: a command that runs only while this host holds something in the store.

Promises  The command is stopped before anybody else can hold the name: SIGTERM when renewals have
          failed for so long that the lease might end, SIGKILL before it can. It dies with primacy,
          by the kernel's hand, if primacy is killed. Its exit code is ours.
Assumes   Clocks within 2.5 % of true, and a host that runs. A host that freezes thaws its command
          too: what it writes to must compare `PRIMACY_TOKEN`, which grows with each holder.
Does not  Stop what the command left behind in a session of its own.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Protocol

import typer

from primacy.cli.format import complain, complain_json
from primacy.cli.options import ConfigOption, JsonOption, loaded
from primacy.cli.session import store_of
from primacy.clock import Clock, SystemClock
from primacy.config import Config
from primacy.coordination.election import Election
from primacy.coordination.lock import Lock
from primacy.errors import LeaseLost, Rejected, Unavailable
from primacy.model import Revision

TERM_SHARE = 0.35
"""Of the ttl left: five renewals have failed, and there is still time to stop cleanly."""
KILL_SHARE = 0.05
"""Of the ttl left: time for the kernel to end what did not stop by itself."""

PR_SET_PDEATHSIG = 1
EXIT_TERMINATED = 128 + signal.SIGTERM
TOKEN_VARIABLE = "PRIMACY_TOKEN"

TtlOption = Annotated[float, typer.Option("--ttl", min=1.0, max=3600.0, help="Seconds of lease.")]
CommandArgument = Annotated[list[str], typer.Argument(help="After --, the command.")]


class Held(Protocol):
    """A lock that is held, or an election that is won."""

    @property
    def token(self) -> Revision: ...
    @property
    def deadline_boottime_s(self) -> float: ...
    def guarding(self) -> AbstractAsyncContextManager[None]: ...


def lock(
    *,
    name: Annotated[str, typer.Argument(help="The lock's name.")],
    command: CommandArgument,
    ttl_s: TtlOption = 5.0,
    within_s: Annotated[
        float, typer.Option("--within", min=0.0, help="Seconds to wait for the lock; 0: for ever.")
    ] = 0.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run COMMAND while holding the lock NAME; once, then give it up."""
    found = loaded(config)
    _check_program(command)
    work = _locked(found, name, command, ttl_s=ttl_s, within_s=within_s, is_json=as_json)
    raise typer.Exit(_run(work))


def elect(
    *,
    name: Annotated[str, typer.Argument(help="The election's name.")],
    command: CommandArgument,
    ttl_s: TtlOption = 5.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run COMMAND on one host at a time: where NAME is won. Lost, it is stopped, and stands again.

    Ends when the command ends by itself, with its exit code.
    """
    found = loaded(config)
    _check_program(command)
    raise typer.Exit(_run(_elected(found, name, command, ttl_s=ttl_s, is_json=as_json)))


def _check_program(command: list[str]) -> None:
    """Before anything is taken: a lock is not held for a command that cannot be run."""
    if shutil.which(command[0]) is None:
        raise Rejected(
            f"{command[0]} is no program that can be run", hint="Check its path and its mode."
        )


def _run(work: Coroutine[Any, Any, int]) -> int:  # Any: what asyncio says of a coroutine.
    try:
        return asyncio.run(work)
    except asyncio.CancelledError:
        return EXIT_TERMINATED


async def _locked(
    config: Config, name: str, command: list[str], *, ttl_s: float, within_s: float, is_json: bool
) -> int:
    _end_on_sigterm()
    clock = SystemClock()
    async with store_of(config) as store:
        lock = Lock(store, name, clock=clock, ttl_s=ttl_s)
        try:
            async with asyncio.timeout(within_s or None) as waiting, lock:
                waiting.reschedule(None)
                _tell(f"lock {name} is held", lock, is_json=is_json)
                code = await run_while_held(lock, command, ttl_s=ttl_s, clock=clock)
        except TimeoutError as error:
            raise Unavailable(
                f"the lock {name} was not free within {within_s:.1f} s", hint="Try again later."
            ) from error
    if code is None:
        raise LeaseLost(f"the lock {name} was lost and the command stopped", hint="Run it again.")
    return code


async def _elected(
    config: Config, name: str, command: list[str], *, ttl_s: float, is_json: bool
) -> int:
    _end_on_sigterm()
    clock = SystemClock()
    value = f"{socket.gethostname()}:{os.getpid()}".encode()
    async with store_of(config) as store:
        while True:  # Ends when the command does.
            election = Election(store, name, clock=clock, ttl_s=ttl_s)
            try:
                async with election.campaign(value) as office:
                    _tell(f"election {name} is won", office, is_json=is_json)
                    code = await run_while_held(office, command, ttl_s=ttl_s, clock=clock)
            except (LeaseLost, Unavailable) as error:
                complain(f"{error} Standing again.")
                await clock.sleep(ttl_s / 4)  # Not a tight loop while the store is away.
                continue
            if code is not None:
                return code
            complain(f"election {name} is lost and the command stopped. Standing again.")


async def run_while_held(
    held: Held, command: list[str], *, ttl_s: float, clock: Clock
) -> int | None:
    """The command's exit code, or None where it was stopped because the lease might end.

    Cancelled: the command is stopped first, then the cancellation goes on.
    """
    process = await _started(command, held.token)

    def left_s(share: float) -> float:
        return held.deadline_boottime_s - clock.boottime_s() - share * ttl_s

    try:
        async with held.guarding():
            while left_s(TERM_SHARE) > 0:
                try:
                    async with asyncio.timeout(left_s(TERM_SHARE)):
                        return _code(await process.wait())
                except TimeoutError:
                    continue  # The deadline has moved meanwhile, or it is time to stop.
    except LeaseLost:
        pass  # Stopped below: for a lease that has ended there is no time left.
    finally:
        await _stopped(process, within_s=max(0.0, left_s(KILL_SHARE)))
    return None


async def _started(command: list[str], token: Revision) -> asyncio.subprocess.Process:
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return await asyncio.create_subprocess_exec(
        "env",
        f"{TOKEN_VARIABLE}={token}",
        *command,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


async def _stopped(process: asyncio.subprocess.Process, *, within_s: float) -> None:
    """SIGTERM to the command and whatever it started, SIGKILL to what is left after `within_s`."""
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        pass  # It did not stop by itself.
    finally:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # All of them have ended, which is what was wanted.


def _end_on_sigterm() -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _code(returned: int) -> int:
    """As a shell says it: 128 and the signal's number for a command that was killed."""
    return returned if returned >= 0 else 128 - returned


def _tell(what: str, held: Held, *, is_json: bool) -> None:
    """To stderr: stdout belongs to the command."""
    if is_json:
        complain_json({"detail": what, "token": held.token})
    else:
        complain(f"{what}, token {held.token}")
