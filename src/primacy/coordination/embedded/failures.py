"""Refusals as values, and the errors that a caller sees. The one place where they meet. Pure."""

from typing import assert_never

from primacy.coordination.embedded.commands import Failure, Refusal
from primacy.errors import (
    Compacted,
    LeaseLost,
    NotLeader,
    OutcomeUnknown,
    PrimacyError,
    Rejected,
    Unavailable,
)

READ_FIRST = "Read what it would have changed, then decide anew."


def raised_by(failure: Failure) -> PrimacyError:
    """The error for a refusal that is final: whoever retries looks at the refusal itself."""
    what, hint = failure.what or failure.refusal.value, failure.hint
    match failure.refusal:
        case Refusal.NOT_LEADER:
            return NotLeader(failure.leader)
        case Refusal.UNAVAILABLE:
            return Unavailable(what, hint=hint or "Retry shortly.")
        case Refusal.UNKNOWN | Refusal.SESSION_UNKNOWN | Refusal.ANSWER_GONE:
            return OutcomeUnknown(what, hint=hint or READ_FIRST)
        case Refusal.REJECTED:
            return Rejected(what, hint=hint or "Change the request.")
        case Refusal.LEASE_LOST:
            return LeaseLost(what, hint=hint or "Take a new lease.")
        case Refusal.COMPACTED:
            return Compacted(asked=failure.asked, oldest=failure.oldest)
        case _:
            assert_never(failure.refusal)
