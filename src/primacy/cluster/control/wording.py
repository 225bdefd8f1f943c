"""Values into words and into JSON: what the commands and the HTTP API say alike. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


def when(wall_s: float) -> str:
    """Wall time for people, in UTC."""
    if wall_s <= 0:
        return "-"
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def steps(steps_s: Mapping[str, float]) -> str:
    """`sealing 0.12 s, promotion 0.30 s`."""
    return ", ".join(f"{name} {value:.2f} s" for name, value in steps_s.items())
