"""MariaDB's GTID positions: `0-1-42` is domain, server id, sequence. Pure.

primacy writes in domain 0 only; other domains are carried along and not compared.
"""

from dataclasses import dataclass

from primacy.errors import Corrupt

DOMAIN = 0
ANY_SERVER = 1
"""A start position is found by its sequence; the server id in it is not looked at."""


@dataclass(frozen=True, slots=True, order=True)
class Gtid:
    """One transaction."""

    domain: int
    server_id: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.sequence}"


def parse(text: str) -> Gtid:
    """`Corrupt` for anything but three numbers."""
    parts = text.strip().split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise Corrupt(f"{text!r} is no GTID", hint="Expected domain-server-sequence.")
    domain, server_id, sequence = (int(part) for part in parts)
    return Gtid(domain, server_id, sequence)


def parse_list(text: str | None) -> list[Gtid]:
    """A position such as `0-1-42,5-2-7`; empty for an empty log."""
    return [parse(part) for part in (text or "").split(",") if part.strip()]


def last_of(text: str | None) -> Gtid | None:
    """The last transaction of our domain in a position; None for an empty log."""
    ours = [each for each in parse_list(text) if each.domain == DOMAIN]
    return max(ours, key=lambda each: each.sequence, default=None)


def sequence_of(text: str | None) -> int:
    """The sequence of our domain in a position; 0 for an empty log."""
    last = last_of(text)
    return 0 if last is None else last.sequence


def before(sequence: int) -> str:
    """The position after which `sequence` comes; empty for the beginning of the log."""
    return f"{DOMAIN}-{ANY_SERVER}-{sequence - 1}" if sequence > 1 else ""
