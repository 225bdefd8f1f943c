"""Which loop is taken."""

import asyncio
import sys

import pytest

from primacy.runtime.loops import new_event_loop, run


async def kind() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_uvloop_is_taken_where_it_is_installed() -> None:
    assert run(kind()) == "uvloop"


def test_asyncio_does_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    loop.close()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert run(kind()) == "asyncio"
