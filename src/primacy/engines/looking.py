"""One look at a server, whatever becomes of it meanwhile: always an observation, never an error."""

from collections.abc import Awaitable, Callable

from primacy.engines.api import Observation, ServerState
from primacy.engines.process import ServerProcess
from primacy.engines.watching import Watching
from primacy.errors import PrimacyError

Silent = Callable[[ServerState, str], Observation]


async def look(
    data: tuple[ServerState, str],
    process: ServerProcess,
    *,
    ask: Callable[[], Awaitable[Observation]],
    silent: Silent,
    watching: Watching,
    is_starting: Callable[[], bool],
) -> Observation:
    """`data`: what the data directory is, and why. `ask` has a deadline of its own; `silent` says
    what the files know of a server that does not answer."""
    state, why = data
    if state is not ServerState.STOPPED:
        return Observation(state=state, detail=why)
    if not process.is_alive():
        return silent(ServerState.STOPPED, "no server process")
    try:
        seen = await ask()
    except PrimacyError as error:
        if not process.is_alive():
            return silent(ServerState.STOPPED, "the server has just ended")
        if is_starting():
            return silent(ServerState.STOPPED, "the server is starting")
        watching.missed()
        return silent(ServerState.HUNG, error.what)
    watching.heard()
    return seen
