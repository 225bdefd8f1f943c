"""How late the event loop is: a stall delays every renewal on this host, so it is counted."""

import asyncio
from types import TracebackType

from primacy import telemetry
from primacy.telemetry import Event, Sink

STALL_S = 0.020
"""No step may hold the loop for longer."""

PERIOD_S = 0.050
"""Twenty looks a second cost nothing, and meet a stall of STALL_S in about two of five cases, one
of PERIOD_S or more always."""


class StallMeter:
    """`with` it, in the event loop: it looks until the exit."""

    def __init__(self, *, sink: Sink = telemetry.ignore) -> None:
        self.stall_count = 0
        """Looks that came more than STALL_S late."""
        self.longest_s = 0.0
        self._sink = sink
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> "StallMeter":
        self._look_later()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + PERIOD_S
        self._handle = loop.call_at(due_s, self._look, due_s)

    def _look(self, due_s: float) -> None:
        late_s = asyncio.get_running_loop().time() - due_s
        self.longest_s = max(self.longest_s, late_s)
        if late_s > STALL_S:
            self.stall_count += 1
            self._sink(Event("loop-stalled", {"late_s": late_s}))
        self._look_later()
