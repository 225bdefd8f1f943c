"""The writer's thread: from a client's transaction to an acknowledged commit.

    execute (of all that waits)            each undone alone where it fails
      -> append to the log                 from here on nothing can be taken back
      -> one sync, the network in parallel
      -> acknowledgements                  what arrives meanwhile is the next group
      -> the deadline page
      -> position row, COMMIT
      -> answers

    taking --commit cannot be acknowledged--> in doubt: takes nothing more, the log decides later
     |  ^  \
     |  |   +--sync or COMMIT failed--------> broken: the process stops, and replays at its start
     |  |   +--a page of the file is damaged --> the same: a replica's is whole
     v  |
    paused: primacy's own records are taken, a client's requests are not

Promises  No answer before its record is durable and acknowledged; no COMMIT before that either.
          Every job is answered once, or its connection is cut with the outcome unknown.
Assumes   The writer and the log are this thread's alone while it runs (readers of the log aside).
"""

import threading
from collections.abc import Sequence

import apsw

from primacy.engines.sqlite.protocol import Branch, Failure, Run
from primacy.engines.sqlite.server.committing import Committer, InDoubt, State
from primacy.engines.sqlite.server.failures import ERRORS, failure_of
from primacy.engines.sqlite.server.holding import expired, hold
from primacy.engines.sqlite.server.jobs import Answer, Inbox, Job, Own
from primacy.engines.sqlite.server.kept import Kept, KeptAnswer
from primacy.engines.sqlite.server.running import done_of, run_alone
from primacy.engines.sqlite.storage.failures import RECLONE, GroupLost, is_damage
from primacy.engines.sqlite.storage.recording import Change
from primacy.errors import Conflict, PrimacyError
from primacy.replication.log.record import Kind
from primacy.runtime.files import DiskFull

AGAIN = "Connect again: the driver finds the primary."
DOORS_CLOSED = "the doors are closed"


class Pipeline:
    """One reign: it is opened for an epoch and never again for another."""

    def __init__(self, committer: Committer) -> None:
        self.committer = committer
        self.state = State.TAKING
        self.inbox = Inbox(committer.limits.waiting_max)
        self._writer = committer.writer
        self._kept = Kept(keep_s=committer.limits.requests_keep_s, clock=committer.clock)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    # ---- from the event loop ---------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def pause(self, why: str) -> None:
        """Takes nothing of clients, interrupts what runs, and undoes what is not being logged."""
        self._not_begun(self.inbox.pause(), why)
        self._interrupt()

    def resume(self) -> None:
        self.inbox.resume()

    def close(self, why: str) -> None:
        """Takes no more, interrupts what runs, and undoes a group that is still executed; what is
        being logged comes to its end. What was not begun is told so."""
        if self.state is State.TAKING:
            self.state = State.CLOSED
        jobs, own = self.inbox.close()
        self._not_begun(jobs, why)
        for each in own:
            each.answer(Conflict(f"the reign has ended: {why}", hint="A new epoch begins anew."))
        self._interrupt()

    def _not_begun(self, jobs: Sequence[Job], why: str) -> None:
        for job in jobs:
            job.answer(not_begun(job, why))

    def _interrupt(self) -> None:
        running = self.committer.running
        if running is not None:
            self.committer.interrupt(running)

    def join(self) -> None:
        """Blocks until the thread has ended."""
        if self._thread.is_alive():
            self._thread.join()

    # ---- in its thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.committer.open_epoch()
            while jobs := self.inbox.take(self.committer.limits.group_max, self._stale):
                if isinstance(jobs, Own):
                    self._write_own(jobs)
                elif jobs[0].begins:
                    hold(self.committer, self.inbox, jobs[0])
                else:
                    self._group(jobs)
        except InDoubt as error:
            self._end(State.IN_DOUBT, str(error))
        except (PrimacyError, apsw.Error, OSError) as error:
            damage = f"the database file is damaged: {error}. {RECLONE}"
            self._end(State.BROKEN, damage if is_damage(error) else str(error))
        except BaseException as error:
            self._end(State.BROKEN, f"{type(error).__name__}: {error}")
            raise

    def _stale(self, job: Job) -> None:
        self.committer.answer(job, expired(job.request.number))

    def _end(self, state: State, why: str) -> None:
        self.state = state
        self.committer.outside.post(lambda: self.committer.outside.ended(state, why))

    def _write_own(self, own: Own) -> None:
        answer = own.answer
        try:
            if own.kind is not None:
                self.committer.commit_own(own.kind, waits=own.kind is Kind.HEARTBEAT)
        except DiskFull as error:
            failure = error
            self.committer.outside.post(lambda: answer(failure))
            return
        except (PrimacyError, apsw.Error, OSError) as error:
            lost = Conflict(f"the reign has ended: {error}", hint="A new epoch begins anew.")
            self.committer.outside.post(lambda: answer(lost))
            raise
        index = self.committer.end_index
        self.committer.outside.post(lambda: answer(index))

    def _group(self, jobs: list[Job]) -> None:
        if not self.committer.has_space(jobs):
            return
        done: list[tuple[Job, KeptAnswer | Failure, Change | None]] = []
        changes: list[Change] = []
        self._writer.begin()
        if not self._look_after_kept(jobs, changes):
            return
        own_count = len(changes)
        for place, job in enumerate(jobs):
            if not self.committer.is_wanted(job):
                continue
            try:
                with_answer = self._executed(job)
            except (GroupLost, apsw.Error) as error:
                again = [each for each, *_ in done] + jobs[place + 1 :]
                self._lost(job, again, error)
                return
            done.append(with_answer)
            if with_answer[2] is not None:
                changes.append(with_answer[2])
        if not changes:
            self._writer.rollback()
            self._answer_all(done, self.committer.end_index)
            return
        first = self.committer.end_index + own_count
        if self.committer.commit_changes(changes, [job for job, *_ in done]):
            if own_count:
                self._kept.is_prepared()
            self._answer_all(done, first)

    def _lost(self, job: Job, again: list[Job], error: GroupLost | apsw.Error) -> None:
        """All were undone, for the sake of one. The others are the next, if there is a next: damage
        is raised again."""
        self._writer.rollback()
        if self.inbox.is_refusing:
            again.insert(0, job)
        else:
            self.committer.answer(job, failure_of(error, job.request.number))
        for each in self.inbox.put_back(again):
            self.committer.answer(each, not_begun(each, DOORS_CLOSED))
        if is_damage(error):
            raise error

    def _executed(self, job: Job) -> tuple[Job, KeptAnswer | Failure, Change | None]:
        request = job.request
        if not isinstance(request, Run):  # COMMIT of a transaction that has ended meanwhile.
            what = "no transaction is active"
            hint = "It ended before: run it again from its beginning."
            return job, Failure(request.number, Branch.CONFLICT, what, hint), None
        if self.inbox.is_refusing:
            raise GroupLost(DOORS_CLOSED, hint=AGAIN)
        self.committer.runs(job)
        try:
            outcome = run_alone(self._writer, request, self._kept)
        except GroupLost:
            raise
        except ERRORS as error:
            if is_damage(error):
                raise
            if not self._writer.is_in_group or self.inbox.is_refusing:
                raise GroupLost(str(error), hint="Run it again.") from error
            return job, failure_of(error, request.number), None
        finally:
            self.committer.runs(None)
        return job, outcome.answer, outcome.change

    def _look_after_kept(self, jobs: Sequence[Job], changes: list[Change]) -> bool:
        """The table of kept answers, in transactions of its own in front of the clients'. False: it
        failed, all was undone, and the jobs were told so."""
        if not any(isinstance(job.request, Run) and job.request.key for job in jobs):
            return True
        try:
            if self._kept.is_missing:
                with self._writer.transaction():
                    self._kept.prepare(self._writer)
                self._take_change(changes)
                if not changes:  # It was there before this process.
                    self._kept.is_prepared()
            elif self._kept.is_due:
                with self._writer.transaction():
                    self._kept.forget(self._writer)
                self._take_change(changes)
        except ERRORS as error:
            self._writer.rollback()
            for job in jobs:
                self.committer.answer(job, failure_of(error, job.request.number))
            if is_damage(error):
                raise
            return False
        return True

    def _take_change(self, changes: list[Change]) -> None:
        change = self._writer.change()
        if change is not None:
            changes.append(change)

    def _answer_all(
        self, done: Sequence[tuple[Job, KeptAnswer | Failure, Change | None]], index: int
    ) -> None:
        """`index`: of the last record before theirs."""
        answers: list[tuple[Job, Answer]] = []
        for job, answer, change in done:
            index += change is not None
            if not isinstance(answer, Failure):
                token = self.committer.token_at(index) if index else ""
                answers.append((job, done_of(answer, job.request.number, token=token)))
            else:
                answers.append((job, answer))

        def deliver() -> None:
            for job, answer in answers:
                job.answer(answer)

        self.committer.outside.post(deliver)


def not_begun(job: Job, why: str) -> Failure:
    return Failure(
        job.request.number, Branch.NOT_PRIMARY, f"the request was not begun: {why}", AGAIN
    )
