"""How long a receiver waits before it tries again."""

import pytest

from primacy.replication.pull.limits import PullLimits
from primacy.replication.pull.messages import PASSING, Refusal
from primacy.replication.pull.pausing import ABOUT_TO_SERVE, PROMPT_TRIES, Pauses
from primacy.replication.pull.receiver import Lost, TurnedAway

LIMITS = PullLimits(backoff_min_s=0.02, backoff_max_s=0.5, refused_s=5.0)


def refused(refusal: Refusal) -> TurnedAway:
    return TurnedAway(refusal, "words")


def test_an_upstream_that_is_away_is_asked_less_and_less_often_and_anew_after_it_served() -> None:
    pauses = Pauses(LIMITS)
    waited = [pauses.after(Lost("gone")) for _ in range(7)]
    assert waited == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]
    pauses.streamed()
    assert pauses.after(Lost("gone")) == 0.02


@pytest.mark.parametrize("refusal", sorted(ABOUT_TO_SERVE, key=str))
def test_a_node_that_has_just_won_is_asked_again_at_once_but_not_for_ever(
    refusal: Refusal,
) -> None:
    pauses = Pauses(LIMITS)
    assert {pauses.after(refused(refusal)) for _ in range(PROMPT_TRIES)} == {0.02}
    assert [pauses.after(refused(refusal)) for _ in range(3)] == [0.02, 0.04, 0.08]


@pytest.mark.parametrize("refusal", Refusal)
def test_who_refuses_for_good_is_asked_seldom(refusal: Refusal) -> None:
    pause_s = Pauses(LIMITS).after(refused(refusal))
    assert pause_s == (LIMITS.backoff_min_s if refusal in PASSING else LIMITS.refused_s)
