"""A node's door for receivers: serves the bytes of its log as they stand there.

Promises  A receiver gets what it has proven a right to, in order, once. A slow one holds up nobody
          else and no append. When `exclude` returns, that node is not attached, cannot attach, and
          no report of it is passed on; likewise for all of a reign when `withdraw` or another
          `serve` returns. A cut of the log, from any thread, ends all sessions: nothing of the tail
          that goes is sent, and everybody compares again.
Assumes   One event loop; `offer` is called there, after each append, in the order of the log.
Does not  Count acknowledgements (`acks.py`), encrypt, or wait for its own disk: a receiver may hold
          what this log has not made durable yet. docs/protocols/pull.md has the argument.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, assert_never

from primacy import telemetry
from primacy.clock import Clock
from primacy.errors import Conflict, Corrupt, PrimacyError, Rejected
from primacy.model import Address, Epoch, Member, NodeId
from primacy.replication.log.reading import Purged
from primacy.replication.log.record import Point
from primacy.replication.pull.kept import HeldLog, Kept
from primacy.replication.pull.lag import LEVEL, Growth, Lag
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.link import Link
from primacy.replication.pull.messages import (
    Beat,
    Refusal,
    Refused,
    Report,
    from_receiver,
    last_point,
    message_frame,
    records_frame,
)
from primacy.replication.pull.recent import Recent
from primacy.replication.pull.source import (
    Close,
    Counted,
    Fetch,
    Fetched,
    FetchedNothing,
    Grew,
    Identity,
    Look,
    Looked,
    Reign,
    Said,
    Say,
    SendBeat,
    SourceEffect,
    SourceEvent,
    SourceSession,
    Ticked,
)
from primacy.replication.pull.views import DoorCounts, ReceiverView, view_of
from primacy.runtime.listening import listening
from primacy.runtime.proofs import NONCE_BYTES
from primacy.telemetry import Event, Sink

READERS = 4
"""Threads that read the log for receivers that are not level with it."""

PIECES_MAX = 64
"""Of what was appended last, handed to one connection at a time. Who lacks more is not level."""


class ServedLog(HeldLog, Protocol):
    """What a door needs of a log; `replication.log.Log` is one. Blocking; any thread may call."""

    @property
    def first(self) -> Point: ...
    @property
    def end(self) -> Point: ...
    @property
    def cut_count(self) -> int: ...
    def point(self, index: int) -> Point | None: ...
    def read(self, after: int, *, bytes_max: int) -> bytes: ...
    def bytes_after(self, index: int) -> int: ...


OnReport = Callable[[Member, Epoch, Report], None]
"""Called in the event loop with each report, and at no other time: not for an excluded node, not
after its reign. One that does not acknowledge takes back what the node said before."""


class _Client:
    """One connection with its session."""

    __slots__ = ("is_held", "lacking_bytes", "link", "session", "told_bytes", "wakes_at_s")

    def __init__(self, link: Link, session: SourceSession) -> None:
        self.link = link
        self.session = session
        self.wakes_at_s = float("inf")
        self.is_held = False
        """It has been served: the log is kept for it."""
        self.lacking_bytes = 0
        """Of the log, behind its point, when it came."""
        self.told_bytes = 0
        """What the log's growth had come to at that moment."""


class PullDoor:
    """`async with` listens. Everything else in the same event loop."""

    def __init__(  # noqa: PLR0913 - all that a door is made of, once
        self,
        identity: Identity,
        log: ServedLog,
        *,
        listen: Address,
        clock: Clock,
        on_report: OnReport,
        events: Sink = telemetry.ignore,
        limits: PullLimits | None = None,
    ) -> None:
        self.counts = DoorCounts()
        self._identity = identity
        self._log = log
        self._listen = listen
        self._clock = clock
        self._on_report = on_report
        self._events = events
        self._limits = limits or PullLimits()
        self._reign: Reign | None = None
        self._excluded: set[NodeId] = set()
        self._clients: dict[Link, _Client] = {}
        self._recent = Recent(self._limits.recent_bytes)
        self._growth = Growth(log.end.index, clock.now_s())
        self._cut_count = log.cut_count
        """Of the log when its sessions began."""
        self._server: asyncio.Server | None = None
        self._tasks = asyncio.TaskGroup()
        self._readers = ThreadPoolExecutor(READERS, "pull-read")
        kept_s, now_s = self._limits.held_s, clock.now_s()
        self._kept = Kept(log, self._readers, kept_s=kept_s, now_s=now_s, events=events)
        self._releasing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "PullDoor":
        """Listens. `Rejected` where the address is taken."""
        loop = asyncio.get_running_loop()
        with listening(self._listen, door="the pull door"):
            self._server = await loop.create_server(
                lambda: Link(self), self._listen.host, self._listen.port
            )
        await self._tasks.__aenter__()
        self._releasing = self._tasks.create_task(
            self._kept.release_overdue(self._held, self._clock), name="pull-release"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._end_all("the door closes")
        if self._releasing is not None:
            self._releasing.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            self._readers.shutdown(wait=False)

    # ---- the owner's side --------------------------------------------------------------------

    def serve(self, reign: Reign) -> None:
        """Serve the history of this epoch. Of the same epoch, only the path changes."""
        known = self._reign
        if known is not None and known.epoch == reign.epoch:
            self._reign = reign
            return
        if known is not None and known.epoch > reign.epoch:
            raise Conflict(
                f"epoch {known.epoch} is served: {reign.epoch} is over",
                hint="An epoch never returns.",
            )
        self.withdraw()
        self._begin_anew()
        self._reign = reign
        self._tell("pull-serving", epoch=reign.epoch, hops=len(reign.path) - 1)

    def withdraw(self) -> None:
        """Serve nobody. When this returns no receiver is attached and no report is passed on."""
        self._reign = None
        self._end_all(f"{self._identity.node} serves this epoch no longer")
        self._recent.clear()

    def _begin_anew(self) -> None:
        """What was known of the log's growth is of another history."""
        self._cut_count = self._log.cut_count
        self._growth = Growth(self._log.end.index, self._clock.now_s())
        self._recent.clear()

    def _is_uncut(self) -> bool:
        """Else no session may go on with what it knows of the log."""
        if self._cut_count == self._log.cut_count:
            return True
        self._begin_anew()
        self._end_all(f"the log of {self._identity.node} was cut")
        return False

    def offer(self, data: bytes, *, after: int, end: Point) -> None:
        """The log has grown by these whole records, durable or not: whoever is level gets them at
        once and without a read."""
        self._is_uncut()
        if end.index > self._log.end.index:
            return  # Of a tail that was cut meanwhile.
        self._growth.grew(end.index, len(data), self._clock.now_s())
        if len(data) <= self._limits.batch_bytes:
            self._recent.add(data, after=after, end=end.index)
        for client in list(self._clients.values()):
            self._step(client, Grew(end.index))

    def exclude(self, node: NodeId) -> None:
        """From now on `node` is not attached, cannot attach, and acknowledges nothing."""
        self._excluded.add(node)
        for client in list(self._clients.values()):
            hello = client.session.hello
            if hello is not None and hello.node == node:
                self._end(client, f"{node} is excluded", Refusal.EXCLUDED)

    def admit(self, node: NodeId) -> None:
        """Undo `exclude`."""
        self._excluded.discard(node)

    def admit_all(self) -> None:
        """Another reign begins, or none: who is excluded in one is to be said anew."""
        self._excluded.clear()

    @property
    def excluded(self) -> frozenset[NodeId]:
        return frozenset(self._excluded)

    @property
    def receivers(self) -> list[ReceiverView]:
        """Who is attached now, by name."""
        views = [
            view_of(client.session, client.session.hello, client.link.peer, self._lag(client))
            for client in self._clients.values()
            if client.session.is_streaming and client.session.hello is not None
        ]
        return sorted(views, key=lambda each: each.node)

    # ---- connections -------------------------------------------------------------------------

    def opened(self, link: Link) -> None:
        if len(self._clients) >= self._limits.receivers_max:
            reason = f"{self._identity.node} has {len(self._clients)} connections already"
            self._refused(link.peer, reason)
            link.send(message_frame(Refused(refusal=Refusal.FULL, reason=reason)))
            link.end()
            return
        session = SourceSession(
            self._identity,
            self._reign,
            nonce=secrets.token_hex(NONCE_BYTES),
            excluded=self._excluded,
            limits=self._limits,
            now_s=self._clock.now_s(),
        )
        self._clients[link] = client = _Client(link, session)
        self._schedule(client)

    def came(self, link: Link, payload: bytes) -> None:
        client = self._clients.get(link)
        if client is None:
            return
        try:
            message = from_receiver(payload)
        except Corrupt as error:
            self._end(client, error.what, None)
            return
        self._step(client, Said(message))

    def woke(self, link: Link) -> None:
        client = self._clients.get(link)
        if client is not None:
            client.wakes_at_s = float("inf")
            self._step(client, Ticked())

    def closed(self, link: Link, reason: str) -> None:
        client = self._clients.get(link)
        if client is not None:
            self._end(client, reason, None)

    def _step(self, client: _Client, event: SourceEvent) -> None:
        """And what follows from it at once: the pieces that it lacks, one after another."""
        if not self._is_uncut():
            return
        following: SourceEvent | None = event
        left = PIECES_MAX
        while following is not None:
            effects = client.session.step(self._clock.now_s(), following)
            following = self._perform(client, effects, is_level=left > 0)
            left -= 1
        self._schedule(client)

    def _schedule(self, client: _Client) -> None:
        """One timer, moved only where it would fire too late."""
        wake_at_s = client.session.wake_at_s
        if wake_at_s < client.wakes_at_s and client.link in self._clients:
            client.wakes_at_s = wake_at_s
            client.link.wake_in(wake_at_s - self._clock.now_s())

    def _perform(
        self, client: _Client, effects: Sequence[SourceEffect], *, is_level: bool = False
    ) -> Fetched | None:
        """Returns what is to be told to the session, where it has been fetched already."""
        fetched: Fetched | None = None
        for effect in effects:
            match effect:
                case Say():
                    client.link.send(message_frame(effect.message))
                case Look():
                    self._tasks.create_task(self._look(client, effect.indexes))
                case Fetch():
                    fetched = self._fetch(client, effect, is_level=is_level)
                case SendBeat():
                    self._beat(client)
                case Counted():
                    self._count(client, effect.report)
                case Close():
                    self._forget(client, effect)
                case _:
                    assert_never(effect)
        return fetched

    # ---- what the sessions ask for -----------------------------------------------------------

    async def _look(self, client: _Client, indexes: tuple[int, ...]) -> None:
        """The points of the log; and once, how much of it the receiver lacks."""
        hello = client.session.hello
        known, client.told_bytes = self._growth.end, self._growth.total_bytes
        log, own = self._log, hello.point.index if hello is not None else 0

        def look() -> tuple[Looked, int]:
            points = tuple(log.point(index) for index in indexes)
            lacking = 0 if own >= known else log.bytes_after(own) - log.bytes_after(known)
            return Looked(log.first, log.end, points), lacking

        loop = asyncio.get_running_loop()
        try:
            looked, lacking = await loop.run_in_executor(self._readers, look)
        except (PrimacyError, OSError) as error:
            self._unreadable(client, error)
            return
        if not self._is_uncut() or client.link not in self._clients:
            return
        client.lacking_bytes = lacking
        was_streaming = client.session.is_streaming
        self._step(client, looked)
        if client.session.is_streaming and not was_streaming:
            self._began(client)

    def _began(self, client: _Client) -> None:
        """One session for a node: an earlier one is dead, and does not know it yet."""
        member = client.session.member
        if member is None:
            return
        for other in list(self._clients.values()):
            known = other.session.member
            if other is not client and known is not None and known.node == member.node:
                self._end(other, f"{member.node} has connected again", None)
        self._hold(client)
        self._tell(
            "pull-attached",
            node=member.node,
            incarnation=member.incarnation[:6],
            index=client.session.sent,
        )

    def _fetch(self, client: _Client, fetch: Fetch, *, is_level: bool) -> Fetched | None:
        piece = self._recent.after(fetch.after) if is_level else None
        if piece is None:
            self._tasks.create_task(self._read(client, fetch))
            return None
        return self._sent(client, piece.frame, Fetched(piece.end, piece.size_bytes))

    async def _read(self, client: _Client, fetch: Fetch) -> None:
        log = self._log

        def read() -> tuple[bytes, int, int]:
            data = log.read(fetch.after, bytes_max=fetch.bytes_max)
            return (records_frame(data), last_point(data).index, len(data)) if data else (b"", 0, 0)

        self.counts.reads += 1
        try:
            loop = asyncio.get_running_loop()
            frame, end, size_bytes = await loop.run_in_executor(self._readers, read)
        except Purged as error:
            self._step(client, FetchedNothing(error.first))
            return
        except (PrimacyError, OSError) as error:
            self._unreadable(client, error)
            return
        if not self._is_uncut() or client.link not in self._clients:
            return
        if not frame:
            self._end(client, f"the log does not go on behind {fetch.after}: it was cut", None)
            return
        self._step(client, self._sent(client, frame, Fetched(end, size_bytes)))

    def _unreadable(self, client: _Client, error: PrimacyError | OSError) -> None:
        if isinstance(error, Rejected):
            self.counts.damage = error.what
        self._end(client, f"the log cannot be read: {error}", None)

    def _sent(self, client: _Client, frame: bytes, fetched: Fetched) -> Fetched:
        client.link.send(frame)
        self.counts.sent_bytes += fetched.size_bytes
        return fetched

    def _beat(self, client: _Client) -> None:
        reign = self._reign
        if reign is None:
            return
        self._hold(client)
        lag = self._lag(client)
        beat = Beat(
            end=self._log.end, size_bytes=lag.size_bytes, delay_s=lag.delay_s, path=reign.path
        )
        client.link.send(message_frame(beat))

    def _count(self, client: _Client, report: Report) -> None:
        member, reign = client.session.member, self._reign
        if member is not None and reign is not None:
            self._on_report(member, reign.epoch, report)

    # ---- the end of a session ----------------------------------------------------------------

    def _end_all(self, reason: str) -> None:
        for client in list(self._clients.values()):
            self._end(client, reason, Refusal.NOT_SERVING)

    def _end(self, client: _Client, reason: str, refusal: Refusal | None) -> None:
        self._perform(client, client.session.end(reason, refusal))

    def _forget(self, client: _Client, close: Close) -> None:
        """Whatever still arrives from it finds nobody."""
        if self._clients.pop(client.link, None) is None:
            return
        hello = client.session.hello
        if client.is_held and hello is not None:
            self._kept.left(hello.node, self._clock.now_s())
        who = hello.node if hello is not None else client.link.peer
        if client.is_held:
            self.counts.ended += 1
            self._tell("pull-detached", node=who, why=close.reason[:300])
        else:
            self._refused(who, close.reason)
        if close.is_told:
            client.link.end()
        else:
            client.link.abort()

    def _refused(self, who: str, reason: str) -> None:
        self.counts.refused += 1
        self._tell("pull-refused", who=who, why=reason[:300])

    # ---- what is kept for whom, and how far behind it is -------------------------------------

    def _hold(self, client: _Client) -> None:
        """The log behind what it has is needed: by itself, and when it comes back."""
        hello, report = client.session.hello, client.session.last_report
        if hello is not None:
            client.is_held = True
            point = hello.point if report is None else report.received
            self._tasks.create_task(self._kept.keep(hello.node, point.index))

    def _held(self) -> set[NodeId]:
        known = [(each.session.hello, each.is_held) for each in self._clients.values()]
        return {hello.node for hello, is_held in known if hello is not None and is_held}

    def _lag(self, client: _Client) -> Lag:
        hello, report = client.session.hello, client.session.last_report
        if hello is None:
            return LEVEL
        grown_bytes = self._growth.total_bytes - client.told_bytes
        stored_bytes = report.size_bytes if report is not None else 0
        index = (report.received if report is not None else hello.point).index
        lacking_bytes = max(0, client.lacking_bytes + grown_bytes - stored_bytes)
        return self._growth.lag(index, lacking_bytes, self._clock.now_s())

    def _tell(self, name: str, **fields: telemetry.Value) -> None:
        self._events(Event(name, fields))
