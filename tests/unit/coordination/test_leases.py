"""When a lease ends: the leader's own stamp of the last applied renewal, plus ttl."""

import pytest

from primacy.consensus.machine import Entry
from primacy.coordination.api import LeaseId
from primacy.coordination.embedded.commands import Expire
from primacy.coordination.embedded.leases import LeaseRecord, LeaseStamps, LeaseTable
from primacy.model import LogIndex, Term

LEASE = LeaseId(1)


def entry(index: int, term: int = 1) -> Entry:
    return Entry(Term(term), LogIndex(index), b"x")


@pytest.fixture
def table() -> LeaseTable:
    return LeaseTable()


def grant(table: LeaseTable, stamps: LeaseStamps, *, applied_at_s: float) -> None:
    table.add(LeaseRecord(LEASE, 3.0, LogIndex(1)))
    stamps.applied(applied_at_s, LogIndex(1), [LEASE])


def renew(table: LeaseTable, stamps: LeaseStamps, index: int, *, applied_at_s: float) -> None:
    table.renew(LEASE, LogIndex(index))
    stamps.applied(applied_at_s, LogIndex(index), [LEASE])


def test_the_end_counts_from_the_append_and_not_from_applying(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=12.0)
    assert stamps.next_end_s == 13.0
    assert stamps.ended(12.9) == []
    assert stamps.ended(13.0) == [Expire(LEASE, LogIndex(1))]
    assert stamps.ended(14.0) == []  # Named once.


def test_a_renewal_moves_the_end(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=10.0)
    stamps.appended(12.0, [entry(2)])
    assert stamps.next_end_s == 13.0  # Appended is not applied.
    renew(table, stamps, 2, applied_at_s=12.5)
    assert stamps.next_end_s == 15.0
    assert stamps.left_s(14.0) == {LEASE: 1.0}


def test_a_replaced_entry_takes_the_stamp_of_its_replacement(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    stamps.appended(20.0, [entry(1, term=2)])
    grant(table, stamps, applied_at_s=21.0)
    assert stamps.next_end_s == 23.0


def test_after_a_restart_the_entries_of_the_log_count_from_now(table: LeaseTable) -> None:
    stamps = LeaseStamps(100.0, table, [entry(1)])
    grant(table, stamps, applied_at_s=101.0)
    assert stamps.next_end_s == 103.0


def test_after_an_installed_snapshot_its_leases_count_from_now(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=10.0)
    stamps.installed(50.0, table)
    assert stamps.next_end_s == 53.0


def test_a_lease_that_has_gone_is_not_named(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=10.0)
    table.remove(LEASE)
    assert stamps.next_end_s is None
    assert stamps.ended(99.0) == []


def test_an_end_that_did_not_reach_the_log_is_named_again(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=10.0)
    due = stamps.ended(13.0)
    stamps.propose_again()
    assert stamps.ended(13.0) == due


def test_a_renewal_after_a_refused_end_is_counted(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=10.0)
    stamps.appended(12.9, [entry(2)])
    stamps.ended(13.0)  # The renewal stands in the log and is not applied yet.
    renew(table, stamps, 2, applied_at_s=13.1)
    assert stamps.ended(13.2) == []
    assert stamps.ended(15.9) == [Expire(LEASE, LogIndex(2))]


def test_renewals_of_a_follower_do_not_pile_up(table: LeaseTable) -> None:
    stamps = LeaseStamps(0.0, table)
    stamps.appended(10.0, [entry(1)])
    grant(table, stamps, applied_at_s=10.0)
    for index in range(2, 5000):
        stamps.appended(float(index), [entry(index)])
        renew(table, stamps, index, applied_at_s=float(index))
    assert stamps.next_end_s == 4999 + 3.0
    assert len(stamps._heap) < 100  # noqa: SLF001 - memory is the claim
