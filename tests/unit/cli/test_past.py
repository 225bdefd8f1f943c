"""History and decisions, in words."""

from typing import Any

import msgspec

from primacy.cli.past import decision_line, history_row
from primacy.cluster.control.answers import (
    EpochAnswer,
    as_json,
    decision_answer,
    epoch_answer,
)
from primacy.cluster.control.past import newest_decisions
from primacy.model import Epoch, NodeId
from primacy.replication.records import Decision, HistoryRecord

B = NodeId("b")


def decision(node: str, number: int) -> Decision:
    return Decision(
        node=NodeId(node),
        number=number,
        action="seal for 5",
        reason="the primary record is gone",
        epoch=Epoch(4),
        wall_s=1_800_000_000.0,
        steps_s={"detection": 0.25},
    )


def record(**changes: Any) -> EpochAnswer:  # Any: any field, by name.
    plain = HistoryRecord(
        epoch=Epoch(5),
        node=B,
        kind="failover",
        reason="most advanced of 2 sealed",
        steps_s={"sealing": 0.1, "promotion": 0.25},
        wall_s=1_800_000_000.0,
    )
    return epoch_answer(msgspec.structs.replace(plain, **changes))


def test_only_the_newest_decisions_of_each_node_are_kept_in_order() -> None:
    # Slots are reused, so the store's order of keys is not the order of the decisions.
    given = [decision("a", 201), decision("a", 200), decision("b", 3), decision("a", 202)]
    newest = newest_decisions(given, 2)
    assert {node: [each.number for each in made] for node, made in newest.items()} == {
        "a": [201, 202],
        "b": [3],
    }


def test_a_decision_reads_as_a_sentence() -> None:
    assert decision_line(decision_answer(decision("a", 1))) == (
        "a: 2027-01-15 08:00:00 epoch 4: seal for 5, because the primary record is gone"
        " (detection 0.25 s)"
    )


def test_a_history_row_counts_what_was_lost_and_where_it_was_saved() -> None:
    assert history_row(record())[4] == "-"
    lost = history_row(record(lost_count=7, lost_path="/var/x.sql"))
    assert lost[4] == "7 (saved: /var/x.sql)"
    given_up = history_row(record(accepted_loss=(NodeId("a"),)))
    assert given_up[4] == "given up: a"
    assert lost[6] == "sealing 0.10 s, promotion 0.25 s"


def test_history_as_json_keeps_the_seconds_of_each_step() -> None:
    assert as_json(record())["steps_s"] == {"sealing": 0.1, "promotion": 0.25}
