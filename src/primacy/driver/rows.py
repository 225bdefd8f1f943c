"""Rows by name: what `row_factory = Row` makes, as sqlite3.Row. Pure."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, overload

from primacy.engines.sqlite.protocol import Value

Described = tuple[tuple[str, None, None, None, None, None, None], ...]
"""A cursor's `description`: of each column its name, as sqlite3 has it."""

RowFactory = Callable[[Any, tuple[Value, ...]], Any]
"""Called with the cursor and the plain tuple. Any: what it makes is the caller's affair."""


class HasDescription(Protocol):
    """What `Row` asks of the cursor that it is made with."""

    @property
    def description(self) -> Described | None: ...


class Row:
    """A row of a result: by place, by name (upper and lower case alike), by slice."""

    __slots__ = ("_names", "_values")

    def __init__(self, cursor: HasDescription, values: tuple[Value, ...]) -> None:
        self._names = tuple(each[0] for each in cursor.description or ())
        self._values = tuple(values)

    def keys(self) -> list[str]:
        return list(self._names)

    @overload
    def __getitem__(self, key: int | str) -> Value: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Value, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Value | tuple[Value, ...]:
        if not isinstance(key, str):
            return self._values[key]
        for name, value in zip(self._names, self._values, strict=True):
            if name.lower() == key.lower():
                return value
        raise IndexError(f"there is no column {key!r}: the row has {', '.join(self._names)}")

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return (self._names, self._values) == (other._names, other._values)

    def __hash__(self) -> int:
        return hash((self._names, self._values))

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}={v!r}" for n, v in zip(self._names, self._values, strict=True))
        return f"Row({shown})"


def dict_row(cursor: HasDescription, values: tuple[Value, ...]) -> dict[str, Value]:
    """A row factory: a dict by column name."""
    names = (each[0] for each in cursor.description or ())
    return dict(zip(names, values, strict=True))
