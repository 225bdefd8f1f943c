"""The checker against a slower one that tries every order, and on histories that are right because
something really did happen in an order."""

import importlib.util
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primacy.coordination.api import Delete, Put, Range, RangeResult, Txn, TxnResult, absent
from primacy.errors import Rejected
from primacy.model import Revision
from primacy.sim.linearizability import Model, Operation, Search, check, components
from primacy.sim.models import (
    Acquire,
    Add,
    Cas,
    Counter,
    Dequeue,
    Enqueue,
    Lock,
    Queue,
    Read,
    Register,
    Release,
    Use,
    Write,
)
from primacy.sim.store_model import StoreModel, check_store

History = Sequence[Operation[Any, Any]]  # Any: requests and answers of whichever object it is.


def generators() -> ModuleType:
    """The benchmark's: histories of 16 clients that really happened."""
    path = Path(__file__).parents[3] / "benchmarks/linearizability.py"
    spec = importlib.util.spec_from_file_location("linearizability_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = generators()

# ---- every order, one after the other


def is_linearizable_by_force(history: History, model: Model[Any, Any, Any]) -> bool:
    answered = [each for each in history if not each.is_open]
    opens = [each for each in history if each.is_open]
    return any(
        explains(order, model)
        for chosen in subsets(opens)
        for order in permutations([*answered, *chosen])
        if keeps_time(order)
    )


def subsets(opens: History) -> Iterator[list[Operation[Any, Any]]]:
    for number in range(1 << len(opens)):
        yield [each for place, each in enumerate(opens) if number >> place & 1]


def keeps_time(order: History) -> bool:
    return not any(
        later.answered_s < sooner.called_s
        for place, sooner in enumerate(order)
        for later in order[place + 1 :]
    )


def explains(order: History, model: Model[Any, Any, Any]) -> bool:
    states = {model.initial}
    for each in order:
        states = {
            after
            for state in states
            for after in (
                model.after_open(state, each.request)
                if each.is_open
                else model.after(state, each.request, each.answer)
            )
        }
    return bool(states)


small = st.integers(0, 2)
TRIED: dict[str, tuple[Model[Any, Any, Any], st.SearchStrategy[tuple[Any, Any]]]] = {
    "register": (
        Register(),
        st.one_of(
            st.tuples(st.just(Read()), st.one_of(st.none(), small)),
            st.tuples(st.builds(Write, small), st.none()),
            st.tuples(st.builds(Cas, small, small), st.booleans()),
        ),
    ),
    "lock": (
        Lock(),
        st.one_of(
            st.tuples(st.just(Acquire()), st.integers(0, 3)),
            st.tuples(st.builds(Release, st.integers(1, 3)), st.integers(0, 1)),
            st.tuples(st.builds(Use, st.integers(1, 3)), st.integers(0, 1)),
        ),
    ),
    "queue": (
        Queue(),
        st.one_of(
            st.tuples(st.builds(Enqueue, small), st.none()),
            st.tuples(st.just(Dequeue()), st.one_of(st.none(), small)),
        ),
    ),
    "counter": (
        Counter(),
        st.one_of(
            st.tuples(st.just(Read()), st.integers(0, 4)),
            st.tuples(st.just(Add(1)), st.integers(1, 4)),
        ),
    ),
}


@st.composite
def histories(draw: st.DrawFn, asked: st.SearchStrategy[tuple[Any, Any]]) -> History:
    """A few operations at any times, with any answers: many are wrong, some are right."""
    history = []
    for place in range(draw(st.integers(1, 5))):
        request, answer = draw(asked)
        called = draw(st.integers(0, 8))
        answered = draw(st.one_of(st.just(inf), st.integers(called, called + 4)))
        history.append(Operation(f"c{place}", request, answer, float(called), float(answered)))
    return history


@pytest.mark.parametrize("kind", TRIED)
def test_it_says_what_trying_every_order_says(kind: str) -> None:
    model, asked = TRIED[kind]
    seen = {True: 0, False: 0}

    @settings(max_examples=200, deadline=None)
    @given(histories(asked))
    def agrees(history: History) -> None:
        expected = is_linearizable_by_force(history, model)
        assert check(history, model).is_linearizable == expected
        seen[expected] += 1

    agrees()
    assert min(seen.values()) > 10, seen


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 6), st.booleans())
def test_it_says_the_same_of_the_store(chance: random.Random, count: int, is_spoilt: bool) -> None:  # noqa: FBT001 - drawn
    history = made.stretched(chance, made.store(chance, count))
    for place, each in enumerate(history):
        if chance.random() < 0.2:
            history[place] = replace(each, answered_s=inf)
    place = chance.randrange(count)
    if is_spoilt and not history[place].is_open:
        history[place] = replace(history[place], answer=spoilt(chance, history[place].answer))
    model = StoreModel()
    assert check(history, model).is_linearizable == is_linearizable_by_force(history, model)


def spoilt(chance: random.Random, answer: RangeResult | TxnResult) -> RangeResult | TxnResult:
    revision = Revision(max(0, answer.revision + chance.choice([-2, -1, 1, 2])))
    if isinstance(answer, RangeResult):
        return RangeResult(answer.items if chance.random() < 0.5 else (), revision)
    return TxnResult(is_success=answer.is_success, revision=revision, results=answer.results)


# ---- what really happened


STORE: Model[Any, Any, Any] = StoreModel()
REGISTER: Model[Any, Any, Any] = Register()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 80), st.sampled_from([0.0, 0.05]))
def test_what_happened_in_an_order_is_accepted(seed: int, count: int, open_share: float) -> None:
    chance = random.Random(seed)
    cases = (
        (made.register(chance, count, values=3), REGISTER),
        (made.register(chance, count, values=10**6), REGISTER),
        (made.store(chance, count), STORE),
    )
    for told, model in cases:
        history = made.stretched(chance, told)
        lost = [
            replace(each, answered_s=inf, answer=None) if chance.random() < open_share else each
            for each in history
        ]
        assert check(lost, model).is_linearizable


@pytest.mark.parametrize(
    ("model", "values"), [(STORE, 0), (REGISTER, 9), (REGISTER, 10**9)], ids=["store", "9", "many"]
)
def test_two_thousand_operations_of_sixteen_clients(
    model: Model[Any, Any, Any], values: int
) -> None:
    chance = random.Random(3)
    told = made.register(chance, 2000, values=values) if values else made.store(chance, 2000)
    history = made.stretched(chance, told)
    assert len({each.client for each in history}) == 16
    finding = check(history, model)
    assert finding.is_linearizable
    answered = sum(1 for each in history if not each.is_open)
    assert len(finding.order) >= answered > 1900


@pytest.mark.parametrize(
    ("model", "values", "count"),
    [(STORE, 0, 2000), (REGISTER, 10**9, 400)],
    ids=["store", "register"],
)
def test_one_false_answer_of_many_is_found(
    model: Model[Any, Any, Any], values: int, count: int
) -> None:
    chance = random.Random(3)
    told = made.register(chance, count, values=values) if values else made.store(chance, count)
    history = made.spoilt(made.stretched(chance, told), made.old)
    assert not check(history, model).is_linearizable


# ---- the search


def op(request: Any, answer: Any, called: float, answered: float = inf) -> Operation[Any, Any]:
    return Operation("c", request, answer, called, answered)


def test_a_wrong_history_comes_with_the_longest_order_that_explains_its_beginning() -> None:
    history = [op(Write(1), None, 1, 2), op(Write(2), None, 3, 4), op(Read(), 1, 5, 6)]
    finding = check(history, Register())
    assert not finding.is_linearizable
    assert list(finding.order) == history[:2]


def test_past_its_steps_it_says_that_it_does_not_know() -> None:
    history = [op(Write(n), None, 1, 9) for n in range(12)] + [op(Read(), 99, 10, 11)]
    with pytest.raises(Rejected, match="undecided after 100 steps"):
        check(history, Register(), steps_max=100)


def test_a_window_goes_on_from_every_state_in_which_the_last_one_may_have_ended() -> None:
    opens = [op(Write(3), None, 1)]
    first = Search(Register(), [op(Write(1), None, 1, 4), op(Write(2), None, 1, 4)], opens)
    ends = first.ends([(None, 0)])
    assert ends == {(1, 0), (2, 0)}
    second = Search(Register(), [op(Read(), 3, 5, 6)], opens)
    assert second.ends(ends) == {(3, 1)}
    third = Search(Register(), [op(Read(), 2, 7, 8)], opens)
    assert third.ends(second.ends(ends)) == set()
    assert third.ends(ends) == {(2, 0)}


# ---- the parts of a keyspace


def test_keys_that_nothing_joins_are_judged_apart() -> None:
    history = [op(name, None, 1, 2) for name in ("a", "b", "c d", "d e", "f")]
    parts = components(history, str.split)
    assert sorted(sorted(each.request for each in part) for part in parts) == [
        ["a"],
        ["b"],
        ["c d", "d e"],
        ["f"],
    ]


def test_a_prefix_joins_the_keys_under_it_and_a_comparison_its_key() -> None:
    def put(key: str) -> Put:
        return Put(key, b"v")

    history = [
        op(Txn(then=(put("p/a"),)), None, 1),
        op(Txn(then=(put("p/b"),)), None, 1),
        op(Txn(then=(put("q"),)), None, 1),
        op(Txn((absent("r"),), (Delete("s"),)), None, 1),
        op(Range("p/", is_prefix=True), None, 1),
    ]
    assert len(check_store(history[:4])) == 4
    assert len(check_store(history)) == 3
