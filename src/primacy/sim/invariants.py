"""What must hold after every step of the simulator, checked where it could break.

name                               where it is looked at
election-safety, log-matching,     each step of a Raft member, by consensus.invariants
  leader-append-only, leader-completeness, state-machine-safety
linearizable-store                 each revision on each member; each answer to a client
one-primary-per-epoch              each primary record; each epoch row
acks-come-from-the-recorded-set    each commit; each opening of doors; each change of D
old-epochs-are-refused             each acknowledgement that a replica sends
no-acknowledged-write-lost         each epoch row, and each commit of an older epoch after it
fenced-before-replaced             each end of a primary record; each answer through a router
replica-is-a-prefix                each batch that a replica takes
exactly-once                       each numbered write of the store's test client
no-dead-end                        the end of the run, by `run`

The first break stops the world. Every check costs as much as what changed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from primacy.consensus.invariants import RaftHistory
from primacy.consensus.machine import Effect, Event
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import Raft, State
from primacy.coordination.api import Change, WatchBatch
from primacy.errors import InvariantBroken
from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.records import (
    DURABILITY_KEY,
    HISTORY_PREFIX,
    PRIMARY_KEY,
    DurabilityRecord,
    HistoryRecord,
    PrimaryRecord,
    decoded,
)
from primacy.sim.engine_log import Record
from primacy.sim.history import StoreHistory
from primacy.sim.world import World

if TYPE_CHECKING:
    from primacy.sim.engine_model import ModelEngine
    from primacy.sim.guard_model import SimGuard

ONCE_PREFIX = "once/"
"""Keys that a client writes exactly once: a second version is a second execution."""

CLOCK_SLACK_S = 1e-6
"""Rounding of floating-point clocks."""


class Invariants:
    """The memory of a run: what was promised, and to whom."""

    def __init__(self, world: World, voters: Sequence[NodeId]) -> None:
        self.world = world
        self.broken: InvariantBroken | None = None
        self.store = StoreHistory()
        self.engines: dict[NodeId, ModelEngine] = {}
        self.guards: dict[NodeId, SimGuard] = {}
        self.primary: PrimaryRecord | None = None
        self.durability: dict[Epoch, DurabilityRecord] = {}
        self.acknowledged: dict[int, Record] = {}
        """Writes acknowledged under acks >= 1, by uid: none may ever be missing."""
        self.commits_count = 0
        self.late_count = 0
        self.lost_count = 0
        """Acknowledged under acks = 0, and not in the next epoch's log."""
        self._raft = RaftHistory(voters)
        self._batches: dict[int, WatchBatch] = {}
        self._primaries: dict[Epoch, NodeId] = {}
        self._ended: set[Epoch] = set()
        self._newest_epoch = Epoch(0)
        self._begun: dict[Epoch, frozenset[int]] = {}
        self._unprotected: dict[int, Record] = {}
        self._is_loss_in_force = False

    def fail(self, name: str, detail: str) -> None:
        """Stop the world at the first break."""
        self.stop(InvariantBroken(name, detail))

    def stop(self, broken: InvariantBroken) -> None:
        if self.broken is None:
            self.broken = broken
            self.world.note("world", "BROKEN", str(broken))
            self.world.is_stopped = True

    # ---- Raft and the store

    def on_boot(self, raft: Raft) -> None:
        self._raft.started(raft)

    def on_raft(
        self, raft: Raft, event: Event[Message], effects: Sequence[Effect[Message]], was: State
    ) -> None:
        try:
            self._raft.observe(raft, effects, event)
        except InvariantBroken as broken:
            self.stop(broken)
        if raft.state is not was and raft.state is State.LEADER:
            self.world.trace.sometimes("store election")
            self.world.note(raft.node, "store-leads", f"term {raft.term}")

    def on_changes(self, node: NodeId, batch: WatchBatch) -> None:
        """A member applied a revision: the same on all, and new to the first."""
        known = self._batches.get(batch.revision)
        if known is not None:
            if known != batch:
                self.fail("linearizable-store", f"{node} has another revision {batch.revision}")
            return
        if batch.revision != self.store.revision + 1:
            self.fail("linearizable-store", f"{node}: {batch.revision} after {self.store.revision}")
        self._batches[batch.revision] = batch
        self.store.applied(batch.revision, batch.changes)
        for change in batch.changes:
            if change.key == PRIMARY_KEY:
                self._on_primary(change)
            elif change.key == DURABILITY_KEY and change.after is not None:
                self._on_durability(decoded(DurabilityRecord, change.after.value))
            elif change.key.startswith(HISTORY_PREFIX) and change.after is not None:
                if change.after.version == 1:
                    self.world.trace.sometimes(decoded(HistoryRecord, change.after.value).kind)
            elif change.key.startswith(ONCE_PREFIX) and change.after and change.after.version > 1:
                self.fail("exactly-once", f"{change.key} was written {change.after.version} times")

    # ---- who is primary

    def _on_primary(self, change: Change) -> None:
        old = self.primary
        new = decoded(PrimaryRecord, change.after.value) if change.after is not None else None
        self.primary = new
        if new is not None:
            self.world.note("store", "primary", f"{new.node} of epoch {new.epoch}")
            other = self._primaries.setdefault(new.epoch, new.node)
            if other != new.node or new.epoch <= self._newest_epoch:
                self.fail("one-primary-per-epoch", f"{new} after {other} {self._newest_epoch}")
            self._newest_epoch = new.epoch
        if old is not None:
            self._ended.add(old.epoch)
            self.world.note("store", "primary-ended", f"{old.node} of epoch {old.epoch}")
            self._check_fenced(old, is_replaced=new is not None)

    def _check_fenced(self, old: PrimaryRecord, *, is_replaced: bool) -> None:
        """No answer can pass under a record that has ended: the page is closed or run out, or, in
        a hand-over, nothing is left to answer."""
        guard, engine = self.guards[old.node], self.engines[old.node]
        page = guard.page
        if page.state != "open" or page.epoch != old.epoch:
            return
        left_s = guard.process.clock.true_s(page.deadline_s) - self.world.now_s
        if left_s <= CLOCK_SLACK_S or not engine.process.is_up:
            return
        if is_replaced and engine.is_read_only and not engine.commits:
            return
        self.fail(
            "fenced-before-replaced",
            f"the record of {old.node}, epoch {old.epoch}, ended; its page is open {left_s:.3f} s",
        )

    def on_passed(self, node: NodeId, epoch: Epoch) -> None:
        """A router let an answer through."""
        if epoch in self._ended:
            self.fail("fenced-before-replaced", f"an answer of {node}, epoch {epoch}, passed late")

    def _on_durability(self, record: DurabilityRecord) -> None:
        before = self.durability.get(record.epoch)
        self.durability[record.epoch] = record
        if self.primary is None or self.primary.epoch != record.epoch:
            self.fail("one-primary-per-epoch", f"D of epoch {record.epoch} under {self.primary}")
        if record.is_lossy:
            self._is_loss_in_force = True
        trace = self.world.trace
        if record.is_degraded:
            trace.sometimes("degradation")
        if before is not None:
            if set(record.members) - set(before.members):
                trace.sometimes("member came in")
            if set(before.members) - set(record.members):
                trace.sometimes("member went out")
        engine = self.engines[record.primary.node]
        for node, incarnation in engine.sender.acknowledgers():
            self.on_counted(engine, node, incarnation)

    # ---- the log

    def on_counted(self, engine: "ModelEngine", node: NodeId, incarnation: Incarnation) -> None:
        """An acknowledgement of `node` counts at a primary: it is in the recorded set."""
        if engine.is_read_only or not engine.epoch:
            return
        record = self.durability.get(engine.epoch)
        if record is None or not record.names(node, incarnation):
            self.fail(
                "acks-come-from-the-recorded-set",
                f"{engine.node}, epoch {engine.epoch}, counts {node}#{incarnation}; D is {record}",
            )

    def on_open(self, engine: "ModelEngine") -> None:
        record = self.durability.get(engine.epoch)
        self.world.note(engine.node, "doors-open", f"epoch {engine.epoch}")
        if record is None or record.primary.node != engine.node:
            self.fail(
                "acks-come-from-the-recorded-set",
                f"{engine.node} opens epoch {engine.epoch} without a record of its own",
            )

    def on_append(self, engine: "ModelEngine", record: Record) -> None:
        """A primary writes: into the log of its own epoch, behind everything older."""
        if record.epoch < engine.files.position(record.sequence - 1).epoch:
            self.fail("one-primary-per-epoch", f"{engine.node} writes {record} behind a newer one")

    def on_received(
        self, engine: "ModelEngine", source: "ModelEngine", first: int, records: tuple[Record, ...]
    ) -> None:
        del records
        if first > 1 and engine.files.log[first - 2] != source.files.log[first - 2]:
            self.fail(
                "replica-is-a-prefix",
                f"{engine.node} has {engine.files.log[first - 2]},"
                f" {source.node} has {source.files.log[first - 2]}",
            )

    def on_acknowledge(self, engine: "ModelEngine", sender_epoch: Epoch) -> None:
        if sender_epoch < engine.refused_below:
            self.fail(
                "old-epochs-are-refused",
                f"{engine.node} is sealed for {engine.refused_below}, acknowledges {sender_epoch}",
            )

    def on_epoch(self, engine: "ModelEngine", epoch: Epoch) -> None:
        """The epoch row stands: the log before it holds every write of an older epoch that was
        acknowledged. A row may come late, after a newer epoch's: that branch then ends there."""
        if self._primaries.get(epoch) != engine.node:
            self.fail("one-primary-per-epoch", f"{engine.node} begins epoch {epoch}")
        held = frozenset(record.uid for record in engine.files.log)
        missing = [
            record
            for uid, record in self.acknowledged.items()
            if record.epoch < epoch and uid not in held
        ]
        self.world.note(engine.node, "epoch-row", f"epoch {epoch}, {len(held)} records")
        if missing and not self._is_loss_in_force:
            self.fail(
                "no-acknowledged-write-lost",
                f"epoch {epoch} of {engine.node} lacks {len(missing)}, the first is {missing[0]}",
            )
        lost = [
            uid
            for uid, record in self._unprotected.items()
            if record.epoch < epoch and uid not in held
        ]
        for uid in lost:
            del self._unprotected[uid]
        self.lost_count += len(lost)
        if lost:
            self.world.trace.sometimes("unprotected write lost")
        self._begun[epoch] = held

    def on_commit(self, engine: "ModelEngine", record: Record, holders: list[NodeId]) -> None:
        """The primary tells a client that its write is committed."""
        self.commits_count += 1
        durability = self.durability.get(engine.epoch)
        if durability is None:
            self.fail("acks-come-from-the-recorded-set", f"{record} committed without a record")
            return
        if durability.acks == 0:
            self._unprotected[record.uid] = record
            return
        members = {each.node for each in durability.members}
        counted = [node for node in holders if node in members]
        if len(counted) < durability.acks:
            self.fail(
                "acks-come-from-the-recorded-set",
                f"{record} committed with {holders}; D is {durability}",
            )
        self.acknowledged[record.uid] = record
        for epoch, held in self._begun.items():
            if epoch > engine.epoch:
                self.late_count += 1
                self.world.trace.sometimes("late acknowledgement")
                if record.uid not in held and not self._is_loss_in_force:
                    self.fail(
                        "no-acknowledged-write-lost",
                        f"{record} acknowledged late by {engine.node}; epoch {epoch} lacks it",
                    )
