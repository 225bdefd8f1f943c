"""The copies that a donor makes: one at a time, and none is forgotten."""

import asyncio
from pathlib import Path

import pytest

from primacy.clock import SystemClock
from primacy.engines.sqlite import copies as module
from primacy.engines.sqlite.control import Copied
from primacy.engines.sqlite.copies import MARK, Copies
from primacy.errors import Conflict
from primacy.telemetry import Event, ignore


class Maker:
    """Its copies are never ready."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.released: list[str] = []

    async def snapshot(self, name: str, path: Path, bytes_per_s: int) -> Copied:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError(name)

    async def release(self, name: str) -> None:
        self.released.append(name)


def test_of_two_that_ask_in_the_same_moment_one_is_told_to_wait(tmp_path: Path) -> None:
    async def work() -> None:
        copies = Copies(tmp_path, Maker(), clock=SystemClock(), events=ignore)
        said = await asyncio.gather(
            copies.begin("b", bytes_per_s=0),
            copies.begin("c", bytes_per_s=0),
            return_exceptions=True,
        )
        assert [type(each).__name__ for each in said] == ["Held", "Conflict"]
        held = await copies.begin("b", bytes_per_s=0)  # Its own earlier one is given up.
        with pytest.raises(Conflict, match="under way, for b"):
            await copies.begin("c", bytes_per_s=0)
        await copies.give_up(held)

    asyncio.run(work())


def test_a_sweep_leaves_what_has_just_begun_its_mark(tmp_path: Path) -> None:
    async def work() -> None:
        maker = Maker()
        copies = Copies(tmp_path, maker, clock=SystemClock(), events=ignore)
        beginning = asyncio.create_task(copies.begin("b", bytes_per_s=0))
        while not list(tmp_path.glob(f"*{MARK}")):
            await copies.sweep()
        await copies.sweep()
        held = await beginning
        assert (tmp_path / f"{held.ticket}{MARK}").exists()
        assert maker.released == []
        await copies.give_up(held)
        assert maker.released == [held.ticket]
        assert list(tmp_path.iterdir()) == []

    asyncio.run(work())


def test_a_disk_that_refuses_once_ends_no_sweeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        told: list[str] = []
        swept = asyncio.Event()

        def marks(_: Path) -> list[str]:
            if not told:
                raise OSError("refused")
            return ["clone-b-1"]

        class Watched(Maker):
            async def release(self, name: str) -> None:
                await super().release(name)
                swept.set()

        def hear(event: Event) -> None:
            told.append(event.name)

        maker = Watched()
        monkeypatch.setattr(module, "_marks", marks)
        monkeypatch.setattr(module, "SWEEP_S", 0.0)
        copies = Copies(tmp_path, maker, clock=SystemClock(), events=hear)
        sweeping = asyncio.create_task(copies.keep_sweeping())
        async with asyncio.timeout(10.0):
            await swept.wait()
        sweeping.cancel()
        await asyncio.wait([sweeping])
        assert told == ["clone-sweep-failed"]
        assert "clone-b-1" in maker.released

    asyncio.run(work())
