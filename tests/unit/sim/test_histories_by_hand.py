"""Histories written by hand, in `testdata/histories`: wrong ones, each with what is wrong about it,
and right ones that only look wrong.

One operation is `client called-answered words`; an answer at `?` never came.

    register  w V   r V   cas EXPECTED V ok|no        lock     acq TOKEN|no  rel TOKEN ok|no
    queue     enq V   deq V   peek V                           use TOKEN ok|no  expire
    counter   add N =V   get =V
    store     put K V @REVISION   del K COUNT @R   get K V CREATE/MOD/VERSION @R   get K - @R
              cas K mod=N|ver=N|val=V V ok|no @R   new K V ok|no @R   both K=V K=V @R
              list PREFIX K=V:CREATE/MOD/VERSION,... @R
"""

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from primacy.coordination import api
from primacy.coordination.api import (
    Compare,
    Delete,
    Done,
    Field,
    KeyValue,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    absent,
)
from primacy.model import Revision
from primacy.sim.linearizability import Model, Operation, check
from primacy.sim.models import (
    Acquire,
    Add,
    Cas,
    Counter,
    Dequeue,
    Enqueue,
    Expire,
    Lock,
    Queue,
    Read,
    Register,
    Release,
    Use,
    Write,
)
from primacy.sim.store_model import StoreModel, check_store

Asked = tuple[Any, Any]  # Any: a request and an answer of whichever object it is.


def number(word: str) -> int | None:
    return None if word == "-" else int(word)


def of_register(words: list[str]) -> Asked:
    match words:
        case ["w", value]:
            return Write(number(value)), None
        case ["r", *value]:
            return Read(), number(value[0]) if value else None
        case ["cas", expected, value, *told]:
            return Cas(number(expected), number(value)), told == ["ok"]
        case _:
            raise ValueError(words)


def of_lock(words: list[str]) -> Asked:
    match words:
        case ["acq", *told]:
            return Acquire(), int(told[0]) if told and told != ["no"] else 0
        case ["rel", token, *told]:
            return Release(int(token)), int(told == ["ok"])
        case ["use", token, *told]:
            return Use(int(token)), int(told == ["ok"])
        case ["expire"]:
            return Expire(), 0
        case _:
            raise ValueError(words)


def of_queue(words: list[str]) -> Asked:
    match words:
        case ["enq", value]:
            return Enqueue(number(value)), None
        case ["deq", *value]:
            return Dequeue(), number(value[0]) if value else None
        case ["peek", value]:
            return Read(), number(value)
        case _:
            raise ValueError(words)


def of_counter(words: list[str]) -> Asked:
    match words:
        case ["add", amount, *told]:
            return Add(int(amount)), int(told[0][1:]) if told else 0
        case ["get", value]:
            return Read(), int(value[1:])
        case _:
            raise ValueError(words)


FIELDS = {"mod": Field.MOD, "ver": Field.VERSION, "val": Field.VALUE}


def of_store(words: list[str]) -> Asked:
    at = Revision(int(words.pop()[1:])) if words[-1].startswith("@") else Revision(0)
    match words:
        case ["put", key, value]:
            return Txn(then=(put(key, value),)), TxnResult(
                is_success=True, revision=at, results=(Done(1),)
            )
        case ["del", key, *count]:
            done = Done(int(count[0]) if count else 0)
            return Txn(then=(Delete(key),)), TxnResult(
                is_success=True, revision=at, results=(done,)
            )
        case ["get", key, *shown]:
            return Range(key), RangeResult(items(key, shown), at)
        case ["cas", key, wish, value, *told]:
            field, operand = wish.split("=")
            compare = Compare(
                key,
                FIELDS[field],
                api.Test.EQUAL,
                operand.encode() if field == "val" else int(operand),
            )
            return conditional(compare, put(key, value), at, told)
        case ["new", key, value, *told]:
            return conditional(absent(key), put(key, value), at, told)
        case ["both", one, other]:
            puts = tuple(put(*each.split("=")) for each in (one, other))
            return Txn(then=puts), TxnResult(
                is_success=True, revision=at, results=(Done(1), Done(1))
            )
        case ["list", prefix, *shown]:
            found = [each.split("=") for each in (shown[0].split(",") if shown else [])]
            listed = tuple(item(key, *rest.split(":")) for key, rest in found)
            return Range(prefix, is_prefix=True), RangeResult(listed, at)
        case _:
            raise ValueError(words)


def put(key: str, value: str) -> Put:
    return Put(key, value.encode())


def conditional(compare: Compare, then: Put, at: Revision, told: list[str]) -> Asked:
    is_success = told == ["ok"]
    return Txn((compare,), (then,)), TxnResult(is_success, at, (Done(1),) if is_success else ())


def items(key: str, shown: list[str]) -> tuple[KeyValue, ...]:
    return (item(key, *shown),) if len(shown) == 2 else ()


def item(key: str, value: str, revisions: str) -> KeyValue:
    create, mod, version = map(int, revisions.split("/"))
    return KeyValue(key, value.encode(), Revision(create), Revision(mod), version)


OBJECTS: dict[str, tuple[Callable[[list[str]], Asked], Model[Any, Any, Any]]] = {
    "register": (of_register, Register()),
    "lock": (of_lock, Lock()),
    "queue": (of_queue, Queue()),
    "counter": (of_counter, Counter()),
    "store": (of_store, StoreModel()),
}


def read(kind: str, text: str) -> list[Operation[Any, Any]]:
    history = []
    for line in text.split(";"):
        client, times, *words = line.split()
        called, answered = times.split("-")
        request, answer = OBJECTS[kind][0](words)
        answered_s = inf if answered == "?" else float(answered)
        history.append(Operation(client, request, answer, float(called), answered_s))
    return history


def cases(name: str) -> list[tuple[str, str, str]]:
    """Of a file of `testdata/histories`: the object, what is said of the history, the history."""
    lines = (Path(__file__).parent / "testdata/histories" / f"{name}.txt").read_text().splitlines()
    heads = [line.split(": ", 1) for line in lines[::2]]
    return [(kind, said, text) for (kind, said), text in zip(heads, lines[1::2], strict=True)]


WRONG, RIGHT = cases("wrong"), cases("right")


def test_there_are_a_hundred_wrong_histories_and_more() -> None:
    assert len({text for _, _, text in WRONG}) == len(WRONG) >= 100
    assert len({text for _, _, text in RIGHT}) == len(RIGHT) >= 50


@pytest.mark.parametrize(("kind", "said", "text"), WRONG, ids=[each[1] for each in WRONG])
def test_a_wrong_history_is_rejected(kind: str, said: str, text: str) -> None:
    assert not check(read(kind, text), OBJECTS[kind][1]).is_linearizable, said


@pytest.mark.parametrize(("kind", "said", "text"), RIGHT, ids=[each[1] for each in RIGHT])
def test_a_right_history_is_accepted_with_an_order(kind: str, said: str, text: str) -> None:
    history = read(kind, text)
    finding = check(history, OBJECTS[kind][1])
    assert finding.is_linearizable, said
    answered = [each for each in history if not each.is_open]
    assert [each for each in answered if each not in finding.order] == []


def test_the_parts_of_a_store_are_judged_like_the_whole() -> None:
    for is_right, of in ((False, WRONG), (True, RIGHT)):
        for _, said, text in (each for each in of if each[0] == "store"):
            findings = check_store(read("store", text))
            assert all(each.is_linearizable for each in findings) == is_right, said
