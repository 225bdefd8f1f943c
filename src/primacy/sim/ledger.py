"""What was written, shipped, acknowledged and told: held against disks, messages and clients.

A primary's own count of its acknowledgements is not believed: the disks of those that it counts are
looked at. A replica's idea of what it refuses is not believed: the seal that the store has, and the
note on its disk, are. What a client was told is compared with what stood behind it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from primacy.cluster.policy import Policy
from primacy.model import Epoch, Incarnation, Member, NodeId
from primacy.replication.durability import seals_needed
from primacy.replication.pull.acks import AckOn
from primacy.replication.records import DurabilityRecord, SealNote
from primacy.sim.engine_log import Files, Record
from primacy.sim.moments import Moment, Moments
from primacy.sim.world import World

if TYPE_CHECKING:
    from primacy.sim.server_model import ModelServer

Fail = Callable[[str, str], None]
"""Name of the invariant, and what was seen."""


class Ledger:
    """The memory of a run: which writes were promised to whom, and under which record."""

    def __init__(self, world: World, fail: Fail, moments: Moments, policy: Policy) -> None:
        self.engines: dict[NodeId, ModelServer] = {}
        self.ack_on = AckOn.RECEIVED
        self.durability: dict[Epoch, DurabilityRecord] = {}
        self.acknowledged: dict[int, Record] = {}
        """Writes that must never be missing, by uid."""
        self.commits_count = 0
        self.late_count = 0
        self.lost_count = 0
        """Acknowledged where a loss was allowed, and not in a later epoch's log."""
        self._world = world
        self._fail = fail
        self._moments = moments
        self._is_degraded_lossy = policy.degrade_failover == "lossy"
        self._ack_nodes = policy.ack_nodes
        self._primaries: dict[Epoch, NodeId] = {}
        self._opened: set[Epoch] = set()
        self._seals: dict[NodeId, SealNote] = {}
        self._begun: dict[Epoch, frozenset[int]] = {}
        self._committed: set[int] = set()
        self._unprotected: dict[int, Record] = {}
        self._is_loss_in_force = False
        self._former: dict[tuple[NodeId, Incarnation], list[Record]] = {}
        """What earlier lives of data directories held durably."""
        self._welcomed: dict[NodeId, tuple[Epoch, int]] = {}
        """Which primary's log each node's was compared with last, and in which life."""

    # ---- the store's records

    def claimed(self, epoch: Epoch, node: NodeId) -> None:
        self._primaries.setdefault(epoch, node)

    def sealed(self, note: SealNote) -> None:
        """A seal is published: its note is on the disk, and so is all that it claims to have."""
        self._seals[note.node] = note
        files = self.engines[note.node].files
        if files.incarnation != note.incarnation:
            return  # Its disk has been replaced since the seal was sent.
        if files.sealed_epoch < note.epoch or note.received > files.position(files.synced):
            self._fail(
                "old-epochs-are-refused",
                f"{note} is published; its disk notes {files.sealed_epoch} and holds"
                f" {files.position(files.synced)}",
            )

    def recorded(self, record: DurabilityRecord) -> None:
        before = self.durability.get(record.epoch)
        self.durability[record.epoch] = record
        trace = self._world.trace
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
        self._set_loss(engine, self._may_lose(record))

    def _may_lose(self, record: DurabilityRecord) -> bool:
        return record.is_lossy or (record.is_degraded and self._is_degraded_lossy)

    def _set_loss(self, engine: "ModelServer", is_in_force: bool) -> None:  # noqa: FBT001 - the fact
        """A loss may happen from now on; or what this primary holds is safe from now on."""
        if self._is_loss_in_force and not is_in_force:
            self._forget_lost(frozenset(record.uid for record in engine.files.log))
        self._is_loss_in_force = is_in_force

    def _forget_lost(self, held: frozenset[int]) -> None:
        lost = [uid for uid in self.acknowledged if uid not in held]
        for uid in lost:
            del self.acknowledged[uid]
        self.lost_count += len(lost)

    # ---- disks

    def disk_replaced(self, engine: "ModelServer") -> None:
        """Called before the content of a data directory goes."""
        files = engine.files
        if files.incarnation is not None:
            self._former[engine.node, files.incarnation] = files.log[: files.synced]

    def may_be_lost(self, node: NodeId) -> bool:
        """Whether every write that must not be missing is on another disk, too, and the newest
        record still finds it there: rule 5 knows no more than that."""
        if not self._is_found_without(node):
            return False
        files = self.engines[node].files
        others = [
            {record.uid for record in each.files.log[: each.files.synced]}
            for name, each in self.engines.items()
            if name != node
        ]
        return all(
            any(record.uid in held for held in others)
            for record in files.log[: files.synced]
            if record.uid in self.acknowledged
        )

    def _is_found_without(self, node: NodeId) -> bool:
        """By its primary's own disk, or its heir's, or by enough of its members'."""
        if not self.durability:
            return True
        record = self.durability[max(self.durability)]

        def stands(member: Member) -> bool:
            files = self.engines[member.node].files
            is_there = member.node != node and not files.is_absent
            return is_there and files.incarnation == member.incarnation

        for holder in (record.primary, *record.heirs):
            if stands(holder) and not self.engines[holder.node].files.is_cut:
                return True
        standing = sum(stands(member) for member in record.members)
        needed = seals_needed(len(record.members), record.acks)
        return record.is_lossy or (record.acks > 0 and standing >= needed)

    def is_settled(self, primary: NodeId) -> bool:
        """Its doors are open under its own record, and every other data node counts."""
        engine = self.engines[primary]
        record = self.durability.get(engine.epoch)
        if record is None or engine.is_read_only or not engine.process.is_running:
            return False
        others = [each for each in self._ack_nodes if each != primary]
        return record.is_lossy or len(record.members) == len(others)

    def _is_on_disk(self, node: NodeId, incarnation: Incarnation, record: Record) -> bool:
        files: Files = self.engines[node].files
        log, end = files.log, files.synced
        if files.incarnation != incarnation:
            log = self._former.get((node, incarnation), [])
            end = len(log)
        is_there = record.sequence <= end and log[record.sequence - 1] == record
        if self.ack_on is AckOn.APPLIED and files.incarnation == incarnation:
            return is_there and files.has_applied(record.sequence)
        return is_there

    # ---- the log

    def on_counted(self, engine: "ModelServer", node: NodeId, incarnation: Incarnation) -> None:
        """An acknowledgement of `node` counts at a primary: it is in the recorded set."""
        if engine.is_read_only or not engine.epoch:
            return
        record = self.durability.get(engine.epoch)
        if record is None or not record.names(node, incarnation):
            self._fail(
                "acks-come-from-the-recorded-set",
                f"{engine.node}, epoch {engine.epoch}, counts {node}#{incarnation}; D is {record}",
            )

    def on_open(self, engine: "ModelServer") -> None:
        record = self.durability.get(engine.epoch)
        self._world.note(engine.node, "doors-open", f"epoch {engine.epoch}")
        self._opened.add(engine.epoch)
        if record is None or record.primary.node != engine.node:
            self._fail(
                "acks-come-from-the-recorded-set",
                f"{engine.node} opens epoch {engine.epoch} without a record of its own",
            )
        self._moments.has_come(Moment.OPENED, engine.node)

    def on_append(self, engine: "ModelServer", record: Record) -> None:
        """A primary writes: into the log of its own epoch, behind everything older."""
        if record.epoch < engine.files.position(record.sequence - 1).epoch:
            self._fail("one-primary-per-epoch", f"{engine.node} writes {record} behind a newer one")

    def on_marker(self, engine: "ModelServer") -> None:
        self._moments.has_come(Moment.MARKED, engine.node)

    def on_locked(self, node: NodeId, *, is_out: bool) -> None:
        self._moments.has_come(Moment.LOCKED_OUT if is_out else Moment.LET_IN, node)

    def on_attached(self, node: NodeId) -> None:
        """It acknowledges, and is counted from now on."""
        self._moments.has_come(Moment.COUNTED, node)

    def on_welcomed(self, source: "ModelServer", engine: "ModelServer") -> None:
        self._welcomed[engine.node] = source.epoch, engine.starts

    def on_reported(self, source: "ModelServer", node: NodeId, epoch: Epoch) -> None:
        """A report is taken from a session that its replica began as a follower of `epoch`."""
        if epoch != source.epoch:
            self._fail(
                "a-session-has-one-epoch",
                f"{source.node} of epoch {source.epoch} hears {node}, which follows {epoch}",
            )

    def on_applied(self, engine: "ModelServer") -> None:
        """A tail goes into the database once its role is known: its primary has compared it in this
        life of the server, or the node itself has won an epoch above it."""
        won = max(
            (each for each, node in self._primaries.items() if node == engine.node), default=0
        )
        if engine.epoch or won > engine.files.last_epoch:
            return
        if self._welcomed.get(engine.node) != (engine.following_epoch, engine.starts):
            self._fail(
                "tail-waits-for-its-role",
                f"{engine.node} applies up to {engine.files.applied} and follows"
                f" {engine.following_epoch}; it was compared in {self._welcomed.get(engine.node)}",
            )

    def on_cut(self, engine: "ModelServer") -> None:
        """Records are about to be removed that were durable."""
        if not engine.files.is_cut:
            self._fail("a-cut-is-noted", f"{engine.node} cuts its log and has not noted that")

    def on_cloned(self, engine: "ModelServer") -> None:
        self._moments.has_come(Moment.CLONED, engine.node)

    def on_received(
        self, engine: "ModelServer", source: "ModelServer", first: int, records: tuple[Record, ...]
    ) -> None:
        del records
        theirs = source.files.log
        if first > len(theirs) + 1:
            return  # What it sent was on a disk that has been replaced since.
        if first > 1 and engine.files.log[first - 2] != theirs[first - 2]:
            self._fail(
                "replica-is-a-prefix",
                f"{engine.node} has {engine.files.log[first - 2]},"
                f" {source.node} has {theirs[first - 2]}",
            )

    def on_acknowledge(self, engine: "ModelServer", source: "ModelServer", followed: Epoch) -> None:
        """A replica acknowledges to `source`, of which it believes that it leads `followed`."""
        epoch = source.epoch or followed
        seal = self._seals.get(engine.node)
        refused_below = engine.files.sealed_epoch
        if seal is not None and seal.incarnation == engine.files.incarnation:
            refused_below = max(refused_below, seal.epoch)
        if epoch < refused_below:
            self._fail(
                "old-epochs-are-refused",
                f"{engine.node} refuses all below {refused_below} and acknowledges"
                f" {source.node} of epoch {epoch}",
            )

    def on_epoch(self, engine: "ModelServer", epoch: Epoch) -> None:
        """The epoch row stands: the log before it holds every write of an older epoch that was
        acknowledged. A row may come late, after a newer epoch's: that branch then ends there."""
        if self._primaries.get(epoch) != engine.node:
            self._fail("one-primary-per-epoch", f"{engine.node} begins epoch {epoch}")
        held = frozenset(record.uid for record in engine.files.log)
        self._world.note(engine.node, "epoch-row", f"epoch {epoch}, {len(held)} records")
        if not self._is_loss_in_force:
            self._check_held(held, epoch, f"epoch {epoch} of {engine.node}")
        lost = [
            uid
            for uid, record in self._unprotected.items()
            if record.epoch < epoch and uid not in held
        ]
        for uid in lost:
            del self._unprotected[uid]
        self.lost_count += len(lost)
        if lost:
            self._world.trace.sometimes("unprotected write lost")
        self._begun[epoch] = held
        self._moments.has_come(Moment.ROW, engine.node)

    def _check_held(self, held: frozenset[int], below: Epoch, where: str) -> None:
        missing = [
            record
            for uid, record in self.acknowledged.items()
            if uid not in held and record.epoch < below
        ]
        if missing:
            self._fail(
                "no-acknowledged-write-lost",
                f"{where} lacks {len(missing)}, the first is {missing[0]}",
            )

    def on_commit(self, engine: "ModelServer", record: Record, holders: list[NodeId]) -> None:
        """The primary tells a client that its write is committed."""
        self.commits_count += 1
        self._committed.add(record.uid)
        durability = self.durability.get(engine.epoch)
        if durability is None:
            self._fail("acks-come-from-the-recorded-set", f"{record} committed without a record")
            return
        if engine.epoch not in self._opened:
            self._fail(
                "acks-come-from-the-recorded-set",
                f"{record} was left waiting; {engine.node} commits it in epoch {engine.epoch}"
                " before its doors open",
            )
        if durability.acks == 0 and (durability.is_lossy or self._is_degraded_lossy):
            self._unprotected[record.uid] = record
            return
        holding = [
            each.node
            for each in durability.members
            if self._is_on_disk(each.node, each.incarnation, record)
        ]
        counted = [node for node in holders if node in holding]
        if len(counted) < durability.acks or record.sequence > engine.files.synced:
            self._fail(
                "acks-come-from-the-recorded-set",
                f"{record} of {engine.node} committed with {holders}, it is on the disks of"
                f" {holding}; D is {durability}",
            )
        self.acknowledged[record.uid] = record
        for epoch, held in self._begun.items():
            if epoch > engine.epoch:
                self.late_count += 1
                self._world.trace.sometimes("late acknowledgement")
                if record.uid not in held and not self._is_loss_in_force:
                    self._fail(
                        "no-acknowledged-write-lost",
                        f"{record} acknowledged late by {engine.node}; epoch {epoch} lacks it",
                    )

    # ---- clients, and the end

    def on_told(self, uid: int) -> None:
        """A client heard OK."""
        if uid not in self._committed:
            self._fail(
                "acks-come-from-the-recorded-set",
                f"write {uid} was answered OK and never committed",
            )

    def check_end(self, primary: "ModelServer") -> None:
        """Everything is repaired: the last primary's log has all that it must have."""
        held = frozenset(record.uid for record in primary.files.log)
        self._check_held(held, Epoch(primary.epoch + 1), f"after the repair {primary.node}")
