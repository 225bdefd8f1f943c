"""The one writer of a modelled SQLite server, for one reign.

    what waits -> a group: append -> fsync | the network, at the same time -> acknowledgements
      -> the deadline page -> COMMIT, answers -> the next group

Promises  One group at a time: nothing reaches the log behind one that waits. No answer and no
          COMMIT before the record is durable and acknowledged, or without the page's permission.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from primacy.sim.engine_log import Commit, Kind, Record

if TYPE_CHECKING:
    from primacy.sim.sqlite_model import SqliteModel

Reply = Callable[[Record | None], None]


class Job(NamedTuple):
    """What waits for the writer: not begun."""

    kind: Kind
    uid: int
    reply: Reply | None = None


class Pipeline:
    """Its group under way is `engine.commits`."""

    def __init__(self, engine: "SqliteModel") -> None:
        self.inbox: deque[Job] = deque()
        self.is_open = False
        self._engine = engine
        self._waits = False
        """Whether the group under way needs acknowledgements and the page."""

    def put(self, job: Job) -> None:
        self.inbox.append(job)
        self.go_on()

    def has(self, kind: Kind) -> bool:
        under_way = any(each.record.kind is kind for each in self._engine.commits)
        return under_way or any(each.kind is kind for each in self.inbox)

    def go_on(self) -> None:
        """The next group, where none is under way and the doors are open."""
        if self.inbox and not self._engine.commits and self.is_open:
            jobs, self.inbox = list(self.inbox), deque()
            self._begin(jobs, waits=True)

    def append(self, kind: Kind, uid: int) -> Record:
        """A record of the reign's own, for which nobody is answered."""
        self._begin([Job(kind, uid)], waits=False)
        return self._engine.commits[-1].record

    def _begin(self, jobs: Sequence[Job], *, waits: bool) -> None:
        engine, files = self._engine, self._engine.data
        self._waits = waits
        for job in jobs:
            record = Record(engine.epoch, len(files.log) + 1, job.kind, job.uid)
            files.log.append(record)
            engine.commits.append(Commit(record, job.reply, engine.world.now_s))
            engine.witnesses.on_append(engine, record)
        end = len(files.log)
        engine.sender.ship_all()
        engine.disk.write(lambda: files.mark_synced(end), self.release)

    def release(self) -> None:
        """Commit the group and answer it, once all that it needs is there."""
        engine = self._engine
        if not engine.commits or not self._is_held(engine.commits[-1].record.sequence):
            return
        if self._waits and not engine.is_permitted():
            engine.world.trace.sometimes("group in doubt")
            engine.is_in_doubt = True
            engine.end_reign("a group is in doubt: the page does not permit it")
            return
        group = list(engine.commits)
        engine.commits.clear()
        engine.data.commit_to(group[-1].record.sequence)
        for commit in group:
            engine.has_committed(commit)
        self.go_on()

    def _is_held(self, sequence: int) -> bool:
        engine = self._engine
        if sequence > engine.data.synced:
            return False
        is_asked = self._waits and engine.acks > 0
        return not is_asked or engine.sender.acknowledged_by(engine.acks) >= sequence

    def break_off(self) -> None:
        """Nobody is answered any more. What stands in the log stays there."""
        replies = [commit.reply for commit in self._engine.commits]
        replies += [job.reply for job in self.inbox]
        self._engine.commits.clear()
        self.inbox.clear()
        for reply in replies:
            if reply is not None:
                reply(None)

    def turn_away(self) -> None:
        """What was not begun: its clients hear so."""
        jobs, self.inbox = self.inbox, deque()
        for job in jobs:
            if job.reply is not None:
                job.reply(None)
