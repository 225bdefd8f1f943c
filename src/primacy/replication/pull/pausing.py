"""How long a receiver waits before it tries its upstream again. Pure.

Promises  A node that has just won is asked again at once: a failover waits for who follows it. An
          upstream that is away is asked less and less often, one that refuses for good seldom.
"""

from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import PASSING, Refusal
from primacy.replication.pull.receiver import Ending, TurnedAway

ABOUT_TO_SERVE = frozenset({Refusal.OLD_EPOCH, Refusal.NOT_SERVING})
"""The upstream lives, and has been claimed for an epoch that it has not begun yet."""

PROMPT_TRIES = 100
"""Two seconds of the shortest pause; each try costs both ends a few messages."""


class Pauses:
    """Of one receiver that follows one upstream."""

    def __init__(self, limits: PullLimits) -> None:
        self._limits = limits
        self.streamed()

    def streamed(self) -> None:
        """A session came to the point at which records come: it begins anew."""
        self._next_s = self._limits.backoff_min_s
        self._prompt_left = PROMPT_TRIES

    def after(self, ending: Ending) -> float:
        """In seconds, before chance spreads it."""
        refusal = ending.refusal if isinstance(ending, TurnedAway) else None
        if refusal is not None and refusal not in PASSING:
            return self._limits.refused_s
        if refusal in ABOUT_TO_SERVE and self._prompt_left:
            self._prompt_left -= 1
            return self._limits.backoff_min_s
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._limits.backoff_max_s)
        return pause_s
