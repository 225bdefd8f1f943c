"""Who has a reader, and who gets the next one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from primacy.engines.sqlite.server.readers import Reader, Readers
from primacy.engines.sqlite.storage.connection import StorageSettings
from primacy.errors import Unavailable


class _Free(Reader):
    """One whose snapshot ends at once."""

    def __init__(self) -> None:
        pass

    def reset_then(self, done: Callable[[], None]) -> None:
        done()

    def close(self) -> None:
        pass


def test_a_reader_that_comes_in_the_moment_of_the_timeout_is_not_lost(tmp_path: Path) -> None:
    async def work() -> None:
        readers = Readers(tmp_path / "db.sqlite", StorageSettings(), count=1)
        try:
            await readers.lease(within_s=1)
            waiting = asyncio.create_task(readers.lease(within_s=0))
            await asyncio.sleep(0)  # It waits, and its timeout is the next thing that happens.
            readers.release(_Free())
            with pytest.raises(Unavailable, match="all 1 readers were busy"):
                await waiting
            assert isinstance(await readers.lease(within_s=1), _Free)
        finally:
            readers.close()

    asyncio.run(work())
