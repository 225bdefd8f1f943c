"""How long the linearizability checker takes: histories of 16 clients on one object.

    python benchmarks/linearizability.py [OPERATIONS]

Right histories come from a real order whose intervals are stretched until up to 16 operations are
under way at a time; some answers are lost. A wrong one is the same with one late answer that is
false. The bar is 2,000 operations in 10 s. Hardest are wrong histories of few values: all is tried.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from primacy.coordination.api import Delete, Put, Range, RangeResult, Txn, unchanged
from primacy.coordination.embedded.commands import Commit, Committed, OpenSession, SessionId, Write
from primacy.coordination.embedded.commands import encoded as entry
from primacy.coordination.embedded.kv import Kv
from primacy.errors import Rejected
from primacy.model import LogIndex, Revision, Term
from primacy.sim.linearizability import Model, Operation, check
from primacy.sim.models import Cas, Read, Register
from primacy.sim.models import Write as Set
from primacy.sim.store_model import StoreModel

CLIENTS = 16
OPEN_SHARE = 0.002

Told = tuple[Any, Any]  # Any: requests and answers of whichever object it is.


def register(chance: random.Random, count: int, *, values: int) -> list[Told]:
    value: int | None = None
    told: list[Told] = []
    for _ in range(count):
        draw, new = chance.random(), chance.randrange(values)
        if draw < 0.4:
            told.append((Read(), value))
        elif draw < 0.7:
            value = new
            told.append((Set(new), None))
        else:
            expected = chance.choice([value, chance.randrange(values)])
            told.append((Cas(expected, new), value == expected))
            value = new if value == expected else value
    return told


def store(chance: random.Random, count: int) -> list[Told]:
    """The state machine of the embedded store itself, one entry after the other."""
    kv, told = Kv(), list[Told]()
    kv.apply(LogIndex(1), Term(1), entry(OpenSession()))
    for number in range(count):
        item = next(iter(kv.range(Range("k")).items), None)
        draw, new = chance.random(), Put("k", f"v{number}".encode())
        if draw < 0.4:
            told.append((Range("k"), kv.range(Range("k"))))
            continue
        txn = Txn(then=(new,))
        if draw < 0.6:
            mod = chance.choice([item.mod if item else Revision(0), Revision(1)])
            txn = Txn((unchanged("k", mod),), (new,), (Range("k"),))
        elif draw < 0.7:
            txn = Txn(then=(Delete("k"),))
        write = Write(SessionId(1), number + 1, number + 1, Commit(txn))
        reply = kv.apply(LogIndex(kv.index + 1), Term(1), entry(write)).reply
        assert isinstance(reply, Committed)
        told.append((txn, reply.result))
    return told


def stretched(chance: random.Random, told: Sequence[Told]) -> list[Operation[Any, Any]]:
    """Each operation takes effect at its number; its call and its answer lie up to 16 away."""
    free_s = [0.0] * CLIENTS
    last = [-1] * CLIENTS
    made: list[Operation[Any, Any]] = []
    for number, (request, answer) in enumerate(told, 1):
        client = min(range(CLIENTS), key=free_s.__getitem__)
        if free_s[client] > number - 0.5:
            free_s[client] = number - 0.6
            made[last[client]] = replace(made[last[client]], answered_s=number - 0.6)
        called_s = max(free_s[client] + 0.1, number - chance.random() * CLIENTS)
        answered_s = free_s[client] = number + chance.random() * CLIENTS
        last[client] = number - 1
        made.append(Operation(f"c{client}", request, answer, called_s, answered_s))
    for place in range(len(made)):
        if chance.random() < OPEN_SHARE:
            made[place] = replace(made[place], answered_s=inf, answer=None)
    return made


def spoilt(history: list[Operation[Any, Any]], false: Callable[[Any], Any]) -> list[Any]:
    """The last answered read says something else."""
    place = max(
        place
        for place, each in enumerate(history)
        if isinstance(each.request, Read | Range) and not each.is_open
    )
    return [
        replace(each, answer=false(each.answer)) if number == place else each
        for number, each in enumerate(history)
    ]


def report(name: str, history: list[Operation[Any, Any]], model: Model[Any, Any, Any]) -> None:
    began_s = time.process_time()
    try:
        finding = check(history, model)
    except Rejected as undecided:
        print(f"{name:<34} {undecided}")
        return
    took_s = time.process_time() - began_s
    said = "linearizable" if finding.is_linearizable else "NOT linearizable"
    print(
        f"{name:<34} {len(history):6} operations  {took_s:8.3f} CPU s"
        f"  {finding.steps_count:9} steps  {said}"
    )


def old(answer: Any) -> Any:
    if isinstance(answer, RangeResult):
        return RangeResult(answer.items, Revision(1))
    return -1


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    chance = random.Random(1)
    told: dict[str, tuple[list[Told], Model[Any, Any, Any]]] = {
        "register, 9 values": (register(chance, count, values=9), Register()),
        "register, unique values": (register(chance, count, values=10**9), Register()),
        "one key of the store": (store(chance, count), StoreModel()),
    }
    for name, (order, model) in told.items():
        history = stretched(chance, order)
        report(name, history, model)
        report(f"{name}, one false", spoilt(history, old), model)


if __name__ == "__main__":
    main()
