"""The simulator's client of the store, as far as it differs from the real one: its watches."""

from primacy.errors import Unavailable
from primacy.model import NodeId, Revision
from primacy.sim.choices import Choices
from primacy.sim.run import Run

SEED = 2
WATCHED_FROM_S, RESTARTED_AT_S, DURATION_S = 5.0, 6.0, 12.0
LATE_S = 0.3
A = NodeId("a")


class Watched(Run):
    """A calm cluster, and somebody outside who watches member a."""

    def begin(self) -> None:
        self.told_at_s: list[float] = []
        self.ended_at_s: float | None = None
        self.network.lags_s[A, "client", "watch"] = LATE_S
        self.world.at(WATCHED_FROM_S, None, self._watch_soon)
        self.world.at(RESTARTED_AT_S, None, self._restart)

    def _watch_soon(self) -> None:
        self._loop.run_inside(
            lambda: self._loop.create_task(self._watch()).add_done_callback(self._client_ended)
        )

    async def _watch(self) -> None:
        member = self.nodes[A].member.member
        assert member is not None
        next_revision = Revision(member.kv.revision + 1)
        try:
            async with self._store.watch("", is_prefix=True, from_revision=next_revision) as told:
                async for _ in told:
                    self.told_at_s.append(self.world.now_s)
        except Unavailable:
            self.ended_at_s = self.world.now_s

    def _restart(self) -> None:
        self.nodes[A].crash_agent()
        self.nodes[A].start_agent()


def test_a_watch_does_not_go_on_at_a_members_next_life() -> None:
    """What the old life had sent came after the new one had begun, and the client then waited for
    ever for a member that knew nothing of it."""
    calm = Choices(
        seed=SEED,
        duration_s=DURATION_S,
        heal_at_s=DURATION_S,
        is_converging=False,
        nodes=("a", "b", "c"),
        clients=(),
    )
    run = Watched(SEED, choices=calm)
    run.begin()
    run.go(DURATION_S)
    assert any(RESTARTED_AT_S < at_s < RESTARTED_AT_S + LATE_S + 0.1 for at_s in run.told_at_s)
    assert run.ended_at_s is not None
    assert run.ended_at_s < RESTARTED_AT_S + 3.0
