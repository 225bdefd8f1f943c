"""Sequential objects that clients may believe in: what each answer may be, and what it changes."""

from collections.abc import Hashable, Sequence

import msgspec

from primacy.sim.linearizability import Model


class Read(msgspec.Struct, frozen=True):
    """Of the register, the counter: its value. Of the queue: its first value, which stays."""


class Write(msgspec.Struct, frozen=True):
    value: Hashable


class Cas(msgspec.Struct, frozen=True):
    """Write `value` if the register holds `expected`; answered by whether it did."""

    expected: Hashable
    value: Hashable


class Register(Model[Hashable, "Read | Write | Cas", Hashable]):
    """One value. A write is answered by None."""

    initial: Hashable = None

    def after(
        self, state: Hashable, request: "Read | Write | Cas", answer: Hashable
    ) -> Sequence[Hashable]:
        match request:
            case Read():
                return (state,) if answer == state else ()
            case Write(value):
                return (value,)
            case Cas(expected, value):
                if (state == expected) != (answer is True):
                    return ()
                return (value,) if state == expected else (state,)

    def after_open(self, state: Hashable, request: "Read | Write | Cas") -> Sequence[Hashable]:
        match request:
            case Read():
                return (state,)
            case Write(value):
                return (value,)
            case Cas(expected, value):
                return (value,) if state == expected else (state,)

    def is_read(self, request: "Read | Write | Cas") -> bool:
        return isinstance(request, Read)

    def is_silent(self, request: "Read | Write | Cas", answer: Hashable) -> bool:
        return isinstance(request, Read) or (isinstance(request, Cas) and answer is not True)


# ---- a lock whose holders carry tokens


class Acquire(msgspec.Struct, frozen=True):
    """Answered by a token, higher than any before it; by 0 where somebody holds the lock."""


class Release(msgspec.Struct, frozen=True):
    """Answered by 1 where the lock was held under this token, else by 0."""

    token: int


class Expire(msgspec.Struct, frozen=True):
    """The holder's lease ends. Clients do not see it: it is always open."""


class Use(msgspec.Struct, frozen=True):
    """A write under a token: 1 where no higher one was ever given out, else 0 (it is fenced)."""

    token: int


LockRequest = Acquire | Release | Expire | Use


class LockState(msgspec.Struct, frozen=True):
    is_held: bool = False
    token: int = 0
    """Of the last holder; where nobody heard it, the least that it can be."""
    is_known: bool = True


class Lock(Model[LockState, LockRequest, int]):
    """A mutex with a fencing token."""

    initial = LockState()

    def after(self, state: LockState, request: LockRequest, answer: int) -> Sequence[LockState]:
        match request:
            case Acquire():
                if answer == 0:
                    return (state,) if state.is_held else ()
                is_free = not state.is_held and answer > state.token
                return (LockState(is_held=True, token=answer),) if is_free else ()
            case Release(token):
                return self._released(state, token, answer)
            case Use(token):
                if state.is_known:
                    return (state,) if (token >= state.token) == bool(answer) else ()
                # Nobody heard the last token, so whoever uses one holds an older one.
                return (state,) if not answer else ()
            case Expire():
                return (msgspec.structs.replace(state, is_held=False),)

    def _released(self, state: LockState, token: int, answer: int) -> Sequence[LockState]:
        is_held = state.is_held and state.is_known and token == state.token
        if is_held != bool(answer):
            return ()
        return (LockState(is_held=False, token=token),) if answer else (state,)

    def after_open(self, state: LockState, request: LockRequest) -> Sequence[LockState]:
        match request:
            case Acquire():
                if state.is_held:
                    return ()
                return (LockState(is_held=True, token=state.token + 1, is_known=False),)
            case Release(token):
                is_held = state.is_held and state.is_known and token == state.token
                return (LockState(is_held=False, token=token),) if is_held else ()
            case Use():
                return ()
            case Expire():
                return (msgspec.structs.replace(state, is_held=False),) if state.is_held else ()

    def is_read(self, request: LockRequest) -> bool:
        return isinstance(request, Use)

    def is_silent(self, request: LockRequest, answer: int) -> bool:
        return isinstance(request, Use) or answer == 0


# ---- a queue and a counter


class Enqueue(msgspec.Struct, frozen=True):
    value: Hashable


class Dequeue(msgspec.Struct, frozen=True):
    """Answered by the first value, which goes; by None where there is none."""


class Queue(Model[tuple[Hashable, ...], "Enqueue | Dequeue | Read", Hashable]):
    """First in, first out."""

    initial: tuple[Hashable, ...] = ()

    def after(
        self, state: tuple[Hashable, ...], request: "Enqueue | Dequeue | Read", answer: Hashable
    ) -> Sequence[tuple[Hashable, ...]]:
        match request:
            case Enqueue(value):
                return ((*state, value),)
            case Dequeue():
                first = state[0] if state else None
                return (state[1:],) if answer == first else ()
            case Read():
                first = state[0] if state else None
                return (state,) if answer == first else ()

    def after_open(
        self, state: tuple[Hashable, ...], request: "Enqueue | Dequeue | Read"
    ) -> Sequence[tuple[Hashable, ...]]:
        match request:
            case Enqueue(value):
                return ((*state, value),)
            case Dequeue():
                return (state[1:],) if state else ()
            case Read():
                return ()

    def is_read(self, request: "Enqueue | Dequeue | Read") -> bool:
        return isinstance(request, Read)

    def is_silent(self, request: "Enqueue | Dequeue | Read", answer: Hashable) -> bool:
        return isinstance(request, Read) or (isinstance(request, Dequeue) and answer is None)


class Add(msgspec.Struct, frozen=True):
    """Answered by the new value."""

    amount: int


class Counter(Model[int, "Add | Read", int]):
    """A number that is added to."""

    initial = 0

    def after(self, state: int, request: "Add | Read", answer: int) -> Sequence[int]:
        match request:
            case Add(amount):
                return (state + amount,) if answer == state + amount else ()
            case Read():
                return (state,) if answer == state else ()

    def after_open(self, state: int, request: "Add | Read") -> Sequence[int]:
        return (state + request.amount,) if isinstance(request, Add) else ()

    def is_read(self, request: "Add | Read") -> bool:
        return isinstance(request, Read)

    def is_silent(self, request: "Add | Read", answer: int) -> bool:
        del answer
        return isinstance(request, Read)
