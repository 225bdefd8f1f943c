"""What the demo's clients were told, and what became of it. Pure, but for reading the ledger."""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path

import msgspec

from primacy.cli.demo_writers import RW_DOOR, LedgerLine


class Account(msgspec.Struct, frozen=True):
    """Of one fault: what the issue's table shows."""

    acknowledged: int
    lost: int
    late: int
    late_direct: int
    """Of the late ones, those that a client attached directly to the old primary was given."""
    outage_s: float
    outage_from_s: float
    """When it began, in wall seconds."""

    def against_promise(self, *, answers_by_page: bool) -> int:
        """How many of the late ones should not be. A client attached directly is promised nothing,
        unless its server looks at the deadline page before each answer."""
        return self.late if answers_by_page else self.late - self.late_direct


class Owner(msgspec.Struct, frozen=True):
    """A primary record: since when it stood, in wall seconds, and its node."""

    since_s: float
    node: str


class LedgerFile:
    """A ledger that grows: each line is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[LedgerLine] = []
        self._read_bytes = 0

    def lines(self) -> list[LedgerLine]:
        """All lines so far. The list is the same one each time, and longer."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
            self._lines += _parsed(whole)
        return self._lines


def read_ledger(path: Path) -> list[LedgerLine]:
    """Whole lines only: the last may be on its way."""
    return LedgerFile(path).lines()


def _parsed(text: bytes) -> list[LedgerLine]:
    decoder = msgspec.json.Decoder(LedgerLine)
    return [decoder.decode(line) for line in text.splitlines()]


def outage(lines: Iterable[LedgerLine], *, from_s: float, until_s: float) -> tuple[float, float]:
    """The longest time without an acknowledgement at the router's door, between the last one
    before `from_s` and the first one after `until_s`; and when it began."""
    acked = sorted(line.acked_s for line in lines if line.door == RW_DOOR)
    before = [at for at in acked if at <= from_s][-1:]
    after = [at for at in acked if at >= until_s][:1]
    inside = [at for at in acked if from_s < at < until_s]
    marks = [*(before or [from_s]), *inside, *after]
    gaps = [(later - earlier, earlier) for earlier, later in pairwise(marks)]
    return max(gaps, default=(until_s - from_s, from_s))


def settle(
    lines: Collection[LedgerLine],
    *,
    present: Collection[int],
    owners: Iterable[Owner],
    from_s: float,
    until_s: float,
) -> Account:
    """`present` are the rows on the new primary. A write is late where it was acknowledged by a
    node whose primary record was the newest at no moment between sending and acknowledgement."""
    held = set(present)
    since = sorted(owners, key=lambda each: each.since_s)
    moments = [each.since_s for each in since]

    def is_late(line: LedgerLine) -> bool:
        newest = bisect_left(moments, line.sent_s)
        if newest == 0 or line.acked_s < from_s:
            return False
        later = bisect_left(moments, line.acked_s)
        return line.node not in {each.node for each in since[newest - 1 : later]}

    late = [line for line in lines if is_late(line)]
    outage_s, outage_from_s = outage(lines, from_s=from_s, until_s=until_s)
    return Account(
        acknowledged=len(lines),
        lost=sum(1 for line in lines if line.row not in held),
        late=len(late),
        late_direct=sum(1 for line in late if line.door != RW_DOOR),
        outage_s=outage_s,
        outage_from_s=outage_from_s,
    )
