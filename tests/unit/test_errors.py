"""Errors answer "may I send this again?", and say what to do."""

import pytest

from primacy.errors import (
    Compacted,
    Conflict,
    Corrupt,
    InvariantBroken,
    LeaseLost,
    NotLeader,
    OutcomeUnknown,
    PrimacyError,
    Rejected,
    Unavailable,
)

BRANCH = {
    NotLeader: Unavailable,
    Compacted: Conflict,
    LeaseLost: Conflict,
    Corrupt: Rejected,
    OutcomeUnknown: PrimacyError,
}


@pytest.mark.parametrize(("kind", "branch"), BRANCH.items())
def test_each_error_stands_in_the_branch_that_answers_its_caller(
    kind: type[PrimacyError], branch: type[PrimacyError]
) -> None:
    assert issubclass(kind, branch)


def test_an_error_says_what_happened_and_what_to_do() -> None:
    error = LeaseLost("the lease has ended", hint="Take a new one.")
    assert str(error) == "the lease has ended. Take a new one."


def test_who_leads_is_named_where_it_is_known() -> None:
    assert "b leads" in str(NotLeader("b"))
    assert NotLeader(None).leader is None
    assert "Retry shortly" in str(NotLeader(None))


def test_a_compacted_history_says_from_where_it_is_kept() -> None:
    error = Compacted(asked=3, oldest=9)
    assert (error.asked, error.oldest) == (3, 9)
    assert "revision 3 was compacted: the oldest kept is 9" in str(error)


def test_a_broken_invariant_is_no_error_that_a_caller_handles() -> None:
    assert not issubclass(InvariantBroken, PrimacyError)
    assert str(InvariantBroken("election-safety", "a and b")) == "election-safety: a and b"
