"""What must hold after every step of the simulator, checked where it could break.

name                               where it is looked at (`ledger` has those of the log)
election-safety, log-matching,     each step of a Raft member, by consensus.invariants
  leader-append-only, leader-completeness, state-machine-safety
linearizable-store                 each revision on each member; each answer to a client
one-primary-per-epoch              each primary record; each epoch row
acks-come-from-the-recorded-set    each commit; each opening of doors; each change of D
old-epochs-are-refused             each published seal; each acknowledgement that a replica sends
no-acknowledged-write-lost         each epoch row; each commit of an older epoch after it; the end
fenced-before-replaced             each end of a primary record; each answer through a router
replica-is-a-prefix                each batch that a replica takes; the end
tail-waits-for-its-role            each COMMIT of received records (SQLite)
a-cut-is-noted                     each cut of a log (SQLite)
a-session-has-one-epoch            each report that a primary takes (SQLite)
exactly-once                       each numbered write of the store's test client
watch-has-no-gap                   each batch that a watch hands over
no-dead-end                        the end of the run, by `healing`

The first break stops the world. Every check costs as much as what changed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from primacy.cluster.policy import Policy
from primacy.consensus.invariants import RaftHistory
from primacy.consensus.machine import Effect, Event
from primacy.consensus.raft.messages import Message
from primacy.consensus.raft.node import Raft, State
from primacy.coordination.api import Change, Put, Txn, WatchBatch
from primacy.errors import InvariantBroken
from primacy.model import Epoch, Member, NodeId
from primacy.replication.records import (
    DURABILITY_KEY,
    HANDOVER_KEY,
    HISTORY_PREFIX,
    PRIMARY_KEY,
    SEALS_PREFIX,
    DurabilityRecord,
    Handover,
    HistoryRecord,
    PrimaryRecord,
    SealNote,
    decoded,
)
from primacy.sim.history import StoreHistory
from primacy.sim.ledger import Ledger
from primacy.sim.moments import Moment, Moments
from primacy.sim.world import World

if TYPE_CHECKING:
    from primacy.sim.guard_model import SimGuard

ONCE_PREFIX = "once/"
"""Keys that a client writes exactly once: a second version is a second execution."""

ASKED = {
    PRIMARY_KEY: Moment.CLAIM_SENT,
    DURABILITY_KEY: Moment.SWAP_SENT,
    HANDOVER_KEY: Moment.OFFER_SENT,
}
"""What is asked for by a write of each key."""

CLOCK_SLACK_S = 1e-6
"""Rounding of floating-point clocks."""


class Invariants:
    """The memory of a run: who led, what the store said, and by `ledger` what was promised."""

    def __init__(self, world: World, voters: Sequence[NodeId], policy: Policy) -> None:
        self.world = world
        self.broken: InvariantBroken | None = None
        self.store = StoreHistory()
        self.moments = Moments()
        self.ledger = Ledger(world, self.fail, self.moments, policy)
        self.guards: dict[NodeId, SimGuard] = {}
        self.primary: PrimaryRecord | None = None
        self._raft = RaftHistory(voters)
        self._batches: dict[int, WatchBatch] = {}
        self._primaries: dict[Epoch, NodeId] = {}
        self._ended: set[Epoch] = set()
        self._newest_epoch = Epoch(0)

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
        try:
            self._raft.started(raft)
        except InvariantBroken as broken:
            self.stop(broken)

    def on_disk_replaced(self, node: NodeId) -> None:
        self._raft.disk_replaced(node)

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
            self.moments.has_come(Moment.LED, raft.node)

    def on_changes(  # noqa: C901  # One case for each kind of record.
        self, node: NodeId, batch: WatchBatch
    ) -> None:
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
            elif change.key.startswith(SEALS_PREFIX) and change.after is not None:
                note = decoded(SealNote, change.after.value)
                self.ledger.sealed(note)
                self.moments.has_come(Moment.SEALED, note.node)
            elif change.key == HANDOVER_KEY and change.after is not None:
                target = decoded(Handover, change.after.value).target
                self.moments.has_come(Moment.OFFERED, target)
            elif change.key.startswith(HISTORY_PREFIX) and change.after is not None:
                if change.after.version == 1:
                    self.world.trace.sometimes(decoded(HistoryRecord, change.after.value).kind)
            elif change.key.startswith(ONCE_PREFIX) and change.after and change.after.version > 1:
                self.fail("exactly-once", f"{change.key} was written {change.after.version} times")

    def on_asked(self, node: NodeId, txn: Txn) -> None:
        """A client of the store is about to send this."""
        for op in txn.then:
            if isinstance(op, Put) and op.key in ASKED:
                self.moments.has_come(ASKED[op.key], node)

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
            self.ledger.claimed(new.epoch, new.node)
        if old is not None:
            self._ended.add(old.epoch)
            self.world.note("store", "primary-ended", f"{old.node} of epoch {old.epoch}")
            self._check_fenced(old, is_replaced=new is not None)
        if new is not None:
            self.moments.has_come(Moment.CLAIMED, new.node)
        elif old is not None:
            self.moments.has_come(Moment.VACANT, old.node)

    def _check_fenced(self, old: PrimaryRecord, *, is_replaced: bool) -> None:
        """No answer can pass under a record that has ended: the page is closed or run out, or, in
        a hand-over, nothing is left to answer. Whether the database runs does not matter: a router
        reads the page, and the next database may be up before the deadline."""
        guard, engine = self.guards[old.node], self.ledger.engines[old.node]
        page = guard.page
        if page.state != "open" or page.epoch != old.epoch:
            return
        left_s = guard.process.clock.true_s(page.deadline_s) - self.world.now_s
        if left_s <= CLOCK_SLACK_S:
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
        if record.heirs:
            self._on_heir(record)
            return
        if self.primary is None or self.primary.epoch != record.epoch:
            self.fail("one-primary-per-epoch", f"D of epoch {record.epoch} under {self.primary}")
        self.ledger.recorded(record)
        self.moments.has_come(Moment.RECORDED, record.primary.node)

    def _on_heir(self, record: DurabilityRecord) -> None:
        """A claim names its winner in D, and changes nothing else of it."""
        primary, before = self.primary, self.ledger.durability.get(record.epoch)
        is_winner = primary is not None and record.heirs[-1] == Member(
            primary.node, primary.incarnation
        )
        same = before is not None and replace(before, heirs=record.heirs) == record
        if not is_winner or not same:
            self.fail("one-primary-per-epoch", f"{record} under {primary}, behind {before}")
        self.ledger.durability[record.epoch] = record

    # ---- watches

    def on_watched(self, node: NodeId, prefix: str, after: int, batch: WatchBatch) -> None:
        """A watch hands over a batch, and handed over everything up to `after` before."""
        for revision in range(after + 1, batch.revision):
            skipped = self._batches.get(revision)
            changes = () if skipped is None else skipped.changes
            if any(change.key.startswith(prefix) for change in changes):
                self.fail("watch-has-no-gap", f"{node}: {batch.revision} follows {after}")
                return
