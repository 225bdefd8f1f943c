"""A node's log: what a primary appends, what a replica receives, what both serve. One format.

Format    `docs/formats/log.md`.
Promises  Records are dense and chained; all up to `durable` is on disk. What is appended can be
          read at once. After a failed write or sync the log is poisoned: every later change is
          `Unavailable`, since nobody knows what the disk holds until it is opened again.
          From the moment a cut begins no read returns anything of the tail that it removes.
Assumes   One thread appends, cuts and purges; `sync` and reads may run in others. One process has
          the directory: a lock in it sees to that.
Does not  Know which records are acknowledged or applied, or what a payload means.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.gtid import GtidSet
from primacy.replication.log.holds import Holds
from primacy.replication.log.newest import Chunk
from primacy.replication.log.offsets import Segment, frames
from primacy.replication.log.opening import (
    Opened,
    needing_space,
    new_segment,
    open_directory,
    remove_file,
)
from primacy.replication.log.reading import Purged, Readable
from primacy.replication.log.received import judged
from primacy.replication.log.record import (
    ORIGIN_POINT,
    Entry,
    Point,
    check_entries,
    encode,
    source_id,
)
from primacy.replication.log.segments import create_file, file_numbers
from primacy.replication.log.spans import Span, spans_of
from primacy.replication.log.tail import Tail
from primacy.runtime.files import DiskFull, is_full, lock_directory, sync_directory
from primacy.telemetry import Event, Sink, Value

Watcher = Callable[[Point], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Sizes; the defaults are for disks of some gigabytes."""

    file_bytes: int = 64 << 20
    """A file that has reached this is followed by the next. It is read whole at a restart."""

    cache_bytes: int = 16 << 20
    """Of the newest records, kept in memory for replicas."""


class Log(Readable):
    """Open one with `open`, or `begin` for a node that starts from a copy."""

    def __init__(
        self, directory: Path, opened: Opened, lock_fd: int, limits: LogLimits, events: Sink
    ) -> None:
        super().__init__(
            directory, opened.segments, opened.spans, opened.end, cache_bytes=limits.cache_bytes
        )
        self._tail = opened.tail
        self._lock_fd = lock_fd
        self._limits = limits
        self._events = events
        self._holds = Holds(directory)
        self._failure: Unavailable | None = None
        self._at_disk: set[object] = set()
        self._writing = threading.RLock()
        self._syncing = threading.Lock()
        self._on_growth: tuple[Watcher, ...] = ()
        self._on_durable: tuple[Watcher, ...] = ()
        with suppress(DiskFull), needing_space(directory):  # The next call writes it, then.
            self._holds.lower(self.end.index)

    @classmethod
    def open(cls, directory: Path, *, limits: LogLimits, events: Sink) -> "Log":
        """Recover, or create an empty log. Blocks. `Corrupt` names file and offset, and nothing is
        changed then; `Rejected` for a newer version; `Conflict` while another process has it."""
        return cls._open(directory, limits, events, ORIGIN_POINT, GtidSet(), is_new=False)

    @classmethod
    def begin(
        cls, directory: Path, *, at: Point, gtids: GtidSet, limits: LogLimits, events: Sink
    ) -> "Log":
        """A new log for a node whose data is a copy as of `at`, which holds `gtids`. `Conflict`
        where there is a log already."""
        spans_of(gtids, last=at.index)
        return cls._open(directory, limits, events, at, gtids, is_new=True)

    @classmethod
    def _open(
        cls,
        directory: Path,
        limits: LogLimits,
        events: Sink,
        base: Point,
        gtids: GtidSet,
        *,
        is_new: bool,
    ) -> "Log":
        with needing_space(directory), ExitStack() as undo:
            if not directory.exists():
                directory.mkdir(mode=0o700, parents=True)
                sync_directory(directory.parent)
            lock_fd = lock_directory(directory)
            undo.callback(os.close, lock_fd)
            if is_new and file_numbers(directory):
                raise Conflict(
                    f"{directory} holds a log already",
                    hint="Remove it first, if the node is to begin from a copy.",
                )
            opened = open_directory(directory, base=base, gtids=gtids, events=events)
            undo.callback(opened.tail.close)
            log = cls(directory, opened, lock_fd, limits, events)
            undo.pop_all()
        return log

    # ---- appending --------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry], *, epoch: Epoch, source: NodeId) -> bytes:
        """A primary's own records, as they stand in the log from now on. Not durable yet. A new
        epoch begins with its EPOCH record (`epoch_entry`). `DiskFull`: nothing was appended."""
        with self._writing:
            self._check_usable()
            after, starts = self.end, list[Span]()
            if epoch < after.epoch:
                raise Conflict(
                    f"epoch {epoch} is over: the log has records of epoch {after.epoch}",
                    hint="This node is no primary any more.",
                )
            check_entries(entries, after=after, epoch=epoch)
            if epoch > after.epoch:
                starts.append(Span(epoch, source, after.index + 1))
            elif self._spans[-1].node != source:
                raise Conflict(
                    f"epoch {epoch} belongs to {self._spans[-1].node}, not to {source}",
                    hint="Two nodes would write one epoch. Stop this one and look for the reason.",
                )
            if not entries:
                return b""
            data, end = encode(entries, after=after, epoch=epoch, source=source_id(source))
            self._write(data, end, starts)
        for watcher in self._on_growth:
            watcher(end)
        return data

    def append_received(self, data: bytes) -> Point:
        """Whole records as a peer sent them, all or none. `Corrupt` for wrong bytes, `Conflict` for
        records that do not continue this log's history. Not durable yet."""
        with self._writing:
            self._check_usable()
            end, starts = judged(data, after=self.end, spans=self._spans)
            if not data:
                return end
            self._write(data, end, starts)
        for watcher in self._on_growth:
            watcher(end)
        return end

    def _write(self, data: bytes, end: Point, starts: Sequence[Span]) -> None:
        is_large = self._tail.end_offset + len(data) > self._limits.file_bytes
        if is_large and self._tail.head.before != self.end:
            self._rotate()
        with self._poisoning():
            offset = self._tail.write(data)
        first = self.end.index + 1
        segment = self._segments[-1]
        with self._state:
            segment.end_offset = self._tail.end_offset
            if segment.index is not None:
                segment.index.add(first, offset)
            if starts:
                self._spans = [*self._spans, *starts]
            self._newest.add(Chunk(first, end.index, segment.path.name, offset, data))
            self.end = end

    def sync(self) -> Point:
        """Make durable what was appended before the call, by one `fdatasync`. Returns `durable`.
        After a failure the log is poisoned."""
        with self._syncing:
            self._check_usable()
            end = self.end
            if self.durable == end:
                return end
            with self._poisoning():
                self._tail.sync()
            self.durable = end
        for watcher in self._on_durable:
            watcher(end)
        return end

    def on_growth(self, watcher: Watcher) -> Callable[[], None]:
        """Called with the new end after each append, in the appending thread, as soon as the bytes
        can be read. Must return at once. Returns what ends it."""
        self._on_growth = (*self._on_growth, watcher)
        return lambda: self._forget(watcher)

    def on_durable(self, watcher: Watcher) -> Callable[[], None]:
        """The same for what has become durable, in the syncing thread."""
        self._on_durable = (*self._on_durable, watcher)
        return lambda: self._forget(watcher)

    def _forget(self, watcher: Watcher) -> None:
        self._on_growth = tuple(each for each in self._on_growth if each is not watcher)
        self._on_durable = tuple(each for each in self._on_durable if each is not watcher)

    @property
    def failure(self) -> str:
        """Why it cannot be written any more; empty while it can."""
        return self._failure.what if self._failure is not None else ""

    @property
    def steps_at_disk(self) -> frozenset[object]:
        """What the disk was asked for and has not answered. One that stays is a disk that hangs."""
        return frozenset(self._at_disk.copy())

    # ---- files ------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Go on in a new file, if this one holds a record. What was appended is durable then."""
        with self._writing:
            self._check_usable()
            if self._tail.head.before != self.end:
                self._rotate()

    def _rotate(self) -> None:
        end, number = self.end, self._tail.head.number + 1
        with self._syncing:
            with self._poisoning():
                self._tail.finish()
            self._segments[-1].end_offset = self._tail.end_offset
            self.durable = end
            with needing_space(self.directory), self._poisoning(but_for_space=True):
                head = create_file(self.directory, number, before=end, gtids=self.gtids)
                tail = Tail.of_new(self.directory, head)
            self._tail.close()
            self._tail = tail
            self._segments = [*self._segments, new_segment(self.directory, head)]
        name = self._segments[-1].path.name
        self._events(Event("log-rotated", {"file": name, "before": str(end.position)}))
        for watcher in self._on_durable:
            watcher(end)

    def cut(self, after: int) -> None:
        """Remove the tail behind `after`, durably; what is to be kept of it was saved before. After
        a crash in the middle the log ends somewhere between, and the same call finishes it.
        `DiskFull`: nothing was cut."""
        with self._writing, self._syncing:
            self._check_usable()
            end = self.end
            if after >= end.index:
                return
            point = self.point(after)
            if point is None:
                raise Purged(after=after, first=self.first)
            kept = [each for each in self._segments if each.head.before.index <= after]
            last = kept[-1]
            offset = next((each.file_offset for each in frames(last, after + 1)), last.end_offset)
            index = last.index.until(offset) if last.index is not None else None
            gone = self._segments[len(kept) :]
            with needing_space(self.directory):
                self._holds.lower(after)  # A node that had more needs what will stand there.
            with self._state:  # Readers first: from here on none begins on what goes.
                self._segments = [*kept[:-1], Segment(last.path, last.head, offset, index)]
                self._spans = [span for span in self._spans if span.first <= after]
                self._newest.clear()
                self.end = self.durable = point
                self.cut_count += 1
            with self._poisoning():
                for segment in reversed(gone):
                    remove_file(segment.path)
                self._tail.close()
                self._tail = Tail.of_old(last.path, last.head, cut_offset=offset)
        cut_records = end.index - after
        self._events(Event("log-cut", {"end": str(point.position), "cut_records": cut_records}))

    # ---- purging ----------------------------------------------------------------------------

    @property
    def holds(self) -> dict[str, int]:
        """By name: who needs everything behind which index."""
        return self._holds.indexes

    def hold(self, name: str, index: int) -> None:
        """Nothing behind `index` is purged until `name` holds a later one or is released, not even
        after a restart. `Purged` where something behind it is gone already."""
        with self._writing:
            self._check_usable()
            if index < self.first.index:
                raise Purged(after=index, first=self.first)
            with needing_space(self.directory):
                self._holds.hold(name, index)

    def release(self, name: str) -> None:
        with self._writing:
            self._check_usable()
            with needing_space(self.directory):
                self._holds.release(name)

    def purge(self, *, keep_bytes: int, before_index: int) -> int:
        """Remove the oldest files, as long as all their records are before `before_index`, nobody
        holds them, and `keep_bytes` are left. Returns the bytes that this made free."""
        with self._writing:
            self._check_usable()
            needed = min([before_index - 1, *self._holds.indexes.values()])
            left_bytes = self.size_bytes
            gone: list[Segment] = []
            for segment, behind in zip(self._segments, self._segments[1:], strict=False):
                left_bytes -= segment.end_offset
                if behind.head.before.index > needed or left_bytes < keep_bytes:
                    break
                gone.append(segment)
            if not gone:
                return 0
            with needing_space(self.directory):
                self._holds.write()
            with self._state:
                self._segments = self._segments[len(gone) :]
            with self._poisoning():
                for segment in gone:
                    remove_file(segment.path)
        freed_bytes = sum(segment.end_offset for segment in gone)
        fields: dict[str, Value] = {
            "first": str(self.first.position),
            "files": len(gone),
            "freed_bytes": freed_bytes,
        }
        self._events(Event("log-purged", fields))
        return freed_bytes

    # ---- ending -----------------------------------------------------------------------------

    def close(self) -> None:
        """Sync, and give the directory free. A poisoned log is closed as it is."""
        with self._writing, self._syncing:
            if self._lock_fd < 0:
                return
            try:
                if self._failure is None:
                    with suppress(DiskFull), self._poisoning():
                        self._tail.finish()
                    self.durable = self.end
            finally:
                self._failure = self._failure or Unavailable(
                    f"the log in {self.directory} was closed", hint="Open it again."
                )
                self._tail.close()
                os.close(self._lock_fd)
                self._lock_fd = -1

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise Unavailable(self._failure.what, hint=self._failure.hint) from self._failure

    @contextmanager
    def _poisoning(self, *, but_for_space: bool = False) -> Iterator[None]:
        """Around what leaves in doubt what the disk holds, if it fails."""
        step = object()
        self._at_disk.add(step)
        try:
            yield
        except OSError as error:
            if but_for_space and is_full(error):
                raise
            self._failure = Unavailable(
                f"the log in {self.directory} cannot be written: {error}",
                hint="This node stops. Look at the disk (space, errors), then start it again.",
            )
            raise self._failure from error
        finally:
            self._at_disk.discard(step)
