"""Actions that fail: each kind waits longer from one failure to the next, and says why. Pure."""

from dataclasses import dataclass

RETRY_AFTER_S = 0.05
RETRY_AFTER_MAX_S = 5.0
"""After an action that failed: doubled each time, so that a refusing server is not hammered."""
WHY_CHARACTERS_MAX = 200
"""Of a failure's own words, in what is shown while the action waits to be tried again."""


@dataclass(frozen=True, slots=True)
class Failing:
    """One kind of action, and its failures in a row."""

    count: int = 0
    not_before_s: float = 0.0
    """When it may be tried again."""
    why: str = ""
    """The last failure's own words."""

    def again(self, why: str, now_s: float) -> "Failing":
        wait_s = min(RETRY_AFTER_MAX_S, RETRY_AFTER_S * 2.0**self.count)
        return Failing(self.count + 1, now_s + wait_s, why)

    def told(self, action: str, reason: str) -> str:
        """For whoever asks why nothing happens: `reason` is why the action is wanted."""
        why = self.why[:WHY_CHARACTERS_MAX].rstrip(".")
        return f"{action} failed {self.count} time(s), the last with: {why}. It is wanted: {reason}"


NOT_FAILING = Failing()
