"""A restart of the whole cluster, one node at a time: functions over a `Store`.

    witnesses, then replicas, by name --each: well, restarted, well again--> switchover
              --> the former primary

Promises  Never two at a time, and none before every data node is well: the one that was restarted
          before is back in the sync set. It stops at the first that does not heal.
Does not  Restart a server that writes would have to wait for, or a primary.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from primacy.cluster.control import requests, tasks
from primacy.cluster.control.answers import RestartAnswer, RestartedAnswer
from primacy.cluster.control.requests import Desk, Tell, tell_nobody
from primacy.cluster.control.wellness import ailments, who_belongs
from primacy.cluster.view import StoreView
from primacy.cluster.viewing import Records
from primacy.errors import Conflict, PrimacyError, Rejected, Unavailable
from primacy.model import NodeId, Revision
from primacy.replication.records import PREFIX, PRIMARY_KEY

PARTS: tuple[tasks.Kind, ...] = ("restart-agent", "restart-database")
"""In this order: a new agent writes the server's new settings before the server reads them."""

ALL_WELL = "all are well"
"""How it ends, in words."""

LOOK_AGAIN_S = 1.0
"""A node that falls silent changes nothing in the store: look again even so."""


@dataclass(frozen=True, slots=True)
class Restarted:
    node: NodeId
    parts: tuple[tasks.Kind, ...]
    took_s: float


@dataclass(slots=True)
class Progress:
    """What was done before it ended, well or not."""

    done: list[Restarted] = field(default_factory=list)
    switched_to: NodeId | None = None

    def answer(self, *, is_done: bool, detail: str) -> RestartAnswer:
        return RestartAnswer(
            restarted=[
                RestartedAnswer(node=each.node, parts=list(each.parts), took_s=each.took_s)
                for each in self.done
            ],
            switched_to=self.switched_to,
            is_done=is_done,
            detail=detail,
        )


def parts_of(*, databases: bool, agents: bool) -> tuple[tasks.Kind, ...]:
    wanted = {"restart-agent": agents, "restart-database": databases}
    return tuple(part for part in PARTS if wanted.get(part))


async def restart(
    desk: Desk,
    *,
    parts: Sequence[tasks.Kind],
    progress: Progress,
    only: NodeId | None = None,
    timeout_s: float = tasks.RESTART_WITHIN_S,
    tell: Tell = tell_nobody,
) -> None:
    """Replicas first, the primary last by a switchover; or `only` one of them. `progress` says how
    far it came, also when an error ends it: `Conflict` where it may not begin, else the error of
    the step that failed."""
    wanted = tuple(part for part in PARTS if part in parts)
    if not wanted:
        raise Rejected("nothing to restart", hint="Name databases, agents, or both.")
    if len(desk.roster.data_nodes) < 2:
        raise Rejected("one data node has nobody to take over", hint="Restart it by its unit.")
    failure: BaseException | None = None
    try:
        async with following(desk) as watch:
            roll = _Roll(desk, watch, wanted, who_belongs(watch.view()), progress, timeout_s, tell)
            await roll.all() if only is None else await roll.one(only)
    except* PrimacyError as group:
        failure = group.exceptions[0]
    if failure is not None:
        raise failure


@dataclass(frozen=True, slots=True)
class _Roll:
    desk: Desk
    watch: "Following"
    parts: tuple[tasks.Kind, ...]
    belong: frozenset[NodeId]
    progress: Progress
    timeout_s: float
    tell: Tell

    async def all(self) -> None:
        primary = self.begin()
        if "restart-agent" in self.parts:
            for witness in sorted(self.desk.roster.witnesses):
                await self.witness(witness)
        for node in self.desk.roster.data_nodes:
            if node != primary:
                await self.node(node)
        await self.switch_away_from(primary)
        await self.node(primary)

    async def one(self, node: NodeId) -> None:
        if self.begin() == node:
            raise Conflict(
                f"{node} is the primary: a restart would be an outage",
                hint="Run `primacy switchover` first, or `primacy restart --rolling`.",
            )
        if node not in self.desk.roster.witnesses:
            await self.node(node)
        elif "restart-agent" in self.parts:
            await self.witness(node)
        else:
            raise Rejected(f"{node} is a witness: it has no server", hint="Say --agents.")

    def begin(self) -> NodeId:
        """The primary. `Conflict` where somebody is not well."""
        view = self.watch.view()
        ill = ailments(view, self.desk.roster.data_nodes, self.belong)
        if ill or view.primary is None:
            raise Conflict(f"not begun: {'; '.join(ill)}", hint="Heal it first: `primacy status`.")
        return view.primary.node

    async def witness(self, node: NodeId) -> None:
        """It votes: the store must have its majority without it for a moment."""
        began_s = self.desk.clock.now_s()
        self.tell(f"{node}: restart-agent")
        await tasks.perform(self.desk, node, "restart-agent", timeout_s=self.timeout_s)
        await self.all_well()
        took_s = round(self.desk.clock.now_s() - began_s, 3)
        self.progress.done.append(Restarted(node, ("restart-agent",), took_s))

    async def node(self, node: NodeId) -> None:
        began_s = self.desk.clock.now_s()
        for part in self.parts:
            self.tell(f"{node}: {part}")
            await tasks.perform(self.desk, node, part, timeout_s=self.timeout_s, tell=tell_nobody)
            await self.all_well()
        took_s = round(self.desk.clock.now_s() - began_s, 3)
        self.progress.done.append(Restarted(node, self.parts, took_s))
        self.tell(f"{node}: well again after {took_s:.1f} s")

    async def switch_away_from(self, primary: NodeId) -> None:
        """To the best replica; then the others must have followed it."""
        self.tell(f"{primary} is the primary: switching over")
        await requests.switchover(self.desk, to=None, timeout_s=self.timeout_s, tell=tell_nobody)
        new = await tasks.primary_of(self.desk)
        self.progress.switched_to = new
        self.tell(f"{new} is primary now")
        await self.all_well()

    async def all_well(self) -> None:
        """By what the store holds now: an answer may be here before the watch is as far."""
        await self.watch.caught_up(self.timeout_s)
        await self.watch.until(
            lambda view: "; ".join(ailments(view, self.desk.roster.data_nodes, self.belong)),
            self.timeout_s,
        )


# ---- following the store


class Following:
    """The cluster's records, kept up to date while somebody waits for something."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._records = Records(NodeId(""), desk.clock.now_s())
        self._changed = asyncio.Event()
        self._error: PrimacyError | None = None

    def view(self) -> StoreView:
        clock = self._desk.clock
        return self._records.view(clock.now_s(), clock.wall_s())

    async def load(self) -> Revision:
        found = await self._desk.store.range(PREFIX, is_prefix=True)
        self._records.load(found.items, found.revision, self._desk.clock.now_s())
        return Revision(found.revision + 1)

    async def run(self, revision: Revision) -> None:
        """Until cancelled; an error of the watch is raised by whoever waits."""
        try:
            async with self._desk.store.watch(
                PREFIX, is_prefix=True, from_revision=revision
            ) as batches:
                async for batch in batches:
                    now_s = self._desk.clock.now_s()
                    self._records.apply(batch.changes, batch.revision, now_s)
                    self._changed.set()
        except PrimacyError as error:
            self._error = error
            self._changed.set()

    async def caught_up(self, within_s: float) -> None:
        """Until the records are as new as the store is at this moment."""
        now = (await self._desk.store.range(PRIMARY_KEY)).revision
        await self.until(
            lambda _: "" if self._records.revision >= now else "the watch is late", within_s
        )

    async def until(self, missing: Callable[[StoreView], str], within_s: float) -> None:
        """Until nothing is missing. `Unavailable` with what still is, past the time."""
        deadline_s = self._desk.clock.now_s() + within_s
        while said := missing(self.view()):
            if self._error is not None:
                raise self._error
            left_s = deadline_s - self._desk.clock.now_s()
            if left_s <= 0:
                raise Unavailable(
                    f"not well within {within_s:.0f} s: {said}",
                    hint="Nothing more was restarted. See `primacy status` and `primacy why`.",
                )
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left_s, LOOK_AGAIN_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue


@asynccontextmanager
async def following(desk: Desk) -> AsyncIterator[Following]:
    found = Following(desk)
    revision = await found.load()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(found.run(revision), name="rolling-watch")
        try:
            yield found
        finally:
            watching.cancel()
