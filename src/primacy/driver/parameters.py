"""A caller's parameters as the protocol's values, by the rules of Python's sqlite3. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from primacy.driver.exceptions import DataError, ProgrammingError
from primacy.engines.sqlite.protocol import Parameters, Value

Given = Sequence[object] | Mapping[str, object]

_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**63 - 1


def parameters_of(given: Given) -> Parameters:
    """`ProgrammingError`: neither a sequence nor a mapping, or a value of another type."""
    if isinstance(given, Mapping):
        return {str(name): value_of(value, f":{name}") for name, value in given.items()}
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise ProgrammingError(
            f"parameters are of type {type(given).__name__}",
            hint="Pass a tuple or list for ?, a dict for :name.",
        )
    return [value_of(value, str(place)) for place, value in enumerate(given, 1)]


def rows_of(given: Iterable[Given]) -> list[Parameters]:
    return [parameters_of(each) for each in given]


def value_of(value: object, place: str) -> Value:
    match value:
        case None:
            return None
        case float():
            return float(value)
        case str():
            return str.__str__(value)  # Of an enum its value, not its name.
        case int():  # bool too: 0 and 1, as SQLite has it.
            if not _INTEGER_MIN <= value <= _INTEGER_MAX:
                raise DataError(
                    f"parameter {place} is an integer of more than 64 bits",
                    hint="SQLite's integers have 64 bits with a sign. Store it as text.",
                )
            return int(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case _:
            raise ProgrammingError(
                f"parameter {place} is of type {type(value).__name__}, which is not supported",
                hint="Values are None, int, float, str and bytes. Convert it first.",
            )
