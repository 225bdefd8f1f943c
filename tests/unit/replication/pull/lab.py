"""One source and one receiver under the test's thumb: two session machines, two logs in memory.

Nothing arrives, no disk syncs and no time passes unasked. Each public method of `Lab` is a command
of a script and yields the lines that it adds.
"""

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from primacy.model import Epoch, Incarnation, NodeId
from primacy.replication.log.record import ORIGIN_POINT, Point
from primacy.replication.pull import receiver as at_receiver
from primacy.replication.pull import source as at_source
from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import (
    AskPoints,
    Beat,
    FromReceiver,
    FromSource,
    Gone,
    Hello,
    Hop,
    Parted,
    Points,
    Refused,
    Report,
    Welcome,
)
from primacy.replication.pull.receiver import Ended, Ending, Following, ReceiverSession
from primacy.replication.pull.source import Identity, Reign, SourceSession

A, B, P = NodeId("a"), NodeId("b"), NodeId("p")
SECRET = b"s" * 32
RECORD_BYTES = 100
LIMITS = PullLimits(
    heartbeat_s=1.0, silence_s=4.0, stranger_s=5.0, batch_bytes=300, window_bytes=800
)


@dataclass
class MemoryLog:
    """Records without content: each has the epoch, the branch and the chain that it stands in."""

    points: list[Point] = field(default_factory=lambda: [ORIGIN_POINT])
    first_index: int = 0
    durable_index: int = 0

    @classmethod
    def of(cls, text: str) -> "MemoryLog":
        """`5@1 2@3x`: five records of epoch 1, then two of epoch 3 on a branch of their own."""
        log = cls()
        for part in text.split(","):
            count, _, rest = part.partition("@")
            log.append(int(count), Epoch(int(rest.rstrip("xyz"))), rest.lstrip("0123456789"))
        log.durable_index = log.end.index
        return log

    def append(self, count: int, epoch: Epoch, branch: str = "") -> None:
        for _ in range(count):
            end = self.points[-1]
            chain = zlib.crc32(f"{end.chain} {epoch}{branch}".encode())
            self.points.append(Point(epoch, end.index + 1, chain))

    @property
    def first(self) -> Point:
        return self.points[self.first_index]

    @property
    def end(self) -> Point:
        return self.points[-1]

    @property
    def durable(self) -> Point:
        return self.points[self.durable_index]

    def point(self, index: int) -> Point | None:
        return self.points[index] if self.first_index <= index < len(self.points) else None


class Lab:
    """Commands first, then what the tests of properties look at."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.logs = {A: MemoryLog(), B: MemoryLog()}
        self.identity = Identity(cluster="shop", node=A, secret=SECRET, log_version=1)
        self.reign: Reign | None = Reign(Epoch(1), (Hop(A),))
        self.following = Following(
            cluster="shop",
            secret=SECRET,
            node=B,
            incarnation=Incarnation("b-1"),
            epoch=Epoch(1),
            upstream=A,
            log_version=1,
        )
        self.excluded: set[NodeId] = set()
        self.limits = LIMITS
        self.source: SourceSession
        self.receiver: ReceiverSession
        self.to_source: deque[FromReceiver] = deque()
        self.to_receiver: deque[FromSource | list[Point]] = deque()
        self.unsynced: list[Point] = []
        self.stored_bytes = 0
        self.reports: list[Report] = []
        self.ending: Ending | None = None
        self.source_end = ""

    # ---- commands ----------------------------------------------------------------------------

    def given(self, *words: str) -> Iterator[str]:
        """`source=5@1 receiver=3@1 epoch=1 follows=1 purged=2`."""
        said = dict(each.split("=") for each in words)
        self.logs = {A: MemoryLog.of(said["source"]), B: MemoryLog.of(said["receiver"])}
        self.logs[A].first_index = int(said.get("purged", "0"))
        epoch = Epoch(int(said.get("epoch", "1")))
        self.reign = Reign(epoch, (Hop(A),))
        self.follow(Epoch(int(said.get("follows", str(epoch)))))
        yield from ()

    def connect(self) -> Iterator[str]:
        self.source = SourceSession(
            self.identity,
            self.reign,
            nonce="n-a",
            excluded=self.excluded,
            limits=self.limits,
            now_s=self.now_s,
        )
        self.receiver = ReceiverSession(
            self.following,
            nonce="n-b",
            point=self.logs[B].durable,
            applied=ORIGIN_POINT,
            acknowledges=True,
            limits=self.limits,
            now_s=self.now_s,
        )
        self.stored_bytes = 0
        self.ending, self.source_end = None, ""
        self.to_source.append(self.receiver.hello)
        yield f"  b -> a {shown(self.receiver.hello)}"

    def settle(self) -> Iterator[str]:
        """All that is on its way arrives; the receiver's disk stays as it is."""
        while self.to_source or self.to_receiver:
            yield from self.deliver("a" if self.to_source else "b")

    def deliver(self, to: str) -> Iterator[str]:
        if to == "a":
            message = self.to_source.popleft()
            yield f"b -> a {shown(message)}"
            yield from self._at_source(at_source.Said(message))
            return
        arrived = self.to_receiver.popleft()
        if isinstance(arrived, list):
            yield f"a -> b records {arrived[0].index} to {arrived[-1].index}"
            self.unsynced += arrived
            yield from self._at_receiver(at_receiver.Came())
        else:
            yield f"a -> b {shown(arrived)}"
            yield from self._at_receiver(at_receiver.Heard(arrived))

    def append(self, count: str, epoch: str) -> Iterator[str]:
        self.logs[A].append(int(count), Epoch(int(epoch)))
        end = self.logs[A].end.index
        yield f"a ends at {end}"
        yield from self._at_source(at_source.Grew(end))

    def store(self) -> Iterator[str]:
        """The receiver's disk has synced all that came."""
        log, count = self.logs[B], len(self.unsynced)
        log.points += self.unsynced
        log.durable_index = log.end.index
        self.unsynced = []
        self.stored_bytes += count * RECORD_BYTES
        yield f"b holds {log.durable.index}"
        yield from self._at_receiver(at_receiver.Stored(log.durable, self.stored_bytes))

    def apply(self, index: str) -> Iterator[str]:
        point = self.logs[B].points[int(index)]
        yield f"b has applied {index}"
        yield from self._at_receiver(at_receiver.Applied(point))

    def stop(self) -> Iterator[str]:
        self.receiver.stop()
        yield "b stops"

    def wait(self, seconds: str) -> Iterator[str]:
        self.now_s += float(seconds)
        yield from ()

    def tick(self) -> Iterator[str]:
        """Whoever wanted to be woken by now is."""
        if self.source.wake_at_s <= self.now_s:
            yield f"a wakes at {self.now_s:.1f}s"
            yield from self._at_source(at_source.Ticked())
        if self.receiver.wake_at_s <= self.now_s:
            yield f"b wakes at {self.now_s:.1f}s"
            yield from self._at_receiver(at_receiver.Ticked())

    # ---- what the hosts do -------------------------------------------------------------------

    def follow(self, epoch: Epoch) -> None:
        old = self.following
        self.following = Following(
            cluster=old.cluster,
            secret=old.secret,
            node=old.node,
            incarnation=old.incarnation,
            epoch=epoch,
            upstream=old.upstream,
            log_version=old.log_version,
        )

    def _at_source(self, event: at_source.SourceEvent) -> Iterator[str]:
        log = self.logs[A]
        for effect in self.source.step(self.now_s, event):
            match effect:
                case at_source.Say():
                    self.to_receiver.append(effect.message)
                    yield f"  a -> b {shown(effect.message)}"
                case at_source.Look():
                    points = tuple(log.point(index) for index in effect.indexes)
                    yield from self._at_source(at_source.Looked(log.first, log.end, points))
                case at_source.Fetch():
                    yield from self._fetch(effect)
                case at_source.SendBeat():
                    path = self.reign.path if self.reign else ()
                    beat = Beat(end=log.end, size_bytes=0, delay_s=0.0, path=path)
                    self.to_receiver.append(beat)
                    yield f"  a -> b {shown(beat)}"
                case at_source.Counted():
                    self.reports.append(effect.report)
                    yield f"  a counts received {effect.report.received.index}"
                case at_source.Close():
                    self.source_end = effect.reason
                    yield f"  a closes: {effect.reason}"

    def _fetch(self, fetch: at_source.Fetch) -> Iterator[str]:
        log = self.logs[A]
        if fetch.after < log.first.index:
            yield from self._at_source(at_source.FetchedNothing(log.first))
            return
        count = max(1, fetch.bytes_max // RECORD_BYTES)
        records = log.points[fetch.after + 1 : fetch.after + 1 + count]
        self.to_receiver.append(records)
        yield f"  a -> b records {records[0].index} to {records[-1].index}"
        fetched = at_source.Fetched(records[-1].index, len(records) * RECORD_BYTES)
        yield from self._at_source(fetched)

    def _at_receiver(self, event: at_receiver.ReceiverEvent) -> Iterator[str]:
        log = self.logs[B]
        for effect in self.receiver.step(self.now_s, event):
            match effect:
                case at_receiver.Tell():
                    self.to_source.append(effect.message)
                    yield f"  b -> a {shown(effect.message)}"
                case at_receiver.LookUp():
                    points = tuple(log.point(index) for index in effect.indexes)
                    yield from self._at_receiver(at_receiver.Compared(log.first, points))
                case at_receiver.Trusted():
                    pass  # There are no frames here.
                case at_receiver.Noticed(Welcome()):
                    yield "  b is welcome"
                case at_receiver.Noticed():
                    yield f"  b knows that a ends at {effect.news.end.index}"
                case Ended():
                    self.ending = effect.ending
                    yield f"  b ends: {shown_ending(effect.ending)}"


def shown(message: FromReceiver | FromSource) -> str:
    name = type(message).__name__
    match message:
        case Hello():
            return f"{name} epoch={message.epoch} point={message.point.position}"
        case Welcome():
            return f"{name} epoch={message.epoch} end={message.end.position}"
        case Parted() | Gone():
            return f"{name} first={message.first.index}"
        case AskPoints():
            indexes = message.indexes
            return f"{name} {len(indexes)} of {indexes[0]} to {indexes[-1]}"
        case Points():
            return f"{name} {len(message.points)}"
        case Report():
            counts = "" if message.acknowledges else " for nothing"
            return (
                f"{name} received={message.received.index} applied={message.applied.index}{counts}"
            )
        case Beat():
            return f"{name} end={message.end.index}"
        case Refused():
            return f"{name} {message.refusal.name}"
        case _:
            return name


def shown_ending(ending: Ending) -> str:
    match ending:
        case at_receiver.Lost():
            return f"lost, {ending.reason}"
        case at_receiver.TurnedAway():
            return f"turned away, {ending.refusal.name}: {ending.reason}"
        case at_receiver.IsBehind():
            return f"the source is behind at {ending.source_end.position}"
        case at_receiver.HasParted():
            common = ending.common.position if ending.common else "nothing"
            return f"diverged, common is {common}, own end {ending.own_end.position}"
        case at_receiver.WasPurged():
            return f"purged up to {ending.first.position}"
