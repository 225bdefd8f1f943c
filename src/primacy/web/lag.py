"""`?lag=`: how far behind a replica may be, in Patroni's notation and in ours. Pure.

Positions of this cluster count transactions. Patroni's count bytes of log: an amount of bytes is
honoured as one transaction for each `BYTES_PER_TRANSACTION` of it, rounded up.
"""

import re
from dataclasses import dataclass

from primacy.errors import Rejected

BYTES_PER_TRANSACTION = 1024
"""What a small transaction takes in a row-based binary log, within a factor of a few."""

LAG_MAX = 10**15
"""Beyond it an amount means nothing."""

_AMOUNT = re.compile(r"([0-9]{1,15})\s?([a-zA-Z]{0,3})", re.ASCII)
_BYTES = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_TRANSACTIONS = "tx"


@dataclass(frozen=True, slots=True)
class LagMax:
    """One of the two is set."""

    transactions: int | None = None
    seconds: float | None = None


def lag_max(text: str) -> LagMax:
    """`1048576` and `10MB` (bytes), `100tx` (transactions), `5s` or `500ms` (heartbeat age).
    `Rejected` for anything else."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise _nonsense(text)
    number, unit = int(match.group(1)), match.group(2).lower()
    if unit == _TRANSACTIONS:
        return LagMax(transactions=number)
    if unit in _SECONDS:
        return LagMax(seconds=number * _SECONDS[unit])
    if unit in _BYTES and number * _BYTES[unit] <= LAG_MAX:
        return LagMax(transactions=-(-number * _BYTES[unit] // BYTES_PER_TRANSACTION))
    raise _nonsense(text)


def _nonsense(text: str) -> Rejected:
    return Rejected(
        f"lag={text[:40]!r} is no amount",
        hint="Say 1048576 or 10MB (bytes), 100tx (transactions), 5s or 500ms (heartbeat age).",
    )
