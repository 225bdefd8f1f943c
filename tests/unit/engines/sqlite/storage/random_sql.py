"""Statements from a seed: most of them work, many fail, and all that SQLite can do to rows occurs.

`run_many` sends them through a writer, as clients in groups would, and compares the replica.
`python -m tests.unit.engines.sqlite.storage.random_sql --statements 100000` is the long run.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import apsw
from tests.unit.engines.sqlite.storage.pair import Pair

from primacy.engines.sqlite.storage.connection import Logging, StorageSettings
from primacy.engines.sqlite.storage.images import Images, Value
from primacy.errors import Rejected

GROUP_MAX = 12
COMPARED_EVERY = 500

SHAPES = (
    "(a INTEGER PRIMARY KEY, b, c TEXT)",
    "(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE, c DEFAULT CURRENT_TIMESTAMP)",
    "(a, b, c)",
    "(a TEXT PRIMARY KEY, b REAL, c NUMERIC)",
    "(a, b, c, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "(a INTEGER PRIMARY KEY, b, c AS (coalesce(b, 0) || 'x') STORED)",
    "(a INTEGER PRIMARY KEY, b, c AS (coalesce(b, 0) || 'x') VIRTUAL)",
    "(a, b REFERENCES t0(a) ON DELETE CASCADE ON UPDATE CASCADE, c)",
    "(a INTEGER PRIMARY KEY, b REFERENCES t0 DEFERRABLE INITIALLY DEFERRED, c)",
    "(a UNIQUE ON CONFLICT REPLACE, b NOT NULL ON CONFLICT IGNORE, c)",
    "(a INTEGER PRIMARY KEY DESC, b UNIQUE ON CONFLICT FAIL, c)",
    "(a INT PRIMARY KEY, b ANY, c TEXT) STRICT",
    "(a INT, b CHECK (b IS NULL OR b <> 3), c DEFAULT (random()))",
    "(rowid, b, c, a INTEGER UNIQUE)",
    "(a COLLATE NOCASE PRIMARY KEY, b, c) WITHOUT ROWID",
)
TABLES = [f"t{number}" for number in range(len(SHAPES))]
EXPRESSIONS = (
    *("?", "?", "?", "a", "b", "random() % 40", "abs(random() % 9)", "randomblob(3)"),
    *("datetime('now')", "last_insert_rowid()", "typeof(b)", "? || 'y'", "coalesce(b, ?)"),
    *("(SELECT max(a) FROM t0)", "changes()"),
)
FTS, RTREE = "words", "boxes"

START = (
    *(f"CREATE TABLE {name}{shape}" for name, shape in zip(TABLES, SHAPES, strict=True)),
    f"CREATE VIRTUAL TABLE {FTS} USING fts5(a, b)",
    f"CREATE VIRTUAL TABLE {RTREE} USING rtree(a, low, high)",
    "CREATE TRIGGER chain AFTER INSERT ON t2 BEGIN INSERT INTO t1(b) VALUES(new.b); END",
    "CREATE TRIGGER guard BEFORE UPDATE ON t3 WHEN new.b = 5 BEGIN SELECT RAISE(FAIL, 'five'); END",
    f"CREATE TRIGGER mirror AFTER INSERT ON t0 BEGIN INSERT INTO {FTS} VALUES(new.c, new.b); END",
    "CREATE TRIGGER echo AFTER DELETE ON t4 BEGIN UPDATE t2 SET c = old.c WHERE a = old.a; END",
)


class RandomSql:
    """One source of statements."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._made = 0

    def statement(self) -> tuple[str, tuple[Value, ...]]:
        kinds = (self._insert, self._insert_many, self._update, self._delete, self._virtual)
        weights = (30, 12, 25, 10, 8)
        chance = self._chance
        if chance.random() < 0.03:
            return self._define(), ()
        return chance.choices(kinds, weights)[0]()

    def value(self) -> Value:
        chance = self._chance
        match chance.randrange(9):
            case 0:
                return None
            case 1:
                return chance.choice(["", "x", "X", "ü", "0", "1.0", "long " * 60])
            case 2:
                return chance.choice([0.0, 1.0, -2.5, 1e300, float(chance.randrange(20))])
            case 3:
                return chance.randbytes(chance.randrange(5))
            case 4:
                return chance.choice([2**62, -(2**63), -1, 0])
            case _:
                return chance.randrange(40)

    def _table(self) -> str:
        return self._chance.choice(TABLES)

    def _expression(self) -> str:
        return self._chance.choice(EXPRESSIONS)

    def _bound(self, sql: str) -> tuple[str, tuple[Value, ...]]:
        return sql, tuple(self.value() for _ in range(sql.count("?")))

    def _conflict(self) -> str:
        return self._chance.choice(
            ["", "", "", "OR IGNORE ", "OR REPLACE ", "OR FAIL ", "OR ABORT "]
        )

    def _insert(self) -> tuple[str, tuple[Value, ...]]:
        table, conflict = self._table(), self._conflict()
        columns = self._chance.choice(["a, b", "b", "a, b", "b, c", "a, b, c"])
        marks = ", ".join("?" for _ in columns.split(","))
        more = f", ({marks})" * self._chance.choice([0, 0, 0, 1, 3])
        tail = self._chance.choice(
            [
                "",
                "",
                "",
                " ON CONFLICT DO NOTHING",
                " RETURNING a, b",
                " ON CONFLICT(a) DO UPDATE SET b = excluded.b, a = a + 1",
            ]
        )
        return self._bound(f"INSERT {conflict}INTO {table}({columns}) VALUES({marks}){more}{tail}")

    def _insert_many(self) -> tuple[str, tuple[Value, ...]]:
        source, table = self._table(), self._table()
        tail = self._chance.choice(["", " ORDER BY a", " LIMIT 3", " ORDER BY b, a LIMIT 5"])
        row = f"{self._expression()}, {self._expression()}"
        conflict = self._conflict()
        limit = "" if "LIMIT" in tail else " LIMIT 20"
        return self._bound(
            f"INSERT {conflict}INTO {table}(a, b) SELECT {row} FROM {source}{tail}{limit}"
        )

    def _where(self) -> str:
        return self._chance.choice(
            [
                " WHERE a = ?",
                " WHERE a = ?",
                " WHERE b IS ?",
                " WHERE a > ? AND a < ?",
                " WHERE a % 3 = ?",
                " WHERE a IN (SELECT a FROM t2 LIMIT 2)",
                " WHERE b LIKE ?",
                "",
            ]
        )

    def _update(self) -> tuple[str, tuple[Value, ...]]:
        sets = self._chance.choice(
            [
                "b = {}",
                "a = {}",
                "a = a + 1",
                "b = {}, a = -a",
                "b = b",
                "b = b * 1.0",
                "a = a + 100",
            ]
        ).format(self._expression())
        return self._bound(f"UPDATE {self._conflict()}{self._table()} SET {sets}{self._where()}")

    def _delete(self) -> tuple[str, tuple[Value, ...]]:
        table, where = self._table(), self._where()
        if not where and self._chance.random() < 0.7:
            where = " WHERE a = ?"
        return self._bound(f"DELETE FROM {table}{where}")

    def _virtual(self) -> tuple[str, tuple[Value, ...]]:
        sql = self._chance.choice(
            [f"INSERT INTO {FTS} VALUES(?, 'some words here')",
             f"DELETE FROM {FTS} WHERE rowid = ?",
             f"UPDATE {FTS} SET b = 'other words' WHERE rowid < ?",
             f"INSERT INTO {FTS}({FTS}) VALUES('optimize')",
             f"INSERT OR REPLACE INTO {RTREE} VALUES(?, 1, 2)", f"DELETE FROM {RTREE} WHERE a = ?",
             f"UPDATE {RTREE} SET high = high + 1 WHERE a > ?",
             f"INSERT INTO t2(a) SELECT rowid FROM {FTS} WHERE {FTS} MATCH 'words' LIMIT 5",
             "UPDATE sqlite_sequence SET seq = seq + 3"]
        )  # fmt: skip
        return self._bound(sql)

    def _define(self) -> str:
        self._made += 1
        number = self._chance.randrange(len(TABLES))
        table, shape = TABLES[number], SHAPES[number]
        other = self._table()
        return self._chance.choice(
            [f"DROP TABLE {table}", f"CREATE TABLE IF NOT EXISTS {table}{shape}",
             f"CREATE TABLE IF NOT EXISTS {table}{shape}", f"CREATE TABLE {table}{shape}",
             f"CREATE INDEX i{self._made} ON {table}(b)", f"CREATE UNIQUE INDEX u ON {table}(c)",
             "DROP INDEX IF EXISTS u", f"ALTER TABLE {table} ADD COLUMN d{self._made} DEFAULT 7",
             f"ALTER TABLE {table} RENAME COLUMN c TO c", f"ALTER TABLE {table} DROP COLUMN c",
             f"CREATE TABLE made AS SELECT a, b FROM {other}", "DROP TABLE IF EXISTS made",
             "ANALYZE", "REINDEX", f"PRAGMA user_version = {self._made}",
             f"ALTER TABLE {table} RENAME TO moved", f"ALTER TABLE moved RENAME TO {table}",
             f"CREATE VIEW IF NOT EXISTS v AS SELECT a, b FROM {other}", "DROP VIEW IF EXISTS v",
             f"DELETE FROM {table}"]
        )  # fmt: skip


class RandomClients:
    """Groups of transactions, of which some fail and some are given up."""

    def __init__(self, pair: Pair, chance: random.Random) -> None:
        self.pair = pair
        self.outcomes: Counter[str] = Counter()
        self._chance = chance
        self._sql = RandomSql(chance)
        self.done = 0

    def group(self) -> None:
        self.pair.begin()
        for _ in range(self._chance.randrange(1, GROUP_MAX)):
            if self._chance.random() < 0.6:
                self._one_shot()
            else:
                self._transaction()
            self.pair.note_change()
        self.pair.end_group()

    def _tried(self, sql: str, params: tuple[Value, ...], *, is_alone: bool) -> None:
        writer = self.pair.writer
        self.done += 1
        try:
            _ = writer.run(sql, params) if is_alone else writer.execute(sql, params)
        except (apsw.Error, Rejected) as error:
            self.outcomes[type(error).__name__] += 1
        else:
            self.outcomes["done"] += 1

    def _one_shot(self) -> None:
        self._tried(*self._sql.statement(), is_alone=True)

    def _transaction(self) -> None:
        chance = self._chance
        savepoints = 0
        try:
            with self.pair.writer.transaction():
                for _ in range(chance.randrange(1, 6)):
                    self._tried(*self._sql.statement(), is_alone=False)
                    if chance.random() < 0.2:
                        self.pair.writer.execute("SAVEPOINT s")
                        savepoints += 1
                    elif savepoints and chance.random() < 0.4:
                        self.pair.writer.execute("ROLLBACK TO S")
                    elif savepoints and chance.random() < 0.2:
                        self.pair.writer.execute("RELEASE s")
                        savepoints -= 1
                if chance.random() < 0.15:
                    raise GivenUp
        except GivenUp:
            self.outcomes["given up"] += 1
        except Rejected:
            self.outcomes["refused at the end"] += 1


class GivenUp(Exception):
    """The client changed its mind."""


def run_many(
    directory: Path, *, statements: int, seed: int, logging: Logging, images: Images = Images.FULL
) -> Counter[str]:
    """Raises where the replica stops or differs."""
    settings = StorageSettings(logging=logging, images=images, mixed_rows_min=3)
    pair = Pair(directory, settings)
    for sql in START:
        pair.run(sql)
    clients = RandomClients(pair, random.Random(seed))
    compared = 0
    while clients.done < statements:
        clients.group()
        if clients.done - compared >= COMPARED_EVERY:
            pair.assert_equal()
            compared = clients.done
    pair.assert_equal()
    pair.close()
    return clients.outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logging", choices=[each.value for each in Logging])
    asked = parser.parse_args()
    chosen = [Logging(asked.logging)] if asked.logging else list(Logging)
    for logging in chosen:
        for images in Images:
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as directory:
                outcomes = run_many(
                    Path(directory),
                    statements=asked.statements // 2,
                    seed=asked.seed,
                    logging=logging,
                    images=images,
                )
            took = f"{time.monotonic() - started:.0f} s"
            print(logging.value, images.value, dict(outcomes), took)  # noqa: T201  # A command.


if __name__ == "__main__":
    main()
