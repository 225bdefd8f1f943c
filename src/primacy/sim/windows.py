"""Histories of the store's clients, checked for linearizability while they are made.

A moment at which none of a group's operations is under way cuts its history: what lies before it is
one window. A window is checked at once, from every configuration in which those before it may have
left the keys; so a check costs as much as the window, and a break is noticed where it happens.
Groups are keys that transactions join; groups are joined by nothing, and are checked one by one.

Promises  The same verdict as one check of the whole history of each group.
Assumes   An operation is part of one group. Times are the world's.
Does not  Look at the store's own log (`history.StoreHistory` does): it believes clients alone, so
          it also judges what no answer speaks of: a write that was refused and is there, or one
          that took effect twice.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf

from primacy.coordination.api import Delete, Put, Range, RangeResult
from primacy.errors import InvariantBroken
from primacy.sim.linearizability import Config, Operation, Search
from primacy.sim.store_model import StoreAnswer, StoreModel, StoreRequest, StoreState

NAME = "linearizable-store"

STARTS_SHOWN = 3
OPENS_SHOWN = 6
"""How much is told with a wrong window: states before it, lost writes, and those of the window that
may have taken effect or not, for all that it helps."""

StoreOperation = Operation[StoreRequest, StoreAnswer]


@dataclass(slots=True)
class Group:
    """The history of some keys."""

    name: str
    calls_count: int = 0
    under_way: int = 0
    opens: list[StoreOperation] = field(default_factory=list)
    """Of the whole history: writes whose answers were lost."""
    window: list[StoreOperation] = field(default_factory=list)
    configs: set[Config[StoreState]] = field(default_factory=lambda: {(StoreState(), 0)})


@dataclass(slots=True, eq=False)
class Call:
    """An operation that is under way."""

    group: Group
    client: str
    request: StoreRequest
    called_s: float


class Histories:
    """All groups of a run."""

    def __init__(self, now_s: Callable[[], float], sometimes: Callable[[str], None]) -> None:
        self.checked_count = 0
        self.configs_max = 1
        """The most ways in which a window may have ended: what the lost answers cost."""
        self._now_s = now_s
        self._sometimes = sometimes
        self._model = StoreModel()
        self._groups: dict[str, Group] = {}
        self._calls: dict[Call, None] = {}

    def group(self, name: str) -> Group:
        return self._groups.setdefault(name, Group(name))

    def call(self, group: str, client: str, request: StoreRequest) -> Call:
        """A client asks now. Every call is answered, refused or lost, once."""
        call = Call(self.group(group), client, request, self._now_s())
        call.group.calls_count += 1
        call.group.under_way += 1
        self._calls[call] = None
        return call

    def answer(self, call: Call, answer: StoreAnswer) -> None:
        """It was told this. Raises `InvariantBroken` where no order explains it."""
        now_s = self._now_s()
        operation: StoreOperation = Operation(
            call.client, call.request, answer, call.called_s, now_s
        )
        call.group.window.append(operation)
        self.checked_count += 1
        self._end(call)

    def refuse(self, call: Call) -> None:
        """It was told that nothing was applied: it never happened."""
        self._end(call)

    def lose(self, call: Call) -> None:
        """Nobody will ever tell it: it stays open."""
        if not self._model.is_read(call.request):
            operation: StoreOperation = Operation(call.client, call.request, None, call.called_s)
            call.group.opens.append(operation)
        self._end(call)

    def close(self) -> None:
        """The run is over: what is under way is lost, and every last window is checked."""
        for call in tuple(self._calls):
            self.lose(call)

    def _end(self, call: Call) -> None:
        del self._calls[call]
        group = call.group
        group.under_way -= 1
        if group.under_way == 0 and group.window:
            self._check(group)

    def _check(self, group: Group) -> None:
        self._sometimes("window of a store history")
        if len(group.window) > 1:
            self._sometimes("window with operations at a time")
        if group.opens:
            self._sometimes("window after a lost answer")
        ends = self._ends(group, group.window, group.opens)
        if not ends:
            raise InvariantBroken(NAME, self._story(group))
        self.configs_max = max(self.configs_max, len(ends))
        group.configs, group.window = ends, []

    def _ends(
        self, group: Group, window: Iterable[StoreOperation], opens: Iterable[StoreOperation]
    ) -> set[Config[StoreState]]:
        ordered = sorted(window, key=lambda each: each.called_s)
        return Search(self._model, ordered, list(opens)).ends(group.configs)

    # ---- a wrong window, for people

    def _smallest(self, group: Group) -> tuple[list[StoreOperation], list[StoreOperation]]:
        """The window without reads that are not needed; and apart from it the writes of which it
        does not matter what they were told, nor whether they took effect. To take either out can
        only make it easier to explain the rest."""
        window, spared = list(group.window), list[StoreOperation]()
        for operation in tuple(window):
            rest = [each for each in window if each is not operation]
            is_read = self._model.is_read(operation.request)
            more = spared if is_read else [*spared, operation]
            opens = [*group.opens, *(replace(each, answered_s=inf) for each in more)]
            if not self._ends(group, rest, opens):
                window, spared = rest, more
        return window, spared

    def _story(self, group: Group) -> str:
        smallest, spared = self._smallest(group)
        states = sorted({str(state) for state, _ in group.configs})
        used = [used for _, used in group.configs]
        opens = [
            each
            for place, each in enumerate(group.opens)
            if not all(one >> place & 1 for one in used)
        ]
        count = "1 operation" if len(smallest) == 1 else f"{len(smallest)} operations"
        lines = [
            f"no order explains {count} on {group.name}",
            *(f"before: {each}" for each in states[:STARTS_SHOWN]),
            *([f"before: {len(states)} states in all"] if len(states) > STARTS_SHOWN else []),
            *(f"open:   {told(each)}" for each in opens[-OPENS_SHOWN:]),
            *(f"or not: {told(each)}" for each in spared[-OPENS_SHOWN:]),
            *(f"wrong:  {told(each)}" for each in smallest),
        ]
        return "\n    ".join(lines)


def told(operation: StoreOperation) -> str:
    """`store-a 12.345-12.350 put k = 'v' -> revision 7`."""
    end = "" if operation.is_open else f"{operation.answered_s:.4f}"
    return (
        f"{operation.client:<12} {operation.called_s:9.4f}-{end:<9} {asked(operation.request)}"
        f" -> {answered(operation.answer)}"
    )


def asked(request: StoreRequest) -> str:
    if isinstance(request, Range):
        return f"read {request.key}{'*' if request.is_prefix else ''}"
    compares = " and ".join(
        f"{each.key} {each.field.value} {each.test.value} {each.operand!r}"
        for each in request.compares
    )
    then = ", ".join(_op(op) for op in request.then)
    otherwise = ", ".join(_op(op) for op in request.otherwise)
    wish = f"if {compares}: {then}" if compares else then
    return f"{wish}; else {otherwise}" if otherwise else wish


def _op(op: Put | Delete | Range) -> str:
    match op:
        case Put():
            return f"put {op.key} = {op.value.decode(errors='replace')!r}"
        case Delete():
            return f"delete {op.key}{'*' if op.is_prefix else ''}"
        case Range():
            return asked(op)


def answered(answer: StoreAnswer | None) -> str:
    if answer is None:
        return "no answer"
    if isinstance(answer, RangeResult):
        items = ", ".join(
            f"{each.key} = {each.value.decode(errors='replace')!r}"
            f" ({each.create}/{each.mod}/{each.version})"
            for each in answer.items
        )
        return f"{items or 'nothing'} at revision {answer.revision}"
    held = "done" if answer.is_success else "the comparison failed"
    inner = [answered(each) for each in answer.results if isinstance(each, RangeResult)]
    return f"{held} at revision {answer.revision}" + "".join(f", read {each}" for each in inner)
