"""The copies of its database that a donor has made for others, and what they hold of its log.

    begin --> being made --> whole --> fetched --> its file goes, the log is held a while longer
                 |             |
                 +-------------+-- nobody asks for it any more --> all of it goes

A mark beside each copy, made before it, says that the log may be held for it: whatever crashes, the
next sweep that finds the server well releases it.
"""

import asyncio
import os
import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from primacy.clock import Clock
from primacy.engines.sqlite.clone_messages import DIGEST_BYTES
from primacy.engines.sqlite.control import Copied
from primacy.errors import Conflict, PrimacyError
from primacy.runtime.files import sync_directory
from primacy.telemetry import Event, Sink

KEEP_S = 120.0
"""A copy that nobody has asked for so long is given up."""

HOLD_S = 300.0
"""After it was fetched: until then its receiver should have attached, with a hold of its own."""

SWEEP_S = 5.0

MARK = ".held"


class Maker(Protocol):
    """The donor's server, as far as copies go."""

    async def snapshot(self, name: str, path: Path, bytes_per_s: int) -> Copied: ...

    async def release(self, name: str) -> None: ...


@dataclass(slots=True)
class Held:
    """One copy."""

    ticket: str
    receiver: str
    path: Path
    making: asyncio.Task[Copied]
    used_at_s: float
    is_fetched: bool = False
    hashed_bytes: int = 0
    hasher: blake2b = field(default_factory=lambda: blake2b(digest_size=DIGEST_BYTES))

    def piece(self, fd: int, offset: int, size_bytes: int) -> bytes:
        """Blocks. Pieces go out in order; after a cut some of them again."""
        data = os.pread(fd, size_bytes, offset)
        new = offset + len(data) - self.hashed_bytes
        if new > 0:
            self.hasher.update(data[-new:])
            self.hashed_bytes += new
        return data


class Copies:
    """Of one donor: one at a time, since it costs its disk much. Owned by the event loop."""

    def __init__(self, folder: Path, maker: Maker, *, clock: Clock, events: Sink) -> None:
        self._folder = folder
        self._maker = maker
        self._clock = clock
        self._events = events
        self._held: dict[str, Held] = {}

    def known(self, ticket: str, receiver: str) -> Held | None:
        """One that can be fetched, or fetched on."""
        held = self._held.get(ticket)
        if held is None or held.receiver != receiver or held.is_fetched:
            return None
        return held

    async def begin(self, receiver: str, *, bytes_per_s: int) -> Held:
        """One that is being made from now on. What this receiver has asked for before is given up;
        `Conflict` while another one is served."""
        while held := next((each for each in self._held.values() if not each.is_fetched), None):
            if held.receiver != receiver:
                raise Conflict(
                    f"another clone is under way, for {held.receiver}",
                    hint="Try again later, or ask another node.",
                )
            await self.give_up(held)
        ticket = f"clone-{receiver}-{secrets.token_hex(8)}"
        path = self._folder / ticket
        making = asyncio.get_running_loop().create_task(
            self._make(ticket, path, bytes_per_s), name="copy"
        )
        held = Held(ticket, receiver, path, making, self._clock.now_s())
        self._held[ticket] = held
        return held

    async def _make(self, ticket: str, path: Path, bytes_per_s: int) -> Copied:
        """Known before its mark stands: no sweep takes that for an earlier agent's."""
        await asyncio.to_thread(_mark, self._folder, ticket)
        return await self._maker.snapshot(ticket, path, bytes_per_s)

    def touch(self, held: Held) -> None:
        """It is still wanted."""
        held.used_at_s = self._clock.now_s()

    async def fetched(self, held: Held) -> None:
        """Its receiver has all of it."""
        held.is_fetched = True
        self.touch(held)
        await asyncio.to_thread(held.path.unlink, missing_ok=True)

    async def give_up(self, held: Held) -> None:
        """Nobody wants it."""
        self._held.pop(held.ticket, None)
        held.making.cancel()
        await asyncio.wait([held.making])
        if not held.making.cancelled():
            held.making.exception()  # Whoever waited for the copy has been told.
        await self._remove(held.ticket)

    async def keep_sweeping(self) -> None:
        """Until it is cancelled: then what is being made is left to the next agent's sweep."""
        try:
            while True:
                try:
                    await self.sweep()
                except OSError as error:  # A hold of the log must not outlive a disk's bad moment.
                    self._events(Event("clone-sweep-failed", {"why": str(error)}))
                await self._clock.sleep(SWEEP_S)
        finally:
            for held in self._held.values():
                held.making.cancel()

    async def sweep(self) -> None:
        """What is too old, and what an earlier agent has left."""
        now_s = self._clock.now_s()
        for held in list(self._held.values()):
            limit_s = HOLD_S if held.is_fetched else KEEP_S
            if now_s - held.used_at_s > limit_s:
                self._events(Event("clone-copy-dropped", {"receiver": held.receiver}))
                await self.give_up(held)
        for mark in await asyncio.to_thread(_marks, self._folder):
            if mark not in self._held:
                await self._remove(mark)

    async def _remove(self, ticket: str) -> None:
        """Its file, the hold, and then the mark."""
        await asyncio.to_thread((self._folder / ticket).unlink, missing_ok=True)
        try:
            await self._maker.release(ticket)
        except PrimacyError:
            return  # The mark stays: the next sweep tries again.
        await asyncio.to_thread((self._folder / f"{ticket}{MARK}").unlink, missing_ok=True)


def _mark(folder: Path, ticket: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / f"{ticket}{MARK}").touch(mode=0o600)
    sync_directory(folder)


def _marks(folder: Path) -> list[str]:
    return sorted(each.name.removesuffix(MARK) for each in folder.glob(f"*{MARK}"))
