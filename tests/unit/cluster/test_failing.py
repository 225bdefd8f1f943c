"""Actions that fail are tried again, later each time, and say why they failed."""

from primacy.cluster.failing import NOT_FAILING, RETRY_AFTER_MAX_S, RETRY_AFTER_S


def test_each_failure_doubles_the_wait_up_to_its_limit() -> None:
    failing, waits_s = NOT_FAILING, []
    for _ in range(12):
        failing = failing.again("no", now_s=100.0)
        waits_s.append(round(failing.not_before_s - 100.0, 6))
    assert waits_s[:3] == [RETRY_AFTER_S, 2 * RETRY_AFTER_S, 4 * RETRY_AFTER_S]
    assert waits_s == sorted(waits_s)
    assert waits_s[-1] == RETRY_AFTER_MAX_S
    assert failing.count == 12


def test_what_is_shown_names_the_cause_beside_the_wish() -> None:
    failing = NOT_FAILING.again("users, line 2: no verifier. Fix it.", now_s=0.0)
    assert failing.told("Start", "the server is down") == (
        "Start failed 1 time(s), the last with: users, line 2: no verifier. Fix it."
        " It is wanted: the server is down"
    )


def test_the_cause_is_cut_to_what_a_line_can_show() -> None:
    assert len(NOT_FAILING.again("x" * 10_000, now_s=0.0).told("Start", "why")) < 300
