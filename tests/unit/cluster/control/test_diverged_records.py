"""Diverged: listed, found, dismissed; its file where it is, and elsewhere the node that has it."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.cluster.control.test_durability_policy import desk

from primacy.cluster.control.diverged import (
    LINES_SHOWN_MAX,
    READABLE_NAME,
    dismiss,
    diverged_answer,
    find_diverged,
    list_diverged,
    read_text,
)
from primacy.cluster.control.requests import Desk
from primacy.cluster.transactions import diverged_txn
from primacy.errors import Rejected, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.records import DivergedRecord

A = NodeId("a")


def record(ident: str, wall_s: float = 1.0, path: str = "/x/transactions.sql") -> DivergedRecord:
    return DivergedRecord(ident=ident, node=A, epoch=Epoch(2), count=3, path=path, wall_s=wall_s)


async def saved(*records: DivergedRecord) -> Desk:
    at = desk()
    for each in records:
        await at.store.txn(diverged_txn(each))
    return at


def test_all_are_listed_and_each_is_dismissed_once() -> None:
    async def story() -> None:
        at = await saved(record("a-3-9", 9.0), record("a-2-5", 5.0))
        assert [each.id for each in (await list_diverged(at.store)).diverged] == ["a-2-5", "a-3-9"]
        assert [each.id for each in (await dismiss(at, "a-2-5")).diverged] == ["a-2-5"]
        assert [each.id for each in (await dismiss(at, None)).diverged] == ["a-3-9"]
        assert (await dismiss(at, None)).diverged == []
        assert all(each.dismissed_at_s for each in (await list_diverged(at.store)).diverged), (
            "still listed"
        )

    asyncio.run(story())


def test_found_again_it_stays_dismissed() -> None:
    async def story() -> None:
        at = await saved(record("a-2-5"))
        await dismiss(at, None)
        await at.store.txn(diverged_txn(record("a-2-5", 77.0)))
        assert (await find_diverged(at.store, "a-2-5")).dismissed_at_s

    asyncio.run(story())


def test_an_unknown_id_is_refused_with_those_that_there_are() -> None:
    async def story() -> None:
        at = await saved(record("a-2-5"))
        with pytest.raises(Rejected, match="a-2-5"):
            await find_diverged(at.store, "nonsense")
        with pytest.raises(Rejected):
            await dismiss(at, "nonsense")

    asyncio.run(story())


def test_the_file_is_shown_where_it_is_and_its_node_is_named_elsewhere(tmp_path: Path) -> None:
    answer = diverged_answer(record("a-2-5", path=str(tmp_path / "transactions.sql")))
    with pytest.raises(Unavailable, match="Node a saved it"):
        read_text(answer)
    (tmp_path / READABLE_NAME).write_text("line\n" * (LINES_SHOWN_MAX + 3))
    shown = read_text(answer)
    assert (shown.text.count("line"), shown.more_lines) == (LINES_SHOWN_MAX, 3)
