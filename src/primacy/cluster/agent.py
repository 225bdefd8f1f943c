"""The loop beside each database: look, plan, perform. Thin on purpose.

    watch  --+                       +--> engine, guard
    observe -+--> View --> plan() ---+
    lease  --+     (pure)            +--> store: one transaction

One action is performed at a time. While it runs, its premise (the epoch, who holds the primary
record, whether this node's lease stands) is watched: when that falls, the action is cancelled and
the node plans anew. Everything wakes the loop by an event; nothing that waits polls, except the
observation of the database itself, which has no way to tell.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from primacy.clock import Clock
from primacy.cluster.actions import (
    Action,
    AnyAction,
    Clone,
    Drain,
    Follow,
    Plan,
    Salvage,
    wait,
)
from primacy.cluster.failing import NOT_FAILING, RETRY_AFTER_S, Failing
from primacy.cluster.holding import Holding
from primacy.cluster.perform import Hands
from primacy.cluster.plan import plan
from primacy.cluster.policy import Policy
from primacy.cluster.publishing import Acting, Publisher
from primacy.cluster.roles import RoleSeen, role_of
from primacy.cluster.showing import Shown
from primacy.cluster.view import PageView, View
from primacy.cluster.viewing import Records, Sight
from primacy.coordination.api import Store
from primacy.engines.api import Engine
from primacy.errors import Compacted, PrimacyError
from primacy.model import NodeId, Revision
from primacy.replication.records import HANDOVER_KEY, PREFIX, PRIMARY_KEY, SWITCHOVER_KEY
from primacy.telemetry import Event, Sink

OBSERVE_EVERY_S = 0.2
"""A calm database is looked at this often; each action is followed by a look of its own."""

OBSERVE_SOON_S = 0.02
"""While somebody waits for what this database will show: a row received, a tail applied."""

EAGER_FOR_S = 10.0
"""After that long the wait is not for milliseconds any more."""

INTERRUPTIBLE = (Clone, Drain, Follow, Salvage)
"""Actions that may take long, and are pointless once somebody else leads. All others are short, or
must not be left half done."""

LOOK_AGAIN_MIN_S = 0.005
"""A wait whose end is a rounding error away must not become a spin."""

HEARTBEAT_EVERY_S = 1.0

SEEN_WITHIN_S = 1.0
"""How long a written record may take to come back by the watch before the node goes on without."""


class Agent:
    """Runs one node of a cluster until it is cancelled. Cancelling leaves the database running
    under its guard, whose deadline stands."""

    def __init__(  # noqa: PLR0913  # The parts list of an agent: each is handed in.
        self,
        *,
        node: NodeId,
        store: Store,
        engine: Engine,
        holding: Holding,
        policy: Policy,
        clock: Clock,
        read_page: Callable[[], PageView],
        events: Sink,
        show: Callable[[Shown], None] | None = None,
        on_role: Callable[[RoleSeen], None] | None = None,
        life: str = "",
        restart: Callable[[], None] | None = None,
    ) -> None:
        """`show` is given the newest view after each look at the database; `on_role` hears the role
        with every plan, and returns at once. `life` names this process; `restart` ends it, to
        begin again."""
        self._node = node
        self._store = store
        self._engine = engine
        self._holding = holding
        self._policy = policy
        self._clock = clock
        self._read_page = read_page
        self._events = events
        self._show = show
        self._on_role = on_role
        self._records = Records(node, clock.now_s())
        self._sight = Sight(node, clock.now_s(), agent=life)
        self._hands = Hands(
            store=store,
            engine=engine,
            holding=holding,
            clock=clock,
            policy=policy,
            sight=self._sight,
            records=self._records,
            events=events,
            seen=self._see,
            restart=restart,
        )
        self._publisher = Publisher(node=node, store=store, clock=clock, events=events)
        self._wake = asyncio.Event()
        self._look = asyncio.Event()
        self._looking = asyncio.Lock()
        self._moved = asyncio.Event()
        self._is_loaded = False
        self._confirmed_at_s = clock.now_s()
        self._reason = ""
        self._acting = Acting()
        """By which records the action that runs now was decided."""
        self._is_eager = False
        self._eager_since_s: float | None = None
        self._failures: dict[str, Failing] = {}
        """Of each kind of action: its failures in a row under the present premise."""
        self._premise: tuple[object, ...] = ()

    async def run(self) -> None:
        """Errors: only what no retry can mend (`Rejected`, `InvariantBroken`)."""
        await self._engine.attach()
        await self._observe_once()  # Before any plan: nothing seen yet looks like no data here.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="agent-watch")
            tasks.create_task(self._confirm(), name="agent-confirm")
            tasks.create_task(self._observe(), name="agent-observe")
            tasks.create_task(self._watch_exit(), name="agent-exit")
            tasks.create_task(self._beat(), name="agent-heartbeat")
            tasks.create_task(self._holding.run(self._wake.set), name="agent-lease")
            tasks.create_task(
                self._publisher.run(self._status_view, lambda: self._is_eager),
                name="agent-publish",
            )
            tasks.create_task(self._think(), name="agent-think")

    # ---- look

    async def _watch(self) -> None:
        """Follow the cluster's records; after a gap that the store has compacted, list again."""
        while True:
            try:
                found = await self._store.range(PREFIX, is_prefix=True)
                self._records.load(found.items, found.revision, self._clock.now_s())
                self._is_loaded = True
                self._wake.set()
                await self._follow_changes(Revision(found.revision + 1))
            except Compacted as gap:
                self._events(Event("watch-compacted", {"reason": gap.what}))
            except PrimacyError as error:
                self._events(Event("watch-broken", {"reason": error.what}))
                await self._clock.sleep(RETRY_AFTER_S)

    async def _follow_changes(self, from_revision: Revision) -> None:
        async with self._store.watch(
            PREFIX, is_prefix=True, from_revision=from_revision
        ) as batches:
            async for batch in batches:
                had_primary = self._records.view(0.0, 0.0).primary is not None
                self._records.apply(batch.changes, batch.revision, self._clock.now_s())
                self._moved.set()
                if any(change.key != f"{PREFIX}nodes/{self._node}" for change in batch.changes):
                    self._wake.set()
                keys = {change.key: change.after for change in batch.changes}
                if had_primary and PRIMARY_KEY in keys and keys[PRIMARY_KEY] is None:
                    self._hands.steps.restart(self._sight.engine.heartbeat_age_s)
                if SWITCHOVER_KEY in keys or HANDOVER_KEY in keys or PRIMARY_KEY in keys:
                    self._look.set()

    async def _see(self, revision: Revision) -> None:
        """Until the watch has brought what was written at `revision`, or is taken to be broken."""
        try:
            async with asyncio.timeout(SEEN_WITHIN_S):
                while self._records.revision < revision:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._events(Event("watch-late", {"revision": revision}))

    async def _confirm(self) -> None:
        """Is what the watch shows still the present? Asked by linearizable reads."""
        while True:
            asked_at_s = self._clock.now_s()
            try:
                await self._store.range(PRIMARY_KEY)
                self._confirmed_at_s = asked_at_s
            except PrimacyError as error:
                self._events(Event("store-unconfirmed", {"reason": error.what}))
            await self._clock.sleep(self._policy.lease_ttl_s / 4)

    async def _observe(self) -> None:
        while True:
            await self._observe_once()
            every_s = OBSERVE_SOON_S if self._is_eager else OBSERVE_EVERY_S
            try:
                async with asyncio.timeout(every_s):
                    await self._look.wait()
            except TimeoutError:
                continue
            finally:
                self._look.clear()

    async def _observe_once(self) -> None:
        async with self._looking:  # One look at a time: a second would wait for the first's answer.
            before = self._sight.engine
            seen = await self._engine.observe()
            self._sight.observe(seen, self._clock.now_s())
        if seen != before:
            self._wake.set()
            self._publisher.wake()
        if self._show is not None:
            self._show(self._shown())

    async def _watch_exit(self) -> None:
        """The database or its guard has exited: look at once."""
        while True:
            guardian = self._engine.guardian
            if guardian is None:
                await self._clock.sleep(RETRY_AFTER_S)
                continue
            await guardian.exited.wait()
            self._events(Event("database-exited", {"node": self._node}))
            await self._observe_once()
            self._wake.set()
            await self._clock.sleep(RETRY_AFTER_S)

    async def _beat(self) -> None:
        """Numbered heartbeats: a lag that trusts no clock. A blocked one waits with the others."""
        while True:
            await self._clock.sleep(HEARTBEAT_EVERY_S)
            if self._read_page().state != "open" or self._sight.engine.is_read_only:
                continue
            try:
                await self._engine.beat()
            except PrimacyError as error:
                self._events(Event("heartbeat-failed", {"reason": error.what}))

    # ---- plan

    def _view(self) -> View:
        now_s = self._clock.now_s()
        store = self._records.view(now_s, self._clock.wall_s())
        age_s = now_s - self._confirmed_at_s
        view = self._sight.view(
            store,
            now_s,
            lease=self._holding.view(store),
            page=self._read_page(),
            is_store_current=self._is_loaded and age_s <= self._policy.lease_ttl_s,
            wall_s=self._clock.wall_s(),
        )
        return replace(view, failures={name: each.count for name, each in self._failures.items()})

    def _shown(self) -> Shown:
        return Shown(
            view=self._view(),
            history=tuple(record for record, _ in self._records.history.values()),
            doing=self._hands.progress or self._reason,
            at_s=self._clock.now_s(),
        )

    def _status_view(self) -> tuple[View, Acting]:
        return self._view(), replace(self._acting, doing=self._hands.progress or self._reason)

    async def _think(self) -> None:
        while True:
            self._wake.clear()
            view = self._view()
            decided = plan(view, self._policy)
            if (premise := _premise(view)) != self._premise:
                self._premise = premise
                self._failures.clear()  # Against another primary anything may go through.
            self._acting = Acting(
                durability=view.store.durability_mod,
                policy=view.store.policy_mod,
                donor=decided.donor,
            )
            step = self._held_back(decided)
            self._note(step, view)
            if self._on_role is not None:
                self._on_role(role_of(view))
            if step.action is None:
                await self._wait(step)
            else:
                await self._act(step, view)

    def _note(self, step: Plan, view: View) -> None:
        """Every decision with its reason, once, when it changes."""
        self._is_eager = self._is_in_a_hurry(view)
        if self._is_eager:
            self._look.set()
        if step.reason == self._reason:
            return
        self._reason = step.reason
        action = type(step.action).__name__ if step.action else "Wait"
        self._events(Event("decided", {"action": action, "reason": step.reason}))
        self._publisher.decide(action, step.reason, view, dict(self._hands.steps.actions_s))

    def _is_in_a_hurry(self, view: View) -> bool:
        """Somebody waits for what this node's database will show next."""
        store = view.store
        is_opening = store.primary is not None and (
            store.durability is None or store.durability.epoch < store.primary.epoch
        )
        is_changing = store.handover is not None or view.transition is not None
        is_waited_for = is_opening or is_changing or store.switchover is not None
        if not is_waited_for:
            self._eager_since_s = None
            return False
        if self._eager_since_s is None:
            self._eager_since_s = self._clock.now_s()
        return self._clock.now_s() - self._eager_since_s < EAGER_FOR_S

    async def _wait(self, step: Plan) -> None:
        look_again_s = step.look_again_s
        if look_again_s is not None:
            look_again_s = max(look_again_s, LOOK_AGAIN_MIN_S)
        try:
            async with asyncio.timeout(look_again_s):
                await self._wake.wait()
        except TimeoutError:
            return

    # ---- perform

    async def _act(self, step: Plan, view: View) -> None:
        """Perform, unless the premise falls meanwhile."""
        if step.action is None:
            return
        try:
            if not isinstance(step.action, INTERRUPTIBLE):
                await self._hands.perform(step.action, view)
            else:
                await self._act_unless_fallen(step.action, view)
            self._failures.pop(type(step.action).__name__, None)
            if isinstance(step.action, Clone):
                self._failures.clear()  # Those of the data that was set aside.
        except PrimacyError as error:
            self._failed(step.action, error)
        await self._observe_once()

    async def _act_unless_fallen(self, action: AnyAction, view: View) -> None:
        """No TaskGroup: one whose task fails leaves a cancellation counted against this task, which
        goes on. Before Python 3.11.3 the next `asyncio.timeout` would end it, and not the wait."""
        loop = asyncio.get_running_loop()
        performing = loop.create_task(self._hands.perform(action, view), name=type(action).__name__)
        watching = loop.create_task(self._cancel_when_fallen(_premise(view), performing))
        try:
            await asyncio.wait((performing,))
        finally:
            for task in (performing, watching):
                task.cancel()
            await asyncio.wait((performing, watching))
        for task in (performing, watching):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _failed(self, action: Action, error: BaseException) -> None:
        name = type(action).__name__
        self._events(Event("action-failed", {"action": name, "reason": str(error)}))
        failing = self._failures.get(name, NOT_FAILING)
        self._failures[name] = failing.again(str(error), self._clock.now_s())
        self._reason = f"{name} failed: {error}"

    def _held_back(self, step: Plan) -> Plan:
        """An action that has just failed waits a little longer each time; all others go on."""
        if step.action is None:
            return step
        name = type(step.action).__name__
        failing = self._failures.get(name, NOT_FAILING)
        left_s = failing.not_before_s - self._clock.now_s()
        if left_s <= 0:
            return step
        return wait(failing.told(name, step.reason), left_s)

    async def _cancel_when_fallen(
        self, premise: tuple[object, ...], performing: "asyncio.Task[None]"
    ) -> None:
        while _premise(self._view()) == premise:
            await self._wake.wait()
            self._wake.clear()
        self._events(Event("action-cancelled", {"action": performing.get_name()}))
        performing.cancel()


def _premise(view: View) -> tuple[object, ...]:
    """What must still hold for a long action to go on: who leads which epoch."""
    primary = view.store.primary
    return view.store.epoch, primary.node if primary else None
