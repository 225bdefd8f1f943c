"""The store's state: revisions, transactions, leases, sessions, history, snapshots."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.coordination import api
from primacy.coordination.api import (
    Compare,
    Delete,
    Field,
    LeaseId,
    Put,
    Range,
    Txn,
    absent,
    holds_value,
    unchanged,
)
from primacy.coordination.embedded import keyspace, sessions
from primacy.coordination.embedded.commands import (
    Commit,
    Committed,
    Expire,
    Failure,
    Grant,
    Granted,
    OpenSession,
    Refusal,
    Renew,
    Renewed,
    Revoke,
    SessionId,
    SessionOpened,
    Write,
)
from primacy.coordination.embedded.kv import Kv
from primacy.errors import Compacted, Corrupt, InvariantBroken
from primacy.model import LogIndex, Revision, Term


def put(key: str, value: bytes = b"v", lease: int = 0) -> Txn:
    return Txn(then=(Put(key, value, LeaseId(lease)),))


def keys(kv: Kv, prefix: str = "") -> list[str]:
    return [item.key for item in kv.range(Range(prefix, is_prefix=True)).items]


def granted(log: Any, ttl_s: float = 5.0) -> LeaseId:
    reply = log.fresh_write(Grant(ttl_s)).reply
    assert isinstance(reply, Granted)
    return reply.lease.lease


def test_each_write_gets_the_next_revision_and_reads_get_none(log: Any) -> None:
    for expected, txn in [
        (1, put("a")),
        (2, put("a", b"w")),
        (2, Txn(then=(Range("a"),))),
        (2, Txn(then=(Delete("nothing"),))),
        (3, Txn(then=(Put("b", b""), Put("c", b""), Delete("a")))),
    ]:
        reply = log.txn(txn).reply
        assert isinstance(reply, Committed)
        assert (reply.result.revision, log.kv.revision) == (expected, expected)
    (item,) = log.kv.range(Range("b")).items
    assert (item.create, item.mod, item.version) == (3, 3, 1)


def test_a_deleted_key_starts_anew_and_its_create_revision_grows(log: Any) -> None:
    log.txn(put("a"))
    log.txn(put("a"))
    log.txn(Txn(then=(Delete("a"),)))
    log.txn(put("a"))
    (item,) = log.kv.range(Range("a")).items
    assert (item.create, item.version) == (4, 1)


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (absent("a"), False),
        (absent("b"), True),
        (unchanged("a", Revision(2)), True),
        (unchanged("a", Revision(1)), False),
        (unchanged("b", Revision(0)), True),
        (holds_value("a", b"two"), True),
        (holds_value("b", b""), False),
        (Compare("b", Field.VALUE, api.Test.NOT_EQUAL, b"x"), True),
        (Compare("b", Field.VALUE, api.Test.LESS, b"x"), False),
        (Compare("a", Field.VALUE, api.Test.GREATER, b"tw"), True),
        (Compare("a", Field.VERSION, api.Test.EQUAL, 2), True),
        (Compare("a", Field.CREATE, api.Test.LESS, 2), True),
        (Compare("a", Field.LEASE, api.Test.EQUAL, 0), True),
        (Compare("b", Field.LEASE, api.Test.GREATER, -1), True),
    ],
)
def test_a_comparison_decides_the_branch(log: Any, *, compare: Compare, expected: bool) -> None:
    log.txn(put("a", b"one"))
    log.txn(put("a", b"two"))
    reply = log.txn(Txn((compare,), (Range("a"),), (Range("zzz"),))).reply
    assert reply.result.is_success is expected
    assert len(reply.result.results[0].items) == expected


@given(
    names=st.sets(st.text("ab/é", min_size=1, max_size=6), max_size=30),
    prefix=st.text("ab/é", max_size=3),
)
def test_a_prefix_finds_exactly_its_keys_in_order(names: set[str], prefix: str) -> None:
    space = keyspace.KeySpace()
    for place, name in enumerate(names):
        space.put(Put(name, b""), Revision(place + 1))
    found = space.range(Range(prefix, is_prefix=True), Revision(0)).items
    assert [item.key for item in found] == sorted(n for n in names if n.startswith(prefix))


def test_a_range_is_cut_at_its_limit_and_says_so(log: Any) -> None:
    log.txn(Txn(then=tuple(Put(f"k{n}", b"") for n in range(5))))
    cut = log.kv.range(Range("k", is_prefix=True, limit=4))
    whole = log.kv.range(Range("k", is_prefix=True, limit=5))
    assert (len(cut.items), cut.is_cut) == (4, True)
    assert (len(whole.items), whole.is_cut) == (5, False)


def test_the_end_of_a_lease_deletes_its_keys_in_one_revision(log: Any) -> None:
    lease = granted(log)
    for key in ("b", "a", "free"):
        log.txn(put(key, lease=lease))
    log.txn(put("free"))  # A put without a lease detaches the key.
    before = log.kv.revision
    applied = log.apply(Expire(lease, LogIndex(lease)))
    assert applied.batch.revision == before + 1
    assert [(c.key, c.after) for c in applied.batch.changes] == [("a", None), ("b", None)]
    assert keys(log.kv) == ["free"]


def test_an_expiry_that_saw_an_older_renewal_is_refused(log: Any) -> None:
    lease = granted(log)
    log.txn(put("a", lease=lease))
    log.apply(Renew((lease,)))
    assert log.apply(Expire(lease, LogIndex(lease))).batch is None
    assert keys(log.kv) == ["a"]
    assert log.kv.leases.get(lease) is not None


def test_a_renewal_is_answered_for_each_lease_with_what_applying_it_did(log: Any) -> None:
    alive, ended = granted(log), granted(log)
    log.fresh_write(Revoke(ended))
    applied = log.apply(Renew((alive, ended, alive)))
    first, second, third = applied.reply
    assert isinstance(first, Renewed)
    assert isinstance(third, Renewed)
    assert second.refusal is Refusal.LEASE_LOST
    assert applied.renewed == (alive,)
    assert log.kv.leases.get(alive).renewal == log.kv.index


def test_a_put_under_an_ended_lease_changes_nothing(log: Any) -> None:
    lease = granted(log)
    log.fresh_write(Revoke(lease))
    reply = log.txn(Txn(then=(Put("a", b""), Put("b", b"", lease)))).reply
    assert reply.refusal is Refusal.LEASE_LOST
    assert keys(log.kv) == []


def test_ending_an_ended_lease_is_no_error(log: Any) -> None:
    lease = granted(log)
    log.fresh_write(Revoke(lease))
    assert not isinstance(log.fresh_write(Revoke(lease)).reply, Failure)


def test_a_retried_write_is_answered_again_and_not_executed_twice(log: Any) -> None:
    log.apply(OpenSession())
    session = SessionId(log.kv.index)
    write = Write(session, 1, 1, Commit(put("a")))
    first = log.apply(write)
    again = log.apply(write)
    assert again.reply == first.reply
    assert again.batch is None
    assert log.kv.revision == 1


def test_a_retried_grant_names_the_same_lease_and_is_no_renewal(log: Any) -> None:
    log.apply(OpenSession())
    write = Write(SessionId(log.kv.index), 1, 1, Grant(5.0))
    first, again = log.apply(write), log.apply(write)
    assert again.reply == first.reply
    assert (len(first.renewed), again.renewed) == (1, ())


def test_a_write_that_its_client_gave_up_is_never_executed_later(log: Any) -> None:
    log.apply(OpenSession())
    session = SessionId(log.kv.index)
    log.apply(Write(session, 2, 2, Commit(put("new"))))
    late = log.apply(Write(session, 1, 1, Commit(put("late"))))
    assert late.reply.refusal is Refusal.ANSWER_GONE
    assert keys(log.kv) == ["new"]


def test_a_write_of_an_evicted_session_is_refused(log: Any) -> None:
    log.apply(OpenSession())
    idle = SessionId(log.kv.index)
    for _ in range(sessions.SESSIONS_MAX):
        assert isinstance(log.apply(OpenSession()).reply, SessionOpened)
    reply = log.apply(Write(idle, 1, 1, Commit(put("a")))).reply
    assert reply.refusal is Refusal.SESSION_UNKNOWN
    assert keys(log.kv) == []


def test_a_session_keeps_a_bounded_number_of_answers(log: Any) -> None:
    log.apply(OpenSession())
    session = SessionId(log.kv.index)
    replies = [
        log.apply(Write(session, n, 1, Commit(put("a")))).reply
        for n in range(sessions.ANSWERS_MAX + 1)
        if n
    ]
    assert all(isinstance(reply, Committed) for reply in replies)
    over = log.apply(Write(session, 999, 1, Commit(put("a")))).reply
    assert over.refusal is Refusal.UNAVAILABLE


@pytest.mark.parametrize(
    "body",
    [
        Commit(Txn(then=(Put("", b""),))),
        Commit(Txn(then=(Put("k" * 1025, b""),))),
        Commit(Txn(then=(Put("k", b"v" * ((1 << 20) + 1)),))),
        Commit(Txn(then=tuple(Put(f"k{n}", b"") for n in range(129)))),
        Commit(Txn(then=tuple(Put(f"k{n}", b"v" * (1 << 20)) for n in range(5)))),
        Commit(Txn((Compare("k", Field.VALUE, api.Test.EQUAL, 3),))),
        Commit(Txn((Compare("k", Field.MOD, api.Test.EQUAL, b""),))),
        Commit(Txn(then=(Range("k", limit=0),))),
        Grant(0.99),
        Grant(float("nan")),
        Grant(1e9),
    ],
)
def test_what_is_over_a_limit_is_rejected(log: Any, body: Any) -> None:
    reply = log.write(body).reply
    assert reply.refusal is Refusal.REJECTED
    assert log.kv.revision == 0


def test_history_gives_whole_revisions_and_refuses_what_is_compacted(log: Any) -> None:
    for n in range(5):
        log.txn(put(f"k{n}"))
    assert [b.revision for b in log.kv.history.since(Revision(3))] == [3, 4, 5]
    assert list(log.kv.history.since(Revision(6))) == []
    with pytest.raises(Compacted):
        log.kv.history.since(Revision(0))


def test_history_is_bounded(log: Any) -> None:
    history = keyspace.History(Revision(0))
    for n in range(1, keyspace.HISTORY_MAX + 11):
        history.add(keyspace.batch_of(Revision(n), {"k": None}))
    assert history.floor == 10
    assert next(history.since(Revision(11))).revision == 11


def test_entries_out_of_order_stop_the_process(log: Any) -> None:
    with pytest.raises(InvariantBroken):
        log.kv.apply(LogIndex(2), Term(1), b"")


def test_a_snapshot_holds_keys_leases_renewals_and_sessions(log: Any) -> None:
    lease = granted(log)
    log.txn(put("held", lease=lease))
    log.apply(Renew((lease,)))
    write = Write(log.session, log.sequence + 1, log.sequence + 1, Commit(put("once")))
    first = log.apply(write)
    pieces = log.kv.freeze()
    log.txn(put("later"))  # After the freeze: not in it.

    log.kv = Kv.from_pieces(pieces)
    assert keys(log.kv) == ["held", "once"]
    assert log.apply(write).reply == first.reply
    assert log.kv.leases.get(lease).renewal < log.kv.index
    with pytest.raises(Compacted):
        log.kv.history.since(log.kv.revision)
    log.fresh_write(Revoke(lease))
    assert keys(log.kv) == ["once"]


def test_a_restored_state_goes_on_as_the_original_does(log: Any) -> None:
    for n in range(2500):
        log.txn(put(f"k{n % 2100}", b"%d" % n))
    pieces = list(log.kv.freeze())
    other = Kv.from_pieces(iter(pieces))
    assert list(other.freeze()) == pieces


@pytest.mark.parametrize("gone", [0, 1, -1])
def test_a_snapshot_that_lacks_a_piece_is_refused(log: Any, gone: int) -> None:
    log.txn(put("a"))
    pieces = list(log.kv.freeze())
    del pieces[gone]
    with pytest.raises(Corrupt):
        Kv.from_pieces(iter(pieces))


def test_a_snapshot_with_a_foreign_piece_is_refused(log: Any) -> None:
    with pytest.raises(Corrupt):
        Kv.from_pieces(iter([b"\xff\x00"]))
