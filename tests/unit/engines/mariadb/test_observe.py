"""What a reading of the server says to the brain. Pure."""

import pytest

from primacy.engines.mariadb.notes import Notes
from primacy.engines.mariadb.observe import Known, Status, Upstream, observation
from primacy.model import Incarnation, NodeId


def upstream(io_running: str) -> Upstream:
    return Upstream(
        host="127.0.0.1",
        port=3306,
        user="primacy_repl_c",
        io_running=io_running,
        sql_running="Yes",
        received_text="0-1-10",
        io_error_code=0,
        io_error="",
        sql_error_code=0,
        sql_error="",
    )


def status(io_running: str, *, in_effect: bool, switch: bool) -> Status:
    return Status(
        logged_text="0-1-10",
        replicated_text="0-1-10",
        is_read_only=True,
        epochs=(),
        heartbeat=0,
        upstream=upstream(io_running),
        receivers={},
        strangers=frozenset(),
        excluded=frozenset(),
        sends_semi_sync=False,
        acknowledging_count=0,
        waiting_commits=0,
        acknowledges=in_effect,
        acknowledges_next=switch,
    )


KNOWN = Known(
    notes=Notes(),
    incarnation=Incarnation("c1"),
    needs_salvage=False,
    upstream=NodeId("a"),
    refusal=None,
    heartbeat_age_s=0.0,
    has_old_data=False,
)


@pytest.mark.parametrize(
    ("io_running", "in_effect", "switch", "acknowledges"),
    {
        "connected, and said so": ("Yes", True, True, True),
        "connected silently, the switch is on: it will at the next connection": (
            "Yes",
            False,
            True,
            True,
        ),
        "connected and said so, the switch is off: it does until then": ("Yes", True, False, True),
        "locked out with the switch on: it will acknowledge when let in": (
            "Connecting",
            False,
            True,
            True,
        ),
        "locked out, the switch is off": ("Connecting", False, False, False),
        "stopped: only `follow` starts it, and sets the switch first": ("No", False, True, False),
    }.values(),
)
def test_a_replica_is_silent_only_if_it_stays_so_when_it_connects_again(
    io_running: str, *, in_effect: bool, switch: bool, acknowledges: bool
) -> None:
    seen = observation(status(io_running, in_effect=in_effect, switch=switch), KNOWN)
    assert seen.replication.acknowledges is acknowledges
