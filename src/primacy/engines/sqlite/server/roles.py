"""What a node is to the cluster, and how that changes: one call for each step of a failover.

    RESTING --follow--> FOLLOWING --rest--> RESTING --reign--> REIGNING --open_doors--> doors open
       ^                                                          |
       +---- abdicate, also once the pipeline has ended in doubt --+

Promises  One role at a time: whoever writes to log and database is the only one. A reign's doors
          open once, and its clients are cut off when it ends.
Assumes   The event loop calls; whoever calls has noted "below this epoch refused" durably before.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import Branch, Failure
from primacy.engines.sqlite.server.committing import Committer, Outside, State
from primacy.engines.sqlite.server.jobs import Job
from primacy.engines.sqlite.server.leading import Leading
from primacy.engines.sqlite.server.pipeline import Pipeline
from primacy.engines.sqlite.server.recovery import replayed
from primacy.engines.sqlite.server.replica import Replica
from primacy.engines.sqlite.server.spec import Spec
from primacy.engines.sqlite.server.state import Permits, ServerState
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import Conflict, Rejected
from primacy.model import Address, Epoch, Member, NodeId
from primacy.replication.log.log import Log
from primacy.replication.log.record import Point
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.door import PullDoor
from primacy.replication.pull.messages import Hop, Report
from primacy.replication.pull.receiver import Following
from primacy.replication.pull.receiving import Receiver
from primacy.replication.pull.source import Reign
from primacy.telemetry import Event, Sink


class RoleNow(Enum):
    RESTING = "resting"
    """It answers reads from what is applied, and receives nothing."""
    FOLLOWING = "following"
    REIGNING = "reigning"


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
        end_clients: Callable[[Branch, str, str], None],
        tasks: asyncio.TaskGroup,
        clock: Clock,
        events: Sink,
    ) -> None:
        self.now = RoleNow.RESTING
        self.leading: Leading | None = None
        self.replica: Replica | None = None
        self.pull_door: PullDoor | None = None
        """Where replicas attach. None: this node serves its log to nobody."""
        self._spec = spec
        self.log = log
        self._state = state
        self._permits = permits
        self._on_broken = on_broken
        self._end_clients = end_clients
        self._tasks = tasks
        self._clock = clock
        self._events = events
        self._node = NodeId(spec.node)
        self._pipeline: Pipeline | None = None
        self._writer: Writer | None = None

    @property
    def pipeline(self) -> Pipeline | None:
        """Of the reign, until its thread has ended: longer than its doors are open."""
        return self._pipeline

    # ---- a primary --------------------------------------------------------------------------

    async def reign(self, epoch: Epoch, requirement: Requirement | None = None) -> None:
        """Become the primary of this epoch, doors closed: apply what the log still holds, and write
        the epoch's record. Replicas may attach before that. Without a requirement nobody's
        acknowledgement is asked for."""
        log, state = self.log, self._state
        self._check(RoleNow.RESTING)
        if epoch < log.end.epoch:
            raise Rejected(
                f"epoch {epoch} is over: the log has records of epoch {log.end.epoch}",
                hint="This node is no primary any more.",
            )
        if requirement is not None and self.pull_door is None:
            raise Rejected("there is no door for replicas", hint="Give the server a pull address.")
        path, settings = self._spec.database_path, self._spec.storage
        reached = await asyncio.to_thread(replayed, path, log, settings, events=self._events)
        state.on_applied(reached)
        seeds = random.Random(secrets.randbits(64))
        self._writer = Writer(path, settings, clock=self._clock, seeds=seeds)
        if self.pull_door is not None:
            self.pull_door.serve(Reign(epoch, (Hop(self._node),)))
            asked = requirement or Requirement(acks=0, members=frozenset())
            durable = log.durable.index
            self.leading = Leading(epoch, asked, durable=durable, door=self.pull_door)
        committer = Committer(
            self._writer,
            log,
            node=self._node,
            epoch=epoch,
            limits=self._spec.limits,
            outside=self._outside(waits=requirement is not None),
            clock=self._clock,
            events=self._events,
        )
        self._pipeline = Pipeline(committer)
        self.now = RoleNow.REIGNING
        state.epoch = epoch
        self._pipeline.start()

    def open_doors(self) -> None:
        """Take writes: the epoch's record is held, and the own durability record stands."""
        self._check(RoleNow.REIGNING)
        if self._pipeline is None or self._pipeline.state is not State.TAKING:
            raise Conflict("the reign has ended", hint="A new epoch opens, never an old one.")
        if self.leading is not None:
            self.leading.open()
        self._state.pipeline = self._pipeline
        self._state.leader = ""
        self._events(Event("sql-doors-opened", {"epoch": self._state.epoch}))

    async def abdicate(self, why: str) -> None:
        """Take no more writes. What waits for acknowledgements is in doubt."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        self._dethrone(pipeline, why)
        await asyncio.to_thread(pipeline.join)
        if self._writer is not None:
            self._writer.close()
        self._pipeline = self._writer = None
        self.now = RoleNow.RESTING

    def report(self, member: Member, epoch: Epoch, report: Report) -> None:
        """From the door for replicas."""
        if self.leading is not None:
            self.leading.report(member, epoch, report)

    # ---- a replica --------------------------------------------------------------------------

    async def follow(
        self, following: Following, address: Address, *, leader: str = "", acknowledge: bool
    ) -> None:
        """Receive from this upstream and apply; `leader` is what clients are told. Following
        already: only the upstream changes."""
        if self.now is RoleNow.REIGNING:
            self._check(RoleNow.RESTING)
        self._state.leader = leader
        if self.replica is None:
            self.replica = await self._new_replica()
            self.now = RoleNow.FOLLOWING
            self._state.staleness_s = self.replica.staleness_s
        await self.replica.follow(following, address, acknowledge=acknowledge)

    async def rest(self) -> Point:
        """Receive and apply nothing more. Returns how far the log durably goes."""
        replica, self.replica = self.replica, None
        if replica is None:
            return self.log.durable
        try:
            return await replica.stop()
        finally:
            self._state.staleness_s = None
            self.now = RoleNow.RESTING

    # ---- inside -----------------------------------------------------------------------------

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
            on_broken=self._on_broken,
            clock=self._clock,
            events=self._events,
        )
        await replica.start(Path(self._spec.database_path), self._spec.storage, self._tasks)
        return replica

    def _outside(self, *, waits: bool) -> Outside:
        loop, state, leading = asyncio.get_running_loop(), self._state, self.leading
        return Outside(
            appended=None if leading is None else leading.appended,
            persisted=None if leading is None else leading.persisted,
            acknowledged=leading.acknowledged if leading is not None and waits else None,
            permits=self._permits,
            applied=lambda point: post(loop, lambda: state.on_applied(point)),
            post=lambda work: post(loop, work),
            ended=self._on_pipeline_ended,
        )

    def _on_pipeline_ended(self, state: State, why: str) -> None:
        """In the event loop: it takes no more."""
        pipeline = self._pipeline
        if pipeline is None or pipeline.state is State.CLOSED:
            return  # As it was asked to.
        self._events(Event("sql-writes-ended", {"state": state.value, "why": why[:300]}))
        self._dethrone(pipeline, why)
        if state is State.BROKEN:
            self._on_broken(why)

    def _dethrone(self, pipeline: Pipeline, why: str) -> None:
        """Clients first: none may read here in the belief that this is the primary."""
        was_open, self._state.pipeline = self._state.pipeline is not None, None
        for job in pipeline.close():
            job.answer(_not_begun(job, why))
        leading, self.leading = self.leading, None
        if leading is not None:
            leading.close(why)
        if self.pull_door is not None:
            self.pull_door.withdraw()
        self._end_clients(
            Branch.NOT_PRIMARY, f"{self._node} is the primary no longer: {why}", AGAIN
        )
        epoch, self._state.epoch = self._state.epoch, Epoch(0)
        if was_open:
            self._events(Event("sql-doors-closed", {"epoch": epoch, "why": why[:300]}))

    def _check(self, wanted: RoleNow) -> None:
        if self.now is not wanted:
            raise Conflict(
                f"{self._node} is {self.now.value}, not {wanted.value}",
                hint="End that first: `rest` or `abdicate`.",
            )


AGAIN = "Connect again: the driver finds the primary."


def _not_begun(job: Job, why: str) -> Failure:
    return Failure(
        job.request.number, Branch.NOT_PRIMARY, f"the request was not begun: {why}", AGAIN
    )


def post(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(work)
