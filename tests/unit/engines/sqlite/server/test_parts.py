"""The server's parts that need no process: its specification, its queue, its pages, its header."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from primacy.clock import SystemClock
from primacy.engines.sqlite.protocol import (
    PAGE_ROWS_MAX,
    Access,
    Branch,
    Done,
    End,
    Kind,
    Run,
    ServerRole,
)
from primacy.engines.sqlite.server.failures import failure_of
from primacy.engines.sqlite.server.jobs import Answer, Inbox, Job, Left, Own
from primacy.engines.sqlite.server.obeying import address_in
from primacy.engines.sqlite.server.proxy import SIGNATURE, header_in
from primacy.engines.sqlite.server.running import pages_of
from primacy.engines.sqlite.server.spec import Spec, read_spec
from primacy.engines.sqlite.server.state import ServerState
from primacy.errors import Conflict, Corrupt, OutcomeUnknown, Rejected, Unavailable
from primacy.model import Address, Epoch, NodeId
from primacy.replication.gtid import Gtid
from primacy.replication.log.record import Point

# ---- the specification ------------------------------------------------------------------------


def test_a_specification_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"cluster": "shop", "node": "a", "directory": "/data"}))
    spec = read_spec(path)
    assert isinstance(spec, Spec)
    assert spec.database_path == Path("/data/db.sqlite")
    assert spec.epoch == 0


GOOD = {"cluster": "shop", "node": "a", "directory": "/data"}
BAD = {
    "an unknown field": ({**GOOD, "prot": 1}, "prot"),
    "a missing field": ({"cluster": "shop"}, "node"),
    "a wrong type": ({**GOOD, "port": "x"}, "port"),
    "a port": ({**GOOD, "port": 0}, "port = 0"),
    "a port for replicas": (
        {**GOOD, "pull": {"host": "h", "port": 70000, "secret_path": "s"}},
        "pull.port = 70000",
    ),
    "a database's name": ({**GOOD, "database": "../x"}, "a file's name"),
    "an epoch": ({**GOOD, "epoch": -1}, "epoch = -1"),
    "a limit": ({**GOOD, "limits": {"login_s": 0}}, "time limit"),
    "readers": ({**GOOD, "limits": {"readers": 0}}, "readers = 0"),
    "two at once": ({**GOOD, "port": 0, "epoch": -1}, "port = 0: 1 to 65535; epoch = -1"),
}


@pytest.mark.parametrize(("raw", "what"), BAD.values(), ids=BAD)
def test_a_wrong_specification_is_refused_in_words(
    raw: dict[str, object], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(Rejected, match=what):
        read_spec(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        read_spec(tmp_path / "none.json")


# ---- the addresses of an agent ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1:7105", Address("10.0.0.1", 7105)), ("[::1]:80", Address("::1", 80))],
)
def test_an_address_is_read_as_it_is_shown(text: str, address: Address) -> None:
    assert address_in(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:0", "host:65536"])
def test_what_is_no_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(Rejected, match="is not HOST:PORT"):
        address_in(text)


# ---- the queue --------------------------------------------------------------------------------


def none_is_stale(late: Job) -> None:
    raise AssertionError(f"{late} is no job of a transaction that has ended")


def ignore(_answer: Answer) -> None:
    pass


def job(number: int, *, begins: bool = False, owner: object = None) -> Job:
    run = Run(number, [], begin=Access.WRITE if begins else Access.NONE)
    return Job(run, 1e9, ignore, owner)


def numbers(jobs: list[Job] | Own) -> list[int]:
    assert isinstance(jobs, list)
    return [each.request.number for each in jobs]


def test_transactions_of_their_own_go_together_and_one_that_holds_the_writer_goes_alone() -> None:
    inbox = Inbox(waiting_max=10)
    for each in (job(1), job(2), job(3, begins=True), job(4), job(5)):
        assert inbox.put(each)
    taken = [numbers(inbox.take(10, none_is_stale)) for _ in range(3)]
    assert taken == [[1, 2], [3], [4, 5]]


def test_a_group_has_a_limit_and_what_was_put_back_comes_first() -> None:
    inbox = Inbox(waiting_max=10)
    for number in range(4):
        inbox.put(job(number))
    first = inbox.take(2, none_is_stale)
    assert isinstance(first, list)
    assert inbox.put_back(first) == []
    assert numbers(inbox.take(3, none_is_stale)) == [0, 1, 2]


def test_a_full_queue_and_a_closed_one_take_nothing() -> None:
    inbox = Inbox(waiting_max=1)
    assert inbox.put(job(1))
    assert not inbox.put(job(2))
    inbox.put_held(job(3))
    own = Own(None, lambda _: None)
    assert inbox.put_own(own)
    jobs, owns = inbox.close()
    assert (numbers(jobs), owns) == ([1, 3], [own])
    assert inbox.put_back(jobs) == jobs
    assert not inbox.put_own(own)
    assert not inbox.put(job(4))
    assert not inbox.put_held(job(5))
    assert inbox.take(1, none_is_stale) == []
    assert inbox.take_held(10.0) is None


def test_a_paused_queue_takes_nothing_but_primacys_own_until_it_is_resumed() -> None:
    inbox = Inbox(waiting_max=10)
    for number in (1, 2):
        inbox.put(job(number))
    assert numbers(inbox.pause()) == [1, 2]
    assert not inbox.put(job(3))
    assert not inbox.put_held(job(4))
    assert inbox.take_held(10.0) is None
    own, withdrawn = Own(None, lambda _: None), Own(None, lambda _: None)
    assert inbox.put_own(withdrawn)
    assert inbox.put_own(own)
    assert inbox.withdraw(withdrawn)
    assert inbox.take(10, none_is_stale) is own
    assert not inbox.withdraw(own)
    inbox.resume()
    assert inbox.put(job(5))
    assert numbers(inbox.take(10, none_is_stale)) == [5]


def test_what_comes_for_a_transaction_that_has_ended_is_given_back() -> None:
    inbox = Inbox(waiting_max=10)
    late = job(7)
    inbox.put_held(Left(None))
    inbox.put_held(late)
    inbox.put(job(8))
    stale: list[Job] = []
    assert numbers(inbox.take(10, stale.append)) == [8]
    assert stale == [late]


def test_whoever_waits_is_woken_by_what_comes() -> None:
    inbox = Inbox(waiting_max=10)
    taken: list[list[int]] = []
    thread = threading.Thread(target=lambda: taken.append(numbers(inbox.take(10, none_is_stale))))
    thread.start()
    inbox.put(job(1))
    thread.join(timeout=10)
    assert taken == [[1]]


# ---- pages ------------------------------------------------------------------------------------


def test_rows_become_pages_of_bounded_size() -> None:
    assert pages_of([]) == [[]]
    many = [(number,) for number in range(2 * PAGE_ROWS_MAX + 1)]
    assert [len(each) for each in pages_of([*many])] == [PAGE_ROWS_MAX, PAGE_ROWS_MAX, 1]
    large = [("x" * 200_000,)] * 3
    assert [len(each) for each in pages_of([*large])] == [1, 1, 1]
    assert [row for page in pages_of([*many]) for row in page] == many


# ---- the router's header ----------------------------------------------------------------------

V4 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([10, 0, 0, 7, 10, 0, 0, 1]) + b"\x12\x34\x0c\xea"
V6 = SIGNATURE + b"\x21\x21\x00\x24" + bytes(15) + b"\x01" + bytes(16) + b"\x00\x50\x0c\xea"


def test_a_header_says_who_the_client_is() -> None:
    assert header_in(V4 + b"more") == ("10.0.0.7:4660", len(V4))
    assert header_in(V6) == ("[::1]:80", len(V6))
    assert header_in(SIGNATURE + b"\x20\x00\x00\x00") == ("", 16)  # A health check's own.


def test_a_header_may_come_in_pieces_and_need_not_come() -> None:
    for size in range(len(V4)):
        assert header_in(V4[:size]) is (None if size else header_in(b"")) or size == 0
    assert header_in(b"\x05\x00\x00\x00\x01") == ("", 0)


@pytest.mark.parametrize("raw", [SIGNATURE + b"\x11\x11\x00\x0c", SIGNATURE + b"\x21\x11\xff\xff"])
def test_a_broken_header_is_refused(raw: bytes) -> None:
    with pytest.raises(Corrupt, match="PROXY header"):
        header_in(raw)


# ---- errors -----------------------------------------------------------------------------------

FAILURES = {
    "unavailable": (Unavailable("x", hint="y"), Branch.UNAVAILABLE, Kind.BY_CODE),
    "unknown": (OutcomeUnknown("x", hint="y"), Branch.OUTCOME_UNKNOWN, Kind.BY_CODE),
    "conflict": (Conflict("x", hint="y"), Branch.CONFLICT, Kind.BY_CODE),
    "rejected": (Rejected("x", hint="y"), Branch.REJECTED, Kind.BY_CODE),
    "a missing name": (KeyError("a"), Branch.REJECTED, Kind.PROGRAMMING),
    "not UTF-8": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), Branch.REJECTED, Kind.DATA),
    "a type": (TypeError("no"), Branch.REJECTED, Kind.PROGRAMMING),
}


@pytest.mark.parametrize(("error", "branch", "kind"), FAILURES.values(), ids=FAILURES)
def test_each_error_is_answered_in_its_branch(error: Exception, branch: Branch, kind: Kind) -> None:
    failure = failure_of(error, 7, is_in_transaction=True)
    assert (failure.number, failure.branch, failure.kind) == (7, branch, kind)
    assert failure.is_in_transaction


# ---- what a reader may wait for ---------------------------------------------------------------


def state_at(index: int) -> ServerState:
    return ServerState(
        NodeId("a"),
        applied=Point(Epoch(2), index, 0),
        gtid_of=lambda number: Gtid("a@2", number),
        permits=lambda epoch: epoch == 3,
        clock=SystemClock(),
    )


def test_a_read_waits_until_its_token_is_applied() -> None:
    async def work() -> None:
        state = state_at(5)
        far_s = SystemClock().now_s() + 10
        await state.wait_for("", deadline_s=far_s)
        await state.wait_for("a@2:5", deadline_s=far_s)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(state.wait_for("a@2:7", deadline_s=far_s))
            await asyncio.sleep(0)
            state.on_applied(Point(Epoch(2), 6, 0))
            await asyncio.sleep(0)
            assert not waiting.done()
            state.on_applied(Point(Epoch(2), 7, 0))
        with pytest.raises(Unavailable, match="a@2:9 is not applied on a"):
            await state.wait_for("a@2:9", deadline_s=SystemClock().now_s())
        with pytest.raises(Conflict, match="not in this history"):
            await state.wait_for("b@1:5", deadline_s=far_s)

    asyncio.run(work())


def test_a_primary_answers_only_while_the_page_permits_it() -> None:
    state = state_at(5)
    assert state.role is ServerRole.REPLICA
    assert state.may_answer()
    state.epoch = Epoch(2)
    assert not state.may_answer()
    state.epoch = Epoch(3)
    assert state.may_answer()


def test_how_old_a_replica_is_must_be_known_where_it_matters() -> None:
    state = state_at(5)
    state.check_fresh(None)
    with pytest.raises(Unavailable, match="not known"):
        state.check_fresh(100)


def test_an_end_begins_no_transaction() -> None:
    assert not Job(End(1, is_commit=True), 1e9, ignore, None).begins
    done = Done(1, None, [], 0, -1, 0, "", is_in_transaction=False)
    assert done.cursor == 0
