"""`python -m primacy.engines.sqlite.server SPEC.json`: one server, until a signal or a failure.

Exit codes: 0 asked to stop; 1 it cannot go on; 2 wrong input. The reason is the last line on
stderr.
"""

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

from primacy.clock import SystemClock
from primacy.engines.sqlite.server.process import SqliteServer
from primacy.engines.sqlite.server.spec import Spec, read_spec
from primacy.errors import PrimacyError, Rejected
from primacy.runtime import loops
from primacy.telemetry import Event

EXIT_FAILED = 1
EXIT_REJECTED = 2

SWITCH_INTERVAL_S = 0.0005
"""The event loop and the writer's thread take turns: a group is not made of what came late because
the other had the interpreter for Python's usual 5 ms."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        return _explained("one argument is needed: the server's JSON file", EXIT_REJECTED)
    try:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        why = loops.run(serve(read_spec(Path(arguments[0]))))
    except Rejected as error:
        return _explained(str(error), EXIT_REJECTED)
    except (PrimacyError, OSError) as error:
        return _explained(str(error), EXIT_FAILED)
    return _explained(why, EXIT_FAILED) if why else 0


async def serve(spec: Spec) -> str:
    """Until it is asked to stop (empty), or cannot go on: why."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with SqliteServer(spec, clock=SystemClock(), events=_to_stderr) as server:
        _to_stderr(Event("sql-serving", {"host": spec.host, "port": spec.port}))
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(stop.wait()), tasks.create_task(server.ended.wait())]
            _, running = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
    return server.why


def _to_stderr(event: Event) -> None:
    """Where that is a file of a full disk, the event is lost, and its cause is not worse for it."""
    with suppress(OSError):
        sys.stderr.write(f"{event}\n")
        sys.stderr.flush()


def _explained(text: str, code: int) -> int:
    with suppress(OSError):
        sys.stderr.write(f"primacy: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
