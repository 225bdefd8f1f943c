"""Bugs of the databases and their guards: each a subclass of the genuine part."""

from dataclasses import replace
from typing import Any  # Arguments that are passed through as they came.

from primacy.engines.api import Observation, ProgressSink
from primacy.model import Epoch, NodeId, Position
from primacy.sim.engine_log import Files
from primacy.sim.engine_model import ModelEngine
from primacy.sim.guard_model import Page, SimGuard
from primacy.sim.shipping import Receiver

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


class ExcludesInName(ModelEngine):
    """A replica counts as cut off once that was asked for, whether or not it is."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.named: set[NodeId] = set()

    def observation(self) -> Observation:
        seen = super().observation()
        excluded = frozenset(self.named)
        shown = replace(
            seen.sending, excluded=excluded, receivers=seen.sending.receivers - excluded
        )
        return replace(seen, sending=shown)

    async def exclude(self, node: NodeId) -> None:
        self.named.add(node)

    async def admit(self, node: NodeId) -> None:
        self.named.discard(node)


class ClonesUnderItsName(ModelEngine):
    """A clone goes on under the incarnation of the data that it replaces."""

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        incarnation = self.files.incarnation
        await super().clone(donor, progress)
        if incarnation is not None:
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


class PassesAfterTheDeadline(Page):
    """A router does not compare the deadline with its clock: the guard is on guard, after all."""

    def passes(self, epoch: Epoch, now_s: float) -> bool:
        return self.state == "open" and self.epoch == epoch
