"""A server killed at random points of a load, and perhaps its host's power lost with it: what it
recovers is what its log says, and what its clients were told.

Promises  After each kill: every table, rowid and counter equals those of a file that the whole log
          was replayed into; every write that was acknowledged is there, and none that was refused;
          each keyed call took effect once; no transaction is there in part.
"""

import argparse
import contextlib
import itertools
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import apsw
from tests.integration.replication.powerless import lose_log_tail, lose_wal_tail
from tests.integration.sqlite.serving import Served
from tests.unit.engines.sqlite.storage.pair import contents_of

import primacy.driver as db
from primacy.driver import Connection
from primacy.engines.sqlite.storage import position
from primacy.engines.sqlite.storage.applier import Applier
from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.replication.log import inspecting
from primacy.replication.log.record import ORIGIN_POINT, Point

PARKED_S = 30.0
ACCOUNTS = 8
WEALTH = 1_000
BLOB_BYTES, LARGE_BYTES = 3_000, 400_000
"""The larger ones fill the WAL, so that a checkpoint may be under way."""

SCHEMA = f"""
CREATE TABLE plain (n INTEGER PRIMARY KEY, at DEFAULT CURRENT_TIMESTAMP, x DEFAULT (random()));
CREATE TABLE counter (c);
INSERT INTO counter VALUES (0);
CREATE TABLE account (id INTEGER PRIMARY KEY, wealth CHECK (wealth >= 0));
INSERT INTO account SELECT value, {WEALTH} FROM json_each('{list(range(ACCOUNTS))}');
CREATE TABLE transfer (n INTEGER PRIMARY KEY, source, sink, amount);
CREATE TABLE heap (tag UNIQUE, body BLOB);
CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, what);
CREATE TRIGGER noted AFTER DELETE ON heap BEGIN
    INSERT INTO journal (what) VALUES (old.tag);
    DELETE FROM journal WHERE id < (SELECT max(id) - 20 FROM journal);
END;
"""


@dataclass(slots=True)
class Ledger:
    """What clients were told. Each list is appended to by any of them."""

    acknowledged: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    increments: list[int] = field(default_factory=list)
    transfers: list[int] = field(default_factory=list)
    refused_transfers: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        told = len(self.acknowledged) + len(self.increments) + len(self.transfers)
        return told + len(self.others)

    def check(self, connection: Connection) -> None:
        """What the database says, against what they were told."""
        found = {n for (n,) in connection.execute("SELECT n FROM plain")}
        assert set(self.acknowledged) <= found, "acknowledged, and lost"
        assert not found & set(self.refused), "refused, and applied"
        (count,) = connection.execute("SELECT c FROM counter").fetchone()
        assert count == len(self.increments), "keyed calls did not take effect once"
        moved = {n for (n,) in connection.execute("SELECT n FROM transfer")}
        assert set(self.transfers) <= moved
        assert not moved & set(self.refused_transfers)
        wealth = [0] * ACCOUNTS
        for source, sink, amount in connection.execute("SELECT source, sink, amount FROM transfer"):
            wealth[source] -= amount
            wealth[sink] += amount
        held = connection.execute("SELECT wealth FROM account ORDER BY id").fetchall()
        assert [each - WEALTH for (each,) in held] == wealth


class Clients:
    """Work while the gate is open; `park` waits until none has a request under way."""

    def __init__(self, connect: Callable[[], Connection], seed: int) -> None:
        self.ledger = Ledger()
        self.is_large = False
        self._connect = connect
        self._numbers = itertools.count(1)
        self._gate = threading.Event()
        self._is_over = False
        self._troubles: list[BaseException] = []
        self._busy = 0
        self._parked = threading.Condition()
        works = [self._plain, self._plain, self._keyed, self._keyed, self._transfer, self._mixed]
        self._threads = [
            threading.Thread(target=self._run, args=(work, random.Random(f"{seed} {number}")))
            for number, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def open_gate(self) -> None:
        self._gate.set()

    def close_gate(self) -> None:
        self._gate.clear()

    def park(self) -> None:
        self.close_gate()
        with self._parked:
            assert self._parked.wait_for(lambda: self._busy == 0, PARKED_S), "a client hangs"
        self.check()

    def check(self) -> None:
        if self._troubles:
            raise self._troubles[0]

    def end(self) -> None:
        self._is_over = True
        self.open_gate()
        for thread in self._threads:
            thread.join(PARKED_S)
        self.check()

    def _run(
        self, work: Callable[[Connection, random.Random], None], chance: random.Random
    ) -> None:
        try:
            with closing(self._connect()) as connection:
                while not self._is_over:
                    self._gate.wait()
                    with self._parked:
                        self._busy += 1
                    try:
                        if self._gate.is_set() and not self._is_over:
                            work(connection, chance)
                    finally:
                        with self._parked:
                            self._busy -= 1
                            self._parked.notify_all()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread.
            self._troubles.append(error)

    def _plain(self, connection: Connection, chance: random.Random) -> None:
        numbers = [next(self._numbers) for _ in range(chance.choice([1, 1, 3]))]
        values = ", ".join("(?)" for _ in numbers)
        try:
            connection.execute(f"INSERT INTO plain (n) VALUES {values}", numbers)
        except db.OutcomeUnknown:
            return
        except db.Unavailable:
            self.ledger.refused += numbers
            return
        self.ledger.acknowledged += numbers

    def _keyed(self, connection: Connection, _chance: random.Random) -> None:
        key = db.idempotency_key()
        connection.execute("UPDATE counter SET c = c + 1", idempotency_key=key)
        self.ledger.increments.append(1)

    def _transfer(self, connection: Connection, chance: random.Random) -> None:
        number, amount = next(self._numbers), chance.randrange(5)
        source, sink = chance.sample(range(ACCOUNTS), 2)
        move = "UPDATE account SET wealth = wealth + ? WHERE id = ?"
        note = "INSERT INTO transfer VALUES (?, ?, ?, ?)"
        try:
            connection.begin()
            connection.execute(move, (-amount, source))
            connection.execute("SAVEPOINT half")
            connection.execute(move, (amount, sink))
            if chance.random() < 0.2:
                connection.execute("ROLLBACK TO half")
                connection.execute(move, (amount, sink))
            connection.execute(note, (number, source, sink, amount))
            connection.commit()
        except db.OutcomeUnknown:
            return
        except (db.Unavailable, db.IntegrityError, db.Conflict):
            self.ledger.refused_transfers.append(number)
            with contextlib.suppress(db.Error):
                connection.rollback()
            return
        self.ledger.transfers.append(number)

    def _mixed(self, connection: Connection, chance: random.Random) -> None:
        """Nobody counts these: the log says what they did."""
        size = LARGE_BYTES if self.is_large else BLOB_BYTES
        sql, values = chance.choice(
            [
                (
                    "INSERT OR REPLACE INTO heap VALUES (?, randomblob(?))",
                    (chance.randrange(30), size),
                ),
                (
                    "INSERT OR REPLACE INTO heap VALUES (?, zeroblob(?))",
                    (chance.randrange(30), size),
                ),
                ("DELETE FROM heap WHERE tag = ?", (chance.randrange(30),)),
                ("DELETE FROM heap WHERE rowid < (SELECT max(rowid) - 20 FROM heap)", ()),
                ("UPDATE heap SET tag = tag + 100 WHERE tag < 100 AND tag % 7 = ?", (3,)),
                (f"CREATE TABLE IF NOT EXISTS made_{chance.randrange(4)} (a, b)", ()),
                (f"CREATE INDEX IF NOT EXISTS by_tag_{chance.randrange(2)} ON heap (tag)", ()),
                (f"DROP TABLE IF EXISTS made_{chance.randrange(4)}", ()),
                (f"ALTER TABLE made_{chance.randrange(4)} ADD COLUMN c{chance.randrange(3)}", ()),
                (f"INSERT INTO made_{chance.randrange(4)} (a) VALUES (random())", ()),
                ("ANALYZE", ()),
            ]
        )
        with contextlib.suppress(db.Error):
            connection.execute(sql, values)
            self.ledger.others.append(sql)


def committed_in(database: Path) -> Point:
    """What a killed server had committed, looked at in a copy: a look would move the WAL."""
    with tempfile.TemporaryDirectory() as name:
        for path in database.parent.glob(f"{database.name}*"):
            shutil.copy(path, name)
        with closing(apsw.Connection(f"{name}/{database.name}")) as connection:
            return position.read(connection)


class Crashes:
    """One directory, killed again and again."""

    def __init__(self, folder: Path, *, seed: int, logging: Logging) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._chance = random.Random(seed)
        self._server = Served(folder, logging=logging.value)
        self._database = folder / "data" / "db.sqlite"
        self._log = folder / "data" / "log"
        settings = StorageSettings(logging=logging)
        self._settings = settings
        self._replayed = folder / "replayed.sqlite"
        self._oracle = Applier(self._replayed, settings)
        self._durable = ORIGIN_POINT
        self._server.start()
        with closing(self._server.connect(isolation_level=None)) as setup:
            setup.executescript(SCHEMA)
        connect = partial(self._server.connect, isolation_level=None, timeout_s=20)
        self._clients = Clients(connect, seed)

    def close(self) -> None:
        self._clients.end()
        self._server.kill()
        self._oracle.close()

    def crash(self) -> None:
        """A kill in the middle of the load, perhaps one more while it recovers; then the check."""
        chance, clients = self._chance, self._clients
        clients.is_large = chance.random() < 0.15
        enough = clients.ledger.count + chance.randrange(1, 60)
        clients.open_gate()
        deadline_s = time.monotonic() + PARKED_S
        while clients.ledger.count < enough:
            clients.check()
            assert time.monotonic() < deadline_s, f"no progress: {self._server.events[-2000:]}"
            time.sleep(0.001)
        time.sleep(chance.random() * 0.01)  # A random point: nothing is waited for.
        self._kill("kills")
        clients.close_gate()
        if chance.random() < 0.2:
            self._server.spawn()
            time.sleep(chance.random() * 0.4)  # As before.
            self._kill("kills while it started")
        if chance.random() < 0.5:
            self._server.spec["epoch"] += 1
        self._server.start()
        clients.park()
        self.compare()

    def _kill(self, what: str) -> None:
        self._server.kill()
        self.counts[what] += 1
        self._durable = max(self._durable, committed_in(self._database))
        match self._chance.randrange(4):
            case 0:
                pass
            case 1:
                self._lose_log()
            case 2:
                self._lose_wal()
            case _:
                self._lose_wal()
                self._lose_log()

    def _lose_log(self) -> None:
        """Behind what was durable: what the database ever had, as no COMMIT comes before that."""
        before = inspecting.verify(self._log).records
        lose_log_tail(self._log, self._durable.index, self._chance)
        lost = before - inspecting.verify(self._log).records
        self.counts["logs damaged"] += 1
        self.counts["records lost"] += lost

    def _lose_wal(self) -> None:
        lost_bytes = lose_wal_tail(self._database, self._chance)
        self.counts["WALs cut"] += lost_bytes > 0
        self.counts["WAL bytes cut"] += lost_bytes

    def compare(self) -> None:
        """With a file that the log was replayed into record by record, and with the clients."""
        records = [
            (each.header, each.payload)
            for each in inspecting.records(self._log, after=self._oracle.position.index)
        ]
        self._oracle.apply(records)
        self.counts["records replayed"] += len(records)
        with closing(self._reader()) as reader:
            assert position.read(reader) == self._oracle.position
        assert contents_of(self._database) == contents_of(self._replayed)
        with closing(self._server.connect()) as connection:
            self._clients.ledger.check(connection)

    def compare_whole(self) -> None:
        """Once more, with a file that all records were replayed into at once."""
        path = self._folder / "whole.sqlite"
        with closing(Applier(path, self._settings)) as applier:
            applier.apply([(each.header, each.payload) for each in inspecting.records(self._log)])
        assert contents_of(self._database) == contents_of(path)
        assert inspecting.verify(self._log).damage is None

    def _reader(self) -> apsw.Connection:
        return apsw.Connection(str(self._database), flags=apsw.SQLITE_OPEN_READONLY)


@contextlib.contextmanager
def crashes(folder: Path, *, seed: int, logging: Logging) -> Iterator[Crashes]:
    made = Crashes(folder, seed=seed, logging=logging)
    try:
        yield made
    finally:
        made.close()


def crash_often(folder: Path, *, kills: int, seed: int, logging: Logging) -> Counter[str]:
    """Raises where something was lost, doubled or made up."""
    with crashes(folder, seed=seed, logging=logging) as made:
        while made.counts["kills"] + made.counts["kills while it started"] < kills:
            made.crash()
        made.compare_whole()
        return made.counts


KILLS_OF_A_DIRECTORY = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    total: Counter[str] = Counter()
    modes = itertools.cycle(Logging)
    for seed in itertools.count(asked.seed):
        left = asked.kills - total["kills"] - total["kills while it started"]
        if left <= 0:
            break
        logging, started = next(modes), time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="primacy-crashes-"))
        found = crash_often(
            folder, kills=min(left, KILLS_OF_A_DIRECTORY), seed=seed, logging=logging
        )
        shutil.rmtree(folder)  # Kept where something was wrong.
        total += found
        took = f"{time.monotonic() - started:.0f} s"
        print(f"seed {seed} {logging.value}: {dict(found)} in {took}", flush=True)  # noqa: T201  # A command.
    print(f"all: {dict(total)}")  # noqa: T201  # A command.


if __name__ == "__main__":
    main()
