"""Events as values: what happened, with fields. Where they go is passed in.

An event is one line, the same in tests and in production:
`lease-renewed node=b epoch=41 left_s=2.2`. Names are stable and stand in the glossary;
nothing parses the text of a message.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `name` is kebab-case; values are plain."""

    name: str
    fields: dict[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(
            [self.name, *(f"{key}={_shown(value)}" for key, value in self.fields.items())]
        )


Sink = Callable[[Event], None]
"""Takes an event and returns at once. A slow sink must queue or drop, and count what it drops."""


class Counted:
    """A sink that counts events by name, and passes them on. Other threads may read `counts`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.counts: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        self.counts[event.name] = self.counts.get(event.name, 0) + 1
        self._sink(event)


def ignore(_event: Event) -> None:
    """The sink for those who do not want to know."""


def _shown(value: Value) -> str:
    match value:
        case bool() | None:
            return str(value).lower()
        case float():
            return f"{value:.3f}"
        case str() if " " in value or not value:
            return f'"{value}"'
        case _:
            return str(value)
