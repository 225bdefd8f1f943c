"""Runs one machine on a real disk, real sockets and real time, until it is cancelled.

Promises  One task owns the machine: `step` never runs twice at once. Effects are carried out in
          order. All that waits is handed to the machine before the host waits again.
Assumes   `on_effect` returns soon. The owner has opened the transport and the storage, and closes
          them after `run`.
Does not  Go on when the disk fails: `run` raises (inside an ExceptionGroup), and the process must
          stop; where it is only full (`DiskFull`), storage and machine may be made anew from it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from primacy import telemetry
from primacy.clock import Clock
from primacy.consensus import machine
from primacy.consensus.machine import (
    Persist,
    Persisted,
    Received,
    Send,
    SendSnapshot,
    SnapshotMeta,
    SnapshotSaved,
    Tick,
)
from primacy.errors import Rejected, Unavailable
from primacy.model import NodeId, Term
from primacy.runtime.files import DiskFull, is_full
from primacy.runtime.stalls import StallMeter
from primacy.runtime.storage import MemberStorage
from primacy.runtime.tcp import TcpTransport
from primacy.runtime.transfers import Piece, Receipt, SnapshotReceiver, SnapshotSender
from primacy.telemetry import Event, Sink

INBOX_MAX = 20_000
"""Events that may wait. Above it messages of peers are dropped and `post` refuses."""

TURN_S = 0.005
"""How long the machine is stepped before the loop gets a turn."""

_MESSAGE, _PIECE, _RECEIPT = b"\x00", b"\x01", b"\x02"

M = TypeVar("M")
E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)


class HostedMachine(Protocol[M, E_contra, F_co]):
    """Messages M between members, events E of its own beside Raft's, effects F."""

    wake_at_s: float

    def step(self, now_s: float, event: machine.Event[M] | E_contra) -> Sequence[F_co]: ...


@dataclass
class HostCounts:
    """What an operator can see of a host; all since the start."""

    steps: int = 0
    dropped_messages: int = 0
    undecodable_messages: int = 0
    log_writes: int = 0
    """Writes that became durable."""
    log_write_total_s: float = 0.0
    """From asking for each until it was durable."""
    log_write_longest_s: float = 0.0


class MachineHost(Generic[M, E, F]):
    """`run()` inside a TaskGroup of the owner. All else may be called from the same event loop."""

    def __init__(  # noqa: PLR0913 - all that a host is made of, once
        self,
        hosted: HostedMachine[M, E, F],
        *,
        storage: MemberStorage,
        transport: TcpTransport,
        encode: Callable[[M], bytes],
        decode: Callable[[bytes], M],
        clock: Clock,
        on_effect: Callable[[F], None],
        sink: Sink = telemetry.ignore,
    ) -> None:
        """`on_effect` is called, between two steps at the earliest, with every effect that is not
        Send, Persist or SendSnapshot."""
        self.counts = HostCounts()
        self.stalls = StallMeter(sink=sink)
        self._hosted = hosted
        self._storage = storage
        self._transport = transport
        self._encode = encode
        self._decode = decode
        self._clock = clock
        self._on_effect = on_effect
        self._sink = sink
        self._inbox: deque[machine.Event[M] | E | _Call[F]] = deque()
        self._wake = asyncio.Event()
        self._failure: Exception | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._saving: set[SnapshotMeta] = set()
        self._asked: deque[tuple[int, float]] = deque()
        """Writes under way, in order: their id, and when they were asked for."""
        self._sender = SnapshotSender(storage.snapshots, self._send_piece, sink=sink)
        self._receiver = SnapshotReceiver(storage.snapshots, self._send_receipt, sink=sink)

    async def run(self) -> None:
        """Until cancelled, or until the disk fails."""
        self._storage.start(self._on_durable, self._on_failure)
        self._transport.deliver_to(self._on_payload)
        with self.stalls:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await self._drive()
                finally:
                    self._tasks = None
                    self._transport.deliver_to(_drop)

    def post(self, event: machine.Event[M] | E) -> bool:
        """Hand the machine an event. False: too much waits already, and it was not taken."""
        if len(self._inbox) >= INBOX_MAX:
            return False
        self._put(event)
        return True

    def call(self, work: Callable[[float], Sequence[F]]) -> None:
        """Run `work(now_s)` between two steps and carry out the effects that it returns."""
        self._put(_Call(work))

    def save_snapshot(self, meta: SnapshotMeta, pieces: Iterator[bytes]) -> None:
        """Write a snapshot in the background; then the machine hears `SnapshotSaved`. The pieces
        are taken in this event loop, a few at a time. A second one of the same place is ignored."""
        if meta in self._saving:
            return
        self._saving.add(meta)
        self._group().create_task(self._save(meta, pieces), name="snapshot-save")

    # ---- the one task that steps ----------------------------------------------------------

    async def _drive(self) -> None:
        turn_ends_s = self._clock.now_s() + TURN_S
        while True:
            if self._failure is not None:
                raise self._failure
            if not self._inbox and self._clock.now_s() < self._hosted.wake_at_s:
                await self._wait()
                turn_ends_s = self._clock.now_s() + TURN_S
            for _ in range(len(self._inbox)):
                self._take(self._inbox.popleft())
                if self._clock.now_s() >= turn_ends_s:
                    await self._clock.sleep(0)
                    turn_ends_s = self._clock.now_s() + TURN_S
            if self._clock.now_s() >= self._hosted.wake_at_s:
                self._step(Tick())
            await self._clock.sleep(0)

    async def _wait(self) -> None:
        """Until something is put, or `wake_at_s`."""
        self._wake.clear()
        timer: asyncio.TimerHandle | None = None
        delay_s = self._hosted.wake_at_s - self._clock.now_s()
        if math.isfinite(delay_s):
            timer = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _take(self, item: "machine.Event[M] | E | _Call[F]") -> None:
        if isinstance(item, _Call):
            for effect in item.work(self._clock.now_s()):
                self._perform(effect)
        else:
            self._step(item)

    def _step(self, event: machine.Event[M] | E) -> None:
        self.counts.steps += 1
        for effect in self._hosted.step(self._clock.now_s(), event):
            self._perform(effect)

    def _perform(self, effect: F) -> None:
        match effect:
            case Send(to, message):
                self._send(to, message)
            case Persist():
                self._asked.append((effect.write_id, self._clock.now_s()))
                self._storage.write(effect)
            case SendSnapshot(to, term):
                self._group().create_task(self._send_snapshot(to, term), name=f"snapshot-to-{to}")
            case _:
                self._on_effect(effect)

    def _put(self, item: "machine.Event[M] | E | _Call[F]") -> None:
        self._inbox.append(item)
        self._wake.set()

    def _group(self) -> asyncio.TaskGroup:
        if self._tasks is None:
            raise Rejected("the host does not run", hint="Call it from within `run`.")
        return self._tasks

    # ---- disk -----------------------------------------------------------------------------

    def _on_durable(self, write_id: int) -> None:
        now_s, counts = self._clock.now_s(), self.counts
        while self._asked and self._asked[0][0] <= write_id:
            took_s = now_s - self._asked.popleft()[1]
            counts.log_writes += 1
            counts.log_write_total_s += took_s
            counts.log_write_longest_s = max(counts.log_write_longest_s, took_s)
        self._put(Persisted(write_id))

    def _on_failure(self, error: Exception) -> None:
        self._sink(Event("storage-failed", {"why": str(error)}))
        self._failure = error
        self._wake.set()

    async def _save(self, meta: SnapshotMeta, pieces: Iterator[bytes]) -> None:
        began_s = self._clock.now_s()
        try:
            await self._storage.save_snapshot(meta, pieces, self._clock)
        except OSError as error:
            kind = DiskFull if is_full(error) else Unavailable
            raise kind(
                f"snapshot {meta.index} could not be written: {error}",
                hint="This member stops. Look at the disk (space, errors), then start it again.",
            ) from error
        finally:
            self._saving.discard(meta)
        took_s = self._clock.now_s() - began_s
        self._sink(Event("snapshot-saved", {"index": meta.index, "took_s": took_s}))
        self._put(SnapshotSaved(meta))

    # ---- peers ----------------------------------------------------------------------------

    def _send(self, to: NodeId, message: M) -> None:
        self._transport.send(to, _MESSAGE + self._encode(message))

    def _send_piece(self, to: NodeId, piece: Piece) -> None:
        self._transport.send(to, _PIECE + msgspec.msgpack.encode(piece))

    def _send_receipt(self, to: NodeId, receipt: Receipt) -> None:
        self._transport.send(to, _RECEIPT + msgspec.msgpack.encode(receipt))

    async def _send_snapshot(self, to: NodeId, term: Term) -> None:
        sent = await self._sender.send(to, term)
        fields: dict[str, telemetry.Value] = {
            "to": to,
            "index": sent.meta.index,
            "is_delivered": sent.is_delivered,
        }
        self._sink(Event("snapshot-sent", fields))
        self._put(sent)

    async def _receive_piece(self, sender: NodeId, piece: Piece) -> None:
        received = await self._receiver.on_piece(sender, piece)
        if received is not None:
            self._sink(Event("snapshot-received", {"sender": sender, "index": received.meta.index}))
            self._put(received)

    def _on_payload(self, sender: NodeId, payload: bytes) -> None:
        kind, body = payload[:1], payload[1:]
        try:
            match kind:
                case b"\x00":
                    if not self.post(Received(sender, self._decode(body))):
                        self.counts.dropped_messages += 1
                case b"\x01":
                    piece = msgspec.msgpack.decode(body, type=Piece)
                    self._group().create_task(self._receive_piece(sender, piece))
                case b"\x02":
                    receipt = msgspec.msgpack.decode(body, type=Receipt)
                    self._sender.on_receipt(sender, receipt)
                case _:
                    self._undecodable(sender, f"kind {kind!r}")
        except msgspec.DecodeError as error:
            self._undecodable(sender, str(error))

    def _undecodable(self, sender: NodeId, why: str) -> None:
        self.counts.undecodable_messages += 1
        self._sink(Event("message-undecodable", {"sender": sender, "why": why}))


def _drop(_sender: NodeId, _payload: bytes) -> None:
    """What arrives when the machine has stopped: as good as lost on the way."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[F]):
    work: Callable[[float], Sequence[F]]
