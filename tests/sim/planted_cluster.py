"""Bugs of the brain, the databases and the guard: each a subclass of the genuine part."""

from dataclasses import replace
from typing import Any  # Arguments that are passed through as they came.

import msgspec

from primacy.cluster.actions import Exclude, Mark, OfferHandover, Plan, Swap
from primacy.cluster.agent import Agent
from primacy.cluster.perform import Hands
from primacy.cluster.transactions import offer_txn
from primacy.cluster.view import View
from primacy.engines.api import Observation
from primacy.model import Epoch, NodeId, Position
from primacy.sim.engine_log import Files
from primacy.sim.engine_model import ModelEngine
from primacy.sim.guard_model import Page, SimGuard
from primacy.sim.shipping import Receiver

# ---- the brain


class CountsStaleSeals(Agent):
    """A seal for an earlier epoch counts as one for the epoch to come."""

    def _view(self) -> View:
        view = super()._view()
        if view.store.primary is not None:
            return view
        epoch = Epoch(view.store.epoch + 1)
        seals = {
            node: note if node == view.node else msgspec.structs.replace(note, epoch=epoch)
            for node, note in view.store.seals.items()
        }
        return replace(view, store=replace(view.store, seals=seals))


class ShrinksBeforeTheMarker(Agent):
    """A member leaves the recorded set before it is cut off and a marker is held by the rest."""

    async def _act(self, step: Plan, view: View) -> None:
        record = view.store.durability
        primary = view.store.primary
        is_own = record is not None and primary is not None and record.epoch == primary.epoch
        if isinstance(step.action, Exclude) and record is not None and is_own:
            leaving = step.action.node
            members = tuple(each for each in record.members if each.node != leaving)
            if record.acks <= len(members) < len(record.members):
                smaller = msgspec.structs.replace(record, members=members)
                base_mod = view.store.durability_mod
                swap = Swap(record=smaller, base_mod=base_mod, reason=step.reason)
                step = Plan(action=swap, reason=step.reason)
        await super()._act(step, view)


class OpensBeforeTheRow(Agent):
    """The doors open once the row is written: nobody has acknowledged it, no D is recorded."""

    def _view(self) -> View:
        view = super()._view()
        store = view.store
        record, durability = store.primary, store.durability
        is_opening = (
            record is not None
            and durability is not None
            and record.node == view.node
            and durability.epoch < record.epoch
            and record.epoch in store.branches
        )
        if not is_opening or record is None or durability is None:
            return view
        own = msgspec.structs.replace(durability, epoch=record.epoch, acks=view.engine.sending.acks)
        return replace(view, store=replace(store, durability=own))


class SealsOneTooFew(Agent):
    """n - k seals are taken for enough."""

    def _view(self) -> View:
        view = super()._view()
        record = view.store.durability
        if view.store.primary is not None or record is None or record.acks == 0:
            return view
        weaker = msgspec.structs.replace(record, acks=record.acks + 1)
        return replace(view, store=replace(view.store, durability=weaker))


class ClaimsBySequence(Agent):
    """Who is most advanced is judged by the sequence alone, and a replica that has the row's
    sequence is taken to have the row."""

    def _view(self) -> View:
        view = super()._view()
        seals = {
            node: msgspec.structs.replace(note, received=Position(Epoch(0), note.received.sequence))
            for node, note in view.store.seals.items()
        }
        return replace(view, store=replace(view.store, seals=seals))


class DegradesFirst(Agent):
    """Acknowledgements are switched off when a degradation begins, not once it is recorded."""

    async def _act(self, step: Plan, view: View) -> None:
        if isinstance(step.action, Mark) and step.action.record.is_degraded:
            await self._engine.set_acks(0, may_release=True)
        await super()._act(step, view)


class GivesUpSentSwaps(Agent):
    """A transition is given up although its swap may still be applied."""

    def _view(self) -> View:
        view = super()._view()
        if view.transition is None:
            return view
        return replace(view, transition=replace(view.transition, is_sent=False))


class HidesABrokenApplier(Agent):
    """A replica whose applier has stopped says that it is well, and goes on acknowledging."""

    def _view(self) -> View:
        view = super()._view()
        if view.engine.replication.is_diverged:
            return view
        shown = replace(view.engine.replication, error=None, is_applying=True)
        return replace(view, engine=replace(view.engine, replication=shown), error_for_s=0.0)


class OffersWithOpenDoors(Hands):
    """The lead is offered at the end of a log that still grows."""

    async def _offer(self, action: OfferHandover, view: View) -> None:
        last_sequence = view.engine.received.sequence
        await self._txn(offer_txn(view.store, action, last_sequence), "hand-over")


class OpenOfferer(Agent):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._hands.__class__ = OffersWithOpenDoors


# ---- the database


class SilentWhileLockedOut(ModelEngine):
    """A member that is locked out counts as silent, although it acknowledges when it is let in."""

    def observation(self) -> Observation:
        seen = super().observation()
        shown = seen.replication
        in_effect = shown.acknowledges and shown.is_receiving
        return replace(seen, replication=replace(shown, acknowledges=in_effect))


class SealsAndReceives(Receiver):
    is_kept = False

    def stop(self) -> None:
        if not self.is_kept:
            super().stop()


class NeverRefuses(ModelEngine):
    """A sealed replica goes on receiving from the old epoch, and acknowledges it."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.receiver: SealsAndReceives = SealsAndReceives(self)

    async def seal(self, epoch: Epoch) -> Observation:
        self.receiver.is_kept = True
        try:
            return await super().seal(epoch)
        finally:
            self.receiver.is_kept = False


class AcknowledgesUnrecorded(ModelEngine):
    """A replica acknowledges as soon as it follows, in the record or not, and shows what it was
    asked for."""

    asked = False

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        self.asked = acknowledge
        await super().follow(primary, epoch, acknowledge=True)

    def observation(self) -> Observation:
        seen = super().observation()
        return replace(seen, replication=replace(seen.replication, acknowledges=self.asked))


class ReturnsToItsPrimary(ModelEngine):
    """A replica's server attaches by itself when it starts, to whom it acknowledged last: that may
    be a primary of an older epoch, frozen until now."""

    remembered: tuple[NodeId, Epoch] | None = None

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        await super().follow(primary, epoch, acknowledge=acknowledge)
        if acknowledge:
            self.remembered = (primary, epoch)

    async def start(self, *, as_primary: bool) -> None:
        was_up = self.process.is_up
        await super().start(as_primary=as_primary)
        if not was_up and self.remembered is not None:
            self.receiver.start(*self.remembered, acknowledge=True)


class PublishesBeforeTheNote(ModelEngine):
    """A seal is published before its note is durable."""

    async def _note(self, epoch: Epoch) -> None:
        files = self.files

        def done() -> None:
            files.sealed_epoch = max(files.sealed_epoch, epoch)

        self.world.after(0.5, self.process, done)


class ThrowsRelayLogAway(ModelEngine):
    """A replica that starts discards its relay log: what was not applied is gone."""

    async def start(self, *, as_primary: bool) -> None:
        was_up = self.process.is_up
        await super().start(as_primary=as_primary)
        files = self.files
        if not was_up and self.needs_salvage and not files.led_epoch:
            del files.log[files.applied :]
            files.synced = min(files.synced, files.applied)
            files.committed = min(files.committed, files.applied)
            self.needs_salvage = False


class ComparesSequences(Files):
    """A source looks at a receiver's sequence only: another log of that length fits as well."""

    __slots__ = ()

    def holds(self, position: Position) -> bool:
        return position.sequence <= len(self.log)


class ShipsBySequence(ModelEngine):
    files_type = ComparesSequences


class LocksAndKeepsReceivers(ModelEngine):
    """Excluding a replica locks its account, and leaves the connection that it has."""

    async def exclude(self, node: NodeId) -> None:
        await self._pass(0.01)
        self._require_running()
        self.files.excluded.add(node)


class WipesWithoutANewName(ModelEngine):
    """A wiped data directory comes back under the incarnation that the record and an old seal
    name."""

    def wipe(self) -> None:
        incarnation = self.files.incarnation
        super().wipe()
        self.files.incarnation = incarnation


# ---- the guard


class StaysAfterBoot(Page):
    """The deadline page outlives its boot: its deadline counts from another one."""

    def clear(self) -> None:
        if not hasattr(self, "state"):
            super().clear()


class ClosesAndLetsLive(SimGuard):
    """At the deadline the doors are closed, and the server lives on with the commits that wait: a
    second win of the same node releases them."""

    def _judge(self, deadline_s: float) -> None:
        page, engine = self.page, self.engine
        if page.state == "closed" or deadline_s < page.deadline_s or not engine.commits:
            super()._judge(deadline_s)
            return
        page.close()
        engine.is_read_only = True
