"""The writer's thread on a real database and log: groups, and what happens when one cannot end."""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from primacy.clock import SystemClock
from primacy.engines.sqlite.protocol import Access, Branch, Done, End, Failure, Run, Statement
from primacy.engines.sqlite.server.committing import Committer, Outside, State
from primacy.engines.sqlite.server.jobs import Answer, Job, Own
from primacy.engines.sqlite.server.pipeline import Pipeline
from primacy.engines.sqlite.server.recovery import Replay
from primacy.engines.sqlite.server.spec import Limits
from primacy.engines.sqlite.storage.connection import StorageSettings, open_reader
from primacy.engines.sqlite.storage.writer import Writer
from primacy.errors import Conflict, PrimacyError
from primacy.model import Epoch, NodeId
from primacy.replication.log.log import Log, LogLimits
from primacy.replication.log.record import Kind, Point, decode
from primacy.telemetry import ignore

pytestmark = pytest.mark.integration

WAIT_S = 10.0
SETTINGS = StorageSettings()
RUN = Run(1, [Statement("INSERT INTO t VALUES (9)", [[]])])
BOOM = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


class Stage:
    """One pipeline with its surroundings in the hand of the test."""

    def __init__(self, folder: Path, *, limits: Limits | None = None) -> None:
        self.path = folder / "db.sqlite"
        self.log_path = folder / "log"
        self.acknowledge: Callable[[Point], None] | None = None
        self.is_permitted = True
        self.ended: queue.Queue[tuple[State, str]] = queue.Queue()
        self.opened: queue.Queue[int] = queue.Queue()
        self.log = Log.open(self.log_path, limits=LogLimits(), events=ignore)
        outside = Outside(
            appended=None,
            persisted=None,
            acknowledged=self._acknowledged,
            permits=lambda _epoch: self.is_permitted,
            applied=lambda _point: None,
            post=lambda work: work(),
            opened=self.opened.put,
            ended=lambda state, why: self.ended.put((state, why)),
        )
        self.committer = Committer(
            Writer(self.path, SETTINGS, clock=SystemClock(), seeds=random.Random(1)),
            self.log,
            node=NodeId("a"),
            epoch=Epoch(1),
            limits=limits or Limits(),
            outside=outside,
            clock=SystemClock(),
            events=ignore,
        )
        self.pipeline = Pipeline(self.committer)
        self.pipeline.start()

    def _acknowledged(self, point: Point) -> None:
        if self.acknowledge is not None:
            self.acknowledge(point)

    def submit(self, sql: str, *, begin: Access = Access.NONE, owner: object = None) -> "Asked":
        asked = Asked(Run(1, [Statement(sql, [[]])], begin=begin), owner)
        assert self.pipeline.inbox.put(asked.job)
        return asked

    def own(self, kind: Kind | None) -> int:
        answers: queue.Queue[int | PrimacyError] = queue.Queue()
        assert self.pipeline.inbox.put_own(Own(kind, answers.put))
        answer = answers.get(timeout=WAIT_S)
        if isinstance(answer, PrimacyError):
            raise answer
        return answer

    def rows(self, sql: str) -> list[object]:
        reader = open_reader(self.path, SETTINGS)
        try:
            return list(reader.execute(sql))
        finally:
            reader.close()

    def close(self) -> None:
        self.pipeline.close("the test ends")
        self.pipeline.join()
        self.committer.writer.close()
        self.log.close()


class Asked:
    def __init__(self, request: Run | End, owner: object = None) -> None:
        self._answers: queue.Queue[Answer] = queue.Queue()
        self.job = Job(request, time.monotonic() + 60, self._answers.put, owner)

    @property
    def answer(self) -> Answer:
        return self._answers.get(timeout=WAIT_S)

    @property
    def is_answered(self) -> bool:
        return not self._answers.empty()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    assert isinstance(made.submit("CREATE TABLE t (a)").answer, Done)
    yield made
    made.close()


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.005)


def held_back(stage: Stage) -> threading.Event:
    """The next acknowledgement waits for the event."""
    release = threading.Event()
    stage.acknowledge = lambda _point: stage_waits(release)
    return release


def stage_waits(release: threading.Event) -> None:
    assert release.wait(WAIT_S)


def interrupted(stage: Stage, asked: Asked) -> bool:
    """Again and again, as the server's watch: one that comes before the statement is lost."""
    stage.committer.interrupt(asked.job)
    return stage.committer.running is not asked.job


def test_what_arrives_while_a_group_waits_is_one_group_and_none_is_answered_before(
    stage: Stage,
) -> None:
    before = stage.committer.committed_groups
    release = held_back(stage)
    first = stage.submit("INSERT INTO t VALUES (0)")
    until(lambda: stage.log.end.index == 3)
    others = [stage.submit(f"INSERT INTO t VALUES ({number})") for number in range(1, 50)]
    assert stage.rows("SELECT a FROM t") == []
    assert not first.is_answered
    release.set()
    answers = [each.answer for each in (first, *others)]
    tokens = [each.token for each in answers if isinstance(each, Done)]
    assert tokens == [f"a@1:{index}" for index in range(3, 53)]
    assert stage.committer.committed_groups == before + 2
    assert len(stage.rows("SELECT a FROM t")) == 50


def test_a_statement_that_fails_leaves_the_others_of_its_group(stage: Stage) -> None:
    stage.submit("CREATE UNIQUE INDEX i ON t (a)").answer  # noqa: B018 - waits for it.
    release = held_back(stage)
    first = stage.submit("INSERT INTO t VALUES (0)")
    until(lambda: stage.log.end.index == 4)
    mixed = [stage.submit(f"INSERT INTO t VALUES ({number})") for number in (1, 0, 2)]
    release.set()
    kinds = [type(each.answer) for each in (first, *mixed)]
    assert kinds == [Done, Done, Failure, Done]
    assert stage.rows("SELECT a FROM t ORDER BY a") == [(0,), (1,), (2,)]


def test_a_group_that_sqlite_undoes_is_run_again_without_the_one_that_was_interrupted(
    stage: Stage,
) -> None:
    release = held_back(stage)
    first = stage.submit("INSERT INTO t VALUES (0)")
    until(lambda: stage.log.end.index == 3)
    good, endless, behind = (
        stage.submit(sql)
        for sql in ("INSERT INTO t VALUES (1)", f"INSERT INTO t {BOOM}", "INSERT INTO t VALUES (2)")
    )
    release.set()
    assert isinstance(first.answer, Done)
    until(lambda: stage.committer.running is endless.job)
    until(lambda: interrupted(stage, endless))
    failed = endless.answer
    assert isinstance(failed, Failure)
    assert failed.branch is Branch.UNAVAILABLE
    assert isinstance(good.answer, Done)
    assert isinstance(behind.answer, Done)
    assert stage.rows("SELECT a FROM t") == [(0,), (1,), (2,)]


def test_a_commit_that_is_not_acknowledged_is_in_doubt_and_the_log_decides(
    stage: Stage, tmp_path: Path
) -> None:
    def refuse(_point: Point) -> None:
        raise Conflict("sealed for epoch 2", hint="Demote.")

    stage.submit("INSERT INTO t VALUES (1)").answer  # noqa: B018 - waits for it.
    stage.acknowledge = refuse
    failed = stage.submit("INSERT INTO t VALUES (2)").answer
    assert isinstance(failed, Failure)
    assert (failed.number, failed.branch) == (0, Branch.OUTCOME_UNKNOWN)
    state, why = stage.ended.get(timeout=WAIT_S)
    assert state is State.IN_DOUBT
    assert "sealed for epoch 2" in why
    assert stage.rows("SELECT a FROM t") == [(1,)]
    stage.close()
    with Log.open(stage.log_path, limits=LogLimits(), events=ignore) as log:
        assert log.end.index == 4
        replay = Replay(stage.path, log, SETTINGS)
        assert replay.step() == log.end
        assert replay.is_done
        replay.close()
    assert stage.rows("SELECT a FROM t") == [(1,), (2,)]


def test_a_lease_that_ended_before_the_commit_leaves_it_in_doubt(stage: Stage) -> None:
    stage.is_permitted = False
    failed = stage.submit("INSERT INTO t VALUES (1)").answer
    assert isinstance(failed, Failure)
    assert failed.branch is Branch.OUTCOME_UNKNOWN
    state, why = stage.ended.get(timeout=WAIT_S)
    assert (state, "the lease of epoch 1 has ended" in why) == (State.IN_DOUBT, True)
    assert stage.rows("SELECT a FROM t") == []


def test_a_log_that_cannot_be_written_breaks_the_pipeline(stage: Stage) -> None:
    stage.log.close()
    failed = stage.submit("INSERT INTO t VALUES (1)").answer
    assert isinstance(failed, Failure)
    assert failed.branch is Branch.OUTCOME_UNKNOWN
    state, _ = stage.ended.get(timeout=WAIT_S)
    assert state is State.BROKEN
    assert stage.rows("SELECT a FROM t") == []


def with_damage(folder: Path) -> Stage:
    """The pages of table `big` are noise; those of `t` are whole."""
    made = Stage(folder)
    for sql in (
        "CREATE TABLE t (a)",
        "CREATE TABLE big (a)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
        "INSERT INTO big SELECT zeroblob(2000) FROM n",
    ):
        assert isinstance(made.submit(sql).answer, Done)
    made.close()
    connection = apsw.Connection(str(made.path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'big'").get
    page_bytes = connection.execute("PRAGMA page_size").get
    connection.close()
    with made.path.open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xaa" * page_bytes)
    return Stage(folder)


def test_a_page_that_is_damaged_breaks_the_pipeline_and_nothing_of_its_group_is_logged(
    tmp_path: Path,
) -> None:
    stage = with_damage(tmp_path)
    release = held_back(stage)
    first = stage.submit("INSERT INTO t VALUES (0)")
    until(lambda: stage.log.end.index == 5)
    good, bad, behind = (
        stage.submit(sql)
        for sql in ("INSERT INTO t VALUES (1)", "DELETE FROM big", "INSERT INTO t VALUES (2)")
    )
    release.set()
    assert isinstance(first.answer, Done)
    failed = bad.answer
    assert isinstance(failed, Failure)
    assert (failed.branch, failed.code) == (Branch.REJECTED, apsw.SQLITE_CORRUPT)
    state, why = stage.ended.get(timeout=WAIT_S)
    assert (state, "the database file is damaged" in why) == (State.BROKEN, True)
    assert stage.log.end.index == 5
    stage.close()  # As the reign does when it hears of it.
    for each in (good, behind):
        again = each.answer
        assert isinstance(again, Failure)
        assert again.branch is Branch.NOT_PRIMARY


def test_a_page_that_is_damaged_breaks_the_pipeline_in_a_transaction_too(tmp_path: Path) -> None:
    stage = with_damage(tmp_path)
    failed = stage.submit("DELETE FROM big", begin=Access.WRITE, owner=object()).answer
    assert isinstance(failed, Failure)
    assert failed.code == apsw.SQLITE_CORRUPT
    state, _ = stage.ended.get(timeout=WAIT_S)
    assert state is State.BROKEN
    assert stage.log.end.index == 4
    stage.close()


def test_what_a_client_does_to_an_index_of_its_own_does_not_end_the_reign(stage: Stage) -> None:
    for sql in (
        "CREATE VIRTUAL TABLE f USING fts5(a, content='t')",
        "INSERT INTO t VALUES ('not in it')",
    ):
        assert isinstance(stage.submit(sql).answer, Done)
    failed = stage.submit("INSERT INTO f(f, rank) VALUES('integrity-check', 1)").answer
    assert isinstance(failed, Failure)
    assert failed.code == apsw.SQLITE_CORRUPT_VTAB
    assert isinstance(stage.submit("INSERT INTO t VALUES (1)").answer, Done)
    assert stage.ended.empty()


def test_doors_that_close_undo_the_transaction_that_holds_the_writer(stage: Stage) -> None:
    owner = object()
    held = stage.submit("INSERT INTO t VALUES (1)", begin=Access.WRITE, owner=owner)
    opened = held.answer
    assert isinstance(opened, Done)
    assert opened.is_in_transaction
    waiting = stage.submit("INSERT INTO t VALUES (2)")
    stage.pipeline.close("a failover")
    refused = waiting.answer
    assert isinstance(refused, Failure)
    assert refused.branch is Branch.NOT_PRIMARY
    assert "was not begun: a failover" in refused.what
    stage.pipeline.join()
    assert stage.rows("SELECT a FROM t") == []


def test_doors_that_close_interrupt_what_runs_and_its_group_is_not_logged(stage: Stage) -> None:
    release = held_back(stage)
    first = stage.submit("INSERT INTO t VALUES (0)")
    until(lambda: stage.log.end.index == 3)
    before = stage.submit("INSERT INTO t VALUES (1)")
    endless = stage.submit(f"INSERT INTO t {BOOM}")
    behind = stage.submit("INSERT INTO t VALUES (2)")
    release.set()
    assert isinstance(first.answer, Done)
    until(lambda: stage.committer.running is endless.job)
    stage.pipeline.close("a failover")
    until(lambda: interrupted(stage, endless))
    stage.pipeline.join()
    for each in (before, endless, behind):
        refused = each.answer
        assert isinstance(refused, Failure)
        assert refused.branch is Branch.NOT_PRIMARY
    assert stage.log.end.index == 3
    assert stage.rows("SELECT a FROM t") == [(0,)]


def test_paused_doors_undo_what_is_not_logged_and_open_again(stage: Stage) -> None:
    owner = object()
    held = stage.submit("INSERT INTO t VALUES (1)", begin=Access.WRITE, owner=owner)
    assert isinstance(held.answer, Done)
    stage.pipeline.pause("a handover")
    assert not stage.pipeline.inbox.put(Asked(RUN).job)
    assert not stage.pipeline.inbox.put_held(Asked(End(2, is_commit=True), owner).job)
    assert stage.own(None) == 2
    assert stage.own(Kind.MARKER) == 3
    assert stage.rows("SELECT a FROM t") == []
    stage.pipeline.resume()
    assert isinstance(stage.submit("INSERT INTO t VALUES (5)").answer, Done)
    assert stage.rows("SELECT a FROM t") == [(5,)]


def test_a_pause_lets_what_is_being_logged_come_to_its_end_first(stage: Stage) -> None:
    release = held_back(stage)
    first = stage.submit("INSERT INTO t VALUES (0)")
    until(lambda: stage.log.end.index == 3)
    second = stage.submit("INSERT INTO t VALUES (1)")
    stage.pipeline.pause("a handover")
    refused = second.answer
    assert isinstance(refused, Failure)
    assert refused.branch is Branch.NOT_PRIMARY
    assert not first.is_answered
    answers: queue.Queue[int | PrimacyError] = queue.Queue()
    barrier = Own(None, answers.put)
    assert stage.pipeline.inbox.put_own(barrier)
    release.set()
    assert answers.get(timeout=WAIT_S) == 3
    assert not stage.pipeline.inbox.withdraw(barrier)
    assert isinstance(first.answer, Done)


def test_a_heartbeat_waits_for_its_acknowledgement_and_a_marker_does_not(stage: Stage) -> None:
    release = held_back(stage)
    beats: queue.Queue[int | PrimacyError] = queue.Queue()
    assert stage.own(Kind.MARKER) == 3
    assert stage.pipeline.inbox.put_own(Own(Kind.HEARTBEAT, beats.put))
    until(lambda: stage.log.durable.index == 4)
    late = Own(Kind.MARKER, beats.put)
    assert stage.pipeline.inbox.put_own(late)
    assert beats.empty()
    assert stage.pipeline.inbox.withdraw(late)
    release.set()
    assert beats.get(timeout=WAIT_S) == 4
    assert [header.kind for header, _ in decode(stage.log.read(2, bytes_max=10_000))] == [
        Kind.MARKER,
        Kind.HEARTBEAT,
    ]


def test_what_is_primacys_own_hears_of_the_end_of_the_reign(stage: Stage) -> None:
    def refuse(_point: Point) -> None:
        raise Conflict("sealed for epoch 2", hint="Look.")

    stage.acknowledge = refuse
    with pytest.raises(Conflict, match=r"the reign has ended: .*sealed for epoch 2"):
        stage.own(Kind.HEARTBEAT)
    answers: queue.Queue[int | PrimacyError] = queue.Queue()
    assert stage.pipeline.inbox.put_own(Own(Kind.MARKER, answers.put))
    stage.pipeline.close("in doubt")
    left = answers.get(timeout=WAIT_S)
    assert isinstance(left, Conflict)
    assert not stage.pipeline.inbox.put_own(Own(Kind.MARKER, answers.put))
