"""A thread's work ends before its caller's cancellation goes on."""

import asyncio
import threading

import pytest

from primacy.runtime.threads import to_its_end


def test_what_the_work_returns_or_raises_is_its_callers() -> None:
    assert asyncio.run(to_its_end(pow, 2, 5)) == 32
    with pytest.raises(ZeroDivisionError):
        asyncio.run(to_its_end(divmod, 1, 0))


def test_a_cancelled_caller_hears_so_when_the_work_has_ended_however_often_it_is_told() -> None:
    has_begun, may_end, done = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        has_begun.set()
        may_end.wait()
        done.append("work")
        raise OSError("nobody hears this")

    async def story() -> None:
        task = asyncio.ensure_future(to_its_end(work))
        while not has_begun.is_set():
            await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.append("caller")

    asyncio.run(story())
    assert done == ["work", "caller"]
