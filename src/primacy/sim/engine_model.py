"""The engine contract over a modelled server, under virtual time.

Promises  What `engines.mariadb` does in the same call, refusals included.
Assumes   One agent calls one method at a time; a call ends with the life of the server.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from primacy.engines.api import Branch, Capabilities, Diverged, Observation, ProgressSink
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import Epoch, NodeId
from primacy.sim.engine_log import Kind
from primacy.sim.loop import fail, resolve
from primacy.sim.server_model import ModelServer

if TYPE_CHECKING:
    from primacy.sim.guard_model import SimGuard

CALL_WITHIN_S = 2.0
"""A server that does not answer within this is `Unavailable`."""

NOTE_S = 0.002
"""A small file, written and synced."""

START_S, CLONE_S = 0.3, 1.0
SALVAGE_S = 0.05
POLL_S = 0.01


class ModelEngine(ModelServer):
    """The agent's hand on the server of its host."""

    capabilities = Capabilities(
        name="model",
        acks_max=None,
        ack_on=frozenset({"received"}),
        alternative="",
    )
    # ---- what the agent sees

    @property
    def guardian(self) -> "SimGuard | None":
        """Also of a server that has just exited, while its page is not closed."""
        guard = self.guard
        if guard is None or (not self.process.is_up and guard.page.state == "closed"):
            return None
        return guard

    async def attach(self) -> bool:
        if self.guard is not None and self.process.is_up:
            self.guard.greet()
        else:
            self._see_off_guard()
        return self.process.is_up

    def _see_off_guard(self) -> None:
        """The page of a guard that is dead is closed by the agent: nobody else can."""
        guard = self.guard
        if guard is not None and not guard.process.is_up and guard.page.state != "closed":
            guard.page.close()

    async def observe(self) -> Observation:
        return self.observation()

    # ---- life of the server

    async def initialise(self) -> None:
        await self._pass(START_S)
        if self.files.is_absent:
            self.files.incarnation = self._new_incarnation()

    async def clone(self, donor: NodeId, progress: ProgressSink) -> None:
        """The old server runs, and acknowledges, until the backup has arrived."""
        del progress
        source = self.fleet[donor]
        await self._pass(CLONE_S)
        is_reachable = not self.network.is_cut(
            self.node, source.node, "log"
        ) and not self.network.is_cut(source.node, self.node, "log")
        if not source.can_be_copied() or not is_reachable or self.disk.is_full:
            raise Unavailable(f"{donor} does not answer", hint="Try another donor.")
        copy = self.files_type()
        copy.copy_from(source.files, self._new_incarnation())
        if self.process.is_up:
            await self.kill()
        self.world.trace.sometimes("clone")
        self.witnesses.disk_replaced(self)
        copy.sealed_epoch = self.files.sealed_epoch
        self.files = copy
        self.cannot_start = None
        self.witnesses.on_cloned(self)

    async def start(self, *, as_primary: bool) -> None:
        if self.process.is_up:
            return
        if self.files.is_absent:
            raise Conflict(f"{self.node} has no data", hint="Initialise or clone it.")
        await self._pass(START_S)
        if self.process.is_up:
            return
        if self.cannot_start or self.disk.is_full:
            self.world.trace.sometimes("server ended while it started")
            why = self.cannot_start or "no space is left"
            raise Rejected(f"the server ended while it started: {why}", hint="See its log.")
        if self.files.recover(as_primary=as_primary):
            self.world.trace.sometimes("unacknowledged tail cut")
        self.world.start(self.process)
        self.starts += 1
        if self.guard is not None:
            self.guard.start()
        self.is_read_only = True
        self.acks = 0
        self.needs_salvage = self.files.applied < len(self.files.log)
        self.world.note(self.node, "engine-start", f"as_primary={as_primary}")

    async def stop(self) -> None:
        await self.kill()

    async def kill(self) -> None:
        """The signal is there at once, for a paused server too: none of them runs on meanwhile."""
        self.crash()
        self._see_off_guard()
        await self._pass(POLL_S)

    async def forget_old_data(self) -> None:
        await self._pass(NOTE_S)
        self.files.has_old_data = False

    # ---- as a replica

    async def salvage(self) -> None:
        self._require_running()
        await self._pass(SALVAGE_S)
        self._require_running()
        files = self.files
        files.applied = self._applicable()
        if files.is_applier_broken:
            raise Unavailable("the relay log cannot be replayed", hint="Clone this node anew.")
        self.needs_salvage = False
        self.world.trace.sometimes("relay log salvaged")

    async def seal(self, epoch: Epoch) -> Observation:
        files = self.files
        if epoch < files.sealed_epoch or epoch <= max(self.following_epoch, files.led_epoch):
            raise Conflict(f"a seal for epoch {epoch} comes too late", hint="Read it again.")
        await self._note(epoch)
        if self.process.is_paused:
            await self.kill()
        await self._prepare_seal()
        self.receiver.stop()
        if self.files.synced < len(self.files.log):
            await self._synced()
        return self.observation()

    async def _prepare_seal(self) -> None:
        """A replica's server says how far it goes; that of an old primary stays down."""
        if not self.process.is_up and not self.files.led_epoch:
            await self.start(as_primary=True)
        if self.process.is_up and self.needs_salvage and not self.files.is_applier_broken:
            await self.salvage()  # Else the relay log says all the same how far it goes.

    async def follow(self, primary: NodeId, epoch: Epoch, *, acknowledge: bool) -> None:
        self._require_running()
        if not self.is_read_only:
            raise Conflict(f"{self.node} has open doors", hint="Demote or kill it.")
        if self.needs_salvage:
            raise Conflict("a tail stands only in the relay log", hint="Salvage it first.")
        if epoch < self.files.sealed_epoch:
            raise Conflict(
                f"sealed for {self.files.sealed_epoch}, epoch {epoch} is refused",
                hint="Read the primary record again.",
            )
        await self._note(epoch)
        self._require_running()
        is_attached = self.receiver.upstream == primary and self.following_epoch == epoch
        if not is_attached:
            self.receiver.stop()
            await self._before_following()
        if epoch < self.files.sealed_epoch:
            raise Conflict("sealed meanwhile", hint="Read the primary record again.")
        self.epoch = Epoch(0)
        self.files.led_epoch = Epoch(0)
        self.following_epoch = epoch
        self.receiver.start(primary, epoch, acknowledge=acknowledge)

    async def _before_following(self) -> None:
        """The own received tail is applied first."""
        await self.drain()

    async def drain(self) -> None:
        self._require_running()
        while self.files.applied < len(self.files.log):
            if self.files.is_applier_broken:
                raise Unavailable("the applier stopped", hint="Clone this node anew.")
            self.schedule_apply()
            await self._pass(POLL_S)
            self._require_running()

    async def save_diverged(self, branches: Sequence[Branch]) -> Diverged:
        await self._pass(SALVAGE_S)
        return self.files.diverged(branches)

    async def rewind(self, found: Diverged, primary: NodeId, epoch: Epoch) -> None:
        del primary
        await self._note(epoch)
        self.files.is_cut = True
        self.files.cut_from(found.parts_at)

    # ---- as a primary

    async def begin_epoch(self, epoch: Epoch, primary: NodeId) -> int:
        del primary
        self._require_running()
        self.receiver.stop()
        self.following_epoch = Epoch(0)
        await self._note(epoch)
        self._require_running()
        files = self.files
        files.led_epoch = epoch
        for record in reversed(files.log):
            if record.epoch < epoch:
                break
            if record.kind is Kind.EPOCH_ROW and record.epoch == epoch:
                self.epoch = epoch
                files.is_cut = False
                return record.sequence
        if files.applied < len(files.log):
            raise Conflict("the own tail is not applied", hint="Drain first.")
        self.sender.forget()
        files.excluded.clear()
        self.epoch = epoch
        record = self._append(Kind.EPOCH_ROW, -epoch, None)
        await self._synced()
        files.is_cut = False
        self.witnesses.on_epoch(self, epoch)
        return record.sequence

    async def set_acks(self, acks: int, *, may_release: bool = False) -> None:
        self._require_running()
        if acks < self.acks and self.commits and not may_release:
            raise Conflict("commits wait", hint="They would be released.")
        await self._pass(POLL_S)
        self._require_running()
        self.acks = acks
        self.release()

    async def open_doors(self) -> None:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        self._closed_at = None
        self.is_read_only = False
        self.witnesses.on_open(self)

    async def close_doors(self) -> int:
        self._require_running()
        was_read_only, self.is_read_only = self.is_read_only, True
        waited_s = 0.0
        while self.commits:
            await self._pass(POLL_S)
            self._require_running()
            waited_s += POLL_S
            if waited_s > 1.0:
                self.is_read_only = was_read_only
                raise Unavailable("commits wait for acknowledgements", hint="Try again.")
        self._closed_at = len(self.files.log)
        return self._closed_at

    async def write_marker(self) -> int:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        if self.commits:
            return len(self.files.log)
        record = self._append(Kind.MARKER, 0, None)
        await self._synced()
        self.witnesses.on_marker(self)
        return record.sequence

    async def exclude(self, node: NodeId) -> None:
        await self._pass(POLL_S)
        self._require_running()
        self.files.excluded.add(node)
        self.sender.detach(node)
        self.witnesses.on_locked(node, is_out=True)

    async def admit(self, node: NodeId) -> None:
        await self._pass(POLL_S)
        self._require_running()
        self.files.excluded.discard(node)
        self.witnesses.on_locked(node, is_out=False)

    async def cut_strangers(self, accounts: Collection[str]) -> frozenset[str]:
        self._require_running()  # Only nodes attach here: there is nobody to cut.
        return frozenset(accounts)

    async def demote(self) -> None:
        self._require_running()
        await self._pass(POLL_S)
        self._require_running()
        if not self.is_read_only or self.commits or self._closed_at != len(self.files.log):
            raise Conflict("the log moved after the doors were closed", hint="Kill it instead.")
        self._abdicate()

    def _abdicate(self) -> None:
        self.acks = 0
        self.epoch = Epoch(0)
        self.sender.forget()

    async def beat(self) -> None:
        self._require_running()
        if not self.is_read_only:
            self._append(Kind.BEAT, 0, None)

    # ---- small parts

    async def _pass(self, local_s: float) -> None:
        await self._clock.sleep(local_s)

    async def _note(self, epoch: Epoch) -> None:
        """Durable beside the data, whether the server runs or not."""
        if epoch > self.files.sealed_epoch:
            await self._pass(NOTE_S * self.disk.slowness)
            if self.disk.is_full:
                raise Unavailable("the note cannot be written", hint="Make space.")
            self.files.sealed_epoch = max(self.files.sealed_epoch, epoch)

    async def _synced(self) -> None:
        """Everything that stands in the log now is durable when this returns."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls = [call for call in self._calls if not call.done()]
        self._calls.append(answer)
        late = Unavailable("the server does not answer", hint="Observe it again.")
        self.world.after(CALL_WITHIN_S, self.agent, fail, answer, late)
        self.disk.write(lambda: None, lambda: resolve(answer))
        await answer

    def _require_running(self) -> None:
        if not self.process.is_up:
            raise Conflict(f"the server of {self.node} does not run", hint="Observe it again.")
        if self.process.is_paused:
            raise Unavailable(f"the server of {self.node} does not answer", hint="Try again.")
