"""No more requests a second than the agent beside can bear: the rest wait for their turn."""

from primacy.clock import Clock

REQUESTS_PER_S_MAX = 100.0
"""Fifty load balancers that ask twice a second. At about two milliseconds each, this leaves the
agent, which shares the interpreter, four fifths of a core."""

BURST_MAX = 20.0
"""Requests that may come at once after a quiet moment."""


class Pace:
    """One loop's; `turn` before each request."""

    def __init__(
        self, clock: Clock, *, per_s: float = REQUESTS_PER_S_MAX, burst: float = BURST_MAX
    ) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._next_s = clock.now_s()

    async def turn(self) -> None:
        now_s = self._clock.now_s()
        self._next_s = max(self._next_s, now_s - self._burst / self._per_s)
        wait_s = self._next_s - now_s
        self._next_s += 1 / self._per_s
        if wait_s > 0:
            await self._clock.sleep(wait_s)
