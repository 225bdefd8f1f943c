"""What travels between the event loop and the writer's thread: jobs, and their queue."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from primacy.engines.sqlite.protocol import Access, Done, End, Failure, Run

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
    _news: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False

    def put(self, job: Job) -> bool:
        """False: too many wait, or the pipeline has ended."""
        with self._news:
            if self._is_closed or len(self._waiting) >= self.waiting_max:
                return False
            self._waiting.append(job)
            self._news.notify()
            return True

    def put_held(self, item: Job | Left) -> bool:
        """For the transaction that holds the writer."""
        with self._news:
            if self._is_closed:
                return False
            self._held.append(item)
            self._news.notify()
            return True

    def put_back(self, jobs: list[Job]) -> None:
        """They were begun in vain, and are the next again."""
        with self._news:
            self._waiting.extendleft(reversed(jobs))

    def take(self, count_max: int, stale: Callable[[Job], None]) -> list[Job]:
        """What waits: several transactions of their own, or one that begins and holds the writer.
        Blocks; nothing when closed. `stale` hears of jobs for a transaction that has ended."""
        with self._news:
            while True:
                while self._held:
                    item = self._held.popleft()
                    if isinstance(item, Job):
                        stale(item)
                if self._is_closed:
                    return []
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
        """The next of the transaction that holds the writer. None: not in time, or closed."""
        with self._news:
            self._news.wait_for(lambda: self._held or self._is_closed, timeout=max(0.0, within_s))
            return self._held.popleft() if self._held and not self._is_closed else None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def close(self) -> list[Job]:
        """Takes no more, and gives back what was not begun."""
        with self._news:
            self._is_closed = True
            left = [*self._waiting, *(each for each in self._held if isinstance(each, Job))]
            self._waiting.clear()
            self._held.clear()
            self._news.notify_all()
            return left
