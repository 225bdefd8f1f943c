"""Bugs of the brain, its hands and what it holds: each a subclass of the genuine part."""

from dataclasses import replace
from typing import Any  # Arguments that are passed through as they came.

import msgspec

from primacy.cluster.actions import Adopt, Exclude, GiveUp, Mark, OfferHandover, Plan, Swap
from primacy.cluster.agent import Agent
from primacy.cluster.holding import Holding
from primacy.cluster.perform import Hands
from primacy.cluster.policy import Policy
from primacy.cluster.transactions import offer_txn
from primacy.cluster.view import View
from primacy.coordination.api import Lease, LeaseId, Put, Txn, TxnResult
from primacy.coordination.leasing import LeaseKeeper
from primacy.model import Epoch, Member, Position
from primacy.replication.records import (
    DURABILITY_KEY,
    EPOCH_KEY,
    HANDOVER_KEY,
    PRIMARY_KEY,
    SWITCHOVER_KEY,
)
from primacy.sim.store_client import SimStore

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


class CountsAttached(Agent):
    """Whoever follows a new primary counts as a holder of its epoch row."""

    def _view(self) -> View:
        view = super()._view()
        store = view.store
        record, durability = store.primary, store.durability
        is_opening = record is not None and durability is not None
        is_opening = is_opening and durability.epoch < record.epoch  # type: ignore[union-attr]  # Above.
        branch = store.branches.get(record.epoch) if record is not None else None
        if not is_opening or record is None or record.node != view.node or branch is None:
            return view
        row = Position(record.epoch, branch.first_sequence)
        nodes = {
            node: msgspec.structs.replace(status, received=max(status.received, row))
            if status.following_epoch == record.epoch
            else status
            for node, status in store.nodes.items()
        }
        return replace(view, store=replace(store, nodes=nodes))


class AcknowledgesForItsFormerLife(Agent):
    """A node looks for its name in the record, and not for its incarnation."""

    def _view(self) -> View:
        view = super()._view()
        record = view.store.durability
        if record is None or view.incarnation is None:
            return view
        members = tuple(
            Member(each.node, view.incarnation) if each.node == view.node else each
            for each in record.members
        )
        own = msgspec.structs.replace(record, members=members)
        return replace(view, store=replace(view.store, durability=own))


class SwapsBeforeTheMarker(Agent):
    """A record is swapped as soon as whoever leaves is cut off: nobody holds a marker."""

    async def _act(self, step: Plan, view: View) -> None:
        if isinstance(step.action, Mark):
            mark = step.action
            swap = Swap(record=mark.record, base_mod=mark.base_mod, reason=mark.reason)
            step = Plan(action=swap, reason=step.reason)
        await super()._act(step, view)


class TakesOverEarly(Agent):
    """The target of a switchover claims before it has everything."""

    def _view(self) -> View:
        view = super()._view()
        offer = view.store.handover
        if offer is None:
            return view
        early = msgspec.structs.replace(offer, last_sequence=0)
        return replace(view, store=replace(view.store, handover=early))


class TakesDegradedForLossy(Agent):
    """After a degradation anybody may be promoted, whatever the policy says of that."""

    def __init__(self, *, policy: Policy, **parts: Any) -> None:
        super().__init__(policy=replace(policy, degrade_failover="lossy"), **parts)


# ---- the hands


class AdoptsWithoutSettling(Hands):
    """An agent that adopts a primary leaves the swaps of its former life on their way."""

    async def _adopt(self, action: Adopt, view: View) -> None:
        await self._holding.adopt(action.lease, action.epoch, self._policy.lease_ttl_s)


class UnsettledAdopter(Agent):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._hands.__class__ = AdoptsWithoutSettling


class ReleasesFirst(Hands):
    """The lease is given up before the page is closed and the database gone."""

    async def _give_up(self, action: GiveUp, view: View) -> None:
        await self._holding.release()
        await self._engine.kill()


class EarlyReleaser(Agent):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._hands.__class__ = ReleasesFirst


class AdoptsOnTrust(Holding):
    """An adopted lease is taken to live, and its deadline to begin now: no renewal proves it."""

    async def adopt(self, lease: int, epoch: Epoch, ttl_s: float) -> None:
        self.claimed_epoch = self.armed_epoch = epoch
        self._keep(
            LeaseKeeper(
                self._store,
                Lease(LeaseId(lease), ttl_s),
                self._clock,
                sent_at_boottime_s=self._clock.boottime_s(),
                may_renew=self._may_renew,
                on_extended=self._note_extension,
                on_lost=self._note_loss,
            )
        )
        await self._tell_guard()


# ---- what its transactions compare


class Forgetful(SimStore):
    """A write of `WRITES` does not compare the keys in `FORGETS`."""

    WRITES = ""
    FORGETS: frozenset[str] = frozenset()

    async def txn(self, txn: Txn) -> TxnResult:
        if any(isinstance(op, Put) and op.key == self.WRITES for op in txn.then):
            kept = tuple(each for each in txn.compares if each.key not in self.FORGETS)
            txn = msgspec.structs.replace(txn, compares=kept)
        return await super().txn(txn)


class SwapsAfterItsLease(Forgetful):
    """A swap compares the record that it replaces, and not whether its sender still leads."""

    WRITES = DURABILITY_KEY
    FORGETS = frozenset({PRIMARY_KEY, EPOCH_KEY})


class SwapsWhateverStands(Forgetful):
    """A swap does not compare the record that it replaces."""

    WRITES = DURABILITY_KEY
    FORGETS = frozenset({DURABILITY_KEY})


class OffersAfterTheRequest(Forgetful):
    """An offer does not compare the request that it answers, which may have been ended."""

    WRITES = HANDOVER_KEY
    FORGETS = frozenset({SWITCHOVER_KEY})
