"""The API for what an operator does beyond a failover: policies, diverged transactions, copies,
restarts. Over HTTP and by the store it is the same."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.integration.web.conftest import TOKEN, Served, serving
from tests.integration.web.obeying import Asked, cluster_that_obeys
from tests.integration.web.test_remote import by_http, by_store, ticking

from primacy.cli.ways import RestartWish, Way
from primacy.cluster.control.diverged import READABLE_NAME
from primacy.cluster.control.durability import Wish
from primacy.cluster.control.requests import tell_nobody
from primacy.cluster.control.rolling import Progress
from primacy.cluster.transactions import diverged_txn
from primacy.errors import NotFound, OutcomeUnknown, Rejected, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.records import DivergedRecord, NodeTask

R = TypeVar("R")

WITHIN_S = 20.0


def told(work: Coroutine[Any, Any, R]) -> R:  # Any: of a coroutine.
    async def story() -> R:
        async with ticking():
            return await work

    return asyncio.run(story())


def saved(served: Served, folder: Path, ident: str = "a-2-5") -> None:
    """As node a would: a record, and the file beside the one that it names."""
    (folder / READABLE_NAME).write_text("INSERT INTO shop.orders ...\n")
    record = DivergedRecord(
        ident=ident,
        node=NodeId("a"),
        epoch=Epoch(2),
        count=1,
        path=str(folder / "transactions.sql"),
        wall_s=5.0,
    )
    asyncio.run(served.store.txn(diverged_txn(record)))


@contextmanager
def both(served: Served) -> Iterator[tuple[tuple[Way, Way], list[Asked]]]:
    """A cluster that obeys, and the two ways to it."""
    with cluster_that_obeys(served.store) as taken:
        yield (by_http(served), by_store(served)), taken


def test_a_policy_is_set_shown_and_reset_by_either_way(served: Served) -> None:
    with both(served) as (ways, _):
        for way in ways:
            assert told(way.policy()).source == "configuration"
            done = told(
                way.set_policy(
                    Wish(on_timeout="degrade", timeout_s=2.5), within_s=WITHIN_S, tell=tell_nobody
                )
            )
            assert (done.on_timeout, done.timeout_s, done.is_in_force) == ("degrade", 2.5, True)
            shown = [told(each.policy()) for each in ways]
            assert shown[0] == shown[1] == done
            reset = told(way.reset_policy(within_s=WITHIN_S, tell=tell_nobody))
            assert (reset.source, reset.is_in_force) == ("configuration", True)


def test_a_policy_that_is_not_in_force_in_time_stays_recorded(served: Served) -> None:
    """Nobody is primary here."""
    for way in (by_http(served), by_store(served)):
        with pytest.raises(OutcomeUnknown, match="recorded, and not in force within 1 s"):
            told(way.set_policy(Wish(acks=0), within_s=1.0, tell=tell_nobody))
        assert told(way.policy()).acks == 0


def test_what_diverged_is_listed_shown_and_dismissed_by_either_way(
    served: Served, tmp_path: Path
) -> None:
    ways = (by_http(served), by_store(served))
    for way, ident in zip(ways, ("a-2-5", "a-3-7"), strict=True):
        saved(served, tmp_path, ident)
        assert ident in [each.id for each in told(way.diverged()).diverged]
        shown = told(way.diverged_text(ident))
        assert (shown.facts.id, shown.text) == (ident, "INSERT INTO shop.orders ...\n")
        with pytest.raises(Rejected, match="nothing diverged is known as 'x'"):
            told(way.dismiss("x"))
        assert [each.id for each in told(way.dismiss(ident)).diverged] == [ident]
        assert told(way.dismiss(None)).diverged == []


def test_the_rows_of_clients_are_shown_to_nobody_without_the_token(tmp_path: Path) -> None:
    with serving(tmp_path, token=TOKEN) as served:
        saved(served, tmp_path)
        assert served.ask("/diverged").status == 200
        assert served.ask("/diverged/show?id=a-2-5").status == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert served.ask("/diverged/show?id=a-2-5", headers=bearer).status == 200
        assert served.ask("/diverged/show?id=z", headers=bearer).status == 404
        assert served.ask("/diverged/show", headers=bearer).status == 400
        (tmp_path / READABLE_NAME).unlink()  # As on every host but one.
        said = served.ask("/diverged/show?id=a-2-5", headers=bearer)
        assert said.status == 503
        assert "Node a saved it" in said.json()["hint"]


def test_a_copy_is_made_where_it_is_wanted_by_either_way(served: Served) -> None:
    with both(served) as (ways, taken):
        for way in ways:
            with pytest.raises(Rejected, match="the data of b would be replaced"):
                told(way.reinit("b", is_data_given_up=False, timeout_s=WITHIN_S, tell=tell_nobody))
            done = told(
                way.reinit("b", is_data_given_up=True, timeout_s=WITHIN_S, tell=tell_nobody)
            )
            assert done.is_done
            with pytest.raises(Rejected, match="a is the primary"):
                told(way.reinit("a", is_data_given_up=True, timeout_s=WITHIN_S, tell=tell_nobody))
    assert [(each.node, each.kind) for each in tasks_of(taken)] == [("b", "reinit")] * 2


def tasks_of(taken: list[Asked]) -> list[NodeTask]:
    return [each for each in taken if isinstance(each, NodeTask)]


@pytest.mark.parametrize("is_http", [True, False], ids=["over HTTP", "by the store"])
def test_a_rolling_restart_says_what_it_did(served: Served, *, is_http: bool) -> None:
    with both(served) as (ways, taken):
        way = ways[0] if is_http else ways[1]
        wish = RestartWish(node=None, databases=True, agents=False, timeout_s=WITHIN_S)
        done = told(way.restart(wish, Progress(), tell_nobody))
    assert [(each.node, each.parts) for each in done.restarted] == [
        ("b", ["restart-database"]),
        ("a", ["restart-database"]),
    ]
    assert (done.switched_to, done.is_done) == ("b", True)
    assert [type(each).__name__ for each in taken] == ["NodeTask", "SwitchoverRequest", "NodeTask"]


def test_an_agent_does_not_restart_itself_on_the_way(served: Served) -> None:
    """It could not tell how it ended. Another node's it can, and the witness's."""
    with both(served) as (ways, taken):
        for node in (None, "a"):
            wish = RestartWish(node=node, databases=False, agents=True, timeout_s=WITHIN_S)
            with pytest.raises(Rejected, match="the agent of a, which is asked"):
                told(ways[0].restart(wish, Progress(), tell_nobody))
        for node in ("b", "w"):
            wish = RestartWish(node=node, databases=False, agents=True, timeout_s=WITHIN_S)
            assert told(ways[0].restart(wish, Progress(), tell_nobody)).is_done
    assert [(each.node, each.kind) for each in tasks_of(taken)] == [
        ("b", "restart-agent"),
        ("w", "restart-agent"),
    ]


def test_a_cluster_that_nobody_has_heard_of_is_left_alone(served: Served) -> None:
    """Nodes that nobody has heard of are not well: nothing is begun."""
    said = served.post("/restart", {"databases": True, "timeout_s": 1})
    assert said.status == 409
    assert said.json()["error"] == "not begun: there is no primary with open doors"
    wish = RestartWish(node="z", databases=True, agents=False, timeout_s=1.0)
    with pytest.raises(NotFound):
        told(by_store(served).restart(wish, Progress(), tell_nobody))
    with pytest.raises(Unavailable, match="b has not reported yet"):
        told(by_http(served).reinit("b", is_data_given_up=True, timeout_s=1.0, tell=tell_nobody))
