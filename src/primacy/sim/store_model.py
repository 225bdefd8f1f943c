"""The store as its clients may understand it: revisioned keys, transactions, ranges.

A sequential specification, written for the checker and shared with nothing that the store runs.
It holds against each answer everything that the answer says: values, versions, the revisions of
creation and of the last write, counts, the branch that was taken, and revisions that only grow.

Assumes   Every change of these keys is an operation of the history: no lease of theirs ends.
Does not  Know which revision a write got whose answer was lost. It knows the least that it can be,
          and learns the rest from the first answer that shows it; until then a comparison with
          that revision may go either way. Know of other keys: revisions may skip any number.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from primacy.coordination.api import (
    Compare,
    Delete,
    Done,
    Field,
    KeyValue,
    Op,
    Put,
    Range,
    RangeResult,
    Test,
    Txn,
    TxnResult,
)
from primacy.sim.linearizability import (
    STEPS_MAX,
    Finding,
    Model,
    Operation,
    check,
    components,
)

StoreRequest = Range | Txn
StoreAnswer = RangeResult | TxnResult


class Held(msgspec.Struct, frozen=True):
    """One key as it stands. A negative revision is the least that it can be, and not known."""

    value: bytes
    create: int
    mod: int
    version: int
    lease: int = 0


class StoreState(msgspec.Struct, frozen=True):
    floor: int = 0
    """The store has reached this revision at least."""
    items: tuple[tuple[str, Held], ...] = ()
    """In order of key."""

    def __str__(self) -> str:
        held = ", ".join(f"{key} = {shown(each)}" for key, each in self.items)
        return f"{held or 'nothing'}, at revision {self.floor} or later"


class StoreModel(Model[StoreState, StoreRequest, StoreAnswer]):
    """Some keys of the store, from its beginning."""

    initial = StoreState()

    def after(
        self, state: StoreState, request: StoreRequest, answer: StoreAnswer
    ) -> Sequence[StoreState]:
        match request, answer:
            case Range(), RangeResult():
                items = _read(dict(state.items), request, answer)
                if items is None or answer.revision < state.floor:
                    return ()
                return (_state(answer.revision, items),)
            case Txn(), TxnResult():
                held = _holds(dict(state.items), request.compares)
                if held is not None and held != answer.is_success:
                    return ()
                ops = request.then if answer.is_success else request.otherwise
                return _answered(state, ops, answer)
            case _:
                return ()

    def after_open(self, state: StoreState, request: StoreRequest) -> Sequence[StoreState]:
        if isinstance(request, Range):
            return ()
        held = _holds(dict(state.items), request.compares)
        branches = [request.then] if held is not False else []
        branches += [request.otherwise] if held is not True else []
        return [after for ops in branches if (after := _unheard(state, ops)) != state]

    def is_read(self, request: StoreRequest) -> bool:
        if isinstance(request, Range):
            return True
        return all(isinstance(op, Range) for op in (*request.then, *request.otherwise))

    def is_silent(self, request: StoreRequest, answer: StoreAnswer) -> bool:
        if isinstance(request, Range) or isinstance(answer, RangeResult):
            return True
        ops = request.then if answer.is_success else request.otherwise
        return not any(isinstance(op, Put | Delete) for op in ops)

    def is_hopeless(self, state: StoreState, request: StoreRequest, answer: StoreAnswer) -> bool:
        del request
        if answer.revision < state.floor:
            return True
        items = dict(state.items)
        shown_items = answer.items if isinstance(answer, RangeResult) else ()
        return any(_is_gone(items.get(each.key), each, state.floor) for each in shown_items)


def check_store(
    operations: Iterable[Operation[StoreRequest, StoreAnswer]], *, steps_max: int = STEPS_MAX
) -> list[Finding[StoreRequest, StoreAnswer]]:
    """One finding for each part of the keyspace that no transaction and no prefix joins."""
    listed = list(operations)
    known = {key for each in listed for key, is_prefix in _touched(each.request) if not is_prefix}

    def keys_of(request: StoreRequest) -> list[str]:
        keys: list[str] = []
        for key, is_prefix in _touched(request):
            keys += _matching(known, key, is_prefix=True) if is_prefix else [key]
        return keys or [key for key, _ in _touched(request)]

    parts = components(listed, keys_of)
    return [check(part, StoreModel(), steps_max=steps_max) for part in parts]


def _touched(request: StoreRequest) -> list[tuple[str, bool]]:
    if isinstance(request, Range):
        return [(request.key, request.is_prefix)]
    ops = (*request.then, *request.otherwise)
    return [(each.key, False) for each in request.compares] + [
        (each.key, not isinstance(each, Put) and each.is_prefix) for each in ops
    ]


# ---- transactions


def _answered(state: StoreState, ops: Sequence[Op], answer: TxnResult) -> Sequence[StoreState]:
    items, revision = dict(state.items), answer.revision
    is_changing = _changes(items, ops)
    if revision < state.floor + is_changing or len(answer.results) != len(ops):
        return ()
    is_changed = False
    for op, result in zip(ops, answer.results, strict=True):
        match op, result:
            case Put(), Done(1):
                items[op.key] = _put(items.get(op.key), op, revision)
                is_changed = True
            case Delete(), Done(count):
                gone = _matching(items, op.key, is_prefix=op.is_prefix)
                if count != len(gone):
                    return ()
                for key in gone:
                    del items[key]
                is_changed = is_changed or bool(gone)
            case Range(), RangeResult():
                seen = _read(items, op, result)
                is_before = is_changing and not is_changed
                if seen is None or result.revision != revision - is_before:
                    return ()
                items = seen
            case _:
                return ()
    return (_state(revision, items),)


def _unheard(state: StoreState, ops: Sequence[Op]) -> StoreState:
    """The transaction took effect, at the next revision or a later one."""
    items = dict(state.items)
    if not _changes(items, ops):
        return state
    for op in ops:
        match op:
            case Put():
                items[op.key] = _put(items.get(op.key), op, -(state.floor + 1))
            case Delete():
                for key in _matching(items, op.key, is_prefix=op.is_prefix):
                    del items[key]
            case Range():
                pass
            case _:
                assert_never(op)
    return _state(state.floor + 1, items)


def _changes(items: dict[str, Held], ops: Sequence[Op]) -> bool:
    """A put always does; a delete where there is something to delete. In front of the first put
    nothing is created, so the state before is the one to ask."""
    return any(
        isinstance(op, Put)
        or (isinstance(op, Delete) and bool(_matching(items, op.key, is_prefix=op.is_prefix)))
        for op in ops
    )


def _put(before: Held | None, op: Put, revision: int) -> Held:
    if before is None:
        return Held(op.value, revision, revision, 1, op.lease)
    return Held(op.value, before.create, revision, before.version + 1, op.lease)


def _matching(items: Iterable[str], key: str, *, is_prefix: bool) -> list[str]:
    return sorted(each for each in items if (each.startswith(key) if is_prefix else each == key))


def _state(floor: int, items: dict[str, Held]) -> StoreState:
    return StoreState(floor, tuple(sorted(items.items())))


# ---- comparisons


def _holds(items: dict[str, Held], compares: Sequence[Compare]) -> bool | None:
    """None: it depends on a revision that nobody knows."""
    outcomes = [_one_holds(items.get(each.key), each) for each in compares]
    if any(each is False for each in outcomes):
        return False
    return None if None in outcomes else True


def _one_holds(held: Held | None, compare: Compare) -> bool | None:
    operand = compare.operand
    if isinstance(operand, bytes):
        if held is None:
            return compare.test is Test.NOT_EQUAL
        return _test(held.value, compare.test, operand)
    number = _number(held, compare.field)
    if number >= 0:
        return _test(number, compare.test, operand)
    if operand < -number and compare.test in (Test.EQUAL, Test.LESS):
        return False
    return None


def _number(held: Held | None, field: Field) -> int:
    if held is None:
        return 0
    match field:
        case Field.CREATE:
            return held.create
        case Field.MOD:
            return held.mod
        case Field.VERSION:
            return held.version
        case Field.LEASE:
            return held.lease
        case Field.VALUE:
            raise ValueError("a value is compared with bytes")
        case _:
            assert_never(field)


def _test(value: int | bytes, test: Test, operand: int | bytes) -> bool:
    match test:
        case Test.EQUAL:
            return value == operand
        case Test.NOT_EQUAL:
            return value != operand
        case Test.LESS:
            return value < operand  # type: ignore[operator]  # Both int or both bytes.
        case Test.GREATER:
            return value > operand  # type: ignore[operator]  # Both int or both bytes.
        case _:
            assert_never(test)


# ---- reading


def _read(items: dict[str, Held], op: Range, answer: RangeResult) -> dict[str, Held] | None:
    """The items, with what the answer tells of them; None where it says something else."""
    keys = _matching(items, op.key, is_prefix=op.is_prefix)
    shown_keys = [each.key for each in answer.items]
    if answer.is_cut:
        if len(shown_keys) >= len(keys):
            return None
        keys = keys[: len(shown_keys)]
    if shown_keys != keys:
        return None
    known = dict(items)
    for each in answer.items:
        held = _told(items[each.key], each)
        if held is None or each.mod > answer.revision:
            return None
        known[each.key] = held
    return known


def _told(held: Held, item: KeyValue) -> Held | None:
    """The key as the item shows it, if it can be the same."""
    is_same = (held.value, held.version, held.lease) == (item.value, item.version, item.lease)
    if not is_same or not _fits(held.create, item.create) or not _fits(held.mod, item.mod):
        return None
    if item.create > item.mod or (item.version == 1 and item.create != item.mod):
        return None
    return Held(held.value, item.create, item.mod, held.version, held.lease)


def _fits(known: int, shown_revision: int) -> bool:
    return known == shown_revision if known >= 0 else shown_revision >= -known


def _is_gone(held: Held | None, item: KeyValue, floor: int) -> bool:
    """The item can no longer be shown: another write stands there, or it was never written."""
    if held is not None and _fits(held.mod, item.mod):
        return False
    return item.mod <= floor


# ---- for people


def shown(held: Held) -> str:
    known = str(held.mod) if held.mod >= 0 else f"{-held.mod} or later"
    return f"{held.value.decode(errors='replace')!r} (version {held.version}, revision {known})"
