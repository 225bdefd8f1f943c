"""Bugs of the SQLite engine's own rules: each a subclass of its model."""

from dataclasses import replace

from primacy.engines.api import Replication
from primacy.model import Epoch, NodeId
from primacy.sim.engine_log import Record
from primacy.sim.sqlite_model import SqliteModel
from primacy.sim.sqlite_pipeline import Pipeline
from primacy.sim.sqlite_pull import PullReceiver, PullSource, Report

# ---- the log and the database


class CommitsItsTail(SqliteModel):
    """A start brings the database to the log's end, whoever is the primary now."""

    async def start(self, *, as_primary: bool) -> None:
        was_up = self.process.is_up
        await super().start(as_primary=as_primary)
        if not was_up and self.data.applied < self.data.synced:
            self._applied_to(self.data.synced)


class CutsUnnoted(SqliteModel):
    """A cut that was not noted before: the node would return by rule 5(a) without its tail."""

    async def _note_cut(self) -> None:
        await self._pass(0.0)


class CutsAgain(SqliteModel):
    """What was found once is cut at every start as a replica, whatever the log holds by then."""

    async def start(self, *, as_primary: bool) -> None:
        found = self.found
        await super().start(as_primary=as_primary)
        self.found = found


class ForgetsItIsUnfit(SqliteModel):
    """That the tail cannot be applied is known while it is tried, and to nobody afterwards."""

    async def drain(self) -> None:
        try:
            await super().drain()
        finally:
            self.data.unfit = None

    async def _prepare_seal(self) -> None:
        await super()._prepare_seal()
        self.data.unfit = None

    async def start(self, *, as_primary: bool) -> None:
        self.data.unfit = None
        await super().start(as_primary=as_primary)


class CommitsUnsynced(Pipeline):
    """A group that was acknowledged is committed and answered; the own disk may take longer."""

    def _is_held(self, sequence: int) -> bool:
        engine = self._engine
        return engine.sender.acknowledged_by(max(engine.acks, 1)) >= sequence


class AnswersBeforeItsDisk(SqliteModel):
    pipeline_type = CommitsUnsynced


# ---- who counts


class HearsTheExcluded(PullSource):
    """Whoever is excluded is shown as gone and cannot come again; the session that it has goes on,
    and counts."""

    def detach(self, node: NodeId) -> None:
        if node not in self._engine.files.excluded:
            super().detach(node)

    def receivers(self) -> frozenset[NodeId]:
        return super().receivers() - self._engine.files.excluded


class CountsTheExcluded(SqliteModel):
    sender_type = HearsTheExcluded


class KeepsSessions(PullSource):
    """A reign ends, and its sessions do not: they belong to the next one."""

    def withdraw(self) -> None:
        return


class OutlivesItsEpoch(SqliteModel):
    sender_type = KeepsSessions


class ServesAnyEpoch(PullSource):
    """Whoever knows the secret is served, whatever epoch it follows."""

    def _may_have(self, node: NodeId, epoch: Epoch) -> bool:
        del epoch
        return bool(self.serving) and node not in self._engine.files.excluded


class WelcomesAnyEpoch(SqliteModel):
    sender_type = ServesAnyEpoch


class ComparesIndexes(PullSource):
    """The source looks at a receiver's index only: another log of that length fits as well."""

    def compares(self, end: Record | None) -> bool:
        return end is None or end.sequence <= len(self._engine.files.log)


class PullsByIndex(SqliteModel):
    sender_type = ComparesIndexes


# ---- what a replica says and does


class SaysApplied(PullReceiver):
    """What is received is reported as applied."""

    def reported(self) -> Report:
        report = super().reported()
        return report._replace(applied=report.received)


class ReportsReceived(SqliteModel):
    receiver_type = SaysApplied


class ShowsTheMoment(PullReceiver):
    """A replica that waits for space says that it does not acknowledge, and does so again by itself
    once it has space."""

    def observed(self) -> Replication:
        seen = super().observed()
        return replace(seen, acknowledges=seen.acknowledges and self.reported().acknowledges)


class SilentForTheMoment(SqliteModel):
    receiver_type = ShowsTheMoment


class Eager(PullReceiver):
    """It applies as soon as it follows, before its source has compared the logs."""

    @property
    def may_apply(self) -> bool:
        return self.upstream is not None and not self.trouble

    def start(self, upstream: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        super().start(upstream, epoch, acknowledge=acknowledge)
        self._engine.schedule_apply()


class AppliesUncompared(SqliteModel):
    receiver_type = Eager
