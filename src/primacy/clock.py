"""Time, passed in. The one module that may read the system clock."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Three clocks, each for one purpose, and a way to wait."""

    def now_s(self) -> float:
        """Monotonic seconds, for waiting and for ages. Never compared across hosts."""
        ...

    def boottime_s(self) -> float:
        """CLOCK_BOOTTIME: monotonic, and counts suspension. For lease deadlines on one host."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970, for people to read. No decision rests on it."""
        ...

    async def sleep(self, delay_s: float) -> None: ...


class SystemClock:
    """The clock of this machine."""

    def now_s(self) -> float:
        return time.monotonic()

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_s(self) -> float:
        return time.time()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
