"""What travels between the event loop and the writer's thread: jobs, and their queue.

open --pause--> paused --resume--> open         a client's jobs are refused, primacy's own are not
  |                |
  +----close-------+--> closed                  for good
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from primacy.engines.sqlite.protocol import Access, Done, End, Failure, Run
from primacy.errors import PrimacyError
from primacy.replication.log.record import Kind

Answer = Done | Failure


@dataclass(slots=True, eq=False)
class Job:
    """One request for the writer. Answered exactly once: `answer` is called in the event loop."""

    request: Run | End
    deadline_s: float
    """In the queue after this, it is not begun any more."""
    answer: Callable[[Answer], None]
    owner: object
    """Whose it is: the session."""
    is_withdrawn: bool = False
    """Nobody wants it any more. Set by the event loop, read before it is begun."""

    @property
    def begins(self) -> bool:
        return isinstance(self.request, Run) and self.request.begin is Access.WRITE


@dataclass(slots=True, eq=False)
class Own:
    """Of primacy itself. Answered exactly once, in the event loop: with the log's end behind it, or
    with what went wrong."""

    kind: Kind | None
    """The record to write: a marker, or a heartbeat, which is acknowledged as a client's commit is.
    None: nothing; when it is answered, all that was begun before has come to its end."""
    answer: Callable[[int | PrimacyError], None]


@dataclass(slots=True)
class Left:
    """The client of an open transaction is gone."""

    owner: object


@dataclass(slots=True)
class Inbox:
    """Filled by the event loop, emptied by the writer's thread."""

    waiting_max: int
    _waiting: deque[Job] = field(default_factory=deque)
    _held: deque[Job | Left] = field(default_factory=deque)
    _own: deque[Own] = field(default_factory=deque)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False
    _is_paused: bool = False

    def put(self, job: Job) -> bool:
        """False: too many wait, or the pipeline has ended."""
        with self._news:
            if self.is_refusing or len(self._waiting) >= self.waiting_max:
                return False
            self._waiting.append(job)
            self._news.notify()
            return True

    def put_held(self, item: Job | Left) -> bool:
        """For the transaction that holds the writer."""
        with self._news:
            if self.is_refusing:
                return False
            self._held.append(item)
            self._news.notify()
            return True

    def put_own(self, own: Own) -> bool:
        """False: the pipeline has ended."""
        with self._news:
            if self._is_closed:
                return False
            self._own.append(own)
            self._news.notify()
            return True

    def withdraw(self, own: Own) -> bool:
        """False: it is begun, and will be answered."""
        with self._news:
            if own not in self._own:
                return False
            self._own.remove(own)
            return True

    def put_back(self, jobs: list[Job]) -> list[Job]:
        """They were begun in vain, and are the next again. Returned: they can be no more."""
        with self._news:
            if self.is_refusing:
                return jobs
            self._waiting.extendleft(reversed(jobs))
            return []

    def take(self, count_max: int, stale: Callable[[Job], None]) -> list[Job] | Own:
        """What waits: something of primacy's own, or several transactions of their own, or one that
        begins and holds the writer. Blocks; an empty list when closed. `stale` hears of jobs for a
        transaction that has ended."""
        with self._news:
            while True:
                while self._held:
                    item = self._held.popleft()
                    if isinstance(item, Job):
                        stale(item)
                if self._is_closed:
                    return []
                if self._own:
                    return self._own.popleft()
                if self._waiting:
                    return self._taken(count_max)
                self._news.wait()

    def _taken(self, count_max: int) -> list[Job]:
        taken = [self._waiting.popleft()]
        while (
            self._waiting
            and len(taken) < count_max
            and not (taken[0].begins or self._waiting[0].begins)
        ):
            taken.append(self._waiting.popleft())
        return taken

    def take_held(self, within_s: float) -> Job | Left | None:
        """The next of the transaction that holds the writer. None: not in time, or it is to end."""
        with self._news:
            self._news.wait_for(lambda: self._held or self.is_refusing, timeout=max(0.0, within_s))
            return self._held.popleft() if self._held and not self.is_refusing else None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_refusing(self) -> bool:
        """Closed or paused: no client's job is begun, and what is not logged yet is undone."""
        return self._is_closed or self._is_paused

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def pause(self) -> list[Job]:
        """Refuses clients' jobs until `resume`, and gives back what was not begun."""
        with self._news:
            self._is_paused = True
            return self._given_back()

    def resume(self) -> None:
        with self._news:
            self._is_paused = False

    def close(self) -> tuple[list[Job], list[Own]]:
        """Takes no more, and gives back what was not begun."""
        with self._news:
            self._is_closed = True
            own = list(self._own)
            self._own.clear()
            return self._given_back(), own

    def _given_back(self) -> list[Job]:
        left = [*self._waiting, *(each for each in self._held if isinstance(each, Job))]
        self._waiting.clear()
        self._held.clear()
        self._news.notify_all()
        return left
