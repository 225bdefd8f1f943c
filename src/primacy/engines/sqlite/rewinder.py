"""Take back what an old primary alone has in its database, instead of copying all data again.

    rest -> may it be taken back? -> note "torn" -> inverse rows, and the log is cut there -> follow
    the primary to one place, without acknowledging -> the touched tables have the same checksums
    there and here -> note "torn" taken back

The database itself cannot be torn: the inverse rows and the position row are one commit. The note
says that nobody has compared it yet, and a node with the note is cloned.

Promises  When `compare` returns, the touched tables are the primary's, at the same place.
Does not  Look at tables that the taken-back transactions did not touch: nothing wrote to them.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from primacy.clock import Clock
from primacy.engines.api import Diverged
from primacy.engines.sqlite.control import Receiving, Shown, Sums
from primacy.engines.sqlite.directory import LOG_NAME
from primacy.engines.sqlite.fetching import ask_sums
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.tally import Tally
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId, Position
from primacy.replication.log.inspecting import opened
from primacy.replication.log.record import decode

COMPARE_S = 120.0
"""To follow to the place of the comparison."""

POLL_S = 0.05

READ_BYTES = 4 << 20

LOST = (Receiving.DIVERGED, Receiving.PURGED)


class Hands(Protocol):
    """The server of this node."""

    async def rest(self) -> int: ...

    async def rewind(self, to: int) -> None: ...

    async def follow(
        self, primary: NodeId, epoch: Epoch, *, acknowledge: bool = False, apply_until: int = 0
    ) -> None: ...

    async def shown(self) -> Shown: ...

    async def table_sums(self, tables: Sequence[str], at: int = 0) -> Sums: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """What is about to be taken back."""

    stands_at: Position
    """The last place of both histories."""
    tables: tuple[str, ...]
    """That the comparison reads."""


class Rewinder:
    """Of one node whose server runs, leads nothing, and has a tail that is saved."""

    def __init__(self, settings: SqliteSettings, hands: Hands, clock: Clock) -> None:
        self._settings = settings
        self._hands = hands
        self._clock = clock

    async def prepare(self, found: Diverged) -> Rewind:
        """Nothing is changed, but that nothing is received any more. `Conflict` where it must not
        be done, with the reason."""
        await self._hands.rest()
        rewind = await asyncio.to_thread(self._read, found)
        await self._hands.table_sums(rewind.tables)  # Too large to be compared: before it begins.
        return rewind

    async def reverse(self, rewind: Rewind) -> None:
        """In the database and in the log. `Conflict`, `Rejected` where a row is not as the log left
        it: nothing was changed then."""
        await self._hands.rewind(rewind.stands_at.sequence)

    async def compare(self, rewind: Rewind, primary: NodeId, epoch: Epoch) -> None:
        """Leaves the node following, without acknowledging. `Conflict` where anything differs."""
        if not rewind.tables:  # Only records of primacy's own were taken back.
            await self._hands.follow(primary, epoch)
            return
        theirs = await ask_sums(self._settings, primary, rewind.tables)
        at = theirs.point.index
        if at < rewind.stands_at.sequence:
            raise Conflict(
                f"{primary} has applied {theirs.point.position}, less than what both have",
                hint="Clone the node.",
            )
        await self._hands.follow(primary, epoch, apply_until=at)
        await self._reach(at)
        own = await self._hands.table_sums(rewind.tables, at)
        here = {each.table: each for each in own.sums}
        different = [each.table for each in theirs.sums if here.get(each.table) != each]
        if own.point != theirs.point or different:
            raise Conflict(
                f"after the rewind {', '.join(different) or 'the history'} differ(s) from {primary}"
                f" at {theirs.point.position}",
                hint="Clone the node.",
            )
        await self._hands.follow(primary, epoch)

    async def _reach(self, at: int) -> None:
        deadline_s = self._clock.now_s() + COMPARE_S
        while True:
            shown = await self._hands.shown()
            upstream = shown.upstream
            if shown.applied.index >= at:
                return
            if upstream is not None and upstream.state in LOST:
                raise Conflict(
                    f"after the rewind: {upstream.state.value}: {upstream.reason}",
                    hint="Clone the node.",
                )
            if shown.trouble:
                raise Conflict(f"after the rewind: {shown.trouble}", hint="Clone the node.")
            if self._clock.now_s() >= deadline_s:
                raise Unavailable(
                    f"record {at} was not reached in {COMPARE_S:.0f} s: {shown.applied.position}",
                    hint="Clone the node.",
                )
            await self._clock.sleep(POLL_S)

    def _read(self, found: Diverged) -> Rewind:
        """The server rests: nobody writes to its log."""
        log = opened(self._settings.layout.data / LOG_NAME)
        after = found.parts_at - 1
        point = log.point(after)
        if point is None or log.end.index <= after:
            raise Conflict(
                f"the log does not have both sides of record {found.parts_at}: it goes from "
                f"{log.first.position} to {log.end.position}",
                hint="Clone the node.",
            )
        tally = Tally()
        while after < log.end.index:
            for header, payload in decode(log.read(after, bytes_max=READ_BYTES)):
                tally.add(header, payload)
                after = header.index
        if tally.obstacle:
            raise Conflict(
                f"these transactions cannot be taken back: {tally.obstacle}",
                hint="Clone the node.",
            )
        return Rewind(stands_at=point.position, tables=tuple(sorted(tally.touched)))
