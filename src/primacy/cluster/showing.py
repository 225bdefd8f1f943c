"""What an agent knew at one moment, handed to readers in other threads as one frozen value."""

from dataclasses import dataclass

from primacy.cluster.view import View
from primacy.replication.records import HistoryRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    view: View
    history: tuple[HistoryRecord, ...]
    """Each epoch's account, as far as the watch has brought it."""
    doing: str
    """What the agent is busy with, in words."""
    at_s: float
    """On the monotonic clock of this host."""


class Window:
    """The newest `Shown`. The agent's loop replaces it whole; any thread may look."""

    def __init__(self) -> None:
        self.newest: Shown | None = None

    def show(self, shown: Shown) -> None:
        self.newest = shown
