"""Whoever acknowledged to the primary unrecorded is shut out of its replicas, too."""

from dataclasses import replace

from tests.unit.cluster.situations import POLICY, A, B, C, record, replica, status, store

from primacy.cluster import actions as do
from primacy.cluster.plan import plan
from primacy.cluster.view import PageView, StoreView, View
from primacy.cluster.viewing import Sight


def alarmed(*clients: str) -> StoreView:
    leading = status(A, unexpected_clients=clients)
    return store(primary=record(), nodes={A: leading, B: status(B), C: status(C)})


def at_rest(*clients: str, shut_out: tuple[str, ...] = ()) -> View:
    return replace(replica(store=alarmed(*clients)), shut_out=frozenset(shut_out))


def test_accounts_that_the_primary_names_are_shut_out_once() -> None:
    action = plan(at_rest("app", "root"), POLICY).action
    assert isinstance(action, do.CutStrangers)
    assert action.accounts == ("app", "root")
    assert plan(at_rest("app", "root", shut_out=("app", "root")), POLICY).action is None
    action = plan(at_rest("app", "root", shut_out=("app",)), POLICY).action
    assert isinstance(action, do.CutStrangers)
    assert action.accounts == ("root",)


def test_a_node_among_them_is_the_primarys_own_matter() -> None:
    assert plan(at_rest(C), POLICY).action is None


def test_once_the_alarm_is_over_it_is_forgotten_so_that_the_next_one_counts() -> None:
    sight = Sight(B, 0.0)
    sight.shut_out = {"app", "root"}

    def seen(*clients: str) -> frozenset[str]:
        view = sight.view(
            alarmed(*clients), 1.0, lease=None, page=PageView(), is_store_current=True, wall_s=0.0
        )
        return view.shut_out

    assert seen("app") == {"app"}
    assert seen() == frozenset()
