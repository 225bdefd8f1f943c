"""What the demo's clients were told, and what became of it. Pure, but for reading the ledger."""

from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path

import msgspec

from primacy.cli.demo_writers import LedgerLine
from primacy.engines.mariadb.settings import SERVER_IDS_PER_NODE

RW_DOOR = "rw"


class Account(msgspec.Struct, frozen=True):
    """Of one fault: what the issue's table shows."""

    acknowledged: int
    lost: int
    late: int
    late_direct: int
    """Of the late ones, those that a client attached directly to the old primary was given."""
    outage_s: float


def read_ledger(path: Path, *, skip_bytes: int = 0) -> list[LedgerLine]:
    """Whole lines only: the last may be on its way."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(skip_bytes)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    decoder = msgspec.json.Decoder(LedgerLine)
    return [decoder.decode(line) for line in whole.splitlines()]


def outage_s(lines: Iterable[LedgerLine], *, from_s: float, until_s: float) -> float:
    """The longest time without an acknowledgement at the router's door, between the last one
    before `from_s` and the first one after `until_s`."""
    acked = sorted(line.acked_s for line in lines if line.door == RW_DOOR)
    before = [at for at in acked if at <= from_s][-1:]
    after = [at for at in acked if at >= until_s][:1]
    inside = [at for at in acked if from_s < at < until_s]
    marks = [*(before or [from_s]), *inside, *after]
    gaps = [later - earlier for earlier, later in pairwise(marks)]
    return max(gaps, default=until_s - from_s)


def settle(
    lines: Collection[LedgerLine],
    *,
    present: Collection[int],
    old_server: int,
    replaced_at_s: float,
    from_s: float,
    until_s: float,
) -> Account:
    """`present` are the rows on the new primary; `replaced_at_s` is when its record was created;
    `old_server` is the number of the old primary's node, as in every server id of its starts."""
    held = set(present)
    late = [
        line
        for line in lines
        if line.server_id // SERVER_IDS_PER_NODE == old_server and line.sent_s > replaced_at_s
    ]
    return Account(
        acknowledged=len(lines),
        lost=sum(1 for line in lines if line.row not in held),
        late=len(late),
        late_direct=sum(1 for line in late if line.door != RW_DOOR),
        outage_s=outage_s(lines, from_s=from_s, until_s=until_s),
    )
