"""What a reading of the server says to the brain. Pure."""

from dataclasses import replace

import pytest

from primacy.engines.mariadb.errant import Author
from primacy.engines.mariadb.gtid import parse_list
from primacy.engines.mariadb.observe import EpochRow, Known, Status, Upstream, observation
from primacy.engines.notes import Notes
from primacy.model import Epoch, Incarnation, NodeId, Position


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
        author=Author(NodeId("c"), 3),
        written=(),
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


# ---- what a replica wrote by itself

A1, A2, B1, C1, C2 = (10_000_001, 10_000_002, 20_000_001, 30_000_001, 30_000_002)
EPOCHS = (
    EpochRow(Epoch(1), NodeId("a"), 1),
    EpochRow(Epoch(2), NodeId("c"), 21),
    EpochRow(Epoch(3), NodeId("b"), 41),
)


@pytest.mark.parametrize(
    ("state", "applied", "errant"),
    {
        "all of epoch 3 is of b": (f"0-{A1}-20,0-{C1}-40,0-{B1}-60", 60, None),
        "its own end of epoch 2 belongs there": (f"0-{A1}-20,0-{C1}-40", 40, None),
        "what it wrote in epoch 3 does not": (
            f"0-{A1}-20,0-{C1}-40,0-{B1}-60,0-{C2}-61",
            60,
            f"0-{C2}-61",
        ),
        "nor does it in the same life as epoch 2": (
            f"0-{A1}-20,0-{B1}-60,0-{C1}-75",
            60,
            f"0-{C1}-75",
        ),
        "what it wrote as a replica of a, before all shared epoch 2, is history": (
            f"0-{A1}-18,0-{C1}-19,0-{C2}-40,0-{B1}-60",
            60,
            None,
        ),
        "in two lives": (
            f"0-{A1}-20,0-{B1}-60,0-{C1}-61,0-{C2}-62",
            60,
            f"0-{C2}-62",
        ),
        "in another domain nothing is compared": (f"0-{B1}-60,5-{C1}-75", 60, None),
        "nothing but its own is left to be seen": (f"0-{C2}-61", 0, f"0-{C2}-61"),
    }.values(),
)
def test_what_a_replica_wrote_by_itself_counts_for_nothing(
    state: str, applied: int, errant: str | None
) -> None:
    found = parse_list(state)
    last = max((each for each in found if each.domain == 0), key=lambda each: each.sequence)
    told = replace(
        status("Yes", in_effect=True, switch=True),
        logged_text=str(last),
        replicated_text="",
        written=tuple(found),
        epochs=EPOCHS,
        upstream=None,
    )
    seen = observation(told, KNOWN)
    assert (seen.applied.sequence, seen.received.sequence) == (applied, applied)
    assert seen.is_errant == seen.replication.is_diverged == (errant is not None)
    assert (errant or "written") in (seen.replication.error or "written")


def test_a_node_that_leads_has_its_epoch_row_in_its_log_before_it_is_in_its_tables() -> None:
    leading = replace(KNOWN, notes=Notes(led_epoch=Epoch(4)), upstream=None)
    told = replace(
        status("No", in_effect=False, switch=False),
        logged_text=f"0-{C2}-61",
        written=tuple(parse_list(f"0-{B1}-60,0-{C2}-61")),
        epochs=EPOCHS,
        upstream=None,
    )
    seen = observation(told, leading)
    assert not seen.is_errant
    assert seen.replication.error is None
    assert seen.received == Position(Epoch(3), 60)
    assert observation(told, KNOWN).is_errant
