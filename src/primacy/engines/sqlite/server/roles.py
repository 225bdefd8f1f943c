"""What a node is to the cluster, and how that changes: one call for each step of a failover.

    RESTING --follow--> FOLLOWING --rest--> RESTING --reign--> REIGNING
       ^                                                          |
       +------- demote; abdicate, also once it ended in doubt ----+

Promises  One role at a time: whoever writes to log and database is the only one. One change at a
          time, and each comes to its end, whatever becomes of who asked for it. A call that does
          not fit the role is a `Conflict`, and nothing was done.
Assumes   The event loop calls; whoever calls has noted "below this epoch refused" durably before.
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from primacy.clock import Clock
from primacy.engines.sqlite import rewinding
from primacy.engines.sqlite.control import Doors, RoleNow, Writes
from primacy.engines.sqlite.server.leading import Leading
from primacy.engines.sqlite.server.pipeline import Pipeline
from primacy.engines.sqlite.server.recovery import Replay
from primacy.engines.sqlite.server.reigning import EndClients, Reigning
from primacy.engines.sqlite.server.replica import Replica
from primacy.engines.sqlite.server.spec import Spec
from primacy.engines.sqlite.server.state import Permits, ServerState
from primacy.engines.sqlite.storage.failures import opening
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import Address, Epoch, Member, NodeId
from primacy.replication.log.log import Log
from primacy.replication.log.record import Point
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.door import PullDoor
from primacy.replication.pull.messages import Report
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import Receiver
from primacy.replication.pull.source import Reign
from primacy.telemetry import Event, Sink

T = TypeVar("T")


class Roles:
    """Owned by the event loop."""

    def __init__(  # noqa: PLR0913 - all that a role is made of, once.
        self,
        spec: Spec,
        log: Log,
        state: ServerState,
        *,
        permits: Permits,
        on_broken: Callable[[str], None],
        end_clients: EndClients,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        events: Sink,
    ) -> None:
        self.reigning: Reigning | None = None
        self.replica: Replica | None = None
        self.pull_door: PullDoor | None = None
        """Where replicas attach. None: this node serves its log to nobody."""
        self.unfit = ""
        """Why this copy is of no use: it does not fit its log. Until it was cut or rewound."""
        self.under_way = ""
        """The change that has not come to its end; empty: none."""
        self.log = log
        self._spec = spec
        self._state = state
        self._permits = permits
        self._on_broken = on_broken
        self._end_clients = end_clients
        self._tasks = tasks
        self._clock = clock
        self._events = events
        self._node = NodeId(spec.node)
        self._known_epoch = log.end.epoch
        """Followed or reigned: what is below it is over."""
        self._ended_epoch = Epoch(0)
        """Reigned, and given up."""
        self._task: asyncio.Task[Any] | None = None
        self._is_stopping = False
        self._must_give_up = False
        """The replay that is under way is not wanted any more."""

    @property
    def now(self) -> RoleNow:
        if self.reigning is not None:
            return RoleNow.REIGNING
        return RoleNow.FOLLOWING if self.replica is not None else RoleNow.RESTING

    @property
    def trouble(self) -> str:
        """Why nothing more is applied; empty: all is well."""
        return self.unfit or (self.replica.trouble if self.replica is not None else "")

    @property
    def must_clone(self) -> bool:
        """The trouble is that this copy does not fit its log; any other ends by itself."""
        return bool(self.unfit) or (self.replica is not None and self.replica.must_clone)

    @property
    def pipeline(self) -> Pipeline | None:
        """Of the reign, until its thread has ended: longer than its doors are open."""
        return self.reigning.pipeline if self.reigning is not None else None

    @property
    def leading(self) -> Leading | None:
        return self.reigning.leading if self.reigning is not None else None

    # ---- a primary --------------------------------------------------------------------------

    async def reign(self, epoch: Epoch) -> int:
        """Become the primary of this epoch, doors closed: apply what the log still holds, and write
        the epoch's record. Returns its index once it is durable. Replicas may attach before."""
        if self.reigning is not None and self.reigning.epoch == epoch and not self.under_way:
            return await self.reigning.opened()
        return await self._alone("reign", self._reign(epoch))

    async def _reign(self, epoch: Epoch) -> int:
        self._check(RoleNow.RESTING)
        self._check_epoch(epoch)
        if epoch <= self._ended_epoch:
            raise Conflict(
                f"{self._node} has given epoch {self._ended_epoch} up: it is not begun again",
                hint="A new epoch opens, never an old one.",
            )
        owner = self.log.node_of(epoch)
        if owner not in (None, self._node):
            raise Conflict(
                f"epoch {epoch} belongs to {owner}: the log has its record",
                hint="Two nodes would write one epoch. Look at the store for who holds it.",
            )
        await self._replay(within_s=None)
        path, settings = self._spec.database_path, self._spec.storage
        seeds = random.Random(secrets.randbits(64))
        with self._noting_what_does_not_fit(), opening(path):
            writer = Writer(path, settings, clock=self._clock, seeds=seeds)
        self._known_epoch = epoch
        self.reigning = Reigning(
            self._spec,
            self.log,
            self._state,
            epoch=epoch,
            writer=writer,
            pull_door=self.pull_door,
            permits=self._permits,
            on_broken=self._on_broken,
            end_clients=self._end_clients,
            clock=self._clock,
            events=self._events,
        )
        return await self.reigning.opened()

    def lead(self) -> Reigning:
        """The reign, for whatever is asked of it. `Conflict` where there is none."""
        self._check(RoleNow.REIGNING)
        if self.reigning is None:  # Unreachable: it is what the check says.
            raise self._is_not(RoleNow.REIGNING)
        return self.reigning

    def require(self, to: Requirement, *, may_release: bool = False) -> None:
        """What a commit waits for, from now on."""
        self.lead().require(to, may_release=may_release)

    def open_doors(self) -> None:
        self.lead().open_doors()

    async def demote(self, index: int) -> None:
        """Give the reign up: its doors are closed, and the log ends at `index`."""
        if self.now is RoleNow.RESTING and self.log.end.index == index:
            return
        await self._alone("demote", self._demote(index))

    async def _demote(self, index: int) -> None:
        reigning = self.lead()
        waiting = reigning.leading.acks.waiting_count if reigning.leading is not None else 0
        end = self.log.end.index
        problem = ""
        if reigning.doors is not Doors.CLOSED:
            problem = f"the doors are {reigning.doors.value}"
        elif reigning.writes is not Writes.TAKING:
            problem = f"its writes are {reigning.writes.value}: {reigning.why}"
        elif end != index or waiting:
            problem = f"the log ends at {end}, not at {index}, and {waiting} commits wait"
        if problem:
            raise Conflict(
                f"{self._node} cannot give up epoch {reigning.epoch} in order: {problem}",
                hint="Kill the server: nothing is acknowledged then.",
            )
        await self._abdicate("it was demoted")

    async def stop(self, why: str) -> None:
        """Whatever it is: it rests then, and becomes nothing else any more."""
        self._is_stopping = True
        await self.abdicate(why)
        await self.rest()

    async def abdicate(self, why: str) -> None:
        """Take no more writes. What waits for acknowledgements is in doubt."""
        await self._settled()
        await self._alone("abdicate", self._abdicate(why))

    async def _abdicate(self, why: str) -> None:
        reigning = self.reigning
        if reigning is not None:
            reigning.end(why)
            await reigning.join()
            self._ended_epoch = reigning.epoch
            self.reigning = None

    def report(self, member: Member, epoch: Epoch, report: Report) -> None:
        """From the door for replicas."""
        if self.leading is not None:
            self.leading.report(member, epoch, report)

    # ---- a replica --------------------------------------------------------------------------

    async def follow(
        self,
        following: Following,
        address: Address,
        *,
        leader: str = "",
        acknowledge: bool,
        apply_until: int = 0,
    ) -> None:
        """Receive from this upstream and apply; `leader` is what clients are told. Following
        already: only the upstream changes."""
        work = self._follow(
            following, address, leader, acknowledge=acknowledge, apply_until=apply_until
        )
        await self._alone("follow", work)

    async def _follow(
        self,
        following: Following,
        address: Address,
        leader: str,
        *,
        acknowledge: bool,
        apply_until: int,
    ) -> None:
        if self.reigning is not None:
            raise self._is_not(RoleNow.RESTING)
        if self.unfit:
            raise Conflict(f"it applies nothing more: {self.unfit}", hint="Clone this node.")
        self._check_epoch(following.epoch)
        self._known_epoch = following.epoch
        self._state.leader = leader
        if self.pull_door is not None:
            self.pull_door.admit_all()
        if self.replica is None:
            with self._noting_what_does_not_fit():
                self.replica = await self._new_replica()
            self._state.staleness_s = self.replica.staleness_s
        self.replica.limit(apply_until)
        await self.replica.follow(following, address, acknowledge=acknowledge)

    def acknowledge(self, *, wanted: bool) -> None:
        """Whether what is received counts, from now on."""
        self._check(RoleNow.FOLLOWING)
        if self.replica is not None:
            self.replica.acknowledge(wanted=wanted)

    async def rest(self) -> Point:
        """Receive and apply nothing more. Returns how far the log durably goes. A replay is given
        up for it."""
        await self._settled()
        return await self._alone("rest", self._rest())

    async def _rest(self) -> Point:
        if self.reigning is not None:
            raise self._is_not(RoleNow.RESTING)
        replica, self.replica = self.replica, None
        if replica is not None and replica.must_clone:
            self.unfit = replica.trouble
        try:
            return await replica.stop() if replica is not None else self.log.durable
        finally:
            self._state.staleness_s = None

    # ---- a log and a database that stand still ----------------------------------------------

    async def drain(self, *, within_s: float) -> Point:
        """Apply all that the log holds. `Unavailable`: not in time; what is applied stays so."""
        return await self._alone("drain", self._drain(within_s))

    async def _drain(self, within_s: float) -> Point:
        self._check(RoleNow.RESTING)
        return await self._replay(within_s=within_s)

    async def cut(self, after: int) -> Point:
        """Remove the log's tail behind `after`, of which nothing may be applied."""
        return await self._alone("cut", self._cut(after))

    async def _cut(self, after: int) -> Point:
        self._check(RoleNow.RESTING)
        applied = self._state.applied
        if applied.index > after:
            raise Conflict(
                f"the log cannot be cut behind {after}: {applied.position} is applied",
                hint="Rewind the node first, or clone it.",
            )
        if self.pull_door is not None:
            self.pull_door.withdraw()
        await asyncio.to_thread(self.log.cut, after)
        self.unfit = ""
        return self.log.end

    async def rewind(self, to: int) -> Point:
        """Take back what is applied behind `to`, then cut the log there."""
        return await self._alone("rewind", self._rewind(to))

    async def _rewind(self, to: int) -> Point:
        self._check(RoleNow.RESTING)
        path, settings = self._spec.database_path, self._spec.storage
        if self.pull_door is not None:
            self.pull_door.withdraw()
        before = self._state.applied
        try:
            end = await asyncio.to_thread(
                rewinding.rewind, self.log, settings, database_path=path, to=to
            )
        except Rejected as error:  # No inverse, or rows that are not as the log left them.
            raise Conflict(
                f"it cannot be rewound to {to}: {error.what}", hint=error.hint
            ) from error
        self.unfit = ""
        if before.index > to:
            self._state.on_applied(end)
        return end

    async def _replay(self, *, within_s: float | None) -> Point:
        """Piece by piece, so that it can be seen and given up."""
        self._must_give_up = False
        path, settings, state = self._spec.database_path, self._spec.storage, self._state
        deadline_s = None if within_s is None else self._clock.now_s() + within_s
        with self._noting_what_does_not_fit():
            replay = await asyncio.to_thread(Replay, path, self.log, settings)
            start = replay.applied
            try:
                while not replay.is_done:
                    if self._must_give_up:
                        raise Conflict(
                            f"applying the log was given up at {replay.applied.position}",
                            hint="Something else was asked for. What is applied stays so.",
                        )
                    if deadline_s is not None and self._clock.now_s() >= deadline_s:
                        raise Unavailable(
                            f"within {within_s:.1f} s the log, which goes to"
                            f" {self.log.durable.position}, was applied to"
                            f" {replay.applied.position}",
                            hint="Ask again: it goes on from there.",
                        )
                    state.on_applied(await asyncio.to_thread(replay.step))
                    state.on_heartbeat(replay.heartbeat)
            finally:
                replay.close()
        records = replay.applied.index - start.index
        if records:
            at = str(replay.applied.position)
            self._events(Event("sql-replayed", {"records": records, "position": at}))
        return replay.applied

    # ---- inside -----------------------------------------------------------------------------

    async def _alone(self, what: str, work: Coroutine[Any, Any, T]) -> T:  # Any: asyncio's own.
        """The only change at this time. Whoever asked may go: it comes to its end without them."""
        if self._is_stopping and what not in ("abdicate", "rest"):
            work.close()
            raise Unavailable("the server stops", hint="Start it again.")
        if self._task is not None:
            work.close()
            raise Conflict(
                f"{self._node} is in the middle of something: {self.under_way}",
                hint="Wait for its answer; `rest` ends what applies the log.",
            )
        self.under_way = what
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._task = task
        task.add_done_callback(self._is_done)
        return await asyncio.shield(task)

    def _is_done(self, task: asyncio.Task[Any]) -> None:
        self.under_way, self._task = "", None
        if not task.cancelled():
            task.exception()  # Whoever asked may not be there any more.

    async def _settled(self) -> None:
        """Nothing is under way. A replay is given up."""
        while self._task is not None:
            self._must_give_up = True
            await asyncio.wait([self._task])

    @contextmanager
    def _noting_what_does_not_fit(self) -> Iterator[None]:
        """Around what opens the database, or applies the log to it."""
        try:
            yield
        except Rejected as error:
            self.unfit = error.what
            raise

    async def _new_replica(self) -> Replica:
        door = self.pull_door

        def on_growth(data: bytes, after: int, end: Point) -> None:
            if door is not None:
                door.offer(data, after=after, end=end)

        def on_reign(reign: Reign) -> None:
            replica.confirm(reign.epoch)
            if door is not None:
                door.serve(reign)

        def on_durable(point: Point) -> None:
            replica.more(point)

        receiver = Receiver(
            self.log,
            clock=self._clock,
            chance=random.Random(secrets.randbits(64)),
            on_growth=on_growth,
            on_durable=on_durable,
            on_reign=on_reign,
            events=self._events,
        )
        replica = Replica(
            receiver,
            self.log,
            on_applied=self._state.on_applied,
            on_heartbeat=self._state.on_heartbeat,
            on_broken=self._on_broken,
            clock=self._clock,
            events=self._events,
        )
        await replica.start(Path(self._spec.database_path), self._spec.storage, self._tasks)
        return replica

    def _check_epoch(self, epoch: Epoch) -> None:
        known = max(self._known_epoch, self.log.end.epoch)
        if epoch < known:
            raise Conflict(
                f"epoch {epoch} is over: {self._node} knows of epoch {known}",
                hint="An epoch never returns. Look at the store for the newest.",
            )

    def _check(self, wanted: RoleNow) -> None:
        if self.now is not wanted:
            raise self._is_not(wanted)

    def _is_not(self, wanted: RoleNow) -> Conflict:
        return Conflict(
            f"{self._node} is {self.now.value}, not {wanted.value}",
            hint="Look at what it is; `rest`, `demote` or a kill ends that.",
        )
