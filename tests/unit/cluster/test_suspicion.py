"""phi of a silence: sooner certain of a regular peer, patient with a slow one, never of everybody
at once because the store is silent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.cluster.policy import Policy
from primacy.cluster.suspicion import (
    ABSENCE_S,
    CERTAIN_PHI,
    PHI_MAX,
    STORE_PAUSE_MAX_S,
    Suspicions,
    phi_of,
)
from primacy.model import NodeId

A, B = NodeId("a"), NodeId("b")


def heard(every_s: list[float], own_every_s: float = 0.25) -> tuple[Suspicions, float]:
    """B is heard with these silences between; this node's own status comes all the time."""
    found, now_s = Suspicions(0.0), 0.0
    found.hear(B, now_s)
    for silence_s in every_s:
        now_s = quiet(found, now_s, silence_s, own_every_s)
        found.hear(B, now_s)
    return found, now_s


def quiet(found: Suspicions, now_s: float, for_s: float, own_every_s: float = 0.25) -> float:
    """B says nothing for so long, and the store works."""
    end_s = now_s + for_s
    while now_s + own_every_s < end_s:
        now_s += own_every_s
        found.arrived(now_s)
    return end_s


REGULAR, SLOW, BUSY = [1.0] * 30, [1.0, 3.5] * 15, [0.25] * 120

SILENCES: dict[str, tuple[list[float], float, bool]] = {
    "a regular peer may be a little late": (REGULAR, 1.5, False),
    "a regular peer that misses two statuses has gone": (REGULAR, 2.5, True),
    "a slow peer is given more time": (SLOW, 5.0, False),
    "even a slow peer is given up in the end": (SLOW, 11.0, True),
    "a busy peer may turn calm": (BUSY, 1.3, False),
    "a busy peer is given up no later than a calm one": (BUSY, 2.5, True),
    "a peer heard once only is measured by what all should keep": ([], 2.5, True),
    "an absence teaches nothing": ([*REGULAR, ABSENCE_S + 1.0, *REGULAR], 2.5, True),
}


@pytest.mark.parametrize("name", SILENCES)
def test_certainty(name: str) -> None:
    every_s, silent_s, is_certain = SILENCES[name]
    found, now_s = heard(every_s)
    now_s = quiet(found, now_s, silent_s)
    assert (found.phis(now_s)[B] >= CERTAIN_PHI) is is_certain


def test_nobody_is_suspected_while_the_store_is_silent() -> None:
    found, now_s = heard(REGULAR)
    now_s += 60.0
    assert found.phis(now_s)[B] < CERTAIN_PHI
    found.arrived(now_s)  # This node's own status comes first when the store is back.
    assert found.silent_for_s(now_s)[B] <= STORE_PAUSE_MAX_S
    assert found.phis(quiet(found, now_s, 2.5))[B] >= CERTAIN_PHI


def test_a_forgotten_peer_is_not_suspected() -> None:
    found, now_s = heard(REGULAR)
    found.forget(B)
    assert found.phis(now_s) == {}


def test_the_paper_s_scale() -> None:
    """phi 1, 2, 3: one silence in ten, a hundred, a thousand lasts as long."""
    for phi, deviations in ((1.0, 1.2816), (2.0, 2.3263), (3.0, 3.0902)):
        assert phi_of(5.0 + deviations, mean_s=5.0, spread_s=1.0) == pytest.approx(phi, abs=0.001)
    assert phi_of(1e6, mean_s=1.0, spread_s=0.2) == PHI_MAX


silences = st.lists(st.floats(0.05, ABSENCE_S + 5.0), max_size=150)


@given(silences, st.floats(0.0, 30.0), st.floats(0.0, 30.0))
def test_phi_only_grows_with_a_silence(every_s: list[float], first_s: float, more_s: float) -> None:
    found, now_s = heard(every_s)
    sooner = quiet(found, now_s, first_s)
    before = found.phis(sooner)[B]
    assert 0.0 <= before <= found.phis(quiet(found, sooner, more_s))[B] <= PHI_MAX


@given(silences, st.floats(1.0, 3.0), st.floats(0.0, 60.0))
def test_the_policy_gives_up_what_is_silent_for_long_and_spares_what_speaks(
    every_s: list[float], ttl_s: float, silent_s: float
) -> None:
    """Whatever was heard before, patience is bounded on both sides."""
    policy = Policy(data_nodes=(A, B), lease_ttl_s=ttl_s)
    found, now_s = heard(every_s)
    now_s = quiet(found, now_s, silent_s)
    phi, heard_s = found.phis(now_s)[B], found.silent_for_s(now_s)[B]
    usual_s = policy.status_stale_after_s
    if heard_s < usual_s / 2:
        assert not policy.is_silent(heard_s, phi)
    if heard_s >= usual_s * 2:
        assert policy.is_silent(heard_s, phi)
