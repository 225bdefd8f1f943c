"""A transaction that a client conducts statement by statement. It holds the only writer, so it ends
soon, one way or another:

    begin --> [statements] --COMMIT--> logged, acknowledged, committed
                 |
                 +-- ROLLBACK, idle or in all too long, its client is gone --> undone

Runs in the writer's thread, from its first request to its last.
"""

from primacy.engines.sqlite.protocol import Branch, Done, End, Failure, Run
from primacy.engines.sqlite.server.committing import Committer
from primacy.engines.sqlite.server.failures import ERRORS, failure_of
from primacy.engines.sqlite.server.jobs import Inbox, Job, Left
from primacy.engines.sqlite.server.running import done_of, run_undoably
from primacy.engines.sqlite.storage.failures import is_damage


class _Undo(Exception):
    """Leaves the storage's transaction the way that undoes it."""


class _Holding:
    def __init__(self, committer: Committer, inbox: Inbox, owner: object) -> None:
        self._committer = committer
        self._inbox = inbox
        self._owner = owner
        self._writer = committer.writer
        self._until_s = committer.clock.now_s() + committer.limits.transaction_total_s

    def conduct(self, first: Job) -> Job | None:
        """Until COMMIT: its job. None: undone, and whoever had to know was told."""
        self._run(first)
        while self._writer.is_in_group:
            left_s = self._until_s - self._committer.clock.now_s()
            idle_s = self._committer.limits.transaction_idle_s
            job = self._inbox.take_held(min(left_s, idle_s))
            match job:
                case None:
                    return None  # Its session learns from the next request; see `expired`.
                case Left():
                    if job.owner is self._owner:
                        return None
                case Job(owner=owner) if owner is not self._owner:
                    self._committer.answer(job, expired(job.request.number))
                case Job(request=End(is_commit=True)):
                    return job
                case Job(request=End()):
                    self._committer.answer(job, _ended(job.request.number))
                    return None
                case Job():
                    self._run(job)
        return None

    def _run(self, job: Job) -> None:
        request = job.request
        if not isinstance(request, Run):
            return
        self._committer.runs(job)
        try:
            answer = run_undoably(self._writer, request)
        except ERRORS as error:
            is_open = self._writer.is_in_group
            self._committer.answer(
                job, failure_of(error, request.number, is_in_transaction=is_open)
            )
            if is_damage(error):
                raise
        else:
            done = done_of(answer, request.number, token="", is_in_transaction=True)
            self._committer.answer(job, done)
        finally:
            self._committer.runs(None)


def hold(committer: Committer, inbox: Inbox, first: Job) -> None:
    """`first` begins it. What ends the pipeline is raised."""
    if not committer.has_space([first]) or not committer.is_wanted(first):
        return
    writer = committer.writer
    writer.begin()
    commit: Job | None = None
    change = None
    try:
        with writer.transaction():
            commit = _Holding(committer, inbox, first.owner).conduct(first)
            if commit is None:
                raise _Undo
        change = writer.change()
    except _Undo:
        writer.rollback()
        return
    except ERRORS as error:  # A deferred constraint, found at the end: it is undone.
        writer.rollback()
        if commit is not None:
            committer.answer(commit, failure_of(error, commit.request.number))
        if is_damage(error):
            raise
        return
    if commit is None:
        return
    if change is None:
        writer.rollback()
        committer.answer(commit, _ended(commit.request.number, token=_now(committer)))
    elif committer.commit_changes([change], [commit]):
        committer.answer(commit, _ended(commit.request.number, token=_now(committer)))


def expired(number: int) -> Failure:
    """To the first request after a transaction was undone without its client."""
    return Failure(
        number,
        Branch.CONFLICT,
        "the transaction was rolled back: it held the writer for too long, or asked for nothing "
        "for too long",
        "Run it again from its beginning, with less between its statements.",
    )


def _ended(number: int, *, token: str = "") -> Done:
    return Done(number, None, [], 0, -1, 0, token, is_in_transaction=False)


def _now(committer: Committer) -> str:
    return committer.token_at(committer.end_index)
