"""What an agent remembers of its server between two looks: when it answered, when it last beat."""

from collections.abc import Awaitable, Callable

from primacy.clock import Clock
from primacy.errors import OutcomeUnknown, Unavailable

HEALTH_CHANCES = 2
"""How often a server may fail to answer before a seal kills it and reads its disk instead."""


class Watching:
    """Of one server at a time."""

    def __init__(self, clock: Clock, *, health_s: float) -> None:
        self._clock = clock
        self._health_s = health_s
        self._silent_since_s: float | None = None
        """Since when it was asked in vain; None: it answered when it was last asked."""
        self._heartbeat = 0
        self._heartbeat_at_s = clock.now_s()

    def heard(self) -> None:
        """It has answered a question for its health, or has just been started."""
        self._silent_since_s = None

    def missed(self) -> None:
        """It was asked, and has not answered in time."""
        if self._silent_since_s is None:
            self._silent_since_s = self._clock.now_s()

    def heartbeat_age_s(self, heartbeat: int) -> float:
        """Since the number last changed."""
        if heartbeat != self._heartbeat:
            self._heartbeat, self._heartbeat_at_s = heartbeat, self._clock.now_s()
        return self._clock.now_s() - self._heartbeat_at_s

    async def answers(self, ask: Callable[[], Awaitable[object]]) -> bool:
        """Before something is done that needs its answer. One that has been asked in vain all the
        while is not asked again; whether this agent was away meanwhile says nothing about it."""
        since_s = self._silent_since_s
        now_s = self._clock.now_s()
        if since_s is not None and now_s - since_s >= (HEALTH_CHANCES - 1) * self._health_s:
            return False
        for _ in range(HEALTH_CHANCES):
            try:
                await ask()
            except (Unavailable, OutcomeUnknown):
                self.missed()
                continue
            self.heard()
            return True
        return False
