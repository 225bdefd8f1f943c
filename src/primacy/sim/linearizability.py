"""Is there one order of these operations that explains every answer? Wing, Gong and Lowe's search.

Source    J. Wing, C. Gong, "Testing and Verifying Concurrent Objects", 1993: the search, and the
          list from which an operation is lifted and into which it is put back (undone).
          G. Lowe, "Testing for Linearizability", 2017: the memo on (which are done, the state).
Promises  `check` is exact for its model: True with an order, or False. An operation without an
          answer stays open for ever: it may take effect at any moment after its call, or never.
Assumes   Refused operations (nothing was applied) are not part of the history. Calls and answers
          carry times of one clock; at equal times both count as under way together.
Does not  Know keys: partition first (`components`), since the parts of an object that no operation
          joins can be checked one by one (Herlihy and Wing's locality).

Four things keep the search small. An operation that fits and never changes anything is taken at
once, and nothing else instead of it: no order is lost by that. Of equal operations with equal
answers the one that was answered first goes first. An open operation is tried only where an
answered one has to come next; nothing is put before that one if the model says that it can then
never fit. Of
two ways to one state with the same answers given, the one that used fewer open operations can do
all that the other can.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from primacy.errors import Rejected

STEPS_MAX = 5_000_000
"""Configurations that one search looks at: about a minute. Past it nobody knows."""

State = TypeVar("State", bound=Hashable)
Request = TypeVar("Request", bound=Hashable)
Answer = TypeVar("Answer", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Operation(Generic[Request, Answer]):
    """What one client asked, and what it was told."""

    client: str
    request: Request
    answer: Answer | None
    called_s: float
    answered_s: float = inf
    """Infinity: it was never answered, and `answer` means nothing."""

    @property
    def is_open(self) -> bool:
        return self.answered_s == inf


class Model(ABC, Generic[State, Request, Answer]):
    """A sequential object: what may follow from each state."""

    initial: State

    @abstractmethod
    def after(self, state: State, request: Request, answer: Answer) -> Sequence[State]:
        """The states that may follow, given this answer; none where it cannot be given here."""

    @abstractmethod
    def after_open(self, state: State, request: Request) -> Sequence[State]:
        """The states that may follow where it takes effect and nobody hears of it."""

    @abstractmethod
    def is_read(self, request: Request) -> bool:
        """It never changes anything: an open one can be forgotten."""

    @abstractmethod
    def is_silent(self, request: Request, answer: Answer) -> bool:
        """With this answer it changes nothing, in whatever state it is given."""

    def is_hopeless(self, state: State, request: Request, answer: Answer) -> bool:
        """Whatever happens from here on, this answer can never be given. Only to search less."""
        del state, request, answer
        return False


Config = tuple[State, int]
"""A state, and which of the open operations have taken effect (a bit for each)."""


@dataclass(frozen=True, slots=True)
class Finding(Generic[Request, Answer]):
    """What `check` found."""

    is_linearizable: bool
    order: tuple[Operation[Request, Answer], ...]
    """One that explains all answers; else the longest that explains the first of them."""
    steps_count: int


class Search(Generic[State, Request, Answer]):
    """One history, and all that is undone and done again while it is searched.

    Answered operations stand in one list of calls and answers, by time; what has been put into the
    order is lifted out of it. Whoever stands before the first answer can come next.
    """

    def __init__(
        self,
        model: Model[State, Request, Answer],
        answered: Sequence[Operation[Request, Answer]],
        opens: Sequence[Operation[Request, Answer]] = (),
        *,
        steps_max: int = STEPS_MAX,
    ) -> None:
        self.steps_count = 0
        self.longest: tuple[Operation[Request, Answer], ...] = ()
        self._model = model
        self._answered = answered
        self._opens = opens
        self._twins = twins([each.request for each in opens])
        self._kinds = kinds((each.request, each.answer) for each in answered)
        self._steps_max = steps_max
        self._link()

    def _link(self) -> None:
        """Entry 0 is the head; a call and an answer for each operation; the last is the end."""
        answered = self._answered
        events = sorted(
            (time_s, is_answer, place)
            for place, each in enumerate(answered)
            for time_s, is_answer in ((each.called_s, False), (each.answered_s, True))
        )
        count = len(events)
        self._end = count + 1
        self._next = list(range(1, count + 3))
        self._previous = list(range(-1, count + 1))
        self._place = [-1] * (count + 2)
        self._is_answer = [False] * (count + 2)
        self._call = [0] * len(answered)
        self._return = [0] * len(answered)
        for entry, (_, is_answer, place) in enumerate(events, 1):
            self._place[entry], self._is_answer[entry] = place, is_answer
            (self._return if is_answer else self._call)[place] = entry

    # ---- the search

    def first(
        self, starts: Iterable[Config[State]]
    ) -> tuple[Operation[Request, Answer], ...] | None:
        """One order from one of these starts, if there is any."""
        return next((order for _, order in self._orders(starts)), None)

    def ends(self, starts: Iterable[Config[State]]) -> set[Config[State]]:
        """Every configuration in which the history may have left the object."""
        return {config for config, _ in self._orders(starts)}

    def _orders(
        self, starts: Iterable[Config[State]]
    ) -> Iterator[tuple[Config[State], tuple[Operation[Request, Answer], ...]]]:
        """Depth first. The trail holds, for each operation in the order, what it was chosen from
        and what had been done before it."""
        seen: dict[tuple[int, State], list[int]] = {}
        count = len(self._answered)
        for state, used in starts:
            done = 0
            trail: list[tuple[int, list[tuple[int, State]], int, int]] = []
            choices = self._choices(state, used)
            while True:
                if choices is None:
                    yield (state, used), self._order(trail)
                elif choices:
                    place, state = choices.pop()
                    is_open = place >= count
                    now_done = done if is_open else done | 1 << place
                    now_used = used | 1 << (place - count) if is_open else used
                    ways = seen.setdefault((now_done, state), [])
                    if any(each & now_used == each for each in ways):
                        continue
                    ways.append(now_used)
                    trail.append((place, choices, done, used))
                    done, used = now_done, now_used
                    if not is_open:
                        self._lift(place)
                    choices = self._choices(state, used)
                    continue
                if len(trail) > len(self.longest):
                    self.longest = self._order(trail)
                if not trail:
                    break
                place, choices, done, used = trail.pop()
                if place < count:
                    self._put_back(place)

    def _choices(self, state: State, used: int) -> list[tuple[int, State]] | None:
        """What can come next, the best last; None where all answered operations are in the order.

        Open operations have the numbers after the answered ones.
        """
        self.steps_count += 1
        if self.steps_count > self._steps_max:
            raise Rejected(
                f"undecided after {self._steps_max} steps: {len(self._answered)} operations,"
                f" {len(self._opens)} of them open",
                hint="Check fewer at once, or give the search more steps.",
            )
        entry = self._next[0]
        if entry == self._end:
            return None
        model, answered, kinds = self._model, self._answered, self._kinds
        soonest: dict[int, int] = {}
        while not self._is_answer[entry]:
            place = self._place[entry]
            kind = kinds[place]
            other = soonest.get(kind, place)
            if answered[place].answered_s <= answered[other].answered_s:
                soonest[kind] = place
            entry = self._next[entry]
        blocking = self._place[entry]
        last = answered[blocking]
        choices: list[tuple[int, State]] = []
        for place in soonest.values():
            operation = answered[place]
            for after in model.after(state, operation.request, operation.answer):  # type: ignore[arg-type]  # Answered.
                if after == state and model.is_silent(operation.request, operation.answer):  # type: ignore[arg-type]  # Answered.
                    return [(place, state)]
                if place == blocking or not model.is_hopeless(after, last.request, last.answer):  # type: ignore[arg-type]  # Answered.
                    choices.append((place, after))
        choices.sort(key=lambda choice: -answered[choice[0]].answered_s)
        return self._open_choices(state, used, last) + choices

    def _open_choices(
        self, state: State, used: int, blocking: Operation[Request, Answer]
    ) -> list[tuple[int, State]]:
        """Open operations that were called before the next answer, and may help it."""
        model, count = self._model, len(self._answered)
        choices = []
        for number, operation in enumerate(self._opens):
            twin = self._twins[number]
            is_next = not used >> number & 1 and (twin is None or used >> twin & 1)
            if not is_next or operation.called_s > blocking.answered_s:
                continue
            for after in model.after_open(state, operation.request):
                if after != state and not model.is_hopeless(
                    after,
                    blocking.request,
                    blocking.answer,  # type: ignore[arg-type]  # Answered.
                ):
                    choices.append((count + number, after))
        return choices

    def _order(
        self, trail: list[tuple[int, list[tuple[int, State]], int, int]]
    ) -> tuple[Operation[Request, Answer], ...]:
        count = len(self._answered)
        return tuple(
            self._answered[place] if place < count else self._opens[place - count]
            for place, *_ in trail
        )

    # ---- the list

    def _lift(self, place: int) -> None:
        for entry in (self._call[place], self._return[place]):
            before, after = self._previous[entry], self._next[entry]
            self._next[before], self._previous[after] = after, before

    def _put_back(self, place: int) -> None:
        """In the reverse order of lifting: each entry still knows its neighbours."""
        for entry in (self._return[place], self._call[place]):
            before, after = self._previous[entry], self._next[entry]
            self._next[before] = self._previous[after] = entry


def twins(requests: Sequence[Hashable]) -> list[int | None]:
    """For each request the last equal one before it."""
    last: dict[Hashable, int] = {}
    found: list[int | None] = []
    for place, request in enumerate(requests):
        found.append(last.get(request))
        last[request] = place
    return found


def kinds(values: Iterable[Hashable]) -> list[int]:
    """A number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def check(
    operations: Iterable[Operation[Request, Answer]],
    model: Model[State, Request, Answer],
    *,
    steps_max: int = STEPS_MAX,
) -> Finding[Request, Answer]:
    """Whether a whole history of one object is linearizable. Raises `Rejected` past `steps_max`."""
    listed = sorted(operations, key=lambda each: each.called_s)
    answered = [each for each in listed if not each.is_open]
    opens = [each for each in listed if each.is_open and not model.is_read(each.request)]
    search = Search(model, answered, opens, steps_max=steps_max)
    order = search.first([(model.initial, 0)])
    return Finding(order is not None, order or search.longest, search.steps_count)


def components(
    operations: Iterable[Operation[Request, Answer]],
    keys_of: Callable[[Request], Iterable[str]],
) -> list[list[Operation[Request, Answer]]]:
    """The histories of the objects that no operation joins, each to be checked by itself.

    A transaction over several keys joins them; what touches no key at all is left out.
    """
    root: dict[str, str] = {}

    def root_of(key: str) -> str:
        while root.setdefault(key, key) != key:
            root[key] = key = root[root[key]]
        return key

    listed = [(each, list(keys_of(each.request))) for each in operations]
    for _, keys in listed:
        for key in keys[1:]:
            root[root_of(key)] = root_of(keys[0])
    parts: dict[str, list[Operation[Request, Answer]]] = {}
    for operation, keys in listed:
        if keys:
            parts.setdefault(root_of(keys[0]), []).append(operation)
    return list(parts.values())
