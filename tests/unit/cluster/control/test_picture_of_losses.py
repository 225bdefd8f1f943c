"""What an operator is told of durability: the policy in force, what may be lost, what was saved."""

import msgspec
from tests.unit.cluster.control.test_picture import (
    LIFE,
    NOW_S,
    A,
    B,
    C,
    item,
    primary,
    replica,
    well,
)

from primacy.cli.status import headline
from primacy.cluster.control.picture import answer_of, picture_of, problems
from primacy.model import Epoch, Member, Revision
from primacy.replication.records import (
    DIVERGED_PREFIX,
    DivergedRecord,
    DurabilityPolicy,
    DurabilityRecord,
    HistoryRecord,
    encoded,
)

RECORD = DivergedRecord(
    ident="b-5-120", node=B, epoch=Epoch(5), count=3, path="/x.sql", wall_s=NOW_S - 60
)
CONFIGURED = DurabilityPolicy(
    request_id="", acks=1, on_timeout="block", timeout_s=10.0, degrade_failover="refuse"
)


def test_saved_transactions_are_shown_until_somebody_dismisses_them() -> None:
    seen = msgspec.structs.replace(RECORD, ident="b-4-9", dismissed_wall_s=NOW_S)
    held = [item(f"{DIVERGED_PREFIX}{each.ident}", encoded(each)) for each in (RECORD, seen)]
    assert picture_of(well(), held).diverged == (RECORD,)
    shown = well(diverged=(RECORD,))
    assert problems(shown) == [
        "b: 3 diverged transaction(s) saved in /x.sql."
        " `primacy diverged show b-5-120`, then `dismiss`"
    ]
    answer = answer_of(shown)
    assert [each.id for each in answer.diverged] == ["b-5-120"]
    assert [node.diverged_count for node in answer.nodes] == [0, 3, 0]


def test_a_log_that_was_not_read_to_its_end_counts_at_least() -> None:
    uncertain = msgspec.structs.replace(RECORD, is_certain=False)
    assert "at least 3" in problems(well(diverged=(uncertain,)))[0]


def test_a_client_that_acknowledged_unrecorded_is_an_alarm() -> None:
    nodes = {A: primary(unexpected_clients=("app",)), B: replica(B), C: replica(C)}
    assert "app acknowledged without being in the sync set" in problems(well(nodes=nodes))[0]


def test_without_a_primary_after_a_degradation_it_says_who_alone_holds_the_writes() -> None:
    record = DurabilityRecord(
        epoch=Epoch(4), primary=Member(A, LIFE), acks=0, members=(), is_degraded=True
    )
    said = " ".join(problems(well(primary=None, durability=record)))
    assert "a had recorded that no replica acknowledges: it alone surely holds" in said


def test_an_epoch_that_may_lack_writes_says_so() -> None:
    last = HistoryRecord(
        epoch=Epoch(4),
        node=A,
        kind="failover",
        reason="r",
        steps_s={},
        wall_s=NOW_S,
        may_have_lost="epoch 3 was degraded, and degrade_failover = lossy",
    )
    assert "epoch 4 may lack acknowledged writes" in problems(well(last=last))[0]


def test_the_policy_in_force_is_shown_with_where_it_comes_from() -> None:
    assert "as configured" in " ".join(headline(answer_of(well(configured=CONFIGURED))))
    own = msgspec.structs.replace(CONFIGURED, on_timeout="degrade", wall_s=NOW_S)
    fields = {"configured": CONFIGURED, "policy": own, "policy_mod": Revision(7)}
    line = " ".join(headline(answer_of(well(**fields))))
    assert "degrade after 10 s" in line
    assert "not in force yet: a has not taken it up yet" in line
    acting = {A: primary(policy_revision=7), B: replica(B), C: replica(C)}
    taken = answer_of(well(**fields, nodes=acting)).policy
    assert taken is not None
    assert taken.is_in_force
    assert taken.differs_from_configuration == ["on_timeout: degrade, the file says block"]


def test_two_data_nodes_are_noted_by_the_policy_in_force_and_are_no_problem() -> None:
    witnessed = well(witnesses=frozenset({C}), configured=CONFIGURED)
    assert "writes are blocked" in answer_of(witnessed).notes[0]
    degrading = msgspec.structs.replace(CONFIGURED, on_timeout="degrade")
    told = answer_of(well(witnesses=frozenset({C}), configured=CONFIGURED, policy=degrading)).notes
    assert "on the other alone" in told[0]
    lossy = msgspec.structs.replace(CONFIGURED, acks=0)
    assert answer_of(well(witnesses=frozenset({C}), configured=lossy)).notes == []
    assert answer_of(well(configured=CONFIGURED)).notes == []
    assert problems(well(configured=CONFIGURED)) == []
