"""One primary at a time, and no acknowledged write lost."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Imported when asked for: the guard imports this package and nothing else.
    from primacy.driver import Connection
    from primacy.driver.aio import AsyncConnection


def connect(url: str, *, isolation_level: str | None = "", **options: str | float) -> "Connection":
    """A connection of the Python database API; see `primacy.driver.connect`."""
    from primacy.driver import connect as connect_

    return connect_(url, isolation_level=isolation_level, **options)


async def connect_async(
    url: str, *, isolation_level: str | None = "", **options: str | float
) -> "AsyncConnection":
    """The same for asyncio; see `primacy.driver.aio`."""
    from primacy.driver.aio import connect_async as connect_async_

    return await connect_async_(url, isolation_level=isolation_level, **options)
