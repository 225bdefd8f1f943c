"""The driver's decisions: what is sent, where to, and whether it may be sent again. Sans-IO: the
blocking and the asyncio connection run the same generators (`effects.py`).

What a lost answer means:

    nothing was sent                                          another server is found, sent again
    a read, or a transaction of its own with a key            the same
    the first request of a transaction                        the same: nothing was committed
    a later request of a transaction                          Unavailable: run it from its beginning
    COMMIT, or a write of its own without a key               OutcomeUnknown
    a call with a key, and no other answer comes in time      OutcomeUnknown: the same key again

Promises  Nothing that could take effect twice is sent twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from primacy.driver.effects import Close, Pause, Steps
from primacy.driver.exceptions import (
    DataError,
    Error,
    InterfaceError,
    OutcomeUnknown,
    Unavailable,
    misused,
    raised_by,
)
from primacy.driver.joining import Joiner
from primacy.driver.line import Clock, Line, Lost, NotSent
from primacy.driver.target import Target, Wanted
from primacy.engines.sqlite.protocol import (
    SMALLER_PARTS,
    Access,
    Branch,
    Done,
    End,
    Failure,
    Fetch,
    Greeting,
    Run,
    Statement,
    excess_of,
)
from primacy.engines.sqlite.tokens import later
from primacy.errors import Rejected

SERVER_SHARE = 0.8
"""Of the time that is left: how long the server may wait, so that its reason still arrives."""

RETRY_PAUSE_S = 0.02
"""Before a request is sent again to a server that has just refused it or gone."""

FROM_THE_BEGINNING = "Run the transaction again from its beginning."
READ_FIRST = (
    "Read what it would have changed before you send it again; an idempotency key spares you that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for in one request."""

    statements: Sequence[Statement]
    begin: Access = Access.NONE
    is_read: bool = False
    key: str = ""


class Core:
    """One client's session with the cluster. One call at a time."""

    def __init__(self, target: Target, *, now_s: Clock, nonce: Callable[[], bytes]) -> None:
        self.target = target
        self._now_s = now_s
        self._joiner = Joiner(target, now_s=now_s, nonce=nonce)
        self._line: Line | None = None
        self._leader = ""
        self.outstanding = 0
        """The number of the request that waits for its answer; 0: none does."""
        self._last_number = 0
        self.generation = 0
        """Of the connection: a cursor lives and dies with it."""
        self.is_in_transaction = False
        self.is_closed = False
        self.token = ""
        """Of the newest transaction that this session has written or seen."""

    @property
    def greeting(self) -> Greeting | None:
        """Of the server that it is connected to."""
        return self._line.greeting if self._line is not None else None

    def open(self) -> Steps[None]:
        yield from self._connected(self._now_s() + self.target.connect_timeout_s)

    def close(self) -> Steps[None]:
        """An open transaction is rolled back by the server. Closed already: nothing happens."""
        self.is_closed = True
        yield from self._drop()

    def run(self, asked: Asked) -> Steps[Done]:
        lost: list[Lost] = []
        try:
            return (yield from self._run(asked, lost))
        except Unavailable as error:
            if not (asked.key and lost):
                raise
            raise OutcomeUnknown(
                f"the answer was lost: {lost[-1]}; then: {error.what}",
                hint="Send it again with the same key.",
            ) from error

    def end(self, *, is_commit: bool) -> Steps[Done | None]:
        """None: no transaction was open."""
        self._check_open()
        if not self.is_in_transaction:
            return None
        line = self._line
        if line is None:  # Unreachable while is_in_transaction is cleared with the line.
            return None
        deadline_s = self._now_s() + self.target.timeout_s
        try:
            answer = yield from self._asked(line, End(self._number(), is_commit), deadline_s)
        except Lost as lost:
            yield from self._drop()
            if not is_commit:
                return None  # The server rolls back when its client is gone.
            if isinstance(lost, NotSent):
                raise _transaction_lost(lost) from lost
            raise OutcomeUnknown(
                f"the answer to COMMIT was lost: {lost}", hint=READ_FIRST
            ) from lost
        if isinstance(answer, Done):
            return answer
        if not is_commit and not answer.is_in_transaction:
            return None  # It was undone before.
        raise raised_by(answer)

    def fetch(self, cursor: int, *, generation: int) -> Steps[Done]:
        self._check_open()
        line = self._line
        if line is None or generation != self.generation:
            raise _rows_lost("its connection was lost")
        deadline_s = self._now_s() + self.target.timeout_s
        try:
            answer = yield from self._asked(line, Fetch(self._number(), cursor), deadline_s)
        except Lost as lost:
            yield from self._drop()
            raise _rows_lost(str(lost)) from lost
        if isinstance(answer, Failure):
            raise raised_by(answer)
        return answer

    def forget_cursor(self, cursor: int, *, generation: int) -> Steps[None]:
        """The rest of its rows is not wanted."""
        line = self._line
        if line is None or generation != self.generation:
            return
        try:
            yield from line.forget_cursor(cursor, deadline_s=self._now_s() + self.target.timeout_s)
        except Lost:
            yield from self._drop()  # It is forgotten with its connection.

    def see(self, token: str) -> None:
        """Later reads wait until they can see it too."""
        try:
            self.token = later(self.token, token)
        except Rejected as error:
            raise misused(error) from None

    def busy(self) -> InterfaceError:
        """Two tasks at once would mix their transactions."""
        return InterfaceError(
            "another task waits on this connection", hint="Open a connection for each task."
        )

    # ---- inside ----------------------------------------------------------------------------

    def _run(self, asked: Asked, sent_in_vain: list[Lost]) -> Steps[Done]:
        """`sent_in_vain` hears of each answer that was lost."""
        self._check_open()
        deadline_s = self._now_s() + self.target.timeout_s
        is_first = not self.is_in_transaction
        is_safe = is_first and (asked.is_read or asked.begin is not Access.NONE or bool(asked.key))
        while True:
            try:
                line = yield from self._connected(deadline_s)
                answer = yield from self._asked(line, self._request(asked, deadline_s), deadline_s)
            except Lost as lost:
                yield from self._drop()
                if not is_first:
                    raise _transaction_lost(lost) from lost
                if not (is_safe or isinstance(lost, NotSent)):
                    raise OutcomeUnknown(f"the answer was lost: {lost}", hint=READ_FIRST) from lost
                if not isinstance(lost, NotSent):
                    sent_in_vain.append(lost)
                if self._now_s() + RETRY_PAUSE_S >= deadline_s:
                    raise Unavailable(
                        f"no answer came in time: {lost}", hint="Send it again."
                    ) from lost
                yield Pause(RETRY_PAUSE_S)
                continue
            if isinstance(answer, Done):
                return answer
            is_elsewhere = (
                answer.branch is Branch.NOT_PRIMARY
                and is_first
                and self.target.wanted is Wanted.PRIMARY
            )
            if not is_elsewhere or self._now_s() + RETRY_PAUSE_S >= deadline_s:
                raise raised_by(answer)
            self._leader = answer.leader
            yield from self._drop()
            yield Pause(RETRY_PAUSE_S)

    def _request(self, asked: Asked, deadline_s: float) -> Run:
        run = Run(
            self._number(),
            list(asked.statements),
            begin=asked.begin,
            is_read=asked.is_read,
            after=self.token,
            fresh_ms=self.target.fresh_ms,
            within_ms=int(1000 * SERVER_SHARE * max(0.0, deadline_s - self._now_s())),
            key=asked.key,
        )
        excess = excess_of(run)
        if excess is not None:
            raise DataError(excess, hint=SMALLER_PARTS)
        return run

    def _asked(
        self, line: Line, request: Run | End | Fetch, deadline_s: float
    ) -> Steps[Done | Failure]:
        self.outstanding = request.number
        try:
            answer = yield from line.ask(request, deadline_s=deadline_s)
        except (Lost, Error):
            raise
        except BaseException:
            self._forget()  # Interrupted: an answer may be on its way, and nobody takes it.
            yield Close()
            raise
        finally:
            self.outstanding = 0
        self.is_in_transaction = answer.is_in_transaction
        if isinstance(answer, Done):
            self.token = later(self.token, answer.token)
        return answer

    def _connected(self, deadline_s: float) -> Steps[Line]:
        self._check_open()
        if self._line is None:
            leader, self._leader = self._leader, ""
            until_s = min(deadline_s, self._now_s() + self.target.connect_timeout_s)
            self._line = yield from self._joiner.join(deadline_s=until_s, leader=leader)
            self.generation += 1
        return self._line

    def _drop(self) -> Steps[None]:
        if self._line is not None:
            self._forget()
            yield Close()

    def _forget(self) -> None:
        self._line = None
        self.is_in_transaction = False

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _check_open(self) -> None:
        if self.is_closed:
            raise InterfaceError("the connection is closed", hint="Open another one.")


def _transaction_lost(lost: Lost) -> Unavailable:
    return Unavailable(
        f"the transaction was rolled back, its connection was lost: {lost}",
        hint=FROM_THE_BEGINNING,
    )


def _rows_lost(why: str) -> Unavailable:
    return Unavailable(f"the rest of the rows cannot be read: {why}", hint="Run the query again.")
