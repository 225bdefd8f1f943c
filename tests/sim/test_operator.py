"""An operator at work during the faults: copies, restarts of servers, pauses; nothing breaks."""

import pytest

from primacy.cluster.suspicion import STATUS_EVERY_S
from primacy.coordination.api import Delete, Op, Put, Txn
from primacy.errors import PrimacyError
from primacy.replication.records import (
    PAUSE_KEY,
    TASKS_PREFIX,
    NodeTask,
    Pause,
    encoded,
    node_key,
)
from primacy.sim.run import Run
from primacy.sim.settings import EngineName

SEEDS = (3, 11, 40, 52)
DURATION_S = 45.0
ASKED_EVERY_S = 2.5
PAUSED_FOR_S = 3.0


class Operated(Run):
    """As any run; and every few seconds somebody asks for something, however things stand."""

    def begin(self) -> None:
        self._lot = self.world.stream("operator")
        self.asked: list[str] = []
        for number in range(int(DURATION_S * 0.6 / ASKED_EVERY_S)):
            self.world.at((number + 2) * ASKED_EVERY_S, None, self._ask_something, number)

    def _ask_something(self, number: int) -> None:
        name = self._lot.choice(self.setup.data_nodes)
        engine = self.nodes[name].engine
        kind = self._lot.choice(["reinit", "restart-database", "pause"])
        if kind == "pause":
            self._write(Put(PAUSE_KEY, encoded(Pause())))
            self.world.after(PAUSED_FOR_S, None, self._write, Delete(PAUSE_KEY))
        elif kind == "reinit" and engine.files.incarnation is not None:
            self._task(number, NodeTask(
                request_id=f"o{number}", node=name, kind="reinit", of=engine.files.incarnation
            ))  # fmt: skip
        else:
            self._task(number, NodeTask(
                request_id=f"o{number}", node=name, kind="restart-database", of=str(engine.starts)
            ))  # fmt: skip

    def _task(self, number: int, task: NodeTask) -> None:
        """Asked for, and withdrawn in the end, as the command does."""
        self.asked.append(task.kind)
        key = node_key(TASKS_PREFIX, task.node)
        self._write(Put(key, encoded(task)))
        self.world.after(20 * STATUS_EVERY_S, None, self._write, Delete(key))

    def _write(self, op: Op) -> None:
        async def put() -> None:
            try:
                await self._store.txn(Txn(then=(op,)))
            except PrimacyError:
                return  # The store has no majority now: an operator would try again.

        self._loop.run_inside(
            lambda: self._loop.create_task(put()).add_done_callback(self._client_ended)
        )


@pytest.mark.parametrize(
    ("engine", "seed"), [*(("mariadb", seed) for seed in SEEDS), ("sqlite", 2), ("sqlite", 6)]
)
def test_nothing_breaks_whatever_an_operator_asks_for(engine: EngineName, seed: int) -> None:
    run = Operated(seed, engine=engine)
    run.begin()
    verdict = run.go(DURATION_S)
    assert verdict.broken is None, str(verdict)
    assert verdict.commits_count > 0
    assert "reinit" in run.asked
    assert "restart-database" in run.asked
