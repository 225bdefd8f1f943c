"""From executed transactions to an acknowledged commit: what a group and a transaction that holds
the writer have in common. In the writer's thread.

    append -> sync -> acknowledgements -> the deadline page -> position row and COMMIT
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import apsw

from primacy.clock import Clock
from primacy.engines.sqlite.protocol import Branch, Failure
from primacy.engines.sqlite.server.failures import WRITES_RESUME, failure_of
from primacy.engines.sqlite.server.jobs import Answer, Job
from primacy.engines.sqlite.server.spec import Limits
from primacy.engines.sqlite.storage.recording import Change
from primacy.engines.sqlite.storage.writer import Writer
from primacy.engines.sqlite.tokens import Token
from primacy.errors import OutcomeUnknown, PrimacyError, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log
from primacy.replication.log.record import Entry, Kind, Point, epoch_entry
from primacy.runtime.files import DiskFull, free_bytes
from primacy.telemetry import Event, Sink


class State(Enum):
    TAKING = "taking"
    CLOSED = "closed"
    """Its doors were closed: a demotion, or the end of the process."""
    IN_DOUBT = "in doubt"
    """Transactions are in the log, and whether they stand is not for this node to say."""
    BROKEN = "broken"


class InDoubt(OutcomeUnknown):
    """A group is in the log and could not be acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the pipeline asks of others. Called in the writer's thread, but for the last two."""

    appended: Callable[[bytes, int, Point], None] | None
    """The log has grown by these records, behind that index, up to this point; not durable yet."""
    persisted: Callable[[Point], None] | None
    """A record that nobody is answered for is durable here: the epoch's own, a marker."""
    acknowledged: Callable[[Point], None] | None
    """Blocks until the policy holds for everything up to the point. What it raises means: it will
    not be acknowledged here. None: no acknowledgement is asked for."""
    permits: Callable[[int], bool]
    """The deadline page: may an answer under this epoch pass now?"""
    applied: Callable[[Point], None]
    """Committed: readers see everything up to the point."""
    post: Callable[[Callable[[], None]], None]
    """Run in the event loop, in order."""
    opened: Callable[[int], None]
    """In the event loop: the epoch's own record is durable, at this index."""
    ended: Callable[[State, str], None]
    """In the event loop: it takes no more, and why."""


class Committer:
    """Of one reign: it commits under one epoch and never under another."""

    def __init__(  # noqa: PLR0913 - all that a commit needs, once.
        self,
        writer: Writer,
        log: Log,
        *,
        node: NodeId,
        epoch: Epoch,
        limits: Limits,
        outside: Outside,
        clock: Clock,
        events: Sink,
    ) -> None:
        self.writer = writer
        self.limits = limits
        self.clock = clock
        self.events = events
        self.outside = outside
        self.running: Job | None = None
        self.running_since_s = 0.0
        self.committed_groups = 0
        self._lacks_space = False
        self._log = log
        self._node = node
        self._epoch = epoch
        self._watched = threading.Lock()

    def interrupt(self, job: Job) -> None:
        """It runs too long, or its client has cancelled it."""
        job.is_withdrawn = True
        with self._watched:  # So that it never hits what runs next.
            if self.running is job:
                self.writer.interrupt()

    def open_epoch(self) -> None:
        """The first write of a reign: its epoch's record."""
        if self._log.end.epoch < self._epoch:
            entry = epoch_entry(
                self._node, schema_hash=self.writer.schema_hash, commit_time_us=self._now_us()
            )
            self.writer.begin()
            self.commit_entries([entry], is_answered=False)
        index = self._log.first_of(self._epoch)
        self.outside.post(lambda: self.outside.opened(index))

    def commit_own(self, kind: Kind, *, waits: bool) -> None:
        """A record of primacy's own, without data. `DiskFull`: nothing was logged."""
        entry = Entry(kind, b"", self.writer.schema_hash, self._now_us())
        self.writer.begin()
        try:
            self.commit_entries([entry], is_answered=waits)
        except DiskFull:
            self.writer.rollback()
            raise

    def commit_changes(self, changes: Sequence[Change], jobs: Sequence[Job]) -> bool:
        """To the log, to the policy, to the database. False: nothing was logged, and the jobs were
        told so. Otherwise what fails ends the pipeline, and the jobs' outcome is unknown."""
        now_us = self._now_us()
        entries = [Entry(c.kind, c.payload, c.schema_hash, now_us) for c in changes]
        try:
            self.commit_entries(entries)
        except DiskFull as error:
            self.writer.rollback()
            for job in jobs:
                self.answer(job, failure_of(error, job.request.number))
            return False
        except (PrimacyError, apsw.Error, OSError) as error:
            self._cut(jobs, error)
            raise
        self.committed_groups += 1
        return True

    def commit_entries(self, entries: Sequence[Entry], *, is_answered: bool = True) -> None:
        """`DiskFull`: nothing was logged. The page opens after the epoch's own record, which nobody
        is answered for."""
        after = self._log.end.index
        data = self._log.append(entries, epoch=self._epoch, source=self._node)
        if self.outside.appended is not None:
            self.outside.appended(data, after, self._log.end)
        end = self._log.sync()
        if is_answered:
            self._wait(end)
        elif self.outside.persisted is not None:
            self.outside.persisted(end)
        if is_answered and not self.outside.permits(self._epoch):
            self.writer.rollback()
            raise InDoubt(
                f"records up to {end.position} are in the log, and the lease of epoch "
                f"{self._epoch} has ended",
                hint="The next primary's history decides whether they stand.",
            )
        self.writer.commit(end)
        self.outside.applied(end)

    def _wait(self, end: Point) -> None:
        """Until the policy holds for everything up to here."""
        if self.outside.acknowledged is None:
            return
        try:
            self.outside.acknowledged(end)
        except PrimacyError as error:
            self.writer.rollback()
            raise InDoubt(
                f"records up to {end.position} are in the log and were not acknowledged: {error}",
                hint="The next primary's history decides whether they stand.",
            ) from error

    def token_at(self, index: int) -> str:
        return str(Token(self._epoch, index, self._node))

    @property
    def end_index(self) -> int:
        return self._log.end.index

    def has_space(self, jobs: Sequence[Job]) -> bool:
        """False: the disk is about full, and the jobs were told so."""
        left_bytes = free_bytes(self._log.directory)
        if left_bytes >= self.limits.reserve_bytes:
            self._lacks_space = False
            return True
        error = Unavailable(
            f"{self._node} takes no writes: its disk has {left_bytes >> 20} MiB free and keeps "
            f"{self.limits.reserve_bytes >> 20} in reserve",
            hint=WRITES_RESUME,
        )
        if not self._lacks_space:  # Once: what is written of it is on that disk, too.
            self._lacks_space = True
            self.events(Event("sql-disk-full", {"free_bytes": left_bytes}))
        for job in jobs:
            self.answer(job, failure_of(error, job.request.number))
        return False

    def is_wanted(self, job: Job) -> bool:
        """False: it is not begun any more, and its client was told so."""
        if job.is_withdrawn:
            what, hint = "the request was cancelled before it was begun", "Nothing was applied."
        elif self.clock.now_s() > job.deadline_s:
            what = "the request waited too long for the writer, and was not begun"
            hint = "Nothing was applied: try again. A long transaction may hold the writer."
        else:
            return True
        self.answer(job, Failure(job.request.number, Branch.UNAVAILABLE, what, hint))
        return False

    def runs(self, job: Job | None) -> None:
        """For whoever watches how long it takes."""
        with self._watched:
            self.running_since_s = self.clock.now_s()
            self.running = job

    def answer(self, job: Job, answer: Answer) -> None:
        self.outside.post(lambda: job.answer(answer))

    def _cut(self, jobs: Sequence[Job], error: Exception) -> None:
        """Number 0: of the connection. Its driver takes the outcome for unknown."""
        for job in jobs:
            self.answer(job, Failure(0, Branch.OUTCOME_UNKNOWN, str(error), "Connect again."))

    def _now_us(self) -> int:
        return int(self.clock.wall_s() * 1_000_000)
