"""A model of the SQLite server and of the engine's hand on it: what it does otherwise than MariaDB.

    start --> RESTING --follow--> following --rest--> RESTING --begin_epoch--> reigning --open_doors
                 ^                                                                |
                 +---------------- demote, or a group in doubt -------------------+

Promises  A start neither cuts nor applies: the tail behind the position row waits. Whoever follows
          applies what its source has compared, whoever is to lead applies what its log has. Cut or
          taken back is only what was saved, and that is noted first.
Source    engines/sqlite/server (roles, replica), replication/pull, docs/engines/sqlite.md.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from primacy.engines.api import (
    Branch,
    Capabilities,
    Diverged,
    Observation,
    Replication,
    ServerState,
)
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId
from primacy.sim.engine_log import Commit, Kind
from primacy.sim.engine_model import NOTE_S, POLL_S, ModelEngine
from primacy.sim.sqlite_files import SqliteFiles
from primacy.sim.sqlite_pipeline import Job, Pipeline, Reply
from primacy.sim.sqlite_pull import PullReceiver, PullSource

NO_INVERSE = 0.3
"""Share of tails that cannot be taken back row by row."""

REPLAY_S = 0.001
REPLAYED_AT_ONCE = 50
REWIND_S = 0.05


class SqliteModel(ModelEngine):
    """One server of the SQLite engine."""

    capabilities = Capabilities(
        name="model of sqlite",
        acks_max=None,
        ack_on=frozenset({"received", "applied"}),
        alternative="",
    )
    files_type = SqliteFiles
    sender_type = PullSource
    receiver_type = PullReceiver
    pipeline_type = Pipeline
    pipeline: Pipeline | None = None
    """Of the reign, from its first record to its end."""
    is_in_doubt = False
    """A group stands in the log, and this server cannot say whether it holds."""
    is_begun = False
    """The epoch's row is durable here."""
    found: Diverged | None = None
    """What `save_diverged` found last."""

    @property
    def data(self) -> SqliteFiles:
        return cast("SqliteFiles", self.files)

    @property
    def door(self) -> PullSource:
        return cast("PullSource", self.sender)

    @property
    def pull(self) -> PullReceiver:
        return cast("PullReceiver", self.receiver)

    # ---- the process

    def crash(self) -> None:
        if self.process.is_up:
            pipeline, self.pipeline = self.pipeline, None
            if pipeline is not None:
                pipeline.break_off()
            self.is_in_doubt = False
        super().crash()

    def write(self, uid: int, reply: Reply) -> bool:
        """Not taken without the page's permission, nor while the disk is full."""
        is_open = not self.is_read_only and self.process.is_up and self.pipeline is not None
        if not is_open or self.disk.is_full or not self.is_permitted():
            return False
        self._reign().put(Job(Kind.WRITE, uid, reply))
        return True

    def is_permitted(self) -> bool:
        """By the deadline page, as the server reads it."""
        local_s = self.process.clock.local_s(self.world.now_s)
        return self.guard is None or self.guard.page.passes(self.epoch, local_s)

    def release(self) -> None:
        if self.pipeline is not None:
            self.pipeline.release()

    def has_committed(self, commit: Commit) -> None:
        record = commit.record
        self.files.committed = record.sequence
        if record.kind is Kind.BEAT:
            self._beaten(record)
        if record.kind is Kind.WRITE:
            self.witnesses.on_commit(self, record, self.sender.holders(record.sequence))
            if commit.reply is not None:
                commit.reply(record)

    def end_reign(self, why: str) -> None:
        """Nobody is served or answered any more. Another epoch may begin here, never this one."""
        self.world.note(self.node, "reign-ended", why)
        self.is_read_only = True
        pipeline, self.pipeline = self.pipeline, None
        self.door.withdraw()
        if pipeline is not None:
            pipeline.break_off()
        self.acks = 0
        self.epoch = Epoch(0)

    def observation(self) -> Observation:
        """Of a server that is down or does not answer, what the notes say."""
        seen, files = super().observation(), self.data
        if seen.state is ServerState.ABSENT:
            return seen
        sending = replace(seen.sending, repeats_acks=True)
        seen = replace(seen, sending=sending, is_disk_full=self.disk.is_full, is_torn=files.is_torn)
        if seen.state is ServerState.RUNNING:
            return seen
        return Observation(
            state=seen.state,
            incarnation=files.incarnation,
            received=files.published,
            sealed_epoch=files.sealed_epoch,
            following_epoch=self.following_epoch,
            is_cut=files.is_cut,
            is_torn=files.is_torn,
            is_disk_full=seen.is_disk_full,
            has_old_data=files.has_old_data,
            replication=Replication(error=files.unfit),
        )

    def _hangs(self) -> bool:
        """It answers whatever its writer waits for, and is of no use once that is in doubt."""
        return self.is_in_doubt

    def _reign(self) -> Pipeline:
        if self.pipeline is None:
            raise Conflict(f"{self.node} does not reign", hint="Win an epoch.")
        return self.pipeline

    # ---- what is applied

    def schedule_apply(self) -> None:
        if self.pull.may_apply and self.data.is_applier_broken:
            self.give_up()
            self.receiver.stop()
            return
        super().schedule_apply()

    def give_up(self) -> None:
        """What comes next cannot be applied here: this node acknowledges nothing more."""
        self.world.trace.sometimes("applier gave up")
        self.data.unfit = "a row is not as the record says"

    def _applicable(self) -> int:
        return super()._applicable() if self.pull.may_apply else self.files.applied

    def _has_applied(self) -> None:
        if self.pull.may_apply:
            self._applied_to(self.files.applied)
            self.pull.report()

    def _applied_to(self, sequence: int) -> None:
        self.data.commit_to(sequence)
        self.witnesses.on_applied(self)

    # ---- life of the server

    async def start(self, *, as_primary: bool) -> None:
        if not as_primary and not self.process.is_up:
            await self._cut_what_was_saved()
        await super().start(as_primary=as_primary)
        self.found = None
        self.needs_salvage = False

    async def _cut_what_was_saved(self) -> None:
        """A tail of which nothing is applied is cut; else it is taken back, or copied over."""
        found, files = self.found, self.data
        self.found = None  # It was of the log as it stands now.
        if found is None or not found.count:
            return
        await self._note_cut()
        is_same = not self.process.is_up and files is self.files
        if not is_same or files.applied >= found.parts_at:
            return
        self.witnesses.on_cut(self)
        self.world.trace.sometimes("unacknowledged tail cut")
        files.cut_from(found.parts_at)

    async def _note_cut(self) -> None:
        """Durably, before anything is taken away: the right of rule 5(a) goes with it."""
        await self._pass(NOTE_S * self.disk.slowness)
        if self.disk.is_full:
            raise Unavailable("the note cannot be written", hint="Make space.")
        self.files.is_cut = True

    async def save_diverged(self, branches: Sequence[Branch]) -> Diverged:
        found = await super().save_diverged(branches)
        is_applied = found.count > 0 and self.files.applied >= found.parts_at
        if is_applied and not found.obstacle and self._chance.random() < NO_INVERSE:
            found = replace(found, obstacle="a statement has no inverse")
        self.found = found
        return found

    async def rewind(self, found: Diverged, primary: NodeId, epoch: Epoch) -> None:
        """The rows of the tail are reversed and its records cut; then the tables are compared."""
        self._require_running()
        await self._note(epoch)
        self.receiver.stop()
        await self._note_cut()
        self.data.is_torn = True
        await self._pass(REWIND_S)
        self._require_running()
        self.witnesses.on_cut(self)
        self.files.cut_from(found.parts_at)
        self._check_reachable(primary)
        self.data.is_torn = False
        self.world.trace.sometimes("rewound")

    def _check_reachable(self, primary: NodeId) -> None:
        source = self.fleet[primary]
        links = [(self.node, primary), (primary, self.node)]
        is_cut = any(self.network.is_cut(one, other, "log") for one, other in links)
        if is_cut or not source.process.is_running:
            raise Unavailable(f"{primary} does not answer", hint="Clone this node.")

    def can_be_copied(self) -> bool:
        is_at_work = self.pipeline is not None or self.receiver.upstream is not None
        return self.process.is_running and is_at_work

    # ---- as a replica

    async def _prepare_seal(self) -> None:
        """What a server that leads has in flight must not move on. One that is down stays down."""
        if self.process.is_up and (self.pipeline is not None or self.is_in_doubt):
            await self.kill()
        self.receiver.stop()

    async def seal(self, epoch: Epoch) -> Observation:
        if self.data.is_torn:
            raise Conflict("a rewind of these data has not ended", hint="Clone the node.")
        seen, files = await super().seal(epoch), self.data
        end = files.position(files.synced)
        if end < files.published:
            raise Unavailable(f"the log goes to {end}", hint=f"It went to {files.published}.")
        files.published = end
        return replace(seen, received=end, applied=files.position(files.applied))

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        if self.pipeline is not None or self.data.is_torn or self.pull.trouble:
            raise Conflict(f"{self.node} reigns, or is of no use", hint="Demote or clone it.")
        await super().follow(primary, epoch, acknowledge=acknowledge)
        self.files.excluded.clear()

    async def _before_following(self) -> None:
        """Of the own tail nothing is applied before the new source has compared it."""

    async def drain(self) -> None:
        """The node is to lead: its own log is the history."""
        self._require_running()
        self.receiver.stop()
        files = self.data
        if files.synced < len(files.log):
            await self._synced()
        while files.applied < files.synced:
            reached = min(super()._applicable(), files.applied + REPLAYED_AT_ONCE)
            if reached <= files.applied:
                self.give_up()
                raise Unavailable("the tail cannot be applied", hint="Clone this node anew.")
            await self._pass(REPLAY_S * self.slowness)
            self._require_running()
            self._applied_to(reached)

    # ---- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        del primary
        self._require_running()
        if self.pipeline is None:
            if epoch < self.files.sealed_epoch or epoch <= self.files.last_epoch:
                raise Conflict(f"epoch {epoch} is over here", hint="Win a later epoch.")
            self.receiver.stop()
            self.following_epoch = Epoch(0)
            await self._note(epoch)
            self._require_running()
            await self.drain()
            self._begin_reign(epoch)
        elif self.epoch != epoch:
            raise Conflict(f"{self.node} reigns in epoch {self.epoch}", hint="Kill it first.")
        await self._synced()
        self.files.is_cut = False
        if not self.is_begun:
            self.is_begun = True
            self.witnesses.on_epoch(self, epoch)
        is_row = ((each.kind, each.epoch) == (Kind.EPOCH_ROW, epoch) for each in self.files.log)
        return 1 + list(is_row).index(True)

    def _begin_reign(self, epoch: Epoch) -> None:
        files = self.files
        if self.disk.is_full:
            raise Unavailable("there is no space for an epoch's record", hint="Make space.")
        files.led_epoch = self.epoch = epoch
        files.excluded.clear()
        self.is_begun = False
        self.pipeline = self.pipeline_type(self)
        self.door.serve(epoch)
        self.pipeline.append(Kind.EPOCH_ROW, -epoch)

    async def set_acks(self, acks: int, *, may_release: bool = False) -> None:
        self._reign()
        await super().set_acks(acks, may_release=may_release)

    async def open_doors(self) -> None:
        self._reign()
        await super().open_doors()
        if self.pipeline is None:  # It ended meanwhile.
            self.is_read_only = True
        pipeline = self._reign()
        pipeline.is_open = True
        pipeline.go_on()

    async def close_doors(self) -> int:
        pipeline = self._reign()
        was_open, pipeline.is_open = pipeline.is_open, False
        try:
            last = await super().close_doors()
        except Unavailable:
            pipeline.is_open = was_open
            pipeline.go_on()
            raise
        pipeline.turn_away()
        return last

    async def write_marker(self) -> int:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        pipeline = self._reign()
        if self.commits:
            return len(self.files.log)
        if self.disk.is_full:
            raise Unavailable("there is no space for a marker", hint="Make space.")
        record = pipeline.append(Kind.MARKER, 0)
        await self._synced()
        self.witnesses.on_marker(self)
        return record.sequence

    def _abdicate(self) -> None:
        self.end_reign("demoted")

    async def beat(self) -> None:
        self._require_running()
        pipeline = self._reign()
        if self.is_read_only:
            raise Conflict("the doors are closed", hint="Open them first.")
        is_taken = self.is_permitted() and not self.disk.is_full
        if is_taken and not pipeline.has(Kind.BEAT):
            pipeline.put(Job(Kind.BEAT, 0))
