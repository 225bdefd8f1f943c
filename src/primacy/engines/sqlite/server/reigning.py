"""One reign: its writer, its doors, its count of acknowledgements.

    begun --the epoch's record is durable--> CLOSED --open_doors--> OPEN
      |                                        ^                     |
      |                                        +--(CLOSING)----------+  close_doors
      +--> over: asked to end, in doubt, or broken. For good

Promises  Its end is told once to everybody: clients, replicas, whoever waits. When the doors are
          closed no commit is in flight, and the log stands still but for a marker.
Assumes   The event loop calls. Log and database are this reign's alone.
"""

import asyncio
from collections.abc import Callable

from primacy.clock import Clock
from primacy.engines.sqlite.control import Doors, Writes
from primacy.engines.sqlite.protocol import Branch
from primacy.engines.sqlite.server.committing import Committer, Outside, State
from primacy.engines.sqlite.server.jobs import Own
from primacy.engines.sqlite.server.leading import Leading
from primacy.engines.sqlite.server.pipeline import AGAIN, DOORS_CLOSED, Pipeline
from primacy.engines.sqlite.server.spec import Spec
from primacy.engines.sqlite.server.state import Permits, ServerState
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import Conflict, PrimacyError, Rejected, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log
from primacy.replication.log.record import Kind
from primacy.replication.pull.acks import Requirement
from primacy.replication.pull.door import PullDoor
from primacy.replication.pull.messages import Hop
from primacy.replication.pull.source import Reign
from primacy.telemetry import Event, Sink

MARKER_WAIT_S = 0.1
"""For the writer to begin a marker. A client's transaction may hold it for longer, and then the
log's end serves as well."""

_WRITES = {
    State.TAKING: Writes.TAKING,
    State.CLOSED: Writes.NONE,
    State.IN_DOUBT: Writes.IN_DOUBT,
    State.BROKEN: Writes.BROKEN,
}

EndClients = Callable[[Branch, str, str], None]


class Reigning:
    """Of one epoch."""

    def __init__(  # noqa: PLR0913 - all that a reign is made of, once.
        self,
        spec: Spec,
        log: Log,
        state: ServerState,
        *,
        epoch: Epoch,
        writer: Writer,
        pull_door: PullDoor | None,
        permits: Permits,
        on_broken: Callable[[str], None],
        end_clients: EndClients,
        clock: Clock,
        events: Sink,
    ) -> None:
        self.epoch = epoch
        self.doors = Doors.CLOSED
        self.why = ""
        """Why it is over; empty while it is not."""
        self.requirement: Requirement | None = None
        self._node = NodeId(spec.node)
        self._log = log
        self._state = state
        self._writer = writer
        self._pull_door = pull_door
        self._on_broken = on_broken
        self._end_clients = end_clients
        self._clock = clock
        self._events = events
        self._settled = asyncio.Event()
        self.row = 0
        """The index of the epoch's own record; 0 before it is durable."""
        self._beat: asyncio.Future[int] | None = None
        self._closing: asyncio.Future[int] | None = None
        self.leading: Leading | None = None
        if pull_door is not None:
            pull_door.admit_all()
            pull_door.serve(Reign(epoch, (Hop(self._node),)))
            self.leading = Leading(epoch, durable=log.durable.index, door=pull_door)
        committer = Committer(
            writer,
            log,
            node=self._node,
            epoch=epoch,
            limits=spec.limits,
            outside=self._outside(permits),
            clock=clock,
            events=events,
        )
        self.pipeline = Pipeline(committer)
        state.epoch = epoch
        self.pipeline.start()

    # ---- its beginning and its end ---------------------------------------------------------

    async def opened(self) -> int:
        """The index of the epoch's own record, once it is durable here."""
        await self._settled.wait()
        if not self.row:
            raise self._ended()
        return self.row

    @property
    def writes(self) -> Writes:
        return _WRITES[self.pipeline.state]

    def end(self, why: str) -> None:
        """Clients first: none may read here in the belief that this is the primary. What waits for
        acknowledgements is in doubt. Once: whoever is told again has gone."""
        if self.why:
            return
        self.why = why or "it was ended"
        was_open, self._state.pipeline = self._state.pipeline is not None, None
        self.doors = Doors.CLOSED
        self.pipeline.close(why)
        if self.leading is not None:
            self.leading.close(why)
        if self._pull_door is not None:
            self._pull_door.withdraw()
        self._end_clients(
            Branch.NOT_PRIMARY, f"{self._node} is the primary no longer: {why}", AGAIN
        )
        self._state.epoch = Epoch(0)
        self._settled.set()
        if was_open:
            self._events(Event("sql-doors-closed", {"epoch": self.epoch, "why": why[:300]}))

    async def join(self) -> None:
        """After `end`: the writer's thread has ended, and its database is closed."""
        await asyncio.to_thread(self.pipeline.join)
        self._writer.close()

    # ---- its doors -------------------------------------------------------------------------

    def require(self, to: Requirement, *, may_release: bool = False) -> None:
        """What a commit waits for, from now on."""
        self._check_living()
        if to.acks or self.leading is not None:
            self._led().require(to, may_release=may_release)
        self.requirement = to

    def open_doors(self) -> None:
        """Take writes: the epoch's record is held, and the own durability record stands."""
        self._check_living()
        if self.requirement is None or not self.row:
            missing = "the epoch's record is not durable yet"
            if self.requirement is None:
                missing = "nobody has said how many acknowledgements a commit waits for"
            raise Conflict(f"the doors of epoch {self.epoch} stay closed: {missing}", hint=_FIRST)
        if self.doors is Doors.CLOSING:
            raise Conflict("the doors are being closed", hint="Wait for how that ends.")
        if self.doors is Doors.OPEN:
            return
        if self.leading is not None:
            self.leading.open()
        self._resume()
        self._state.leader = ""
        self._events(Event("sql-doors-opened", {"epoch": self.epoch}))

    async def close_doors(self, *, within_s: float) -> int:
        """Refuse writes. Returns the log's end: no commit is in flight then. `Unavailable`: one
        still waits after so long, and the doors are as before. Asked again meanwhile, perhaps by
        an agent that no longer waits for the first answer: the same answer."""
        self._check_living()
        if self._closing is not None:
            return await asyncio.shield(self._closing)
        closing = self._closing = asyncio.get_running_loop().create_future()
        try:
            end = await self._close_doors(within_s)
        except BaseException as error:
            is_told = isinstance(error, PrimacyError)
            closing.set_exception(error if is_told else self._not_closed())
            closing.exception()  # Nobody may have asked again.
            raise
        else:
            closing.set_result(end)
            return end
        finally:
            self._closing = None

    async def _close_doors(self, within_s: float) -> int:
        was_open, self.doors = self.doors is Doors.OPEN, Doors.CLOSING
        self._state.pipeline = None
        self.pipeline.pause(DOORS_CLOSED)
        own, done = self._put_own(None)
        try:
            async with asyncio.timeout(within_s):
                end = await asyncio.shield(done)
        except (TimeoutError, asyncio.CancelledError) as error:
            if self.pipeline.inbox.withdraw(own):
                self._reopen(was_open=was_open)
                if isinstance(error, TimeoutError):
                    raise self._still_busy(within_s) from error
                raise
            self.doors = Doors.CLOSED  # It was taken at the very moment.
            if isinstance(error, asyncio.CancelledError):
                raise
            end = await done
        self.doors = Doors.CLOSED
        if was_open:
            self._events(Event("sql-doors-paused", {"epoch": self.epoch, "end": end}))
        return end

    def _reopen(self, *, was_open: bool) -> None:
        if was_open and not self.why:
            self._resume()
        else:
            self.doors = Doors.CLOSED

    def _resume(self) -> None:
        self.doors = Doors.OPEN
        self.pipeline.resume()
        self._state.pipeline = self.pipeline

    def _not_closed(self) -> Unavailable:
        return Unavailable("the doors were not closed", hint="Look at them, and ask again.")

    def _still_busy(self, within_s: float) -> Unavailable:
        waits_at = self.leading.acks.waits_at if self.leading is not None else 0
        what = f"record {waits_at} waits for acknowledgements" if waits_at else "the writer works"
        return Unavailable(
            f"the doors could not be closed within {within_s:.1f} s: {what}",
            hint="They are as before. Look at the replicas with `primacy status`.",
        )

    # ---- who counts ------------------------------------------------------------------------

    def exclude(self, node: NodeId) -> None:
        self._led().exclude(node)

    def admit(self, node: NodeId) -> None:
        self._led().admit(node)

    def _led(self) -> Leading:
        self._check_living()
        if self.leading is None:
            raise Rejected("there is no door for replicas", hint="Give the server a pull address.")
        return self.leading

    # ---- primacy's own records -------------------------------------------------------------

    async def marker(self) -> int:
        """See `control.Marker`."""
        self._check_living()
        if self.leading is not None and self.leading.acks.waiting_count:
            return self._log.end.index
        own, done = self._put_own(Kind.MARKER)
        try:
            async with asyncio.timeout(MARKER_WAIT_S):
                return await asyncio.shield(done)
        except TimeoutError:
            if self.pipeline.inbox.withdraw(own):
                return self._log.end.index
            return await done

    async def beat(self) -> int:
        """The number of a heartbeat that is acknowledged. One that still waits is joined."""
        self._check_living()
        if self.doors is not Doors.OPEN:
            raise Conflict("the doors are closed", hint="A closed primary writes nothing.")
        if self._beat is None or self._beat.done():
            _, self._beat = self._put_own(Kind.HEARTBEAT)
        number = await asyncio.shield(self._beat)
        self._state.on_heartbeat(number)
        return number

    def _put_own(self, kind: Kind | None) -> tuple[Own, asyncio.Future[int]]:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answer(result: int | PrimacyError) -> None:
            if done.done():
                return
            if isinstance(result, PrimacyError):
                done.set_exception(result)
                done.exception()  # Nobody may wait for it any more.
            else:
                done.set_result(result)

        own = Own(kind, answer)
        if not self.pipeline.inbox.put_own(own):
            raise self._ended()
        return own, done

    # ---- inside ----------------------------------------------------------------------------

    def _outside(self, permits: Permits) -> Outside:
        loop, state, leading = asyncio.get_running_loop(), self._state, self.leading

        def post(work: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(work)

        return Outside(
            appended=None if leading is None else leading.appended,
            persisted=None if leading is None else leading.persisted,
            acknowledged=None if leading is None else leading.acknowledged,
            permits=permits,
            applied=lambda point: post(lambda: state.on_applied(point)),
            post=post,
            opened=self._on_opened,
            ended=self._on_ended,
        )

    def _on_opened(self, index: int) -> None:
        if not self.why:
            self.row = index
            self._settled.set()

    def _on_ended(self, state: State, why: str) -> None:
        if self.why:
            return  # As it was asked to.
        self._events(Event("sql-writes-ended", {"state": state.value, "why": why[:300]}))
        self.end(why)
        if state is State.BROKEN:
            self._on_broken(why)

    def _check_living(self) -> None:
        if self.why:
            raise self._ended()

    def _ended(self) -> Conflict:
        return Conflict(
            f"the reign of epoch {self.epoch} has ended: {self.why}",
            hint="A new epoch opens, never an old one.",
        )


_FIRST = "The epoch's record comes first, then what a commit waits for, then the doors."
