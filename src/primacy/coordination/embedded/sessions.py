"""Client sessions: each write takes effect once, however often it is sent. Pure.

Source    D. Ongaro, "Consensus: Bridging Theory and Practice", section 6.3.
Promises  A write whose answer is kept is answered again from here. One whose session or answer is
          gone is refused, and never executed a second time.
Assumes   A client sends no sequence below a `done_below` that it has sent.
Does not  Use time. The session that was idle longest, counted in log entries, is evicted first.
"""

from collections.abc import Iterator

import msgspec

from primacy.coordination.api import RangeResult
from primacy.coordination.embedded.commands import (
    Committed,
    Failure,
    Outcome,
    Refusal,
    SessionId,
    Write,
)

SESSIONS_MAX = 4096
ANSWERS_MAX = 64
"""Answers that one session keeps: twice what a client may have outstanding."""

ANSWER_BYTES_MAX = 32 << 20
"""All kept answers together."""

ANSWER_OVERHEAD_BYTES = 100


RECORD_BYTES_MAX = 256 << 10
"""Answers in one record of a snapshot: a session with more takes several."""


class SessionRecord(msgspec.Struct, frozen=True):
    """One session, or the next part of it, as a snapshot holds it."""

    session: SessionId
    floor: int
    answers: tuple[tuple[int, Outcome], ...]
    is_first: bool


class _Session:
    __slots__ = ("answers", "floor")

    def __init__(self, floor: int, answers: dict[int, Outcome]) -> None:
        self.floor = floor
        self.answers = answers


class Sessions:
    """In order of last use: the first is evicted first."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, _Session] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, session: SessionId) -> None:
        self._sessions[session] = _Session(0, {})
        self._evict()

    def answer_to(self, write: Write) -> Outcome | None:
        """The answer of an earlier attempt, or a refusal. None: execute it now, then `keep`."""
        session = self._sessions.pop(write.session, None)
        if session is None:
            return Failure(
                Refusal.SESSION_UNKNOWN,
                f"session {write.session} is not known, or was idle too long",
                "Read what the write would have changed, then decide anew.",
            )
        self._sessions[write.session] = session  # Now the one used last.
        self._forget_below(session, write.done_below)
        if write.sequence < session.floor:
            return Failure(
                Refusal.ANSWER_GONE,
                f"write {write.sequence} of session {write.session} was given up by its client",
                "Read what the write would have changed, then decide anew.",
            )
        known = session.answers.get(write.sequence)
        if known is None and len(session.answers) >= ANSWERS_MAX:
            return Failure(
                Refusal.UNAVAILABLE,
                f"session {write.session} keeps {ANSWERS_MAX} answers already",
                "Wait for earlier writes before sending more.",
            )
        return known

    def keep(self, write: Write, outcome: Outcome) -> None:
        self._sessions[write.session].answers[write.sequence] = outcome
        self._bytes += _weight(outcome)
        self._evict()

    def frozen(self) -> Iterator[SessionRecord]:
        """The sessions of this moment, in order of last use, whatever is applied meanwhile."""
        kept = [(name, each.floor, each.answers.copy()) for name, each in self._sessions.items()]
        return (
            SessionRecord(name, floor, part, is_first=place == 0)
            for name, floor, answers in kept
            for place, part in enumerate(_parts(answers))
        )

    def restore(self, record: SessionRecord) -> None:
        """In the order in which `frozen` gave them."""
        if record.is_first:
            self._sessions[record.session] = _Session(record.floor, {})
        self._sessions[record.session].answers.update(record.answers)
        self._bytes += sum(_weight(outcome) for _, outcome in record.answers)

    def _forget_below(self, session: _Session, done_below: int) -> None:
        if done_below <= session.floor:
            return
        session.floor = done_below
        for sequence in [each for each in session.answers if each < done_below]:
            self._bytes -= _weight(session.answers.pop(sequence))

    def _evict(self) -> None:
        """The session used last always stays."""
        while len(self._sessions) > 1 and (
            len(self._sessions) > SESSIONS_MAX or self._bytes > ANSWER_BYTES_MAX
        ):
            oldest = next(iter(self._sessions))
            gone = self._sessions.pop(oldest)
            self._bytes -= sum(_weight(outcome) for outcome in gone.answers.values())


def _weight(outcome: Outcome) -> int:
    if not isinstance(outcome, Committed):
        return ANSWER_OVERHEAD_BYTES
    return ANSWER_OVERHEAD_BYTES + sum(
        ANSWER_OVERHEAD_BYTES + len(item.key) + len(item.value)
        for result in outcome.result.results
        if isinstance(result, RangeResult)
        for item in result.items
    )


def _parts(answers: dict[int, Outcome]) -> Iterator[tuple[tuple[int, Outcome], ...]]:
    """At least one part, each of about `RECORD_BYTES_MAX` at most."""
    part: list[tuple[int, Outcome]] = []
    part_bytes = 0
    for sequence, outcome in answers.items():
        if part_bytes > RECORD_BYTES_MAX:
            yield tuple(part)
            part, part_bytes = [], 0
        part.append((sequence, outcome))
        part_bytes += _weight(outcome)
    yield tuple(part)
