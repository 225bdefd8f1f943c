"""Where the time of one failover goes: seconds per step, on the winner's clock."""

from collections.abc import Iterator
from contextlib import contextmanager

from primacy.clock import Clock
from primacy.model import Epoch, NodeId
from primacy.replication.records import HistoryRecord


class Steps:
    """A stopwatch with laps. `begin` ends the lap before; a step met twice adds up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._laps: dict[str, float] = {}
        self._lap: tuple[str, float] | None = None
        self.kind = ""
        self.reason = ""
        self.accepted_loss: tuple[NodeId, ...] = ()
        self.may_lose = ""
        self.actions_s: dict[str, float] = {}
        """Of each kind of action: the seconds that its last performance took."""

    def restart(self, detection_s: float) -> None:
        """A primary record has gone; how long ago this node last saw its holder alive."""
        self._laps = {"detection": detection_s}
        self._lap = None

    def begin(self, step: str) -> None:
        now_s = self._clock.now_s()
        self._end_lap(now_s)
        self._lap = (step, now_s)

    @contextmanager
    def measure(self, action: str) -> Iterator[None]:
        began_s = self._clock.now_s()
        try:
            yield
        finally:
            self.actions_s[action] = self._clock.now_s() - began_s

    def history(self, epoch: Epoch, node: NodeId) -> HistoryRecord | None:
        """The finished account, once; None where this process did not make the claim."""
        self._end_lap(self._clock.now_s())
        if not self.kind:
            return None
        record = HistoryRecord(
            epoch=epoch,
            node=node,
            kind=self.kind,
            reason=self.reason,
            steps_s={step: round(taken_s, 4) for step, taken_s in self._laps.items()},
            wall_s=self._clock.wall_s(),
            accepted_loss=self.accepted_loss,
            may_have_lost=self.may_lose,
        )
        self.kind, self.reason, self.accepted_loss, self.may_lose = "", "", (), ""
        self._laps = {}
        return record

    def _end_lap(self, now_s: float) -> None:
        if self._lap is not None:
            step, began_s = self._lap
            self._laps[step] = self._laps.get(step, 0.0) + now_s - began_s
            self._lap = None
