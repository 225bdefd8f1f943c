"""Who pulls from whom: tables, and what holds for every policy."""

from hypothesis import given
from hypothesis import strategies as st

from primacy.model import NodeId
from primacy.replication.topology import (
    Replica,
    Shape,
    TopologyPolicy,
    is_cycle,
    plan,
    way_up,
)

P, B, C, D, E = (NodeId(each) for each in "pbcde")
NAMES = [NodeId(f"n{number}") for number in range(8)]


def cascade(*, children_max: int = 8, **preferred: str) -> TopologyPolicy:
    return TopologyPolicy(
        shape=Shape.CASCADE,
        preferred={NodeId(node): NodeId(up) for node, up in preferred.items()},
        children_max=children_max,
    )


def upstreams(*replicas: Replica, policy: TopologyPolicy) -> dict[str, str]:
    return {node: each.upstream for node, each in plan(P, replicas, policy).items()}


def test_in_a_star_everybody_pulls_from_the_primary() -> None:
    policy = TopologyPolicy(preferred={C: B})
    assert upstreams(Replica(node=B), Replica(node=C), policy=policy) == {"b": "p", "c": "p"}


def test_a_preferred_upstream_is_taken_and_members_stay_direct() -> None:
    replicas = [Replica(node=B), Replica(node=C), Replica(node=D, is_member=True)]
    assert upstreams(*replicas, policy=cascade(c="b", d="b")) == {"b": "p", "c": "b", "d": "p"}


def test_children_of_a_dead_upstream_go_to_their_grandparent_and_return() -> None:
    policy = cascade(c="b", d="c", e="d")
    chain = [Replica(node=B), Replica(node=C), Replica(node=D), Replica(node=E)]
    assert upstreams(*chain, policy=policy) == {"b": "p", "c": "b", "d": "c", "e": "d"}
    dead = [Replica(node=each.node, serves=each.node != C) for each in chain]
    assert upstreams(*dead, policy=policy) == {"b": "p", "c": "b", "d": "b", "e": "d"}
    decision = plan(P, dead, policy)[D]
    assert decision.reason == "c does not serve"
    both_dead = [Replica(node=each.node, serves=each.node not in (B, C)) for each in chain]
    assert upstreams(*both_dead, policy=policy)["d"] == "p"


def test_preferences_in_a_circle_end_at_the_primary() -> None:
    chosen = upstreams(
        Replica(node=B), Replica(node=C), Replica(node=D), policy=cascade(b="c", c="b", d="b")
    )
    assert chosen == {"b": "p", "c": "b", "d": "b"}


def test_a_preference_for_an_unknown_node_or_oneself_is_passed_over() -> None:
    chosen = plan(P, [Replica(node=B), Replica(node=C)], cascade(b="x", c="c"))
    assert {node: each.upstream for node, each in chosen.items()} == {B: P, C: P}
    assert chosen[B].reason == "x is no replica of this cluster"


def test_a_full_upstream_sends_the_next_one_up() -> None:
    chosen = plan(
        P,
        [Replica(node=each) for each in (B, C, D, E)],
        cascade(children_max=2, c="b", d="b", e="b"),
    )
    assert [chosen[each].upstream for each in (C, D, E)] == [B, B, P]
    assert chosen[E].reason == "b serves 2 already"


replica_sets = st.lists(
    st.builds(Replica, node=st.sampled_from(NAMES), serves=st.booleans(), is_member=st.booleans()),
    unique_by=lambda each: each.node,
    max_size=8,
)
policies = st.builds(
    TopologyPolicy,
    shape=st.sampled_from(Shape),
    preferred=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*NAMES, P])),
    children_max=st.integers(min_value=1, max_value=3),
)


@given(replica_sets, policies)
def test_every_way_up_ends_at_the_primary(replicas: list[Replica], policy: TopologyPolicy) -> None:
    chosen = plan(P, replicas, policy)
    up = {node: each.upstream for node, each in chosen.items()}
    known = {each.node: each for each in replicas}
    assert set(chosen) == set(known)
    for node, upstream in up.items():
        assert way_up(node, up)[-1] == P
        assert upstream == P or known[upstream].serves
        assert not known[node].is_member or upstream == P
    for upstream in set(up.values()) - {P}:
        assert list(up.values()).count(upstream) <= policy.children_max
    assert plan(P, list(reversed(replicas)), policy) == chosen


@given(replica_sets, policies, policies, st.randoms(use_true_random=False))
def test_no_order_of_moves_between_two_plans_closes_a_circle_and_all_of_them_end(
    replicas: list[Replica], before: TopologyPolicy, after: TopologyPolicy, chance: object
) -> None:
    """Each node moves by itself, when it pleases; a path that leads through it refuses it."""
    up = {node: each.upstream for node, each in plan(P, replicas, before).items()}
    goal = {node: each.upstream for node, each in plan(P, replicas, after).items()}
    order = sorted(goal)
    chance.shuffle(order)  # type: ignore[attr-defined]  # Hypothesis hands in a random.Random.
    for _ in range(len(order) + 1):
        for node in order:
            path = [goal[node], *way_up(goal[node], up)]
            if not is_cycle(node, path):
                up[node] = goal[node]
            assert all(way_up(each, up)[-1] == P for each in up)
    assert up == goal
