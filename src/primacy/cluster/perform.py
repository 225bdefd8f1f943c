"""The hands: carry out one action against engine, guard and store. No decision is taken here.

Every action may be cancelled (the premise of the plan fell) and may fail with an error of the tree;
the agent then looks and plans again. Nothing is retried here.
"""

from collections.abc import Awaitable, Callable
from typing import Any  # Of the table of handlers: each takes the action that it stands for.

from primacy.clock import Clock
from primacy.cluster import actions as do
from primacy.cluster.holding import Holding
from primacy.cluster.losses import Losses
from primacy.cluster.policy import Policy
from primacy.cluster.steps import Steps
from primacy.cluster.transactions import (
    ask_switchover_txn,
    begin_handover_txn,
    branch_txn,
    claim_txn,
    end_request_txn,
    end_task_txn,
    offer_txn,
    opened_txn,
    seal_note,
    seal_txn,
    settle_txn,
    swap_txn,
    withdraw_txn,
)
from primacy.cluster.view import Transition, View
from primacy.cluster.viewing import Records, Sight
from primacy.coordination.api import Store, Txn
from primacy.engines.api import Engine, Guardian, Progress
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, Incarnation, Revision
from primacy.replication.records import BranchRecord
from primacy.telemetry import Event, Sink


class Hands:
    """Performs the actions of one node's brain, one at a time."""

    def __init__(  # noqa: PLR0913  # The parts list of the hands.
        self,
        *,
        store: Store,
        engine: Engine,
        holding: Holding,
        clock: Clock,
        policy: Policy,
        sight: Sight,
        records: Records,
        events: Sink,
        seen: Callable[[Revision], Awaitable[None]],
        restart: Callable[[], None] | None,
    ) -> None:
        """`seen` returns once the node's own view holds what was written at a revision: the next
        plan must not be made from the state before it. `restart` ends this process, to begin
        again; None where it is not the agent's own."""
        self._store = store
        self._engine = engine
        self._holding = holding
        self._clock = clock
        self._policy = policy
        self._sight = sight
        self._records = records
        self._events = events
        self._seen = seen
        self._restart = restart
        self._losses = Losses(store=store, engine=engine, clock=clock, sight=sight, records=records)
        self.steps = Steps(clock)
        self.progress = ""
        """Of a long action, for `status`."""

    async def perform(self, action: do.AnyAction, view: View) -> None:
        """Errors: those of the engine and the store. A disk that refuses is `Unavailable`."""
        handlers: dict[type[do.Action], Callable[[Any, View], Awaitable[None]]] = {
            do.Initialise: self._initialise,
            do.Start: self._start,
            do.Kill: self._kill,
            do.Clone: self._clone,
            do.Salvage: self._salvage,
            do.SaveDiverged: self._save_diverged,
            do.Rewind: self._rewind,
            do.ForgetOldData: self._forget_old_data,
            do.Seal: self._seal,
            do.Follow: self._follow,
            do.Demote: self._demote,
            do.HoldLease: self._hold_lease,
            do.Claim: self._claim,
            do.Adopt: self._adopt,
            do.GiveUp: self._give_up,
            do.DropLease: self._drop_lease,
            do.Arm: self._arm,
            do.Drain: self._drain,
            do.BeginEpoch: self._begin_epoch,
            do.SetAcks: self._set_acks,
            do.Mark: self._mark,
            do.Swap: self._swap,
            do.Abandon: self._abandon,
            do.Open: self._open,
            do.Exclude: self._exclude,
            do.CutStrangers: self._cut_strangers,
            do.Admit: self._admit,
            do.AskSwitchover: self._ask_switchover,
            do.BeginHandover: self._begin_handover,
            do.OfferHandover: self._offer,
            do.WithdrawHandover: self._withdraw,
            do.EndRequest: self._end_request,
            do.EndTask: self._end_task,
            do.StopDatabase: self._stop_database,
            do.RestartAgent: self._restart_agent,
        }
        name = type(action).__name__
        with self.steps.measure(name):
            try:
                await handlers[type(action)](action, view)
            except OSError as error:
                where = f" ({error.filename})" if error.filename else ""
                raise Unavailable(
                    f"{name}: the system refused: {error.strerror or error}{where}",
                    hint="Look at the disk: space, permissions, errors. It is tried again.",
                ) from error

    # ---- the server's life

    async def _initialise(self, _: do.Initialise, view: View) -> None:
        await self._engine.initialise()

    async def _start(self, action: do.Start, view: View) -> None:
        await self._engine.start(as_primary=action.as_primary)
        if not action.as_primary:
            await self._losses.ended(view, "cut")

    async def _kill(self, _: do.Kill, view: View) -> None:
        await self._engine.kill()
        self._sight.diverged.clear()  # The server ran: what was found before is no longer all.

    async def _clone(self, action: do.Clone, view: View) -> None:
        def show(progress: Progress) -> None:
            done_mb, total_mb = progress.done_bytes >> 20, progress.total_bytes >> 20
            of_total = f" of {total_mb}" if total_mb else ""
            self.progress = f"{progress.label}: {done_mb}{of_total} MB"

        try:
            await self._engine.clone(action.donor, show)
        finally:
            self.progress = ""
        await self._losses.ended(view, "cloned")

    async def _salvage(self, _: do.Salvage, view: View) -> None:
        await self._engine.salvage()

    async def _save_diverged(self, action: do.SaveDiverged, view: View) -> None:
        await self._losses.save(action, view)

    async def _rewind(self, action: do.Rewind, view: View) -> None:
        await self._losses.rewind(action)

    async def _forget_old_data(self, _: do.ForgetOldData, view: View) -> None:
        await self._engine.forget_old_data()

    # ---- a replica

    async def _seal(self, action: do.Seal, view: View) -> None:
        self.steps.begin("sealing")
        seen = await self._engine.seal(action.epoch)
        self._sight.observe(seen, self._clock.now_s())
        await self._txn(seal_txn(view.store, seal_note(view.node, action.epoch, seen)), "seal")

    async def _follow(self, action: do.Follow, view: View) -> None:
        await self._engine.follow(action.primary, action.epoch, acknowledge=action.acknowledge)

    async def _demote(self, action: do.Demote, view: View) -> None:
        """The doors are closed and no commit is in flight: the engine confirms both."""
        guardian = _required(self._engine.guardian)
        try:
            await guardian.close(action.epoch, keep_deadline=True)
            await self._engine.demote()
            await guardian.close(action.epoch)  # Read-only for certain: it may live on.
        except Conflict as refusal:
            self._events(Event("demotion-refused", {"reason": refusal.what}))
            await self._engine.kill()
        await self._holding.release()

    # ---- winning the record

    async def _hold_lease(self, _: do.HoldLease, view: View) -> None:
        await self._holding.take(self._policy.lease_ttl_s)

    async def _claim(self, action: do.Claim, view: View) -> None:
        """A target of a hand-over is not sealed for it: were the claim overtaken, it could follow
        nobody until the next epoch. It refuses older epochs before it writes its epoch row."""
        if action.kind == "switchover":
            self.steps.restart(0.0)
        self.steps.begin("claiming")
        if not self._holding.is_held:
            await self._holding.take(self._policy.lease_ttl_s)
        incarnation = view.incarnation or Incarnation("")
        txn = claim_txn(view.store, action, view.node, incarnation, self._holding.lease)
        self._holding.claimed_epoch = action.epoch  # Set before: the answer may be lost.
        result = await self._store.txn(txn)
        if not result.is_success:
            self._holding.claimed_epoch = Epoch(0)
            await self._holding.release()
            raise Conflict(
                f"the claim of epoch {action.epoch} was overtaken", hint="The node plans again."
            )
        await self._seen(result.revision)
        self.steps.kind, self.steps.reason = action.kind, action.reason
        self.steps.accepted_loss, self.steps.may_lose = action.accepted_loss, action.may_lose
        self._events(Event("claimed", {"epoch": action.epoch, "reason": action.reason}))
        await self._holding.arm(action.epoch)

    async def _adopt(self, action: do.Adopt, view: View) -> None:
        """Both records bind while a swap may still be applied, and only the former agent knew of
        it: first of all it is settled which one stands."""
        durability = view.store.durability
        if durability is not None and durability.epoch == action.epoch:
            await self._txn(settle_txn(view.store, durability), "adoption")
        await self._holding.adopt(action.lease, action.epoch, self._policy.lease_ttl_s)

    async def _give_up(self, action: do.GiveUp, view: View) -> None:
        """First the page, then every process, then the lease: in this order. The guard closes the
        page before it kills, and a dead guard's page is closed by `kill` before it returns."""
        await self._engine.kill()
        await self._holding.release()
        self._events(Event("gave-up", {"epoch": action.epoch, "reason": action.reason}))

    async def _drop_lease(self, _: do.DropLease, view: View) -> None:
        await self._holding.release()

    # ---- a primary

    async def _arm(self, action: do.Arm, view: View) -> None:
        await self._holding.arm(action.epoch)

    async def _drain(self, _: do.Drain, view: View) -> None:
        self.steps.begin("catch-up")
        await self._engine.drain()

    async def _begin_epoch(self, action: do.BeginEpoch, view: View) -> None:
        self.steps.begin("promotion")
        first_sequence = await self._engine.begin_epoch(action.epoch, view.node)
        await self._engine.set_acks(action.acks, may_release=True)  # The doors are closed.
        branch = BranchRecord(epoch=action.epoch, node=view.node, first_sequence=first_sequence)
        await self._txn(branch_txn(view.store, branch), "branch")
        self.steps.begin("epoch-row")

    async def _set_acks(self, action: do.SetAcks, view: View) -> None:
        await self._engine.set_acks(action.acks, may_release=action.may_release)

    async def _mark(self, action: do.Mark, view: View) -> None:
        sequence = await self._engine.write_marker()
        self._sight.transition = Transition(
            record=action.record, base_mod=action.base_mod, marker_sequence=sequence
        )

    async def _swap(self, action: do.Swap, view: View) -> None:
        pending = self._sight.transition
        if pending is not None and not pending.is_sent:
            self._sight.transition = Transition(
                record=pending.record,
                base_mod=pending.base_mod,
                marker_sequence=pending.marker_sequence,
                is_sent=True,
            )
        await self._txn(swap_txn(view.store, action), "swap")

    async def _abandon(self, _: do.Abandon, view: View) -> None:
        self._sight.transition = None

    async def _open(self, action: do.Open, view: View) -> None:
        self.steps.begin("opening")
        guardian = _required(self._engine.guardian)
        await self._engine.open_doors()
        if view.page.state != "open":  # After the doors: no router sends a client to a closed one.
            await guardian.open(action.epoch)
        self._events(Event("doors-open", {"epoch": action.epoch, "reason": action.reason}))
        history = self.steps.history(action.epoch, view.node)
        if history is not None:
            await self._store.txn(opened_txn(view.store, history))

    async def _exclude(self, action: do.Exclude, view: View) -> None:
        await self._engine.exclude(action.node)
        if action.is_alarm:
            self._alarm(view, (action.node,), action.reason)

    async def _cut_strangers(self, action: do.CutStrangers, view: View) -> None:
        locked = await self._engine.cut_strangers(action.accounts)
        self._sight.shut_out |= set(action.accounts)
        if view.is_primary:
            self._alarm(view, tuple(sorted(locked)) or action.accounts, action.reason)

    def _alarm(self, view: View, clients: tuple[str, ...], reason: str) -> None:
        self._sight.note_cut(clients, self._clock.now_s())
        said = {"clients": " ".join(clients), "reason": reason}
        self._events(Event("unexpected-acknowledger", {"epoch": view.store.epoch, **said}))

    async def _admit(self, action: do.Admit, view: View) -> None:
        await self._engine.admit(action.node)

    # ---- a switchover

    async def _ask_switchover(self, action: do.AskSwitchover, view: View) -> None:
        await self._txn(ask_switchover_txn(view.store, action, self._clock.wall_s()), "request")

    async def _begin_handover(self, action: do.BeginHandover, view: View) -> None:
        await self._txn(begin_handover_txn(view.store, action), "beginning")

    async def _offer(self, action: do.OfferHandover, view: View) -> None:
        """Where the offer is not recorded, the doors stay closed: the brain ends the request, which
        makes an offer that is still on its way void, and only then opens them again."""
        last_sequence = await self._engine.close_doors()
        await self._txn(offer_txn(view.store, action, last_sequence), "hand-over")

    async def _withdraw(self, action: do.WithdrawHandover, view: View) -> None:
        await self._txn(withdraw_txn(view.store, action), "withdrawal")
        await self._engine.open_doors()

    async def _end_request(self, action: do.EndRequest, view: View) -> None:
        await self._txn(end_request_txn(action), "request")

    # ---- what an operator asks of this node

    async def _end_task(self, action: do.EndTask, view: View) -> None:
        await self._txn(end_task_txn(action), "task")

    async def _stop_database(self, _: do.StopDatabase, view: View) -> None:
        await self._engine.stop()

    async def _restart_agent(self, _: do.RestartAgent, view: View) -> None:
        if self._restart is None:
            raise Conflict(
                "this agent is not a process of its own", hint="End whoever runs it, and start it."
            )
        self._restart()

    async def _txn(self, txn: Txn, what: str) -> None:
        result = await self._store.txn(txn)
        if not result.is_success:
            raise Conflict(
                f"the store moved before this {what} was recorded", hint="The node plans again."
            )
        await self._seen(result.revision)


def _required(guardian: Guardian | None) -> Guardian:
    if guardian is None:
        raise Conflict("the database has no guard", hint="The node starts it again under one.")
    return guardian
