"""One round of the demo: a fault, or two at once, and the account of what the clients were told."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from primacy.cli.demo_faults.catalogue import Fault, Round, named
from primacy.cli.demo_faults.stage import Stage
from primacy.cli.demo_ledger import Account, LedgerFile, Owner, settle
from primacy.errors import PrimacyError, Unavailable
from primacy.model import NodeId

WRITING_WITHIN_S = 30.0
LOOK_S = 0.05
SECOND_AFTER_MAX_S = 3.0
"""In a pair, the second fault strikes so long after the first, or sooner."""


class FaultResult(msgspec.Struct, frozen=True):
    fault: str
    outage_s: float
    acknowledged: int
    lost: int
    late: int
    primary: str
    healthy: bool
    steps: dict[str, float]


class Rounds:
    """Plays one round after another on one stage."""

    def __init__(self, stage: Stage, ledger: Path) -> None:
        self._stage = stage
        self._ledger = LedgerFile(ledger)

    async def written(self, count: int) -> None:
        """Until the ledger holds more than `count` writes."""
        await self._until(lambda: len(self._ledger.lines()) > count, "acknowledged writes")

    async def play(self, round_: Round) -> FaultResult:
        """`Unavailable` where the demo cannot go on."""
        stage = self._stage
        await stage.calm()
        old = stage.scene.primary
        if old is None:
            raise Unavailable("no primary before the fault", hint="See the timeline above.")
        stage.say("demo", f"--- fault: {named(round_)} (the primary is {old})")
        acknowledged_before, epoch_before = len(self._ledger.lines()), stage.epoch
        stage.is_paired = len(round_) > 1
        stage.begin()
        await self._strike(round_, old)
        repaired_at_s = stage.clock.wall_s()
        written_again_s = await self._written_after(repaired_at_s)
        healthy = await self._healed()
        account = await self._settle(until_s=max(stage.clock.wall_s(), written_again_s))
        is_replaced = stage.epoch > epoch_before
        history = stage.scene.history.get(stage.epoch) if is_replaced else None
        result = FaultResult(
            fault=named(round_),
            outage_s=round(account.outage_s, 3),
            acknowledged=account.acknowledged - acknowledged_before,
            lost=account.lost,
            late=account.against_promise(answers_by_page=stage.database.answers_by_page),
            primary=stage.scene.primary or "",
            healthy=healthy,
            steps={
                **(history.steps_s if history else {}),
                "writable_after_repair": round(written_again_s - repaired_at_s, 3),
            },
        )
        ago_s = stage.clock.wall_s() - account.outage_from_s
        stage.say(
            "demo",
            f"outage {account.outage_s:.3f} s (it began {ago_s:.1f} s ago), lost {account.lost},"
            f" late {account.late}; writable {written_again_s - repaired_at_s:.1f} s after repair",
        )
        return result

    async def _strike(self, round_: Round, primary: NodeId) -> None:
        if len(round_) == 1:
            await round_[0].run(self._stage, primary)
            return
        first, second = round_
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._one_of_two(first, primary, after_s=0.0))
            after_s = self._stage.chance.uniform(0.0, SECOND_AFTER_MAX_S)
            tasks.create_task(self._one_of_two(second, primary, after_s=after_s))

    async def _one_of_two(self, fault: Fault, primary: NodeId, *, after_s: float) -> None:
        """The other fault may have taken away what this one would break: then it does nothing."""
        await self._stage.pause(after_s)
        now = self._stage.scene.primary or primary
        self._stage.say("demo", f"{fault.name} strikes (the primary is {now})")
        try:
            await fault.run(self._stage, now)
        except PrimacyError as error:
            self._stage.say("demo", f"{fault.name}: {error.what}")

    async def _written_after(self, wall_s: float) -> float:
        """When the first write through a router was acknowledged that was sent after `wall_s`."""
        found: list[float] = []

        def is_written() -> bool:
            found.extend(
                line.acked_s
                for line in self._ledger.lines()
                if line.sent_s > wall_s and line.door == "rw"
            )
            return bool(found)

        await self._until(is_written, "a write through the router after the repair")
        return min(found)

    async def _healed(self) -> bool:
        try:
            await self._stage.healed()
        except Unavailable as error:
            self._stage.say("demo", error.what)
            return False
        return True

    async def _settle(self, *, until_s: float) -> Account:
        stage = self._stage
        lines = self._ledger.lines().copy()  # Before the rows are read: each must be among them.
        primary = stage.scene.primary
        if primary is None:
            raise Unavailable("no primary after the fault", hint="See the timeline above.")
        present = await asyncio.to_thread(stage.database.rows, primary)
        owners = [Owner(at_s, node) for node, at_s in stage.scene.primaries.values()]
        return settle(
            lines, present=present, owners=owners, from_s=stage.began_wall_s, until_s=until_s
        )

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        clock = self._stage.clock
        deadline_s = clock.now_s() + WRITING_WITHIN_S
        while not holds():
            if clock.now_s() > deadline_s:
                raise Unavailable(
                    f"not within {WRITING_WITHIN_S:.0f} s: {what}", hint="See the timeline."
                )
            await clock.sleep(LOOK_S)
