"""Time and chance inside SQL, held still: a statement that is run again sees the same of both.

`now` comes from a VFS of our own, so it is the same in defaults, triggers and every date function;
`random()` and `randomblob()` come from a generator that is seeded for each statement.
"""

import random
from collections.abc import Callable

import apsw

from primacy.engines.sqlite.storage.images import Value

UNIX_EPOCH_JULIAN_MS = 210_866_760_000_000
"""SQLite counts milliseconds since noon in Greenwich on November 24, 4714 B.C."""


class FrozenTime(apsw.VFS):
    """Files of the default VFS, and a clock that stands at `now_ms`.

    It must live as long as a connection that was opened with it. Only this method is overridden:
    apsw's `exclude=` would leave holes that crash the process at open.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.name = f"primacy-{id(self):x}"
        super().__init__(self.name, "")

    def xCurrentTimeInt64(self) -> int:  # noqa: N802  # SQLite's name.
        return UNIX_EPOCH_JULIAN_MS + self.now_ms


class SeededChance:
    """What random() and randomblob() draw from. Set `seed` before each statement."""

    def __init__(self, *, blob_bytes_max: int) -> None:
        self._blob_bytes_max = blob_bytes_max
        self._seed = 0
        self._generator: random.Random | None = None

    def reseed(self, seed: int) -> None:
        self._seed = seed
        self._generator = None  # Seeding costs more than most statements, and few draw.

    def register(self, connection: apsw.Connection) -> None:
        connection.create_scalar_function("random", self._integer, 0)
        connection.create_scalar_function("randomblob", self._blob, 1)

    def _integer(self, *_nothing: Value) -> int:
        return self._drawn().getrandbits(64) - (1 << 63)

    def _blob(self, *sizes: Value) -> bytes:
        """As SQLite's own: at least one byte."""
        (size,) = sizes
        count = int(size) if isinstance(size, int | float | str) and _is_number(size) else 1
        if count > self._blob_bytes_max:
            raise apsw.TooBigError("string or blob too big")
        return self._drawn().randbytes(max(1, count))

    def _drawn(self) -> random.Random:
        if self._generator is None:
            self._generator = random.Random(self._seed)
        return self._generator


def _is_number(size: int | float | str) -> bool:
    try:
        int(size)
    except ValueError:
        return False
    return True


class Stillness:
    """Both, for a writer: each statement that asks gets a moment and a seed, and keeps them."""

    def __init__(
        self, *, now_ms: Callable[[], int], seeds: random.Random, blob_bytes_max: int
    ) -> None:
        self.time = FrozenTime()
        self.chance = SeededChance(blob_bytes_max=blob_bytes_max)
        self.seed = 0
        self._now_ms = now_ms
        self._seeds = seeds

    @property
    def now_ms(self) -> int:
        return self.time.now_ms

    def next_statement(self, *, reads_time: bool, draws: bool) -> None:
        if reads_time:
            self.time.now_ms = self._now_ms()
        if draws:
            self.seed = self._seeds.getrandbits(63)
            self.chance.reseed(self.seed)
