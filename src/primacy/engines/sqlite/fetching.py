"""The receiver's side of a clone: the copy arrives in `incoming`, and a log begins behind it.

    ask -> pieces, synced as they come -> the connection is cut: ask for the rest -> digest ->
    the position row is the offer's -> `Log.begin` there -> synced, ready to become `data`

Promises  When `fetch` returns, `incoming` is whole, checked and durable. What broke off is kept for
          the next call, which goes on from there if the donor still has the copy; nothing else has
          changed.
"""

import os
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import msgspec

from primacy.clock import Clock
from primacy.engines import clone_wire as wire
from primacy.engines.api import Progress, ProgressSink
from primacy.engines.cloning import asking, new_nonce
from primacy.engines.sqlite.clone import ends_of
from primacy.engines.sqlite.clone_messages import (
    DIGEST_BYTES,
    OFFER_BYTES_MAX,
    SUMS_BYTES_MAX,
    Offer,
    Received,
    Request,
    Status,
    Trailer,
)
from primacy.engines.sqlite.control import Sums
from primacy.engines.sqlite.directory import LOG_NAME, Directory, database_in
from primacy.engines.sqlite.settings import SqliteSettings
from primacy.engines.sqlite.storage.applier import Applier
from primacy.errors import Corrupt, Rejected, Unavailable
from primacy.model import NodeId
from primacy.replication.gtid import GtidSet
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Point
from primacy.runtime.files import DiskFull, free_bytes, is_full, replace_file, sync_file
from primacy.runtime.threads import to_its_end
from primacy.telemetry import Event, Sink, Value, ignore

RESUME_S = 60.0
"""So long a cut connection is tried again without one more byte. Donors keep a copy longer."""

RETRY_S = 0.5

SYNC_BYTES = 16 << 20
"""Synced at a time: what is written at once would hold up everybody else's syncs."""

RESERVE_BYTES = 256 << 20
"""Left free beside what is fetched."""

NOTE_NAME = "fetching.json"


class Declined(Unavailable):
    """The donor has said no: to ask again at once is of no use."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What stands half in `incoming`."""

    donor: NodeId
    ticket: str


async def fetch(
    settings: SqliteSettings,
    directory: Directory,
    donor: NodeId,
    progress: ProgressSink,
    *,
    clock: Clock,
    events: Sink,
) -> Point:
    """Returns the place at which the copy stands. `Rejected` for what is no donor, `Unavailable`
    where it cannot be had now."""
    if donor == settings.node or donor not in settings.clone_doors:
        raise Rejected(f"{donor} is no donor for {settings.node}", hint="Name another data node.")
    path = database_in(settings.layout.incoming, settings.database)
    with closing(Download(path, donor)) as download:
        await to_its_end(download.begin, directory)
        moved_at_s, moved_bytes = clock.now_s(), download.done_bytes
        while not download.is_whole:
            try:
                await _receive(settings, donor, download, progress)
            except (Declined, DiskFull):
                raise
            except Unavailable as error:
                if download.done_bytes != moved_bytes:
                    moved_at_s, moved_bytes = clock.now_s(), download.done_bytes
                if not download.ticket or clock.now_s() - moved_at_s > RESUME_S:
                    raise
                told: dict[str, Value] = {
                    "node": settings.node,
                    "done_bytes": moved_bytes,
                    "why": error.what,
                }
                events(Event("clone-cut", told))
                await clock.sleep(RETRY_S)
        progress(Progress("checking", download.done_bytes, download.done_bytes))
        return await to_its_end(download.finished, directory, settings)


async def ask_sums(settings: SqliteSettings, donor: NodeId, tables: Sequence[str]) -> Sums:
    """Of another node's tables, at one point of its history."""
    request = _request(settings, compare=tuple(tables))
    async with asking(settings.clone_doors[donor], ends_of(settings), request) as (reader, _, _):
        within_s = settings.timing.clone_silence_s + 1.0
        return await wire.receive(reader, Sums, within_s=within_s, limit=SUMS_BYTES_MAX)


async def _receive(
    settings: SqliteSettings, donor: NodeId, download: "Download", progress: ProgressSink
) -> None:
    """Over one connection, to the end of the copy."""
    silence_s = settings.timing.clone_silence_s
    request = _request(settings, ticket=download.ticket, offset=download.done_bytes)
    door = settings.clone_doors[donor]
    async with asking(door, ends_of(settings), request) as (reader, writer, _):
        while True:
            status = await wire.receive(reader, Status, within_s=silence_s, limit=OFFER_BYTES_MAX)
            if status.words:
                raise Declined(f"{donor} gives no copy: {status.words}", hint="Try again later.")
            await to_its_end(download.expect, status)
            if status.offer is not None:
                break
            progress(Progress("copying on the donor", status.done_bytes, status.total_bytes))
        total_bytes = status.offer.size_bytes
        while piece := await wire.receive_piece(reader, within_s=silence_s):
            await to_its_end(download.write, piece)
            progress(Progress("receiving", download.done_bytes, total_bytes))
        trailer = await wire.receive(reader, Trailer, within_s=settings.timing.peer_s)
        if not trailer.is_ok:
            raise Declined(f"the copy on {donor} failed: {trailer.words}", hint="Try again.")
        await to_its_end(download.check, trailer)
        await wire.send(writer, Received(ticket=download.ticket))


def _request(
    settings: SqliteSettings, *, ticket: str = "", offset: int = 0, compare: tuple[str, ...] = ()
) -> Request:
    return Request(
        cluster=settings.cluster,
        node=settings.node,
        nonce=new_nonce(),
        ticket=ticket,
        offset=offset,
        compare=compare,
    )


class Download:
    """The file that arrives. The methods block, one at a time."""

    def __init__(self, path: Path, donor: NodeId) -> None:
        self.ticket = ""
        self.offer: Offer | None = None
        self.done_bytes = 0
        self.is_whole = False
        self._path = path
        self._donor = donor
        self._hasher = blake2b(digest_size=DIGEST_BYTES)
        self._synced_bytes = 0
        self._fd = -1
        """Of the file, from `begin` to `close`."""

    def begin(self, directory: Directory) -> None:
        """From what an earlier call has of this donor's copy, or from nothing."""
        note = _note_in(self._path.parent)
        is_known = note is not None and note.donor == self._donor
        if not is_known:
            directory.clear_incoming()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if note is not None and is_known:
            self._take_up(note.ticket)

    def _take_up(self, ticket: str) -> None:
        self.ticket = ticket
        while data := os.pread(self._fd, SYNC_BYTES, self.done_bytes):
            self._hasher.update(data)
            self.done_bytes += len(data)
        self._synced_bytes = self.done_bytes

    def expect(self, status: Status) -> None:
        """Pieces of this copy follow, or will. Of another one nothing is here yet. `DiskFull`
        where it would not fit."""
        if status.ticket != self.ticket:
            self.ticket = status.ticket
            note = msgspec.json.encode(Note(donor=self._donor, ticket=status.ticket))
            self._start_anew()
            replace_file(self._path.parent / NOTE_NAME, [note])
        offer = self.offer = status.offer
        if offer is None:
            return
        if offer.offset != self.done_bytes:
            self._start_anew()
        if offer.offset != self.done_bytes or self.done_bytes > offer.size_bytes:
            raise Rejected(
                f"{self._donor} goes on at byte {offer.offset} of {offer.size_bytes}, here are "
                f"{self.done_bytes}",
                hint="Clone again: a new copy is begun.",
            )
        _check_space(self._path.parent, offer.size_bytes - self.done_bytes)

    def write(self, piece: bytes) -> None:
        limit = self.offer.size_bytes if self.offer is not None else 0
        if self.done_bytes + len(piece) > limit:
            raise Rejected(f"more than the {limit} bytes that were offered", hint="Clone again.")
        try:
            os.pwrite(self._fd, piece, self.done_bytes)
            self._hasher.update(piece)
            self.done_bytes += len(piece)
            if self.done_bytes - self._synced_bytes >= SYNC_BYTES:
                os.fdatasync(self._fd)
                self._synced_bytes = self.done_bytes
        except OSError as error:
            if is_full(error):
                raise _no_space(self._path.parent) from error
            raise

    def check(self, trailer: Trailer) -> None:
        """All of it has come, as it was sent. `Unavailable` where not: nothing is kept then."""
        offer = self.offer
        if offer is None or self.done_bytes != offer.size_bytes:
            raise Unavailable(f"only {self.done_bytes} bytes came", hint="Try again.")
        if trailer.digest != self._hasher.hexdigest():
            self._start_anew()
            self._forget()
            raise Declined("the copy arrived damaged: its digest is another", hint="Try again.")
        os.fsync(self._fd)
        self.is_whole = True

    def finished(self, directory: Directory, settings: SqliteSettings) -> Point:
        """The rest of the data directory. `Corrupt` for a copy that is not what it was said to be:
        nothing is kept of it."""
        offer = self.offer
        if offer is None or not self.is_whole:
            raise Unavailable("the copy is not whole", hint="Try again.")
        self._forget()
        with closing(Applier(self._path, settings.storage)) as applier:
            reached = applier.position
        if reached != offer.point:
            directory.clear_incoming()
            raise Corrupt(
                f"the copy from {self._donor} stands at {reached}, it was offered as {offer.point}",
                hint="Look at the donor's disk, and clone from another node.",
            )
        gtids = GtidSet.parse(offer.gtids)
        log_path = self._path.parent / LOG_NAME
        Log.begin(log_path, at=reached, gtids=gtids, limits=LogLimits(), events=ignore).close()
        sync_file(self._path)
        return reached

    def _start_anew(self) -> None:
        os.ftruncate(self._fd, 0)
        self.done_bytes = self._synced_bytes = 0
        self._hasher = blake2b(digest_size=DIGEST_BYTES)

    def _forget(self) -> None:
        """What stands there is not to be gone on with."""
        self.ticket = ""
        (self._path.parent / NOTE_NAME).unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _note_in(incoming: Path) -> Note | None:
    try:
        return msgspec.json.decode((incoming / NOTE_NAME).read_bytes(), type=Note)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _check_space(folder: Path, needed_bytes: int) -> None:
    if free_bytes(folder) < needed_bytes + RESERVE_BYTES:
        raise _no_space(folder)


def _no_space(folder: Path) -> DiskFull:
    return DiskFull(
        f"no space in {folder} for the copy: {free_bytes(folder) >> 20} MiB are free",
        hint="Make space on this node's disk: the old data are kept until the copy stands.",
    )
