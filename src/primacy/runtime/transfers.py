"""Snapshots on their way between two members, a piece at a time.

Promises  At most one piece per peer is under way, so a heartbeat waits for one piece at most. A
          transfer counts as delivered when the receiver holds the file durably.
Does not  Resume: a transfer that stops is given up, and the machine asks for another.
Source    `docs/formats/wire.md`
"""

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from primacy.consensus.machine import SnapshotMeta, SnapshotReceived, SnapshotSent
from primacy.errors import PrimacyError, Rejected
from primacy.model import LogIndex, NodeId, Term
from primacy.runtime.snapshots import SnapshotFile, SnapshotStore
from primacy.telemetry import Event, Sink

PIECE_BYTES = 256 << 10
"""About 2 ms of a gigabit link."""

RECEIPT_TIMEOUT_S = 10.0
"""The last receipt comes after the receiver has read the whole file and synced it."""


class Piece(msgspec.Struct, frozen=True, array_like=True):
    transfer: int
    term: Term
    index: LogIndex
    snapshot_term: Term
    offset: int
    size: int
    data: bytes


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    transfer: int
    next_offset: int
    is_ok: bool


class SnapshotSender:
    """Sends files; one transfer to a peer at a time."""

    def __init__(
        self, snapshots: SnapshotStore, send: Callable[[NodeId, Piece], None], *, sink: Sink
    ) -> None:
        self._snapshots = snapshots
        self._send = send
        self._sink = sink
        self._numbers = itertools.count(int.from_bytes(os.urandom(4), "little"))
        self._waiting: dict[NodeId, tuple[int, asyncio.Future[Receipt]]] = {}

    def on_receipt(self, sender: NodeId, receipt: Receipt) -> None:
        transfer, answer = self._waiting.get(sender, (0, None))
        if answer is not None and transfer == receipt.transfer and not answer.done():
            answer.set_result(receipt)

    async def send(self, to: NodeId, term: Term) -> SnapshotSent:
        """Send the newest snapshot. Tells whether it was delivered, and never raises for a peer
        or a file that failed."""
        metas = self._snapshots.metas()
        if not metas or to in self._waiting:
            return SnapshotSent(to, SnapshotMeta(), is_delivered=False)
        meta = metas[0]
        try:
            is_delivered = await self._send_file(to, term, meta, self._snapshots.path(meta))
        except (OSError, TimeoutError) as error:
            self._sink(Event("snapshot-not-sent", {"to": to, "why": str(error) or "no receipt"}))
            is_delivered = False
        finally:
            self._waiting.pop(to, None)
        return SnapshotSent(to, meta, is_delivered=is_delivered)

    async def _send_file(self, to: NodeId, term: Term, meta: SnapshotMeta, path: Path) -> bool:
        transfer = next(self._numbers)
        with await asyncio.to_thread(path.open, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0
            while offset < size:
                data = await asyncio.to_thread(file.read, PIECE_BYTES)
                answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
                self._waiting[to] = (transfer, answer)
                self._send(to, Piece(transfer, term, meta.index, meta.term, offset, size, data))
                offset += len(data)
                async with asyncio.timeout(RECEIPT_TIMEOUT_S):
                    receipt = await answer
                if not receipt.is_ok or receipt.next_offset != offset:
                    return False
        return True


class SnapshotReceiver:
    """Files that are arriving; one from a peer at a time."""

    def __init__(
        self, snapshots: SnapshotStore, send: Callable[[NodeId, Receipt], None], *, sink: Sink
    ) -> None:
        self._snapshots = snapshots
        self._send = send
        self._sink = sink
        self._files: dict[NodeId, tuple[int, SnapshotFile]] = {}
        self._busy: set[NodeId] = set()

    async def on_piece(self, sender: NodeId, piece: Piece) -> SnapshotReceived | None:
        """Take a piece, and answer it. Returns the event when the last has made the file durable.
        A piece that comes while another of the sender is being written is dropped: the sender
        began anew, and will again."""
        if sender in self._busy:
            return None
        self._busy.add(sender)
        try:
            is_whole = await asyncio.to_thread(self._take, sender, piece)
        except (PrimacyError, OSError) as error:
            self._sink(Event("snapshot-not-received", {"sender": sender, "why": str(error)}))
            await asyncio.to_thread(self._abandon, sender)
            self._send(sender, Receipt(piece.transfer, piece.offset, is_ok=False))
            return None
        finally:
            self._busy.discard(sender)
        self._send(sender, Receipt(piece.transfer, piece.offset + len(piece.data), is_ok=True))
        if not is_whole:
            return None
        return SnapshotReceived(sender, piece.term, _meta(piece))

    def _take(self, sender: NodeId, piece: Piece) -> bool:
        """In a thread. Whether the file is whole and durable now."""
        transfer, file = self._files.get(sender, (None, None))
        if piece.offset == 0:
            self._abandon(sender)
            file = self._snapshots.begin_receiving(_meta(piece), sender)
            self._files[sender] = (piece.transfer, file)
        elif file is None or transfer != piece.transfer:
            raise Rejected(
                f"a piece of transfer {piece.transfer}, which is not under way",
                hint="The sender begins again.",
            )
        file.write(piece.offset, piece.data)
        if file.offset < piece.size:
            return False
        file.finish()
        del self._files[sender]
        return True

    def _abandon(self, sender: NodeId) -> None:
        _, file = self._files.pop(sender, (0, None))
        if file is not None:
            file.abandon()


def _meta(piece: Piece) -> SnapshotMeta:
    return SnapshotMeta(index=piece.index, term=piece.snapshot_term)
