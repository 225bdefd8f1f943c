"""Every error that primacy raises on purpose.

A caller asks three questions, and each has a branch:

    may I send this again?        Unavailable     nothing was applied: retry
                                  OutcomeUnknown  it may have been applied: read first
    did I lose the right to ask?  Conflict        give up, or look again and decide anew
    must a person act?            Rejected        fix the input; retrying cannot help

`InvariantBroken` is not in this tree: it is a bug in primacy, and the process stops.
"""


class PrimacyError(Exception):
    """Base of the tree. Every error says what happened and what to do about it."""

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(f"{what}. {hint}")
        self.what = what
        self.hint = hint


class Unavailable(PrimacyError):
    """Not now. Nothing was applied; the same call may succeed later."""


class Withdrawn(Unavailable):
    """Nobody took the request up in time, and it was taken back: it cannot come true later."""


class OutcomeUnknown(PrimacyError):
    """The answer was lost. The call may or may not have been applied."""


class Conflict(PrimacyError):
    """Somebody else moved first, or holds the right that this call needed."""


class Rejected(PrimacyError):
    """The request can never succeed as written."""


class NotFound(Rejected):
    """The request names something that does not exist."""


class NotLeader(Unavailable):
    """This member does not lead the store. `leader` names who does, where that is known."""

    def __init__(self, leader: str | None) -> None:
        where = "no leader is known yet" if leader is None else f"{leader} leads"
        hint = "Retry shortly." if leader is None else f"Send the request to {leader}."
        super().__init__(f"this member does not lead the store: {where}", hint=hint)
        self.leader = leader


class Compacted(Conflict):
    """A watch or read asked for history that is gone. List again, then watch from there."""

    def __init__(self, *, asked: int, oldest: int) -> None:
        super().__init__(
            f"revision {asked} was compacted: the oldest kept is {oldest}",
            hint="Read the keys again and watch from the revision of that read.",
        )
        self.asked = asked
        self.oldest = oldest


class LeaseLost(Conflict):
    """The lease has ended or may have: whoever held something under it holds it no longer."""


class Corrupt(Rejected):
    """A file holds something that was not written so. Names the file and the offset."""


class InvariantBroken(Exception):
    """A promise is broken. This is a bug in primacy, never a fault of network or disk."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
