"""Servers that are driven through their control sockets only, from the first epoch to a rejoin."""

import resource
import stat
import threading
from pathlib import Path

import apsw
import pytest
from tests.integration.sqlite.controls import Controlled, Line, nodes, until

import primacy.driver as db
from primacy.engines.sqlite.control import (
    Acknowledge,
    Admit,
    Beat,
    CloseDoors,
    Copied,
    Cut,
    Demote,
    Done,
    Doors,
    Drain,
    Exclude,
    Failed,
    Follow,
    Marker,
    Observe,
    OpenDoors,
    Receiving,
    Reign,
    Release,
    Request,
    Rest,
    Rewind,
    RoleNow,
    SetAcks,
    Shown,
    Snapshot,
    Sums,
    TableSums,
    Writes,
)
from primacy.errors import Conflict, PrimacyError, Rejected, Unavailable
from primacy.model import Epoch, NodeId
from primacy.replication.pull.acks import AckOn

pytestmark = pytest.mark.integration

CREATE = "CREATE TABLE t (n INTEGER PRIMARY KEY)"
INSERT = "INSERT INTO t VALUES (?)"


def insert(node: Controlled, number: int, *, within_s: float = 15.0) -> Exception | None:
    """What a client hears; of one who is not to be answered `within_s` is short."""
    try:
        connection = node.connect(timeout_s=within_s, connect_timeout_s=within_s)
    except db.Error as error:
        return error
    try:
        connection.execute(INSERT, (number,))
    except db.Error as error:
        return error
    finally:
        connection.close()
    return None


class Background:
    """A request that is not waited for."""

    def __init__(self, node: Controlled, request: Request) -> None:
        self._line = Line(node.control)
        self._number = self._line.send(request)

    def answer(self) -> object:
        try:
            return self._line.receive(self._number)
        finally:
            self._line.close()


def test_a_cluster_fails_over_and_the_old_primary_comes_back(tmp_path: Path) -> None:
    with nodes(tmp_path) as (a, b, c):
        assert a.shown().role is RoleNow.RESTING
        assert a.lead(1, b, c, acks=2) == 1
        writer = a.connect()
        writer.execute(CREATE)
        for number in range(10):
            writer.execute(INSERT, (number,))
        writer.close()
        for each in (b, c):
            each.do(Rest())
        assert isinstance(insert(a, 99, within_s=2.0), db.OutcomeUnknown)
        until(lambda: a.shown().waits_at == 13)
        assert a.shown().waiting_commits == 1
        a.kill()

        sealed = {each.name: each.do(Rest()) for each in (b, c)}
        assert sealed == {b.name: 12, c.name: 12}
        assert b.do(Drain()) == 12
        assert b.lead(2, c, acks=1) == 13
        assert insert(b, 10) is None

        a.start()
        shown = a.shown()
        assert (shown.role, shown.durable.index, shown.applied.index) == (RoleNow.RESTING, 13, 12)
        a.follow(b, 2)
        until(lambda: diverged_at(a) == 12)
        assert a.shown().applied.index == 12
        assert a.do(Rest()) == 13
        assert a.do(Cut(after=12)) == 12
        a.follow(b, 2)
        until(lambda: a.shown().applied == b.shown().applied)
        b.do(SetAcks(acks=2, ack_on=AckOn.APPLIED))
        assert insert(b, 11) is None
        assert [each.rows() for each in (a, b, c)] == [list(range(12))] * 3
        assert {each.node for each in b.shown().attached} == {"a", "c"}
        assert a.stop() == 0
        assert not a.control.exists()


def diverged_at(node: Controlled) -> int | None:
    upstream = node.shown().upstream
    if upstream is None or upstream.state is not Receiving.DIVERGED:
        return None
    return upstream.parted_after.index if upstream.parted_after is not None else -1


def test_doors_close_open_again_and_a_handover_loses_nothing(tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as (a, b):
        a.lead(1, b, acks=1)
        writer = a.connect()
        writer.execute(CREATE)
        open_transaction = a.connect()
        open_transaction.execute("BEGIN")
        open_transaction.execute(INSERT, (7,))
        assert a.do(CloseDoors(within_s=5.0)) == 2
        assert a.do(CloseDoors(within_s=5.0)) == 2
        assert a.shown().doors is Doors.CLOSED
        assert insert(a, 1, within_s=0.3) is not None
        with pytest.raises(Conflict, match="the doors are closed"):
            a.do(Beat())
        a.do(OpenDoors())
        a.do(OpenDoors())
        with pytest.raises(db.Error):
            open_transaction.execute("COMMIT")
        assert insert(a, 1) is None
        assert a.rows() == [1]
        with pytest.raises(Conflict, match="the doors are open"):
            a.do(Demote(index=3))
        end = a.do(CloseDoors(within_s=5.0))
        with pytest.raises(Conflict, match=f"the log ends at {end}, not at 2"):
            a.do(Demote(index=2))
        until(lambda: b.shown().durable.index == end)
        a.do(Demote(index=end))
        a.do(Demote(index=end))
        with pytest.raises(Conflict, match="has given epoch 1 up"):
            a.do(Reign(epoch=Epoch(1)))
        assert b.do(Rest()) == end
        b.lead(2, a, acks=1)
        assert insert(b, 2) is None
        assert a.shown().role is RoleNow.FOLLOWING
        for each in (writer, open_transaction):
            each.close()


def test_doors_that_cannot_close_in_time_stay_open(tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as (a, b):
        a.lead(1, b, acks=1)
        a.execute(CREATE)
        b.do(Rest())
        writing = threading.Thread(target=insert, args=(a, 1))
        writing.start()
        until(lambda: a.shown().waits_at == 3)
        closing = Background(a, CloseDoors(within_s=2.0))
        until(lambda: a.shown().doors is Doors.CLOSING)
        asked_again = Background(a, CloseDoors(within_s=60.0))
        with pytest.raises(Conflict, match="are being closed"):
            a.do(OpenDoors())
        for each in (closing, asked_again):
            failed = each.answer()
            assert isinstance(failed, Failed)
            assert "record 3 waits for acknowledgements" in failed.what
        assert a.shown().doors is Doors.OPEN
        with pytest.raises(Conflict, match="1 commits wait for 1"):
            a.do(SetAcks(acks=0))
        assert a.do(Marker()) == 3
        beating = Background(a, Beat())
        b.follow(a, 1)
        beat = beating.answer()
        assert isinstance(beat, Done)
        writing.join()
        assert insert(a, 2) is None
        until(lambda: b.shown().heartbeat == a.shown().heartbeat == beat.index)
        assert a.do(CloseDoors(within_s=5.0)) == a.shown().end.index


def test_only_those_count_who_acknowledge_and_are_not_excluded(tmp_path: Path) -> None:
    with nodes(tmp_path) as (a, b, c):
        a.lead(1, b, c, acks=1)
        a.execute(CREATE)
        a.do(Exclude(node=NodeId("b")))
        shown = a.shown()
        assert (shown.excluded, [each.node for each in shown.attached]) == (("b",), ["c"])
        until(lambda: refusal_of(b) == "EXCLUDED")
        c.do(Acknowledge(wanted=False))
        until(lambda: not a.shown().attached[0].acknowledges)
        assert isinstance(insert(a, 1, within_s=2.0), db.OutcomeUnknown)
        assert a.shown().waits_at == 3
        a.do(Admit(node=NodeId("b")))
        until(lambda: a.shown().waiting_commits == 0)
        assert a.rows() == [1]
        marker = a.do(Marker())
        assert marker == 4
        until(lambda: a.holders(marker) == 1)


def refusal_of(node: Controlled) -> str:
    upstream = node.shown().upstream
    return upstream.refusal if upstream is not None else ""


def test_applied_tails_are_taken_back_and_compared_at_one_place(tmp_path: Path) -> None:
    with nodes(tmp_path) as (a, b, c):
        a.lead(1, b, c, acks=1)
        writer = a.connect()
        writer.execute(CREATE)
        writer.execute(INSERT, (1,))
        until(lambda: b.shown().applied == c.shown().applied == a.shown().applied)
        c.do(Rest())
        b.do(Acknowledge(wanted=True))
        writer.execute(INSERT, (2,))
        writer.close()
        until(lambda: b.shown().applied.index == 4)
        a.kill()
        b.do(Rest())  # And c, which lacks the last record, is promoted nevertheless.
        c.lead(2, acks=0)
        assert insert(c, 3) is None
        b.follow(c, 2)
        until(lambda: diverged_at(b) == 3)
        b.do(Rest())
        with pytest.raises(Conflict, match="1/4 is applied"):
            b.do(Cut(after=3))
        assert b.do(Rewind(to=3)) == 3
        assert (b.rows(), b.shown().applied.index) == ([1], 3)
        theirs = c.ask(TableSums(tables=("t", "none")))
        assert isinstance(theirs, Sums)
        assert insert(c, 4) is None
        b.follow(c, 2, acknowledge=False, apply_until=theirs.point.index)
        until(lambda: b.shown().durable == c.shown().durable)
        until(lambda: b.shown().applied == theirs.point)
        ours = b.ask(TableSums(tables=("t", "none"), at=theirs.point.index))
        assert ours == theirs
        assert [each.rows for each in theirs.sums] == [2, -1]
        with pytest.raises(Conflict, match="is applied, the sums of 3"):
            b.ask(TableSums(tables=("t",), at=3))
        b.follow(c, 2)
        until(lambda: b.rows() == [1, 3, 4])


def test_a_copy_holds_the_log_until_it_is_released(tmp_path: Path) -> None:
    with nodes(tmp_path, "a") as (a,):
        path = tmp_path / "copies" / "clone-1"
        path.parent.mkdir()
        request = Snapshot(name="clone-1", path=str(path))
        with pytest.raises(Conflict, match="a rests"):
            a.ask(request)
        a.lead(1, acks=0)
        a.execute(CREATE)
        copied = a.ask(request)
        assert isinstance(copied, Copied)
        assert (copied.point, copied.gtids) == (a.shown().applied, "a@1:1-2")
        assert path.stat().st_size == copied.size_bytes > 0
        slow = Background(a, Snapshot(name="slow", path=str(path.with_name("slow")), bytes_per_s=1))
        until(lambda: path.with_name("slow").exists())
        for _ in range(2):
            a.do(Release(name="slow"))
            a.do(Release(name="clone-1"))
        given_up = slow.answer()
        assert isinstance(given_up, Failed)
        assert "given up" in given_up.what
        with pytest.raises(Rejected, match="cannot be made at"):
            a.ask(Snapshot(name="x", path="x"))


def test_an_order_that_makes_no_sense_is_refused_in_words(tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as (a, b):
        only_reigning: list[Request] = [
            SetAcks(acks=1),
            OpenDoors(),
            CloseDoors(within_s=1.0),
            Demote(index=7),
            Marker(),
            Beat(),
            Exclude(node=b.name),
            Admit(node=b.name),
        ]
        for request in only_reigning:
            with pytest.raises(Conflict, match="a is resting, not reigning"):
                a.do(request)
        with pytest.raises(Conflict, match="a is resting, not following"):
            a.do(Acknowledge(wanted=True))
        with pytest.raises(Rejected, match="'nowhere' is not HOST:PORT"):
            a.do(
                Follow(
                    upstream=b.name,
                    upstream_door="nowhere",
                    epoch=Epoch(1),
                    incarnation=a.shown().node,  # type: ignore[arg-type]  # Any name will do.
                    acknowledge=True,
                )
            )
        a.do(Reign(epoch=Epoch(5)))
        assert a.do(Reign(epoch=Epoch(5))) == 1
        with pytest.raises(Conflict, match="nobody has said how many"):
            a.do(OpenDoors())
        with pytest.raises(Rejected, match="not below 0"):
            a.do(SetAcks(acks=-1))
        for request in (Drain(), Cut(after=0), Rewind(to=0), Rest(), Reign(epoch=Epoch(6))):
            with pytest.raises(Conflict, match="a is reigning, not resting"):
                a.do(request)
        with pytest.raises(Conflict, match="a is reigning, not resting"):
            a.follow(b, 6)
        b.follow(a, 5)
        for epoch, why in ((4, "epoch 4 is over"), (6, "b is following, not resting")):
            with pytest.raises(Conflict, match=why):
                b.do(Reign(epoch=Epoch(epoch))) if epoch > 5 else b.follow(a, epoch)
        until(lambda: b.shown().durable.index == 1)
        b.do(Rest())
        with pytest.raises(Conflict, match="epoch 5 belongs to a"):
            b.do(Reign(epoch=Epoch(5)))
        assert b.do(Cut(after=9)) == 1
        assert b.shown().role is RoleNow.RESTING


def test_what_is_no_request_harms_nobody(tmp_path: Path) -> None:
    with nodes(tmp_path, "a") as (a,):
        assert stat.S_IMODE(a.control.stat().st_mode) == 0o600
        noise = Line(a.control)
        noise.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 4)
        assert noise.socket.recv(100) == b""
        noise.close()
        assert "sql-control-refused" in a.events
        many = [a.line.send(Observe()) for _ in range(200)]
        answers = [a.line.receive(number) for number in many]
        assert any(isinstance(each, Shown) for each in answers)
        assert all(isinstance(each, Shown | Failed) for each in answers)


def test_an_agent_that_goes_takes_nothing_back(tmp_path: Path) -> None:
    with nodes(tmp_path, "a") as (a,):
        line = Line(a.control)
        line.send(Reign(epoch=Epoch(1)))
        line.close()
        until(lambda: a.shown().row == 1)
        assert a.shown().role is RoleNow.REIGNING


def test_a_disk_that_fails_is_told_and_ends_the_process(tmp_path: Path) -> None:
    with nodes(tmp_path, "a") as (a,):
        a.lead(1, acks=0)
        a.execute(CREATE)
        assert a.shown().writes is Writes.TAKING
        assert a.shown().log_failure == ""
        break_disk(a)
        assert isinstance(insert(a, 1), db.Error)
        assert a.wait() == 1  # Although its last words cannot be written either.


def break_disk(node: Controlled) -> None:
    """A limit on the size of files: the next write fails, as on a broken disk."""
    process = node._process  # noqa: SLF001 - whose limits are set from outside.
    assert process is not None
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, 1))


def test_a_copy_that_does_not_fit_says_so_in_every_role(tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as (a, b):
        a.lead(1, b, acks=1)
        a.execute(CREATE)
        until(lambda: b.shown().applied.index == 2)
        b.follow(a, 1, apply_until=2)
        damage(b)
        assert insert(a, 1) is None
        until(lambda: b.shown().durable.index == 3)
        b.do(Rest())
        assert b.shown().trouble == ""
        for request in (Drain(), Reign(epoch=Epoch(2)), Drain()):
            with pytest.raises(Rejected, match="t"):
                b.do(request)
            shown = b.shown()
            assert (shown.role, shown.must_clone) == (RoleNow.RESTING, True)
            assert shown.trouble
        with pytest.raises(Conflict, match="it applies nothing more"):
            b.follow(a, 1)
        b.do(Cut(after=2))
        assert not b.shown().must_clone


def damage(node: Controlled) -> None:
    """Behind everybody's back: the row that the primary is about to insert is there already."""
    connection = apsw.Connection(str(node.folder / "data" / "db.sqlite"))
    connection.execute("INSERT INTO t VALUES (1)")
    connection.close()


def test_an_observation_is_answered_while_the_role_changes(tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as (a, b):
        a.lead(1, b, acks=1)
        a.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text)")
        b.follow(a, 1, apply_until=2)
        for first in range(0, 100_000, 20_000):
            a.execute(
                "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 20000)"
                f" INSERT INTO t SELECT {first} + n, 'x' FROM i"
            )
        until(lambda: b.shown().durable == a.shown().durable)
        b.do(Rest())
        reigning = Background(b, Reign(epoch=Epoch(2)))
        seen = [b.shown()]
        while seen[-1].role is not RoleNow.REIGNING:
            seen.append(b.shown())
        assert "reign" in {each.under_way for each in seen[:-1]}
        assert isinstance(reigning.answer(), Done)
        applied = [each.applied.index for each in seen]
        assert applied == sorted(applied)


def test_errors_of_the_tree_come_back_as_they_were(tmp_path: Path) -> None:
    with nodes(tmp_path, "ab") as (a, b):
        a.do(Reign(epoch=Epoch(1)))
        b.follow(a, 1)
        until(lambda: b.shown().applied.index == 1)
        b.do(Rest())
        assert b.do(Drain(within_s=0.0)) == 1  # Nothing is left to be applied.
        with pytest.raises(PrimacyError) as caught:
            b.do(Marker())
        assert type(caught.value) is Conflict
        assert "demote" in caught.value.hint
        assert not isinstance(caught.value, Unavailable)
