"""Transactions that lost their place in the history: listed, shown, and dismissed by a person.

The record is in the store; the files are on the host of the node that saved them, and stay there
when the record is dismissed.
"""

import itertools
from pathlib import Path

import msgspec

from primacy.cluster.control.answers import (
    DivergedAnswer,
    DivergedListAnswer,
    DivergedTextAnswer,
)
from primacy.cluster.control.requests import Desk
from primacy.coordination.api import KeyValue, Put, Store, Txn, unchanged
from primacy.errors import Conflict, NotFound, Rejected, Unavailable
from primacy.replication.records import DIVERGED_PREFIX, DivergedRecord, decoded, encoded

READABLE_NAME = "readable.sql"
"""Beside the SQL that replays them."""
LINES_SHOWN_MAX = 500
"""Of the file: a person reads the rest with a pager."""


async def list_diverged(store: Store) -> DivergedListAnswer:
    """Oldest first; dismissed ones too."""
    records = [decoded(DivergedRecord, item.value) for item in await _items(store)]
    records.sort(key=lambda each: (each.wall_s, each.ident))
    return DivergedListAnswer(diverged=[diverged_answer(each) for each in records])


async def find_diverged(store: Store, ident: str) -> DivergedAnswer:
    """`NotFound` for an id that is none."""
    known = [decoded(DivergedRecord, item.value) for item in await _items(store)]
    for record in known:
        if record.ident == ident:
            return diverged_answer(record)
    names = ", ".join(each.ident for each in known) or "none"
    raise NotFound(f"nothing diverged is known as {ident!r}", hint=f"There are: {names}.")


async def dismiss(desk: Desk, ident: str | None) -> DivergedListAnswer:
    """Somebody has seen to it (None: to all of them): `status` is silent about it from now on."""
    if ident is not None:
        await find_diverged(desk.store, ident)
    dismissed: list[DivergedAnswer] = []
    for item in await _items(desk.store):
        record = decoded(DivergedRecord, item.value)
        if record.dismissed_wall_s or (ident is not None and record.ident != ident):
            continue
        seen = msgspec.structs.replace(record, dismissed_wall_s=desk.clock.wall_s())
        written = await desk.store.txn(
            Txn(compares=(unchanged(item.key, item.mod),), then=(Put(item.key, encoded(seen)),))
        )
        if not written.is_success:
            raise Conflict(
                f"{record.ident} has changed meanwhile: its node is still at it",
                hint="Look at it again, then dismiss it.",
            )
        dismissed.append(diverged_answer(seen))
    return DivergedListAnswer(diverged=dismissed)


def read_text(answer: DivergedAnswer) -> DivergedTextAnswer:
    """With the readable file's first lines. Blocks. `Unavailable` where this is not the host that
    has it."""
    path = Path(answer.path).parent / READABLE_NAME
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = "".join(itertools.islice(file, LINES_SHOWN_MAX))
            return DivergedTextAnswer(facts=answer, text=text, more_lines=sum(1 for _ in file))
    except FileNotFoundError:
        raise Unavailable(
            f"{path} is not on this host",
            hint=f"Node {answer.node} saved it: run this on that node's host, or ask its agent.",
        ) from None
    except PermissionError as error:
        raise Rejected(
            f"{path} cannot be read: {error.strerror}", hint="Run this as the agent's user."
        ) from error


def diverged_answer(record: DivergedRecord) -> DivergedAnswer:
    return DivergedAnswer(
        id=record.ident,
        node=record.node,
        epoch=record.epoch,
        count=record.count,
        own_count=record.own_count,
        first=record.first,
        last=record.last,
        tables=list(record.tables),
        path=record.path,
        is_certain=record.is_certain,
        ended=record.ended,
        obstacle=record.obstacle,
        is_errant=record.is_errant,
        saved_at_s=record.wall_s,
        dismissed_at_s=record.dismissed_wall_s or None,
    )


def diverged_line(answer: DivergedAnswer) -> str:
    """What an operator should know of it."""
    least = "" if answer.is_certain else "at least "
    how = ", written on it while it was a replica," if answer.is_errant else ""
    return (
        f"{answer.node}: {least}{answer.count} diverged transaction(s){how} saved in {answer.path}."
        f" `primacy diverged show {answer.id}`, then `dismiss`"
    )


async def _items(store: Store) -> tuple[KeyValue, ...]:
    return tuple((await store.range(DIVERGED_PREFIX, is_prefix=True)).items)
