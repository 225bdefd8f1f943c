"""What happened in a simulated run: one fixed-width line per event, counters, and a digest.

Promises  Two runs of one seed have the same digest, or the simulator is not deterministic.
Does not  Build any text unless somebody wants it: `is_on` is asked first.
"""

from collections import Counter
from collections.abc import Callable

DIGEST_MASK = (1 << 61) - 1


class Trace:
    """Lines and counters of one run. `listener` hears every line where one is given."""

    def __init__(self, *, listener: Callable[[str], None] | None = None) -> None:
        self.is_on = listener is not None
        self.digest = 0
        self.counters: Counter[str] = Counter()
        self._listener = listener

    def step(self, time_s: float, number: int) -> None:
        """Fold one event into the digest: numbers only, since text hashes differ by process."""
        self.digest = (self.digest * 1_000_003 ^ hash(time_s) ^ number) & DIGEST_MASK

    def line(self, time_s: float, who: str, name: str, detail: str) -> None:
        if self._listener is not None:
            self._listener(f"{time_s:12.6f}  {who:<10} {name:<18} {detail}")

    def sometimes(self, name: str) -> None:
        """Something worth reaching was reached."""
        self.counters[name] += 1
