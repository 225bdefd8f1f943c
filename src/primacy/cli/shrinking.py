"""Shrinking a failing seed for a person who waits: progress, the file, and what is left to read."""

from pathlib import Path

from primacy.cli.format import Json, complain
from primacy.clock import Clock
from primacy.sim.choices import encoded
from primacy.sim.run import Assembly, genuine
from primacy.sim.settings import EngineName
from primacy.sim.shrink import Effort, Outcome, shrink_seed

PROGRESS_EVERY_S = 10.0
"""Between two lines while nothing smaller is found."""


class Shrinking:
    """One seed, and the file of the smallest choices so far: an interruption loses nothing."""

    def __init__(
        self, seed: int, path: Path, clock: Clock, *, within_s: float, replay: str
    ) -> None:
        """`replay`: the command that runs what is in the file."""
        self._seed = seed
        self._path = path
        self._clock = clock
        self._within_s = within_s
        self._replay = replay
        self._told_at_s = clock.now_s()

    def run(
        self, duration_s: float, *, engine: EngineName = "mariadb", assembly: Assembly = genuine
    ) -> None:
        """Raises `Rejected` where the seed breaks nothing."""
        deadline_s = self._clock.now_s() + self._within_s
        self.first, self.smallest, self.effort = shrink_seed(
            self._seed,
            duration_s,
            engine=engine,
            is_time_left=lambda: self._clock.now_s() < deadline_s,
            assembly=assembly,
            on_run=self._tell,
        )
        self._path.write_bytes(encoded(self.smallest.record))

    def _tell(self, name: str, outcome: Outcome | None, effort: Effort) -> None:
        now_s = self._clock.now_s()
        if outcome is not None:
            self._path.write_bytes(encoded(outcome.record))
            said = f"{outcome.record}, breaks at {outcome.at_s:.1f} s"
        elif now_s - self._told_at_s > PROGRESS_EVERY_S:
            said = "nothing smaller yet"
        else:
            return
        self._told_at_s = now_s
        complain(f"{effort.runs_count:4} runs, {name}: {said}")

    def lines(self) -> list[str]:
        """For people: from what to what, the faults that are left, and how to replay them."""
        smallest, effort = self.smallest, self.effort
        ended = "time is up" if effort.is_out_of_time else "nothing more can be taken away"
        return [
            f"from {self.first.record}",
            f"to   {smallest.record}; {effort.runs_count} runs, {ended}",
            *(
                f"  {strike.at_s:8.3f} s  {strike.fault:<18} {strike.node or 'nobody yet'}"
                for strike in smallest.record.strikes
            ),
            f"at {smallest.at_s:.3f} s {smallest.text}",
            f"saved in {self._path}; {self._replay}",
        ]

    def as_json(self) -> dict[str, Json]:
        smallest, effort = self.smallest, self.effort
        return {
            "seed": self._seed,
            "broken": smallest.text,
            "at_s": smallest.at_s,
            "faults_before": len(self.first.record.strikes),
            "faults": [
                {"at_s": strike.at_s, "fault": strike.fault, "node": strike.node}
                for strike in smallest.record.strikes
            ],
            "clients": [client.name for client in smallest.record.clients],
            "nodes": list(smallest.record.nodes),
            "runs": effort.runs_count,
            "is_out_of_time": effort.is_out_of_time,
            "file": str(self._path),
            "replay": self._replay,
        }
