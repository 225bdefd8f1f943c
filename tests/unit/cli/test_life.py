"""How an agent ends: what is slow goes first, while the lease is still renewed."""

import asyncio
from collections.abc import Awaitable, Callable

from primacy.cli.agent import Life


def told(story: Callable[[Life, list[str]], Awaitable[None]]) -> list[str]:
    happened: list[str] = []

    async def run() -> None:
        life = Life()
        life.ends_by(lambda: happened.append("the lease is let go"))
        async with asyncio.timeout(20):
            await story(life, happened)

    asyncio.run(run())
    return happened


def test_what_is_slow_ends_before_the_rest() -> None:
    async def story(life: Life, happened: list[str]) -> None:
        has_begun = asyncio.Event()

        async def api() -> None:
            has_begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                happened.append("the API has ended")

        slow = asyncio.get_running_loop().create_task(api())
        life.ends_first(slow)
        await has_begun.wait()
        life.end()
        assert happened == []
        await asyncio.wait([slow])
        await asyncio.sleep(0)

    assert told(story) == ["the API has ended", "the lease is let go"]


def test_without_an_api_or_after_its_end_nothing_is_waited_for() -> None:
    async def story(life: Life, happened: list[str]) -> None:
        life.end()
        assert happened == ["the lease is let go"]
        over = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        await over
        life.ends_first(over)
        life.end()

    assert told(story) == ["the lease is let go"] * 2


def test_to_begin_again_is_an_end_too() -> None:
    async def story(life: Life, happened: list[str]) -> None:
        assert not life.is_to_begin_again
        life.begin_again()
        assert life.is_to_begin_again

    assert told(story) == ["the lease is let go"]
    assert Life().name != Life().name
