"""Work of a thread that a cancelled caller does not leave behind."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, for what changes files. A thread cannot be cancelled: the caller that
    is hears so once it has ended. Else whoever calls next would find it at the same files."""
    task = asyncio.get_running_loop().create_task(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue  # Told again: it is no sooner.
        if not task.cancelled():
            task.exception()  # Nobody is there to hear of it.
        raise
