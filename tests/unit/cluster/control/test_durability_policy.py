"""The durability policy of a running cluster, against the memory store: set, refused, awaited."""

import asyncio
from dataclasses import replace

import pytest

from primacy.clock import SystemClock
from primacy.cluster.control.answers import PolicyAnswer
from primacy.cluster.control.durability import (
    Standing,
    Wish,
    merged,
    missing,
    policy_problems,
    reset_policy,
    resolved,
    set_policy,
    show,
)
from primacy.cluster.control.requests import Desk
from primacy.cluster.control.roster import Roster
from primacy.cluster.policy import AcksWord, Policy
from primacy.config import ENGINES
from primacy.coordination.api import Put, Txn
from primacy.coordination.memory import MemoryStore
from primacy.errors import OutcomeUnknown, Rejected
from primacy.model import Epoch, Incarnation, Member, NodeId, Revision
from primacy.replication.records import (
    DURABILITY_KEY,
    NODES_PREFIX,
    POLICY_KEY,
    PRIMARY_KEY,
    DurabilityPolicy,
    DurabilityRecord,
    NodeStatus,
    PrimaryRecord,
    decoded,
    encoded,
)

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
LIFE = Incarnation("1")
E1 = Epoch(1)
CONFIGURED = DurabilityPolicy(
    request_id="", acks=1, on_timeout="block", timeout_s=10.0, degrade_failover="refuse"
)
ROSTER = Roster(cluster="shop", members=(A, B, C), data_nodes=(A, B, C), durability=CONFIGURED)
MARIADB = ENGINES["mariadb"]
SAFE = DurabilityRecord(
    epoch=E1, primary=Member(A, LIFE), acks=1, members=(Member(B, LIFE), Member(C, LIFE))
)
LOSSY = DurabilityRecord(epoch=E1, primary=Member(A, LIFE), acks=0, members=(), is_lossy=True)
LEADING = PrimaryRecord(node=A, incarnation=LIFE, epoch=E1)


def desk() -> Desk:
    clock = SystemClock()
    return Desk(MemoryStore(clock), ROSTER, clock)


async def act(at: Desk, stands: DurabilityRecord, policy_revision: int) -> None:
    """The primary: what its brain goes by, and what it has recorded."""
    status = NodeStatus(node=A, incarnation=LIFE, policy_revision=policy_revision)
    await at.store.txn(
        Txn(
            then=(
                Put(PRIMARY_KEY, encoded(LEADING)),
                Put(DURABILITY_KEY, encoded(stands)),
                Put(f"{NODES_PREFIX}{A}", encoded(status)),
            )
        )
    )


async def set_and_brought_about(at: Desk, wish: Wish, stands: DurabilityRecord) -> PolicyAnswer:
    """`set` while the primary takes the record up and brings it about."""
    await act(at, SAFE, 0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        setting = tasks.create_task(set_policy(at, wish, MARIADB, within_s=8))
        while not (held := (await at.store.range(POLICY_KEY)).items):
            await asyncio.sleep(0)
        await act(at, SAFE, held[0].mod)
        await act(at, stands, held[0].mod)
        return await setting


def test_without_a_record_the_files_values_are_in_force() -> None:
    async def story() -> None:
        at = desk()
        await act(at, SAFE, 0)
        answer = await show(at)
        assert (answer.acks, answer.source, answer.is_in_force) == (1, "configuration", True)
        assert answer.differs_from_configuration == []

    asyncio.run(story())


def test_a_policy_that_is_set_is_waited_for_until_the_record_keeps_it() -> None:
    async def story() -> None:
        at = desk()
        answer = await set_and_brought_about(at, Wish(acks=0), LOSSY)
        assert (answer.acks, answer.source, answer.is_in_force) == (0, "operator", True)
        assert answer.differs_from_configuration == ["acks: 0, the file says 1"]
        held = decoded(DurabilityPolicy, (await at.store.range(POLICY_KEY)).items[0].value)
        assert (held.on_timeout, held.timeout_s) == ("block", 10.0), "what was not wished stays"

    asyncio.run(story())


def test_a_second_wish_adds_to_the_first_and_a_reset_ends_both() -> None:
    async def story() -> None:
        at = desk()
        await set_and_brought_about(at, Wish(on_timeout="degrade"), SAFE)
        held = (await at.store.range(POLICY_KEY)).items[0]
        await act(at, SAFE, held.mod)
        with pytest.raises(OutcomeUnknown, match="has not taken it up"):
            await set_policy(at, Wish(timeout_s=2.0), MARIADB, within_s=0.05)
        record = decoded(DurabilityPolicy, (await at.store.range(POLICY_KEY)).items[0].value)
        assert (record.on_timeout, record.timeout_s) == ("degrade", 2.0)
        with pytest.raises(OutcomeUnknown):
            await reset_policy(at, within_s=0.05)
        assert not (await at.store.range(POLICY_KEY)).items
        await act(at, SAFE, 0)
        assert (await reset_policy(at, within_s=5)).is_in_force

    asyncio.run(story())


REFUSED = {
    "nothing at all": (Wish(), "nothing to set"),
    "what MariaDB does not keep": (Wish(acks=2), "mariadb keeps 0 or 1.*sqlite"),
    "a word that is none": (Wish(on_timeout="pray"), "block or degrade"),
    "another": (Wish(degrade_failover="maybe"), "refuse or lossy"),
    "no patience": (Wish(timeout_s=0.0), "more than 0"),
    "all of it at once": (Wish(acks=9, timeout_s=-1.0), "keeps 0 or 1.*timeout_s"),
}


@pytest.mark.parametrize(("wish", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused_and_nothing_is_written(wish: Wish, why: str) -> None:
    async def story() -> None:
        at = desk()
        await act(at, SAFE, 0)
        with pytest.raises(Rejected, match=why):
            await set_policy(at, wish, MARIADB)
        assert not (await at.store.range(POLICY_KEY)).items

    asyncio.run(story())


def test_one_data_node_has_no_replica_to_ask_for() -> None:
    async def story() -> None:
        clock = SystemClock()
        alone = replace(ROSTER, data_nodes=(A,), durability=CONFIGURED)
        with pytest.raises(Rejected, match="one data node has no replica"):
            await set_policy(Desk(MemoryStore(clock), alone, clock), Wish(acks=1), MARIADB)

    asyncio.run(story())


ACTING = NodeStatus(node=A, policy_revision=7)
DEGRADED = DurabilityRecord(epoch=E1, primary=Member(A, LIFE), acks=0, members=(), is_degraded=True)
STANDINGS = {
    "no primary": (Standing(), "no primary"),
    "not opened": (Standing(primary=LEADING), "not opened"),
    "not taken up": (
        Standing(primary=LEADING, durability=SAFE, policy_mod=Revision(7)),
        "not taken it up",
    ),
    "degraded": (
        Standing(
            primary=LEADING,
            durability=DEGRADED,
            policy_mod=Revision(7),
            primary_status=ACTING,
        ),
        "1 replica.s. must acknowledge",
    ),
    "in force": (
        Standing(primary=LEADING, durability=SAFE, policy_mod=Revision(7), primary_status=ACTING),
        "^$",
    ),
}


@pytest.mark.parametrize(("standing", "why"), STANDINGS.values(), ids=STANDINGS)
def test_what_keeps_a_policy_from_being_in_force(standing: Standing, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(missing(standing, CONFIGURED))


def test_the_brain_goes_by_the_record_and_else_by_the_file() -> None:
    policy = Policy(data_nodes=(A, B, C), timeout_s=3.0)
    assert policy.under(None) is policy
    own = DurabilityPolicy(
        request_id="x", acks=0, on_timeout="degrade", timeout_s=1.0, degrade_failover="lossy"
    )
    under = policy.under(own)
    assert (under.acks, under.on_timeout, under.timeout_s, under.degrade_failover) == (
        0,
        "degrade",
        1.0,
        "lossy",
    )
    assert under.data_nodes == policy.data_nodes


WORDS: dict[str, tuple[int | AcksWord, int]] = {
    "a quorum": ("quorum", 1),
    "all replicas": ("all", 2),
    "a number": (2, 2),
}


@pytest.mark.parametrize(("wished", "number"), WORDS.values(), ids=WORDS)
def test_a_word_means_a_number_of_these_nodes(wished: int | AcksWord, number: int) -> None:
    assert resolved(Wish(acks=wished), ENGINES["sqlite"], (A, B, C)).acks == number


def test_an_engine_that_keeps_one_acknowledgement_keeps_no_word_for_it() -> None:
    with pytest.raises(Rejected, match="acks = quorum: mariadb keeps 0 or 1; for any number"):
        resolved(Wish(acks="quorum"), MARIADB, (A, B, C))


def test_two_acknowledgements_are_set_where_the_engine_keeps_them() -> None:
    record = merged(CONFIGURED, Wish(acks=2), wall_s=1.0)
    assert policy_problems(record, ENGINES["sqlite"], (A, B, C)) == []
    assert policy_problems(record, ENGINES["sqlite"], (A, B)) == [
        "acks = 2: 2 data nodes have 1 replica"
    ]
