"""To whom a receiver is attached, as the brain is told. Pure."""

import pytest

from primacy.engines.mariadb.errant import Author
from primacy.engines.mariadb.observe import Known, Status, Upstream, observation
from primacy.engines.notes import Notes
from primacy.model import Incarnation, NodeId

A = NodeId("a")


def seen_with(io_running: str, *, io_error_code: int = 0) -> NodeId | None:
    upstream = Upstream(
        host="127.0.0.1",
        port=3306,
        user="primacy_repl_b",
        io_running=io_running,
        sql_running="Yes",
        received_text="0-1-10",
        io_error_code=io_error_code,
        io_error="words" if io_error_code else "",
        sql_error_code=0,
        sql_error="",
    )
    status = Status(
        logged_text="0-1-10",
        replicated_text="0-1-10",
        author=Author(NodeId("b"), 2),
        written=(),
        is_read_only=True,
        epochs=(),
        heartbeat=0,
        upstream=upstream,
        receivers={},
        strangers=frozenset(),
        excluded=frozenset(),
        sends_semi_sync=False,
        acknowledging_count=0,
        waiting_commits=0,
        acknowledges=False,
        acknowledges_next=True,
    )
    known = Known(
        notes=Notes(),
        incarnation=Incarnation("1"),
        needs_salvage=False,
        upstream=A,
        refusal=None,
        heartbeat_age_s=0.0,
        has_old_data=False,
    )
    return observation(status, known).replication.upstream


@pytest.mark.parametrize(
    ("io_running", "code", "upstream"),
    [
        ("Yes", 0, A),
        ("Connecting", 0, A),
        ("Connecting", 4151, A),
        ("No", 1236, A),
        ("No", 0, None),
    ],
)
def test_a_receiver_that_was_stopped_is_attached_to_nobody(
    io_running: str, code: int, upstream: NodeId | None
) -> None:
    # A primary returned while its replicas were sealed; they were told to follow it before its
    # server answered. The half of that which was done looked like the whole, for ever.
    assert seen_with(io_running, io_error_code=code) == upstream
